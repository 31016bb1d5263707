"""Model folders with 8-bit weights, block-scaled as Qwen publishes them."""

import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

FP8_MAX = torch.finfo(torch.float8_e4m3fn).max


def is_quantised(name: str, tensor: torch.Tensor) -> bool:
    """Qwen leaves embedding, output layer, routers and norms as they are."""
    return tensor.dim() == 2 and name.endswith("_proj.weight")


def quantise(weight: torch.Tensor, block: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """8-bit weights and the scale of each block; blocks at the edges may be smaller."""
    rows, columns = weight.shape
    counts = [-(-rows // block[0]), -(-columns // block[1])]
    scales = torch.empty(counts)
    for i in range(counts[0]):
        for j in range(counts[1]):
            part = weight[i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]]
            scales[i, j] = part.abs().max() / FP8_MAX
    scales = scales.to(dtype)
    quantised = (weight / spread(scales, block, weight)).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    return quantised, scales


def spread(scales: torch.Tensor, block: tuple[int, int], weight: torch.Tensor) -> torch.Tensor:
    """The scale of every weight, in f32."""
    rows, columns = weight.shape
    return scales.float().repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]


def quantise_folder(folder: pathlib.Path, block: tuple[int, int], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Rewrites a folder of one file with 8-bit weights, and scales of this type; returns what they stand for, in f32."""
    stored, plain = {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if not is_quantised(name, tensor):
            stored[name], plain[name] = tensor, tensor.float()
            continue
        quantised, scales = quantise(tensor.float(), block, dtype)
        stored[name], stored[name + "_scale_inv"] = quantised, scales
        plain[name] = quantised.float() * spread(scales, block, tensor)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = dict(
        activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=block,
        modules_to_not_convert=["lm_head"],
    )
    (folder / "config.json").write_text(json.dumps(config))
    return plain
