"""Writes a Qwen3 or Llama model with random weights as a Hugging Face folder, for benchmarks: speed does not depend on what the
weights say.

    python random_model.py SHAPE OUT [--dtype float32|bfloat16|float16|fp8] [--device cpu|cuda]

SHAPE is `0.6b` (Qwen3-0.6B's: 28 layers, 1024 wide, vocabulary 151,936, tied), `8b` (Qwen3-8B's: 36 layers, 4096 wide, untied),
`llama` (Llama 3.2 1B's: 16 layers, 2048 wide, vocabulary 128,256, tied, Llama 3 rotary scaling), `moe` (Qwen3-30B-A3B's: 2048 wide,
8 of 128 experts 768 wide, untied, but 12 layers of 48), `small` (8 layers, 512 wide, vocabulary 32,000, tied), or `demo`: the demo
model itself, stored in another way. The tokenizer is the demo model's: the engine wants one, and its tokens are in all vocabularies. The weights are drawn on the device. fp8 is block-scaled, the rest in bf16.
"""

import argparse
import pathlib
import shutil

import torch
from fp8 import quantise_folder
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

FAMILIES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
ROPE = {"rope_type": "default", "rope_theta": 1e6}
ROPE_LLAMA = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
EXPERTS = dict(num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768, norm_topk_prob=True)

SHAPES = {
    "0.6b": dict(hidden=1024, inner=3072, layers=28, heads=16, kv_heads=8, dim=128, vocab=151_936),
    "8b": dict(hidden=4096, inner=12288, layers=36, heads=32, kv_heads=8, dim=128, vocab=151_936, tied=False),
    "llama": dict(hidden=2048, inner=8192, layers=16, heads=32, kv_heads=8, dim=64, vocab=128_256, family="llama", rope=ROPE_LLAMA),
    "moe": dict(hidden=2048, inner=6144, layers=12, heads=32, kv_heads=4, dim=128, vocab=151_936, tied=False, family="qwen3_moe", experts=EXPERTS),
    "small": dict(hidden=512, inner=1536, layers=8, heads=8, kv_heads=4, dim=64, vocab=32_000),
}
DEMO = pathlib.Path(__file__).resolve().parent.parent / "demo-model"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("shape", choices=[*SHAPES, "demo"])
    arguments.add_argument("out", type=pathlib.Path)
    arguments.add_argument("--dtype", choices=["float32", "bfloat16", "float16", "fp8"], default="float32")
    arguments.add_argument("--device", default="cpu")
    arguments = arguments.parse_args()
    fp8 = arguments.dtype == "fp8"
    torch.set_default_dtype(torch.bfloat16 if fp8 else getattr(torch, arguments.dtype))
    model = demo() if arguments.shape == "demo" else random(SHAPES[arguments.shape], arguments.device)
    # Shards, so that what reads or hashes them can do several at a time.
    model.save_pretrained(arguments.out, max_shard_size="2GB")
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]:
        shutil.copy(DEMO / name, arguments.out / name)
    if fp8:
        quantise_folder(arguments.out, (128, 128), torch.bfloat16)


def demo() -> PreTrainedModel:
    return Qwen3ForCausalLM.from_pretrained(DEMO, dtype=torch.get_default_dtype())


def random(shape: dict, device: str) -> PreTrainedModel:
    torch.manual_seed(1)
    make_config, make_model = FAMILIES[shape.get("family", "qwen3")]
    config = make_config(
        hidden_size=shape["hidden"],
        intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        head_dim=shape["dim"],
        vocab_size=shape["vocab"],
        rope_parameters=shape.get("rope", ROPE),
        tie_word_embeddings=shape.get("tied", True),
        max_position_embeddings=4096,
        **shape.get("experts", {}),
    )
    with torch.device(device):
        return make_model(config).eval()


if __name__ == "__main__":
    main()
