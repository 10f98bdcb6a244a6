// Real clients against `lutra serve` with the demo model: `make test-clients`. Every check is one line; any failure fails the run.
//   node run.mjs PATH-OF-LUTRA [part of a check's name]
import { spawn } from 'node:child_process'
import { readFileSync, existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const root = resolve(here, '../..')
const binary = resolve(process.argv[2] ?? resolve(root, 'build/release/cli/lutra'))
const only = process.argv[3] ?? ''

const server = spawn(binary, ['serve', '--port', '0', '-a', 'demo', '-q'], { stdio: ['ignore', 'pipe', 'inherit'] })
const base = await new Promise((yes, no) => {
  let out = ''
  server.stdout.on('data', d => {
    out += d
    const m = out.match(/listening on (http:\S+)/)
    if (m) yes(m[1])
  })
  server.on('exit', code => no(new Error('the server ended with ' + code)))
})
for (let i = 0; ; ++i) {
  const r = await fetch(base + '/health')
  if (r.status === 200) break
  if (i > 100) throw new Error('the server does not become ready')
  await new Promise(r => setTimeout(r, 50))
}

const shared = process.env.LUTRA_SHARED ?? resolve(root, '../shared')
const specification = resolve(shared, 'openai/openapi.json')
const checks = []
export const check = (name, run) => checks.push({ name, run })
const context = { base, check, specification: existsSync(specification) ? JSON.parse(readFileSync(specification)) : null }
for (const suite of ['schema', 'random-schemas', 'openai', 'ai-sdk', 'langchain']) await (await import(`./${suite}.mjs`)).default(context)
if (!context.specification) console.log(`SKIPPED: the schema checks: ${specification} is not there`)

let failed = 0
const wanted = checks.filter(c => c.name.includes(only))
for (const { name, run } of wanted) {
  try {
    await Promise.race([run(), new Promise((_, no) => setTimeout(() => no(new Error('it took longer than 300 s')), 300000).unref())])
    console.log('ok      ' + name)
  } catch (e) {
    ++failed
    console.log('FAILED  ' + name + '\n        ' + String(e.stack ?? e).split('\n').slice(0, 8).join('\n        '))
  }
}
console.log(`${wanted.length - failed} of ${wanted.length} checks passed`)
server.removeAllListeners('exit')
server.kill('SIGTERM')
const status = await new Promise(r => server.on('exit', r))
if (status !== 0) console.log('FAILED  the server ended with status ' + status)
process.exit(failed || status !== 0 ? 1 : 0)
