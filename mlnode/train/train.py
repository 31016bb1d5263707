#!/usr/bin/env python3
"""Trains Starling's demo model: a few million parameters of Qwen3 that know some English words.

    python mlnode/train/train.py

writes the Hugging Face folder mlnode/demo-model. Needs Debian's `wordnet-base` and the packages of requirements.txt. One
core takes 35 to 60 minutes, as busy as the machine is; an interrupted run goes on from its last checkpoint (delete the folder that
`--work` names to begin anew).
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

from corpus import Conversations

HERE = Path(__file__).resolve().parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 4096
MAX_CONTEXT = 1024
# Qwen's pre-tokeniser: words with their leading space, single digits, runs of punctuation.
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
PROMPT_LOSS = 0.05  # Weight of the loss on what the assistant did not say.


def train_tokenizer(seed):
    """Byte-level BPE as Qwen's: any text encodes, and the special tokens come last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    stream = Conversations(seed)
    texts = (text for _ in range(40_000) for _, text in next(stream))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise SystemExit(f"the vocabulary has {tokenizer.get_vocab_size()} entries, not {VOCABULARY}")
    return tokenizer


def config(tokenizer):
    return Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        attention_bias=False,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )


class Batches:
    """Rows of packed conversations: token ids, and the weight of the loss on each of them."""

    def __init__(self, tokenizer, seed):
        self.stream = Conversations(seed)
        self.tokenizer = tokenizer
        self.ids, self.weights = [], []
        self.end, self.start, self.stop = (tokenizer.token_to_id(token) for token in SPECIAL)
        self.newline = tokenizer.encode("\n").ids

    def add(self, ids, weight):
        self.ids += ids
        self.weights += [weight] * len(ids)

    def add_conversation(self):
        self.add([self.end], 0.0)
        for role, text in next(self.stream):
            self.add([self.start] + self.tokenizer.encode(f"{role}\n").ids, 0.0)
            said = role == "assistant"
            self.add(self.tokenizer.encode(text).ids, 1.0 if said else PROMPT_LOSS)
            self.add([self.stop], 1.0 if said else PROMPT_LOSS)
            self.add(self.newline, 0.0)

    def take(self, rows, length):
        need = rows * (length + 1)
        while len(self.ids) < need:
            self.add_conversation()
        ids, weights = torch.tensor(self.ids[:need]), torch.tensor(self.weights[:need])
        del self.ids[:need], self.weights[:need]
        return ids.view(rows, length + 1), weights.view(rows, length + 1)


def loss_of(model, ids, weights):
    """Mean over weighted tokens; logits are computed only where the loss has weight."""
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
    targets, weights = ids[:, 1:].reshape(-1), weights[:, 1:].reshape(-1)
    chosen = weights > 0
    logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[chosen])
    losses = torch.nn.functional.cross_entropy(logits, targets[chosen], reduction="none")
    answers = losses.detach()[weights[chosen] == 1.0].mean().item()
    return (losses * weights[chosen]).sum() / weights.sum(), answers


def optimizers(model):
    """Muon for the matrices inside the layers, AdamW for embedding and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=1.0, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(step, steps, peak):
    """Warm-up over 2 %, then a linear fall to a hundredth."""
    warm = max(1, steps // 50)
    return peak * min((step + 1) / warm, max(0.01, 1 - (step - warm) / (steps - warm)))


def export(model, tokenizer, folder):
    """Writes the Hugging Face folder; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(name, save):
        scratch = folder / f".{name}.new"
        save(scratch)
        scratch.chmod(0o644)
        os.replace(scratch, folder / name)

    def write_json(name, value):
        write(name, lambda path: path.write_text(json.dumps(value, indent=2) + "\n"))

    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    write("model.safetensors", lambda path: save_file(weights, path, metadata={"format": "pt"}))
    values = model.config.to_dict()
    values |= {"architectures": ["Qwen3ForCausalLM"], "dtype": "bfloat16", "torch_dtype": "bfloat16", "rope_theta": 10_000.0}
    for name in ("_name_or_path", "transformers_version", "output_attentions", "output_hidden_states", "return_dict",
                 "id2label", "label2id", "problem_type", "chunk_size_feed_forward", "is_encoder_decoder"):
        values.pop(name, None)
    write_json("config.json", dict(sorted(values.items())))
    eos = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    write_json("generation_config.json", {
        "do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 20,
        "eos_token_id": eos, "pad_token_id": eos[1],
    })
    write("tokenizer.json", lambda path: tokenizer.save(str(path), pretty=False))
    write_json("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_CONTEXT, "clean_up_tokenization_spaces": False,
        "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                "special": True,
            } for token in SPECIAL
        },
    })
    write("chat_template.jinja", lambda path: path.write_text(TEMPLATE))


def save(path, model, opts, batches, step, seconds):
    """Everything a later run needs to go on as if nothing had happened."""
    scratch = path.with_suffix(".new")
    torch.save({
        "model": model.state_dict(), "optimizers": [opt.state_dict() for opt in opts], "step": step, "seconds": seconds,
        "stream": (batches.stream.rng, batches.stream.walk), "rest": (batches.ids, batches.weights),
    }, scratch)
    os.replace(scratch, path)


def restore(path, model, opts, batches):
    """Step to go on from, and the seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    # Our own file; it holds the generator of random numbers, which is not a tensor.
    state = torch.load(path, weights_only=False)
    model.load_state_dict(state["model"])
    for opt, saved in zip(opts, state["optimizers"]):
        opt.load_state_dict(saved)
    batches.stream.rng, batches.stream.walk = state["stream"]
    batches.ids, batches.weights = state["rest"]
    return state["step"], state["seconds"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE.parent / "demo-model", help="model folder to write")
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache/starling/demo-model",
                        help="folder for checkpoint and log")
    parser.add_argument("--steps", type=int, default=3_200,
                        help="optimiser steps of 2,048 tokens that the learning rate falls over")
    parser.add_argument("--stop", type=int, default=2_800,
                        help="step to end after: the last eighth of the fall changes little")
    parser.add_argument("--rate", type=float, default=6e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints; each is exported too")
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)

    tokenizer_file, checkpoint_file = args.work / "tokenizer.json", args.work / "checkpoint.pt"
    if not tokenizer_file.exists():
        train_tokenizer(args.seed).save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    model = Qwen3ForCausalLM(config(tokenizer))
    model.config._attn_implementation = "sdpa"
    opts = optimizers(model)
    batches = Batches(tokenizer, args.seed + 1)
    first, seconds = restore(checkpoint_file, model, opts, batches)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(batches.stream.entries):,} words, "
          f"from step {first} of {args.steps}", flush=True)

    smooth, last = None, min(args.stop, args.steps)
    for step in range(first, last):
        began = time.monotonic()
        # Long rows teach the far positions; short ones are cheaper.
        rows, length = (2, 1024) if step % 8 == 7 else (8, 256)
        ids, weights = batches.take(rows, length)
        loss, answers = loss_of(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        lr = rate(step, args.steps, args.rate)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = lr
            opt.step()
            opt.zero_grad(set_to_none=True)
        seconds += time.monotonic() - began
        smooth = answers if smooth is None else 0.98 * smooth + 0.02 * answers
        if not math.isfinite(smooth):
            raise SystemExit("the loss is not finite")
        if (step + 1) % 20 == 0:
            print(json.dumps({"step": step + 1, "loss": round(smooth, 4), "lr": round(lr, 6), "seconds": round(seconds)}),
                  flush=True)
        if (step + 1) % args.save_every == 0 or step + 1 == last:
            save(checkpoint_file, model, opts, batches, step + 1, seconds)
            export(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
