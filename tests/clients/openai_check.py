"""The stock `openai` package against one base URL: what works, and how it refuses.

usage: openai_check.py BASE_URL API_KEY MODEL

Exits 0 and prints one JSON object with what it saw; any deviation is an AssertionError.
"""

import json
import sys

import openai
from openai import OpenAI

base_url, api_key, model = sys.argv[1:4]
client = OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=120)
question = [{"role": "user", "content": "What is a dog?"}]


def plain():
    answer = client.chat.completions.create(model=model, messages=question, max_tokens=24, temperature=0.7)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == model
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length"), choice.finish_reason
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return {"id": answer.id, "content": choice.message.content, "completion_tokens": usage.completion_tokens,
            "starling": (answer.model_extra or {}).get("starling")}


def streamed():
    stream = client.chat.completions.create(
        model=model, messages=question, max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    text, finish, usage, chunks, ids = "", None, None, 0, set()
    for chunk in stream:
        chunks += 1
        ids.add(chunk.id)
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert chunks > 2 and text and len(ids) == 1, (chunks, text, ids)
    assert finish in ("stop", "length"), finish
    assert usage is not None and usage.completion_tokens > 0
    again = client.chat.completions.create(model=model, messages=question, max_tokens=24, temperature=0)
    assert again.choices[0].message.content == text, (again.choices[0].message.content, text)
    return {"id": ids.pop(), "content": text, "chunks": chunks}


def logprobs():
    answer = client.chat.completions.create(
        model=model, messages=question, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens or len(entries) == answer.usage.completion_tokens - 1
    for entry in entries:
        assert entry.logprob <= 0 and 1 <= len(entry.top_logprobs) <= 3
        assert entry.top_logprobs[0].logprob == max(top.logprob for top in entry.top_logprobs)
        # Greedy: the chosen token is the most probable one.
        assert entry.logprob == entry.top_logprobs[0].logprob
    return {"tokens": [entry.token for entry in entries]}


def stop():
    free = client.chat.completions.create(model=model, messages=question, max_tokens=24, temperature=0)
    words = free.choices[0].message.content.split()
    assert len(words) > 3, words
    word = words[2]
    stopped = client.chat.completions.create(model=model, messages=question, max_tokens=24, temperature=0, stop=[word])
    text = stopped.choices[0].message.content
    assert word not in text and free.choices[0].message.content.startswith(text), (word, text)
    assert stopped.choices[0].finish_reason == "stop"
    return {"stop": word, "content": text}


def formatted():
    schema = {
        "type": "object",
        "properties": {"animal": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
        "required": ["animal", "size"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=model, messages=question, max_tokens=80, temperature=2,
        response_format={"type": "json_schema", "json_schema": {"name": "dog", "schema": schema, "strict": True}},
    )
    assert answer.choices[0].finish_reason == "stop", answer
    value = json.loads(answer.choices[0].message.content)
    assert isinstance(value["animal"], bool) and value["size"] in ("small", "large") and len(value) == 2, value
    return value


def biased():
    free = client.chat.completions.create(
        model=model, messages=question, max_tokens=4, temperature=0, logprobs=True, top_logprobs=1
    )
    pushed = client.chat.completions.create(
        model=model, messages=question, max_tokens=4, temperature=0, logprobs=True, logit_bias={"0": 100}
    )
    tokens = [entry.token for entry in pushed.choices[0].logprobs.content]
    assert tokens == [tokens[0]] * 4 and tokens[0] != free.choices[0].logprobs.content[0].token, tokens
    return tokens


def continued():
    answer = client.completions.create(model=model, prompt="A dog is", max_tokens=6, temperature=0, logprobs=1)
    assert answer.object == "text_completion" and answer.choices[0].text, answer
    assert "".join(answer.choices[0].logprobs.tokens) == answer.choices[0].text
    stream = client.completions.create(model=model, prompt="A dog is", max_tokens=6, temperature=0, stream=True)
    text = "".join(choice.text for event in stream for choice in event.choices)
    assert text == answer.choices[0].text, (text, answer.choices[0].text)
    return text


def models():
    names = [entry.id for entry in client.models.list()]
    assert model in names, names
    return names


def refused(expected, status, **arguments):
    call = {"model": model, "messages": question, "max_tokens": 8, **arguments}
    try:
        client.chat.completions.create(**call)
    except expected as error:
        assert error.status_code == status, (error.status_code, error.body)
        assert error.body and error.body["message"], error.body
        return {"code": error.body.get("code"), "message": error.body["message"]}
    raise AssertionError(f"{arguments} was not refused")


def wrong_input():
    return {
        "unknown model": refused(openai.NotFoundError, 404, model="no-such-model"),
        "too long": refused(openai.BadRequestError, 400, messages=[{"role": "user", "content": "dog " * 20000}]),
        "temperature": refused(openai.BadRequestError, 400, temperature=3),
        "no messages": refused(openai.BadRequestError, 400, messages=[]),
        "several choices": refused(openai.BadRequestError, 400, n=2),
        "schema": refused(
            openai.BadRequestError, 400,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wizard"}}},
        ),
        "no tools in the template": refused(
            openai.BadRequestError, 400, tools=[{"type": "function", "function": {"name": "f"}}]
        ),
    }


checks = (plain, streamed, logprobs, stop, formatted, biased, continued, models, wrong_input)
print(json.dumps({check.__name__: check() for check in checks}))
