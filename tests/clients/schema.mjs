// OpenAI's published specification over every answer, every chunk of a stream and every error.
import assert from 'node:assert/strict'
import Ajv2020 from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'

// What the file has left of OpenAPI 3.0.
function modernize(o) {
  if (Array.isArray(o)) return o.forEach(modernize)
  if (o === null || typeof o !== 'object') return
  if ('nullable' in o) {
    if (o.nullable) {
      if (typeof o.type === 'string') o.type = [o.type, 'null']
      if (Array.isArray(o.enum) && !o.enum.includes(null)) o.enum.push(null)
      if (o.$ref) {
        o.anyOf = [{ $ref: o.$ref }, { type: 'null' }]
        delete o.$ref
      }
    }
    delete o.nullable
  }
  Object.values(o).forEach(modernize)
}

export default async function ({ base, check, specification }) {
  const post = async (path, body, raw) => {
    const r = await fetch(base + path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: raw ?? JSON.stringify(body) })
    return { status: r.status, text: await r.text() }
  }
  const hi = { model: 'demo', messages: [{ role: 'user', content: 'Tell me a story.' }], max_tokens: 12 }
  let conforms = null
  if (specification) {
    modernize(specification)
    const ajv = new Ajv2020({ strict: false, allErrors: true })
    addFormats(ajv)
    ajv.addFormat('unixtime', true)
    ajv.addSchema({ $id: 'openai', ...specification })
    conforms = (name, value) => {
      const validate = ajv.getSchema('openai#/components/schemas/' + name)
      assert.ok(validate(value), name + ': ' + JSON.stringify(validate.errors?.slice(0, 3)) + ' in ' + JSON.stringify(value).slice(0, 300))
    }
    const answer = (what, path, body, name) => check('schema: ' + what, async () => {
      const r = await post(path, body)
      assert.equal(r.status, 200, r.text)
      conforms(name, JSON.parse(r.text))
    })
    const tools = [{ type: 'function', function: { name: 'f', parameters: { type: 'object', properties: { a: { enum: ['x', 'y'] } }, required: ['a'], additionalProperties: false } } }]
    answer('chat', '/v1/chat/completions', hi, 'CreateChatCompletionResponse')
    answer('chat with logprobs', '/v1/chat/completions', { ...hi, logprobs: true, top_logprobs: 3, n: 2 }, 'CreateChatCompletionResponse')
    answer('chat with a call', '/v1/chat/completions', { ...hi, max_tokens: 100, tools, tool_choice: 'required' }, 'CreateChatCompletionResponse')
    answer('completion', '/v1/completions', { model: 'demo', prompt: 'Once', max_tokens: 5, logprobs: 2 }, 'CreateCompletionResponse')
    answer('embeddings', '/v1/embeddings', { model: 'demo', input: ['a', 'b'] }, 'CreateEmbeddingResponse')
    answer('chat with a schema', '/v1/chat/completions', { ...hi, max_tokens: 80, response_format: { type: 'json_schema', json_schema: { name: 'x', strict: true, schema: { type: 'object', properties: { a: { type: 'string', pattern: '^[a-z-]+$', maxLength: 8 } }, required: ['a'], additionalProperties: false } } } }, 'CreateChatCompletionResponse')
    answer('several completions', '/v1/completions', { model: 'demo', prompt: ['Once', 'The dog'], n: 2, max_tokens: 4, logprobs: 2 }, 'CreateCompletionResponse')
    check('schema: models', async () => conforms('ListModelsResponse', await (await fetch(base + '/v1/models')).json()))
    check('schema: model', async () => conforms('Model', await (await fetch(base + '/v1/models/demo')).json()))
    const stream = (what, path, body, name) => check('schema: every chunk of ' + what, async () => {
      const r = await post(path, { ...body, stream: true, stream_options: { include_usage: true } })
      const lines = r.text.split('\n\n').filter(x => x)
      assert.equal(lines.at(-1), 'data: [DONE]')
      for (const line of lines.slice(0, -1)) {
        if (line === ':') continue
        assert.ok(line.startsWith('data: '))
        const chunk = JSON.parse(line.slice(6))
        // Of completions the specification knows the whole answer only; in OpenAI's own chunks these two are null until the end.
        if (name === 'CreateCompletionResponse') {
          for (const c of chunk.choices) if (c.finish_reason === null) c.finish_reason = 'stop'
          if (chunk.usage === null) delete chunk.usage
        }
        conforms(name, chunk)
      }
      assert.ok(lines.length > 4)
    })
    stream('a chat', '/v1/chat/completions', hi, 'CreateChatCompletionStreamResponse')
    stream('a chat with logprobs', '/v1/chat/completions', { ...hi, logprobs: true, top_logprobs: 2 }, 'CreateChatCompletionStreamResponse')
    stream('a call', '/v1/chat/completions', { ...hi, max_tokens: 100, tools, tool_choice: 'required' }, 'CreateChatCompletionStreamResponse')
    stream('a completion', '/v1/completions', { model: 'demo', prompt: 'Once', max_tokens: 5 }, 'CreateCompletionResponse')
  }
  const bad = [
    ['bad JSON', '{', 400], ['an empty body', '', 400], ['no messages', { model: 'demo' }, 400], ['a wrong type', { ...hi, max_tokens: 'x' }, 400],
    ['a temperature of -1', { ...hi, temperature: -1 }, 400], ['a top_p of 2', { ...hi, top_p: 2 }, 400], ['an n of 0', { ...hi, n: 0 }, 400],
    ['a bias of a token that is none', { ...hi, logit_bias: { 99999999: 1 } }, 400], ['an unknown role', { ...hi, messages: [{ role: 'x', content: '' }] }, 400],
    ['an unknown model', { ...hi, model: 'gpt-x' }, 404], ['a prompt beyond the context', { ...hi, messages: [{ role: 'user', content: 'word '.repeat(5000) }] }, 400],
    ['an image', { ...hi, messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'http://127.0.0.1/' } }] }] }, 400],
    ['a schema that cannot be said', { ...hi, response_format: { type: 'json_schema', json_schema: { name: 'x', schema: { not: {} } } } }, 400],
    ['a oneOf that is not exact, strictly', { ...hi, response_format: { type: 'json_schema', json_schema: { name: 'x', strict: true, schema: { oneOf: [{ type: 'integer' }, { type: 'number' }] } } } }, 400],
  ]
  for (const [what, body, status] of bad) {
    check('error: ' + what, async () => {
      const r = await post('/v1/chat/completions', body, typeof body === 'string' ? body : undefined)
      assert.equal(r.status, status, r.text)
      const json = JSON.parse(r.text)
      if (conforms) conforms('ErrorResponse', json)
      else for (const k of ['message', 'type', 'param', 'code']) assert.ok(k in json.error)
    })
  }
  check('error: a method that is not allowed', async () => {
    const r = await fetch(base + '/v1/chat/completions')
    assert.equal(r.status, 405)
    const json = await r.json()
    if (conforms) conforms('ErrorResponse', json)
  })
  check('error: an unknown path', async () => {
    const r = await post('/v1/nothing', {})
    assert.equal(r.status, 404)
    if (conforms) conforms('ErrorResponse', JSON.parse(r.text))
  })
}
