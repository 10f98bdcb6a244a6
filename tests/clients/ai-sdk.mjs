// The Vercel AI SDK with its provider for compatible servers.
import assert from 'node:assert/strict'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { embed, generateObject, generateText, jsonSchema, streamText, tool } from 'ai'

export default async function ({ base, check }) {
  const provider = createOpenAICompatible({ name: 'lutra', baseURL: base + '/v1', includeUsage: true, supportsStructuredOutputs: true })
  const model = provider('demo')
  const quiet = { maxRetries: 0, maxOutputTokens: 20, temperature: 0 }
  let whole
  check('ai-sdk: generateText', async () => {
    const r = await generateText({ model, prompt: 'Tell me a story.', ...quiet })
    whole = r.text
    assert.ok(whole.length > 5)
    assert.equal(r.finishReason, 'length')
    assert.equal(r.usage.outputTokens, 20)
  })
  check('ai-sdk: streamText', async () => {
    const r = streamText({ model, prompt: 'Tell me a story.', ...quiet })
    let text = ''
    for await (const part of r.textStream) text += part
    assert.equal(text, whole)
    assert.equal(await r.finishReason, 'length')
    assert.ok((await r.usage).inputTokens > 5)
  })
  check('ai-sdk: generateObject', async () => {
    const schema = jsonSchema({ type: 'object', properties: { color: { enum: ['red', 'blue'] }, n: { type: 'integer', minimum: 1, maximum: 9 } }, required: ['color', 'n'], additionalProperties: false })
    const r = await generateObject({ model, schema, prompt: 'A color and a number.', ...quiet, maxOutputTokens: 100 })
    assert.ok(['red', 'blue'].includes(r.object.color) && r.object.n >= 1 && r.object.n <= 9)
  })
  check('ai-sdk: tools', async () => {
    const parameters = jsonSchema({ type: 'object', properties: { city: { enum: ['Berlin', 'Paris'] } }, required: ['city'], additionalProperties: false })
    const tools = { weather: tool({ description: 'Weather', inputSchema: parameters }) }
    const r = await generateText({ model, prompt: 'The weather?', tools, toolChoice: 'required', ...quiet, maxOutputTokens: 200, providerOptions: { lutra: { parallel_tool_calls: false } } })
    assert.equal(r.toolCalls[0].toolName, 'weather')
    assert.ok(['Berlin', 'Paris'].includes(r.toolCalls[0].input.city))
    const s = streamText({ model, prompt: 'The weather?', tools, toolChoice: { type: 'tool', toolName: 'weather' }, ...quiet, maxOutputTokens: 200, providerOptions: { lutra: { parallel_tool_calls: false } } })
    const calls = await s.toolCalls
    assert.equal(calls[0].toolName, 'weather')
  })
  check('ai-sdk: embed', async () => {
    const r = await embed({ model: provider.textEmbeddingModel('demo'), value: 'a dog', maxRetries: 0 })
    assert.equal(r.embedding.length, 256)
  })
  check('ai-sdk: errors have the server\'s message', async () => {
    await assert.rejects(generateText({ model: provider('nobody'), prompt: 'x', ...quiet }), e => e.statusCode === 404 && /nobody/.test(e.message))
  })
}
