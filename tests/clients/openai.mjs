// The `openai` package.
import assert from 'node:assert/strict'
import OpenAI from 'openai'

export default async function ({ base, check }) {
  const client = new OpenAI({ apiKey: 'none', baseURL: base + '/v1', maxRetries: 0 })
  const hi = { model: 'demo', messages: [{ role: 'user', content: 'Tell me a story.' }], max_tokens: 20, temperature: 0 }
  let whole
  check('openai: chat', async () => {
    const r = await client.chat.completions.create(hi)
    whole = r.choices[0].message.content
    assert.ok(whole.length > 5)
    assert.equal(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens)
    assert.ok(r._request_id.startsWith('req_'))
  })
  check('openai: stream with usage', async () => {
    let text = '', usage, finish
    for await (const c of await client.chat.completions.create({ ...hi, stream: true, stream_options: { include_usage: true } })) {
      text += c.choices[0]?.delta.content ?? ''
      finish ??= c.choices[0]?.finish_reason
      usage = c.usage
    }
    assert.equal(text, whole)
    assert.equal(finish, 'length')
    assert.equal(usage.completion_tokens, 20)
  })
  check('openai: stream helper', async () => {
    const stream = client.chat.completions.stream(hi)
    let n = 0
    stream.on('content', () => ++n)
    assert.equal(await stream.finalContent(), whole)
    assert.ok(n > 3)
  })
  check('openai: abort', async () => {
    const stream = await client.chat.completions.create({ ...hi, max_tokens: 400, stream: true, ignore_eos: true })
    for await (const _ of stream) break
    stream.controller.abort()
    for (let i = 0; ; ++i) {
      const slots = await (await fetch(base + '/slots')).json()
      if (slots.every(s => !s.is_processing)) break
      assert.ok(i < 100, 'the slot is not free')
      await new Promise(r => setTimeout(r, 20))
    }
  })
  check('openai: several answers', async () => {
    const r = await client.chat.completions.create({ ...hi, n: 2, temperature: 1, seed: 4 })
    assert.deepEqual(r.choices.map(c => c.index), [0, 1])
    assert.notEqual(r.choices[0].message.content, r.choices[1].message.content)
  })
  const schema = { type: 'object', properties: { name: { type: 'string', maxLength: 12 }, age: { type: 'integer', minimum: 0, maximum: 120 }, kind: { enum: ['cat', 'dog'] } },
                   required: ['name', 'age', 'kind'], additionalProperties: false }
  check('openai: strict json_schema, parsed', async () => {
    const r = await client.chat.completions.parse({ ...hi, max_tokens: 200, temperature: 1, response_format: { type: 'json_schema', json_schema: { name: 'pet', strict: true, schema } } })
    const pet = JSON.parse(r.choices[0].message.content)
    assert.deepEqual(Object.keys(pet), ['name', 'age', 'kind'])
    assert.ok(Number.isInteger(pet.age) && pet.age <= 120 && ['cat', 'dog'].includes(pet.kind))
  })
  const tools = [{ type: 'function', function: { name: 'get_weather', description: 'Weather of a city', strict: true,
    parameters: { type: 'object', properties: { city: { enum: ['Berlin', 'Paris'] } }, required: ['city'], additionalProperties: false } } }]
  check('openai: a required tool', async () => {
    const r = await client.chat.completions.create({ ...hi, max_tokens: 100, tools, tool_choice: 'required', parallel_tool_calls: false })
    assert.equal(r.choices[0].finish_reason, 'tool_calls')
    assert.equal(r.choices[0].message.tool_calls[0].function.name, 'get_weather')
    assert.ok(['Berlin', 'Paris'].includes(JSON.parse(r.choices[0].message.tool_calls[0].function.arguments).city))
  })
  check('openai: a named tool, streamed and put together', async () => {
    const stream = client.chat.completions.stream({ ...hi, max_tokens: 100, tools, parallel_tool_calls: false, tool_choice: { type: 'function', function: { name: 'get_weather' } } })
    const message = await stream.finalMessage()
    assert.equal(message.tool_calls[0].function.name, 'get_weather')
    assert.ok(JSON.parse(message.tool_calls[0].function.arguments).city)
    assert.ok(message.tool_calls[0].id.startsWith('call_'))
  })
  check('openai: a tool\'s answer in the conversation', async () => {
    const r = await client.chat.completions.create({ ...hi, tools, messages: [...hi.messages,
      { role: 'assistant', content: null, tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'get_weather', arguments: '{"city":"Berlin"}' } }] },
      { role: 'tool', tool_call_id: 'call_1', content: 'sunny' }] })
    assert.ok(['stop', 'length', 'tool_calls'].includes(r.choices[0].finish_reason))
  })
  check('openai: embeddings, base64 behind the scenes', async () => {
    const r = await client.embeddings.create({ model: 'demo', input: ['a dog', 'a cat'] })
    const plain = await client.embeddings.create({ model: 'demo', input: ['a dog', 'a cat'], encoding_format: 'float' })
    assert.equal(r.data[1].embedding.length, 256)
    assert.ok(r.data[1].embedding.every((x, i) => Math.abs(x - plain.data[1].embedding[i]) < 1e-6))
  })
  check('openai: completions and models', async () => {
    const r = await client.completions.create({ model: 'demo', prompt: 'Once upon', max_tokens: 4, temperature: 0 })
    assert.ok(r.choices[0].text.length > 0)
    assert.deepEqual((await client.models.list()).data.map(m => m.id), ['demo'])
    assert.equal((await client.models.retrieve('demo')).id, 'demo')
  })
  check('openai: errors are of their classes', async () => {
    await assert.rejects(client.chat.completions.create({ ...hi, temperature: 7 }), e => e instanceof OpenAI.BadRequestError && e.param === 'temperature')
    await assert.rejects(client.chat.completions.create({ ...hi, model: 'x' }), e => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found')
    await assert.rejects(client.chat.completions.create({ ...hi, messages: [{ role: 'user', content: 'dog '.repeat(2000) }] }),
                         e => e instanceof OpenAI.BadRequestError && e.code === 'context_length_exceeded' && /maximum context length/.test(e.message))
  })
}
