// Random JSON schemas: each is refused by name, or every answer that ends is valid under it by ajv, unless x-relaxed-schema says not.
//   LUTRA_SCHEMAS=2000 LUTRA_SCHEMA_SEED=7 node run.mjs PATH-OF-LUTRA random
import assert from 'node:assert/strict'
import Ajv2020 from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'

// mulberry32
let state = Number(process.env.LUTRA_SCHEMA_SEED ?? 1)
function random(n) {
  state = (state + 0x6D2B79F5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) % n
}
const pick = list => list[random(list.length)]

const values = ['a', 'b', 1, 2, true, null, 2.5, '', 'x"y', [1], { k: 1 }]
const patterns = ['^[a-z]+$', 'ab', '^\\d{2,4}$', '^(foo|bar)+$', '^[^x]*$', '.', '^\\w+@\\w+$', '\\S', '^$|^a', '[A-F0-9]{3}', '^.{2,3}$', '^[\\u00e0-\\u00ff]+$', '^[a-z_][a-z0-9_]*$', '^(a?b){2}c*$']
const formats = ['date', 'time', 'date-time', 'duration', 'uuid', 'ipv4', 'ipv6', 'hostname', 'email', 'uri']

function text() {
  const s = { type: 'string' }
  if (random(3) === 0) s.pattern = pick(patterns)
  if (random(4) === 0) s.minLength = random(5)
  if (random(4) === 0) s.maxLength = (s.minLength ?? 0) + random(8)
  if (random(5) === 0) s.format = pick(formats)
  return s
}
function number() {
  const s = { type: pick(['number', 'integer']) }, bound = random(400) - 200
  if (random(3) === 0) s[pick(['minimum', 'exclusiveMinimum'])] = bound + pick([0, 0, 0.5])
  if (random(3) === 0) s[pick(['maximum', 'exclusiveMaximum'])] = bound + 1 + random(50)
  return s
}
function object(depth) {
  const s = { type: 'object', properties: {} }
  for (let i = random(4); i > 0; --i) s.properties[pick(['a', 'b', 'cc', 'kind', 'é', 'x y', 'q"'])] = schema(depth - 1)
  s.required = Object.keys(s.properties).filter(() => random(2))
  const extra = random(4)
  if (extra === 0) s.additionalProperties = false
  if (extra === 1) s.additionalProperties = schema(0)
  if (random(12) === 0) s.required.push('zz')
  return s
}
function list(depth) {
  const s = { type: 'array', items: schema(depth - 1) }
  if (random(3) === 0) s.minItems = random(3)
  if (random(2)) s.maxItems = (s.minItems ?? 0) + random(4)
  if (random(5) === 0) s.prefixItems = [schema(0), schema(0)]
  if (s.prefixItems && random(2)) s.items = false
  return s
}
function schema(depth) {
  switch (random(depth > 0 ? 12 : 6)) {
    case 0: case 5: return text()
    case 1: return number()
    case 2: return { type: pick(['boolean', 'null', ['string', 'null'], ['integer', 'boolean']]) }
    case 3: return { enum: [pick(values), pick(values), pick(values)] }
    case 4: return { const: pick(values) }
    case 6: case 7: return object(depth)
    case 8: return list(depth)
    case 9: return { anyOf: [schema(depth - 1), schema(depth - 1)] }
    case 10: return { oneOf: [schema(depth - 1), schema(depth - 1), ...(random(2) ? [schema(depth - 1)] : [])] }
  }
  return { type: 'object', properties: { base: schema(0) }, required: ['base'],
    [pick(['oneOf', 'anyOf', 'allOf'])]: [{ properties: { t: { const: 1 } }, required: ['t'] }, { properties: { u: schema(0) }, required: pick([['u'], []]) }] }
}

export default async function ({ base, check }) {
  const count = Number(process.env.LUTRA_SCHEMAS ?? 150)
  check(`random schemas: the answers to ${count} are valid`, async () => {
    const ajv = new Ajv2020({ strict: false })
    addFormats(ajv)
    const seen = { valid: 0, unfinished: 0, relaxed: 0, refused: 0 }
    for (let i = 0; i < count; ++i) {
      const one = schema(3), strict = random(3) === 0
      const body = { messages: [{ role: 'user', content: 'x' }], max_tokens: 250, seed: i, temperature: pick([0, 1, 1.9]), top_k: 0,
        response_format: { type: 'json_schema', json_schema: { name: 'x', strict, schema: one } } }
      const r = await fetch(base + '/v1/chat/completions', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
      const answer = await r.json()
      const what = JSON.stringify(one)
      if (r.status === 400) {
        assert.equal(answer.error.code, 'invalid_schema', what + ' ' + answer.error.message)
        assert.match(answer.error.message, /^field 'response_format': at /)
        ++seen.refused
        continue
      }
      assert.equal(r.status, 200, what)
      const choice = answer.choices[0]
      if (choice.finish_reason !== 'stop') {
        assert.equal(choice.finish_reason, 'length')
        ++seen.unfinished
        continue
      }
      const good = ajv.compile(one)(JSON.parse(choice.message.content))
      assert.ok(good || r.headers.has('x-relaxed-schema'), what + ' allows ' + choice.message.content)
      assert.ok(!strict || !r.headers.has('x-relaxed-schema'))
      ++seen[good ? 'valid' : 'relaxed']
    }
    if (count !== 150) console.log('        ' + JSON.stringify(seen))
    assert.ok(seen.valid > count / 3)
  })
}
