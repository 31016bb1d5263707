"""Writes random models of every family as Hugging Face folders, each with reference logits and greedy tokens by transformers.

    python reference.py OUT

Every folder gets `reference.safetensors`: `prompt` (T), `logits` (T, vocabulary) in f32, `greedy` (N). The models vary
in what an engine can get wrong: the ratio of query to key heads, a head width that is not hidden / heads, tied and untied
embeddings, the rotary base and its scaling, odd vocabulary sizes, storage type and sharding, which layers have experts and
how many of them a token uses, and both ways of storing experts.

Models with `fp8` are stored as Qwen publishes them: the weights of the linear layers as float8_e4m3fn, each block with a
scale. Their reference is transformers in f32 on the weights that this script dequantises.
"""

import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
from fp8 import quantise_folder  # noqa: E402

PROMPT_TOKENS = 70
GREEDY_TOKENS = 64
# The plain definitions: grouped products want widths that are multiples of 4.
EAGER = dict(attn_implementation="eager", experts_implementation="eager")

# With an original context so short that every kind of frequency occurs.
LLAMA3 = dict(
    rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
LINEAR = dict(rope_type="linear", factor=2.5)

FAMILIES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}

CASES = {
    "mha-tied": dict(heads=4, kv_heads=4, head_dim=16, hidden=64, vocab=211, theta=1e4, tied=True),
    "gqa2-untied": dict(heads=4, kv_heads=2, head_dim=32, hidden=96, vocab=1003, theta=1e6, tied=False),
    "gqa3-wide-heads": dict(heads=6, kv_heads=2, head_dim=32, hidden=80, vocab=517, theta=1e4, tied=True, dtype="bfloat16"),
    "mqa-sharded": dict(heads=8, kv_heads=1, head_dim=8, hidden=72, vocab=333, theta=5e5, tied=False, shard="60KB"),
    "deep-f16": dict(heads=2, kv_heads=1, head_dim=64, hidden=48, vocab=129, theta=1e3, tied=False, dtype="float16", layers=6),
    "long-rope": dict(heads=4, kv_heads=2, head_dim=20, hidden=56, vocab=997, theta=1e7, tied=True, eps=1e-5),
    "llama3": dict(heads=4, kv_heads=2, head_dim=32, hidden=96, vocab=301, theta=5e5, tied=False, family="llama", rope=LLAMA3),
    "moe-normalised": dict(heads=4, kv_heads=2, head_dim=16, hidden=64, vocab=307, theta=1e6, tied=False, family="qwen3_moe", experts=dict(num_experts=12, num_experts_per_tok=3, moe_intermediate_size=40, norm_topk_prob=True)),
    "moe-some-dense": dict(heads=4, kv_heads=4, head_dim=24, hidden=72, vocab=211, theta=1e4, tied=True, family="qwen3_moe", layers=5, dtype="bfloat16", shard="90KB", experts=dict(num_experts=7, num_experts_per_tok=2, moe_intermediate_size=52, norm_topk_prob=False, decoder_sparse_step=2, mlp_only_layers=[3])),
    "moe-fused": dict(heads=6, kv_heads=2, head_dim=16, hidden=48, vocab=401, theta=1e5, tied=False, family="qwen3_moe", fused=True, experts=dict(num_experts=33, num_experts_per_tok=8, moe_intermediate_size=20, norm_topk_prob=True)),
    "moe-fused-f16-all": dict(heads=2, kv_heads=1, head_dim=32, hidden=56, vocab=129, theta=1e4, tied=True, family="qwen3_moe", fused=True, dtype="float16", experts=dict(num_experts=4, num_experts_per_tok=4, moe_intermediate_size=33, norm_topk_prob=False)),
    "fp8": dict(heads=4, kv_heads=2, head_dim=64, hidden=256, vocab=257, theta=1e6, tied=True, dtype="bfloat16", fp8=(128, 128)),
    "fp8-uneven": dict(heads=3, kv_heads=1, head_dim=40, hidden=200, vocab=129, theta=1e6, tied=False, fp8=(128, 128), scales="float32"),
    "fp8-llama": dict(heads=4, kv_heads=2, head_dim=32, hidden=96, vocab=301, theta=5e5, tied=False, family="llama", rope=LLAMA3, dtype="bfloat16", fp8=(32, 48)),
    "fp8-moe": dict(heads=4, kv_heads=2, head_dim=32, hidden=128, vocab=205, theta=1e6, tied=False, family="qwen3_moe", dtype="bfloat16", fp8=(64, 32), experts=dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=64, norm_topk_prob=True)),
    "llama3-deep": dict(heads=8, kv_heads=2, head_dim=16, hidden=64, vocab=509, theta=1e4, tied=True, family="llama", rope=LLAMA3 | dict(factor=8.0, original_max_position_embeddings=32), layers=5, eps=1e-5),
    "llama-linear": dict(heads=3, kv_heads=3, head_dim=16, hidden=48, vocab=301, theta=1e4, tied=True, family="llama", rope=LINEAR, dtype="bfloat16"),
}


def write_fp8(folder: pathlib.Path, block: tuple[int, int], dtype: torch.dtype) -> pathlib.Path:
    """Rewrites a folder with 8-bit weights; returns one with what they stand for, in f32."""
    reference = folder.with_name(folder.name + "-dequantised")
    reference.mkdir()
    shutil.copy(folder / "config.json", reference / "config.json")
    plain = quantise_folder(folder, block, dtype)
    save_file(plain, reference / "model.safetensors", metadata={"format": "pt"})
    return reference


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
        **EAGER,
        **case.get("experts", {}),
    )
    model = make_model(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Norms around 1, the rest large enough that distributions are peaked and every part matters.
            if name.endswith("norm.weight"):
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            else:
                weight.copy_(torch.randn_like(weight) * 1.5 / weight.shape[-1] ** 0.5)
    dtype = getattr(torch, case.get("dtype", "float32"))
    model.to(dtype).save_pretrained(
        folder, max_shard_size=case.get("shard", "1GB"), save_original_format=not case.get("fused", False)
    )
    source = folder
    if block := case.get("fp8"):
        source = write_fp8(folder, block, getattr(torch, case.get("scales", "bfloat16")))
    model = make_model.from_pretrained(source, dtype=torch.float32, **EAGER).eval()
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
