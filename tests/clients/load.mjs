// Load on a running server: many streams at once, some of which go away; then one stream alone, and the gaps between its tokens
// while a long prompt is computed beside it. Needs nothing but Node.
//   node load.mjs BASE_URL SERVER_PID [streams=32] [seconds=120] [long prompt's tokens=0]
import { readFileSync } from 'node:fs'
import http from 'node:http'

const [base, pid, streams = '32', seconds = '120', long = '0'] = process.argv.slice(2)
const url = new URL(base)
const agent = new http.Agent({ keepAlive: true, maxSockets: 1000 })
let seed = 1
const random = n => { seed = (seed * 1103515245 + 12345) % 2147483648; return seed % n }

// Streams a completion; resolves to {tokens, text, gaps, error, status, first}. `leave(tokens)` says when the client goes away.
function ask(body, leave = null) {
  return new Promise(resolve => {
    const start = performance.now()
    const out = { tokens: 0, text: '', gaps: [], error: null, status: 0, first: 0 }
    let last = start, rest = ''
    const request = http.request({ host: url.hostname, port: url.port, path: '/v1/completions', method: 'POST', agent, headers: { 'Content-Type': 'application/json' } }, r => {
      out.status = r.statusCode
      r.setEncoding('utf8')
      r.on('data', d => {
        rest += d
        const parts = rest.split('\n\n')
        rest = parts.pop()
        for (const p of parts) {
          if (!p.startsWith('data: ') || p === 'data: [DONE]') continue
          const e = JSON.parse(p.slice(6))
          if (e.error) { out.error = e.error.message; continue }
          if (!e.choices[0].text) continue
          const now = performance.now()
          if (out.tokens > 0) out.gaps.push(now - last)
          else out.first = now - start
          last = now
          ++out.tokens
          out.text += e.choices[0].text
          if (leave?.(out.tokens)) request.destroy()
        }
      })
      r.on('end', () => { out.seconds = (performance.now() - start) / 1e3; resolve(out) })
      r.on('close', () => resolve(out))
    })
    request.on('error', e => { if (!leave) out.error = e.message; resolve(out) })
    request.end(JSON.stringify({ stream: true, ...body }))
  })
}
const memory = () => {
  const s = readFileSync(`/proc/${pid}/status`, 'utf8')
  return [...s.matchAll(/(RssAnon|VmSwap):\s+(\d+)/g)].reduce((n, m) => n + Number(m[2]), 0) / 1024
}
const quantile = (list, q) => [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(q * list.length))] ?? 0

const steady = { prompt: 'Once upon a time', temperature: 0, max_tokens: 200, ignore_eos: true }
const alone = await ask(steady)
console.log(`one stream: ${alone.tokens} tokens, ${(alone.tokens / alone.seconds).toFixed(1)} tokens/s, first after ${alone.first.toFixed(1)} ms`)

const end = performance.now() + Number(seconds) * 1e3
let done = 0, left = 0, refused = 0, tokens = 0, wrong = 0
const errors = [], gaps = [], samples = []
const watch = setInterval(() => samples.push(memory()), 2000)
const begin = performance.now()
await Promise.all(Array.from({ length: Number(streams) }, async (_, i) => {
  while (performance.now() < end) {
    const kind = random(10)
    const most = 1 + random(60)
    const leave = kind < 3 ? n => n >= most : null
    const same = kind === 9
    const r = await ask(same ? steady : { prompt: `Story ${i} number ${random(1000)}: one day`, seed: random(1e6), max_tokens: 50 + random(150), ignore_eos: true }, leave)
    tokens += r.tokens
    gaps.push(...r.gaps)
    if (r.status === 429) { ++refused; await new Promise(r => setTimeout(r, 20)) }
    else if (r.error || (r.status !== 200 && !leave)) errors.push(r.error ?? 'HTTP ' + r.status)
    else if (leave) ++left
    else ++done
    if (same && r.status === 200 && r.text !== alone.text) ++wrong
  }
}))
clearInterval(watch)
const took = (performance.now() - begin) / 1e3
console.log(`${streams} streams for ${took.toFixed(0)} s: ${done} answers, ${left} clients that left, ${refused} refused (429), ${errors.length} errors, ${wrong} texts that differ from the one alone`)
console.log(`  ${(tokens / took).toFixed(1)} tokens/s in all; gap between tokens: median ${quantile(gaps, 0.5).toFixed(1)} ms, 99 % ${quantile(gaps, 0.99).toFixed(1)} ms, longest ${quantile(gaps, 1).toFixed(1)} ms`)
const third = Math.max(1, Math.floor(samples.length / 3))
const mean = a => a.reduce((x, y) => x + y, 0) / a.length
console.log(`  memory (RssAnon + VmSwap): first third ${mean(samples.slice(0, third)).toFixed(1)} MiB, last third ${mean(samples.slice(-third)).toFixed(1)} MiB`)
if (errors.length) console.log('  ' + [...new Set(errors)].slice(0, 5).join('\n  '))

if (Number(long) > 0) {
  let over = false
  const running = ask({ ...steady, max_tokens: 100000 }, () => over)
  await new Promise(r => setTimeout(r, 1000))
  const ids = Array.from({ length: Number(long) }, (_, i) => 300 + (i * 7919) % 200)
  const t = performance.now()
  const one = await ask({ prompt: ids, max_tokens: 1, temperature: 0 })
  const during = (performance.now() - t) / 1e3
  over = true
  const r = await running
  console.log(`a prompt of ${long} tokens beside a stream: ${during.toFixed(2)} s (HTTP ${one.status}); gaps of the stream: median ${quantile(r.gaps, 0.5).toFixed(1)} ms, 99 % ${quantile(r.gaps, 0.99).toFixed(1)} ms, longest ${quantile(r.gaps, 1).toFixed(1)} ms`)
}
process.exit(errors.length || wrong ? 1 : 0)
