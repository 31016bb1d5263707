"""Writes random Qwen3 and Llama models as Hugging Face folders, each with reference logits and greedy tokens by transformers.

    python reference.py OUT

Every folder gets `reference.safetensors`: `prompt` (T), `logits` (T, vocabulary) in f32, `greedy` (N). The models vary
in what an engine can get wrong: the ratio of query to key heads, a head width that is not hidden / heads, tied and untied
embeddings, the rotary base and its scaling, odd vocabulary sizes, storage type and sharding.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

PROMPT_TOKENS = 70
GREEDY_TOKENS = 24

# With an original context so short that every kind of frequency occurs.
LLAMA3 = dict(
    rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
LINEAR = dict(rope_type="linear", factor=2.5)

FAMILIES = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}

CASES = {
    "mha-tied": dict(heads=4, kv_heads=4, head_dim=16, hidden=64, vocab=211, theta=1e4, tied=True),
    "gqa2-untied": dict(heads=4, kv_heads=2, head_dim=32, hidden=96, vocab=1003, theta=1e6, tied=False),
    "gqa3-wide-heads": dict(heads=6, kv_heads=2, head_dim=32, hidden=80, vocab=517, theta=1e4, tied=True, dtype="bfloat16"),
    "mqa-sharded": dict(heads=8, kv_heads=1, head_dim=8, hidden=72, vocab=333, theta=5e5, tied=False, shard="60KB"),
    "deep-f16": dict(heads=2, kv_heads=1, head_dim=64, hidden=48, vocab=129, theta=1e3, tied=False, dtype="float16", layers=6),
    "long-rope": dict(heads=4, kv_heads=2, head_dim=20, hidden=56, vocab=997, theta=1e7, tied=True, eps=1e-5),
    "llama3": dict(heads=4, kv_heads=2, head_dim=32, hidden=96, vocab=301, theta=5e5, tied=False, family="llama", rope=LLAMA3),
    "llama-linear": dict(heads=3, kv_heads=3, head_dim=16, hidden=48, vocab=301, theta=1e4, tied=True, family="llama", rope=LINEAR, dtype="bfloat16"),
}


def write_case(folder: pathlib.Path, seed: int, case: dict) -> None:
    torch.manual_seed(seed)
    make_config, make_model = FAMILIES[case.get("family", "qwen3")]
    config = make_config(
        hidden_size=case["hidden"],
        intermediate_size=3 * case["hidden"] - 5,
        num_hidden_layers=case.get("layers", 3),
        num_attention_heads=case["heads"],
        num_key_value_heads=case["kv_heads"],
        head_dim=case["head_dim"],
        vocab_size=case["vocab"],
        rope_parameters={"rope_type": "default"} | case.get("rope", {}) | {"rope_theta": case["theta"]},
        tie_word_embeddings=case["tied"],
        rms_norm_eps=case.get("eps", 1e-6),
        max_position_embeddings=256,
        attn_implementation="eager",
    )
    model = make_model(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Norms around 1, the rest large enough that distributions are peaked and every part matters.
            if name.endswith("norm.weight"):
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            else:
                weight.copy_(torch.randn_like(weight) * 1.5 / weight.shape[1] ** 0.5)
    dtype = getattr(torch, case.get("dtype", "float32"))
    model.to(dtype).save_pretrained(folder, max_shard_size=case.get("shard", "1GB"))
    model = make_model.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    prompt = torch.randint(0, case["vocab"], (1, PROMPT_TOKENS))
    with torch.no_grad():
        logits = model(prompt).logits[0].float()
        # Without a mask, transformers would take tokens of the prompt that equal the padding id for padding.
        greedy = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=GREEDY_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, PROMPT_TOKENS:]
    tensors = dict(prompt=prompt[0].to(torch.int64), logits=logits, greedy=greedy.to(torch.int64))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "reference.safetensors")


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    for seed, (name, case) in enumerate(CASES.items()):
        write_case(out / name, seed, case)
    print(json.dumps(sorted(CASES)))


if __name__ == "__main__":
    main()
