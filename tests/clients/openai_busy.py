"""The stock `openai` package against hosts that are full: what a 429 is to it.

usage: openai_busy.py BASE_URL API_KEY MODEL

The model's hosts must have fewer places than this program has threads. Exits 0 and prints one JSON object with what it
saw; any deviation is an AssertionError.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import openai
from openai import OpenAI

base_url, api_key, model = sys.argv[1:4]
REQUESTS = 20


def outcomes(max_retries):
    client = OpenAI(base_url=base_url, api_key=api_key, max_retries=max_retries, timeout=120)

    def ask(number):
        question = [{"role": "user", "content": f"Tell me about number {number}."}]
        try:
            answer = client.chat.completions.create(model=model, messages=question, max_tokens=64, temperature=1.5)
        except openai.RateLimitError as error:
            assert error.status_code == 429, error.status_code
            assert int(error.response.headers["retry-after"]) >= 1, error.response.headers
            assert error.body and error.body["message"] and error.body["code"], error.body
            return "full"
        assert answer.choices[0].message.content
        return "answered"

    with ThreadPoolExecutor(REQUESTS) as threads:
        seen = list(threads.map(ask, range(REQUESTS)))
    return {outcome: seen.count(outcome) for outcome in ("answered", "full")}


def at_once():
    # Whoever finds no place is told so at once; the others are served.
    seen = outcomes(max_retries=0)
    assert seen["answered"] > 0 and seen["full"] > 0, seen
    return seen


def patient():
    # The package waits as long as `Retry-After` says and asks again by itself.
    seen = outcomes(max_retries=40)
    assert seen == {"answered": REQUESTS, "full": 0}, seen
    return seen


print(json.dumps({check.__name__: check() for check in (at_once, patient)}))
