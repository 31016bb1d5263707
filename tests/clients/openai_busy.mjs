// The stock `openai` npm package against hosts that are full: what a 429 is to it.
//
// usage: node openai_busy.mjs BASE_URL API_KEY MODEL
//
// The model's hosts must have fewer places than this program asks for at once. Exits 0 and prints one JSON object with
// what it saw; any deviation throws.

import assert from 'node:assert/strict';
import OpenAI from 'openai';

const [baseURL, apiKey, model] = process.argv.slice(2);
const REQUESTS = 20;

async function outcomes(maxRetries) {
  const client = new OpenAI({ baseURL, apiKey, maxRetries, timeout: 120_000 });
  const ask = async (number) => {
    const messages = [{ role: 'user', content: `Tell me about number ${number}.` }];
    try {
      const answer = await client.chat.completions.create({ model, messages, max_tokens: 64, temperature: 1.5 });
      assert.ok(answer.choices[0].message.content);
      return 'answered';
    } catch (error) {
      assert.ok(error instanceof OpenAI.RateLimitError, `${error.status} ${error.message}`);
      assert.ok(Number(error.headers.get('retry-after')) >= 1);
      assert.ok(error.error?.message && error.code, 'an OpenAI-shaped body');
      return 'full';
    }
  };
  const seen = await Promise.all(Array.from({ length: REQUESTS }, (_, number) => ask(number)));
  const count = (outcome) => seen.filter((one) => one === outcome).length;
  return { answered: count('answered'), full: count('full') };
}

// Whoever finds no place is told so at once; the others are served.
const atOnce = await outcomes(0);
assert.ok(atOnce.answered > 0 && atOnce.full > 0, JSON.stringify(atOnce));
// The package waits as long as `Retry-After` says and asks again by itself.
const patient = await outcomes(40);
assert.deepEqual(patient, { answered: REQUESTS, full: 0 });
console.log(JSON.stringify({ atOnce, patient }));
