// The stock `openai` npm package against one base URL: what works, and how it refuses.
//
// usage: node openai_check.mjs BASE_URL API_KEY MODEL
//
// Exits 0 and prints one JSON object with what it saw; any deviation throws.

import assert from 'node:assert/strict';
import OpenAI from 'openai';

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });
const messages = [{ role: 'user', content: 'What is a cat?' }];

async function plain() {
  const answer = await client.chat.completions.create({ model, messages, max_tokens: 24, temperature: 0.7 });
  assert.equal(answer.object, 'chat.completion');
  assert.ok(answer.choices[0].message.content.length > 0);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  return { id: answer.id, content: answer.choices[0].message.content, starling: answer.starling };
}

async function streamed() {
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 24, temperature: 0, stream: true });
  let text = '';
  let finish = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  assert.ok(text.length > 0);
  assert.ok(['stop', 'length'].includes(finish), finish);
  return { content: text };
}

async function logprobs() {
  const request = { model, messages, max_tokens: 8, temperature: 0, logprobs: true, top_logprobs: 2 };
  const answer = await client.chat.completions.create(request);
  const entries = answer.choices[0].logprobs.content;
  assert.ok(entries.length > 0);
  for (const entry of entries) {
    assert.ok(entry.logprob <= 0);
    assert.ok(entry.top_logprobs.length >= 1 && entry.top_logprobs.length <= 2);
  }
  return { tokens: entries.map((entry) => entry.token) };
}

async function stop() {
  const free = await client.chat.completions.create({ model, messages, max_tokens: 24, temperature: 0 });
  const word = free.choices[0].message.content.split(/\s+/)[2];
  assert.ok(word);
  const stopped = await client.chat.completions.create({ model, messages, max_tokens: 24, temperature: 0, stop: word });
  assert.ok(!stopped.choices[0].message.content.includes(word));
  assert.equal(stopped.choices[0].finish_reason, 'stop');
  return { stop: word };
}

async function formatted() {
  const schema = { type: 'object', properties: { cat: { type: 'boolean' } }, required: ['cat'], additionalProperties: false };
  const response_format = { type: 'json_schema', json_schema: { name: 'cat', schema, strict: true } };
  const answer = await client.chat.completions.create({ model, messages, max_tokens: 60, temperature: 2, response_format });
  const value = JSON.parse(answer.choices[0].message.content);
  assert.equal(typeof value.cat, 'boolean');
  return value;
}

async function refused(status, change) {
  try {
    await client.chat.completions.create({ model, messages, max_tokens: 8, ...change });
  } catch (error) {
    assert.equal(error.status, status, `${error.status} ${error.message}`);
    assert.ok(error.error?.message, 'an OpenAI-shaped body');
    return { code: error.code, message: error.error.message };
  }
  throw new Error(`not refused: ${JSON.stringify(change)}`);
}

async function wrongInput() {
  return {
    unknownModel: await refused(404, { model: 'no-such-model' }),
    tooLong: await refused(400, { messages: [{ role: 'user', content: 'cat '.repeat(20000) }] }),
    temperature: await refused(400, { temperature: -1 }),
    bias: await refused(400, { logit_bias: { x: 1 } }),
  };
}

const seen = {};
for (const check of [plain, streamed, logprobs, stop, formatted, wrongInput]) seen[check.name] = await check();
console.log(JSON.stringify(seen));
