"""Writes a Qwen3 model with random weights as a Hugging Face folder, for benchmarks: speed does not depend on what the
weights say.

    python random_model.py SHAPE OUT [--dtype float32|bfloat16]

SHAPE is `0.6b` (Qwen3-0.6B's: 28 layers, 1024 wide, vocabulary 151,936, tied) or `small` (8 layers, 512 wide,
vocabulary 32,000, tied). The tokenizer is the demo model's: the engine wants one, and its tokens are in both
vocabularies.
"""

import argparse
import pathlib
import shutil

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

SHAPES = {
    "0.6b": dict(hidden=1024, inner=3072, layers=28, heads=16, kv_heads=8, dim=128, vocab=151_936),
    "small": dict(hidden=512, inner=1536, layers=8, heads=8, kv_heads=4, dim=64, vocab=32_000),
}
DEMO = pathlib.Path(__file__).resolve().parent.parent / "demo-model"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("shape", choices=SHAPES)
    arguments.add_argument("out", type=pathlib.Path)
    arguments.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    arguments = arguments.parse_args()
    shape = SHAPES[arguments.shape]
    torch.manual_seed(1)
    config = Qwen3Config(
        hidden_size=shape["hidden"],
        intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        head_dim=shape["dim"],
        vocab_size=shape["vocab"],
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    model = Qwen3ForCausalLM(config).eval()
    model.to(getattr(torch, arguments.dtype)).save_pretrained(arguments.out)
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]:
        shutil.copy(DEMO / name, arguments.out / name)


if __name__ == "__main__":
    main()
