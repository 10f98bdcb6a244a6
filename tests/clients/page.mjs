// The chat page in headless Chromium: asks, stops, changes settings, in light and dark, on a desk and on a phone. Writes screenshots.
//   node --experimental-websocket page.mjs BASE_URL [folder for screenshots] [chromium]
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const [base, folder = '.', chromium = 'chromium'] = process.argv.slice(2)
const browser = spawn(chromium, ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--remote-debugging-port=0',
  '--user-data-dir=' + mkdtempSync(join(tmpdir(), 'page-')), 'about:blank'], { stdio: ['ignore', 'ignore', 'pipe'] })
const endpoint = await new Promise((yes, no) => {
  let text = ''
  browser.stderr.on('data', d => { text += d; const m = text.match(/listening on ws:\/\/([^/]+)/); if (m) yes(m[1]) })
  browser.on('exit', () => no(new Error('the browser ended: ' + text)))
})
const target = (await (await fetch(`http://${endpoint}/json`)).json()).find(t => t.type === 'page')
const socket = new WebSocket(target.webSocketDebuggerUrl)
await new Promise(r => (socket.onopen = r))
let id = 0
const waiting = new Map(), problems = []
socket.onmessage = e => {
  const m = JSON.parse(e.data)
  if (m.id) { waiting.get(m.id)(m); waiting.delete(m.id) }
  if (m.method === 'Runtime.exceptionThrown') problems.push(m.params.exceptionDetails.exception?.description ?? m.params.exceptionDetails.text)
  if (m.method === 'Log.entryAdded' && m.params.entry.level === 'error') problems.push(m.params.entry.text)
}
const send = (method, params = {}) => new Promise((yes, no) => {
  waiting.set(++id, m => (m.error ? no(new Error(m.error.message)) : yes(m.result)))
  socket.send(JSON.stringify({ id, method, params }))
})
const run = async expression => {
  const r = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })
  if (r.exceptionDetails) throw new Error(r.exceptionDetails.exception?.description ?? 'in the page')
  return r.result.value
}
const until = async (what, expression) => {
  for (let i = 0; i < 200; ++i) {
    if (await run(expression)) return
    await new Promise(r => setTimeout(r, 50))
  }
  throw new Error('it does not happen: ' + what)
}
const shot = async name => writeFileSync(join(folder, name + '.png'), Buffer.from((await send('Page.captureScreenshot')).data, 'base64'))
const size = (width, height, mobile) => send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: mobile ? 2 : 1, mobile })
const ask = text => run(`document.getElementById('text').value = ${JSON.stringify(text)}; document.getElementById('ask').requestSubmit()`)

let status = 0
try {
  for (const domain of ['Runtime', 'Log', 'Page']) await send(domain + '.enable')
  await size(1000, 760, false)
  await send('Page.navigate', { url: base + '/' })
  await until('the list of models', `document.getElementById('model')?.options.length > 0`)
  await shot('page-empty')
  await ask('Tell me a story about a dog.')
  await until('an answer', `document.querySelectorAll('.m.assistant .text').length === 1 && document.getElementById('send').textContent === 'Send'`)
  const answer = await run(`document.querySelector('.m.assistant .text').textContent`)
  assert.ok(answer.length > 20, 'the answer is too short: ' + answer)
  assert.match(await run(`document.querySelector('.m.assistant .foot').textContent`), /tokens, .* a second/)
  await ask('Hello <b>you</b> ```\nif (a < b) c();\n```')
  await until('a second answer', `document.querySelectorAll('.m.assistant').length === 2 && document.getElementById('send').textContent === 'Send'`)
  assert.equal(await run(`document.querySelectorAll('.m.user b').length`), 0)
  assert.equal(await run(`document.querySelector('.m.user pre').textContent`), 'if (a < b) c();')
  await shot('page-chat')
  // Settings reach the server: one token is the longest answer.
  await run(`document.getElementById('open').click(); document.getElementById('max_tokens').value = 1; document.getElementById('system').value = 'Be brief.'`)
  await shot('page-settings')
  await run(`document.querySelector('dialog button.main').click()`)
  await ask('Tell me a story.')
  await until('a short answer', `document.querySelectorAll('.m.assistant').length === 3 && document.getElementById('send').textContent === 'Send'`)
  assert.match(await run(`document.querySelector('.m.assistant:last-child .foot').textContent`), /length limit/)
  // What is wrong is shown.
  await run(`settings.temperature = 9`)
  await ask('x')
  await until('an error', `/temperature/.test(document.querySelector('.m:last-child .error')?.textContent ?? '')`)
  await run(`settings = {}`)
  // Stop.
  await run(`window.slow = fetch; window.fetch = (u, o) => slow(u, o && o.body ? { ...o, body: JSON.stringify({ ...JSON.parse(o.body), ignore_eos: true }) } : o)`)
  await run(`document.getElementById('new').click()`)
  await ask('Go on for ever.')
  await until('some text', `(document.querySelector('.m.assistant .text')?.textContent.length ?? 0) > 0`)
  await run(`if (running) document.getElementById('ask').requestSubmit()`)
  await until('an end', `!running && document.getElementById('send').textContent === 'Send'`)
  await size(390, 780, true)
  await run(`document.getElementById('theme').click()`)
  await run(`document.getElementById('new').click()`)
  await ask('Tell me a story about a boat.')
  await until('an answer on a phone', `document.querySelectorAll('.m.assistant').length === 1 && document.getElementById('send').textContent === 'Send'`)
  assert.ok(await run(`document.documentElement.scrollWidth <= innerWidth`), 'the page is wider than the phone')
  await shot('page-phone-dark')
  // What was said is there after a reload.
  await send('Page.reload')
  await until('the chat again', `document.querySelectorAll('.m.assistant').length === 1`)
  assert.deepEqual(problems.filter(p => !/400/.test(p)), [])
  console.log('ok: the page')
} catch (e) {
  console.log('FAILED: ' + e.message)
  await shot('page-failed').catch(() => {})
  status = 1
}
browser.kill()
process.exit(status)
