// LangChain's ChatOpenAI and OpenAIEmbeddings.
import assert from 'node:assert/strict'
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai'

export default async function ({ base, check }) {
  const configuration = { baseURL: base + '/v1' }
  const chat = more => new ChatOpenAI({ model: 'demo', apiKey: 'none', maxRetries: 0, temperature: 0, maxTokens: 20, configuration, ...more })
  let whole
  check('langchain: invoke', async () => {
    const r = await chat().invoke('Tell me a story.')
    whole = r.content
    assert.ok(whole.length > 5)
    assert.equal(r.response_metadata.finish_reason, 'length')
    assert.equal(r.usage_metadata.output_tokens, 20)
  })
  check('langchain: stream', async () => {
    let text = '', usage
    for await (const c of await chat({ streamUsage: true }).stream('Tell me a story.')) {
      text += c.content
      usage = c.usage_metadata ?? usage
    }
    assert.equal(text, whole)
    assert.equal(usage.output_tokens, 20)
  })
  const tools = [{ type: 'function', function: { name: 'weather', description: 'w', parameters: { type: 'object', properties: { city: { enum: ['Berlin', 'Paris'] } }, required: ['city'], additionalProperties: false } } }]
  check('langchain: tools', async () => {
    const r = await chat({ maxTokens: 200 }).bindTools(tools, { tool_choice: 'weather', parallel_tool_calls: false }).invoke('The weather?')
    assert.equal(r.tool_calls[0].name, 'weather')
    assert.ok(['Berlin', 'Paris'].includes(r.tool_calls[0].args.city))
  })
  check('langchain: structured output', async () => {
    const schema = { title: 'pet', type: 'object', properties: { kind: { enum: ['cat', 'dog'] } }, required: ['kind'], additionalProperties: false }
    const r = await chat({ maxTokens: 100 }).withStructuredOutput(schema, { method: 'jsonSchema', name: 'pet' }).invoke('A pet.')
    assert.ok(['cat', 'dog'].includes(r.kind))
  })
  check('langchain: embeddings', async () => {
    const r = await new OpenAIEmbeddings({ model: 'demo', apiKey: 'none', maxRetries: 0, configuration }).embedDocuments(['a', 'b'])
    assert.equal(r.length, 2)
    assert.equal(r[0].length, 256)
  })
  check('langchain: context overflow is known as such', async () => {
    await assert.rejects(chat().invoke('dog '.repeat(2000)), e => /maximum context length/.test(e.message))
  })
}
