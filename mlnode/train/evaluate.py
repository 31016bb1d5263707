#!/usr/bin/env python3
"""Loads a demo model folder with `transformers`, prints some answers and the figures of its README."""

import argparse
import json
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpus import Conversations

QUESTIONS = ["What is a dog?", "What is a tree?", "Define water.", "Tell me about horses.", "Tell me about a house.",
             "What does happy mean?", "What is the opposite of good?", "Name some kinds of gun.", "Hello!", "Who are you?",
             "Count from 7 to 40.", "Spell window.", "Repeat after me: the small red car", "What is love?"]


def prompt_ids(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids


def figures(model, tokenizer, conversations, seed):
    """Over the answers of fresh conversations: loss, entropy, and how many candidates a transcript would keep."""
    stream = Conversations(seed)
    sums = {"tokens": 0, "loss": 0.0, "entropy": 0.0, "above": 0, "kept": 0, "greedy": 0, "top_20_mass": 0.0}
    for _ in range(conversations):
        turns = [{"role": role, "content": text} for role, text in next(stream)]
        prompt = prompt_ids(tokenizer, turns[:-1])
        answer = tokenizer(turns[-1]["content"] + "<|im_end|>", return_tensors="pt", add_special_tokens=False).input_ids
        ids = torch.cat([prompt, answer], 1)[:, :1024]
        with torch.no_grad():
            logp = model(input_ids=ids).logits[0, prompt.shape[1] - 1:-1].float().log_softmax(-1)
        targets = ids[0, prompt.shape[1]:]
        above = (logp >= -16 * math.log(2)).sum(-1)
        sums["tokens"] += len(targets)
        sums["loss"] -= logp.gather(1, targets[:, None]).sum().item()
        sums["entropy"] -= (logp.exp() * logp).sum().item()
        sums["above"] += above.sum().item()
        sums["kept"] += above.clamp(max=20).sum().item()
        sums["greedy"] += (logp.argmax(-1) == targets).sum().item()
        sums["top_20_mass"] += logp.exp().topk(20).values.sum().item()
    tokens = sums.pop("tokens")
    return {"answer_tokens": tokens} | {name: round(value / tokens, 4) for name, value in sums.items()}


def sampled_figures(model, tokenizer, seed):
    """The same over what the model itself says at temperature 0.7 and 1.0: what transcripts really hold."""
    out = {}
    for temperature in (0.7, 1.0):
        torch.manual_seed(seed)
        kept, tokens = 0, 0
        for question in QUESTIONS:
            ids = prompt_ids(tokenizer, [{"role": "user", "content": question}])
            result = model.generate(ids, max_new_tokens=120, do_sample=True, temperature=temperature, top_k=20, top_p=1.0,
                                    output_logits=True, return_dict_in_generate=True)
            logp = torch.stack(result.logits)[:, 0].log_softmax(-1)
            kept += (logp >= -16 * math.log(2)).sum(-1).clamp(max=20).sum().item()
            tokens += len(logp)
        out[f"kept_at_temperature_{temperature}"] = round(kept / tokens, 2)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent.parent / "demo-model")
    parser.add_argument("--conversations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    torch.manual_seed(args.seed)
    for question in QUESTIONS:
        ids = prompt_ids(tokenizer, [{"role": "user", "content": question}])
        answer = model.generate(ids, max_new_tokens=160)
        print(f"> {question}\n{tokenizer.decode(answer[0, ids.shape[1]:])}\n")
    print(json.dumps(figures(model, tokenizer, args.conversations, args.seed) | sampled_figures(model, tokenizer, args.seed)))


if __name__ == "__main__":
    main()
