"""What the operations of one decoding layer take on a CUDA device, each on its own: says what bounds a step.

    python operations.py SHAPE [--device cuda:0]

Prints a JSON line per operation and batch: microseconds, and the share of the time that reading its weights, or its keys and
values, takes at the bandwidth that a large sum reaches here. Operations are timed as the engine runs them, as part of a CUDA
graph, over weights of several layers in turn so that no cache holds them. SHAPE is one of `random_model.py`.
"""

import argparse
import json

import torch
from random_model import SHAPES

LAYERS, REPEATS, LENGTH, BUCKET = 6, 5, 576, 1024


def seconds(run, device):
    """Of one call of `run(i)`, the shortest of a few rounds; i is the layer."""
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        run(0)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(REPEATS):
                for layer in range(LAYERS):
                    run(layer)
        best = float("inf")
        for _ in range(5):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            best = min(best, start.elapsed_time(end) / 1e3)
    return best / (REPEATS * LAYERS)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("shape", choices=SHAPES)
    arguments.add_argument("--device", default="cuda:0")
    arguments = arguments.parse_args()
    shape, device = SHAPES[arguments.shape], torch.device(arguments.device)
    torch.set_grad_enabled(False)
    torch.set_default_device(device)
    torch.set_default_dtype(torch.bfloat16)
    hidden, inner, heads, kv_heads, dim = (shape[name] for name in ["hidden", "inner", "heads", "kv_heads", "dim"])
    numbers = torch.randn(1 << 31)
    bandwidth = numbers.nbytes / seconds(lambda _: numbers.sum(dtype=torch.float32), device)
    del numbers
    weights = {
        "qkv": [torch.randn((heads + 2 * kv_heads) * dim, hidden) for _ in range(LAYERS)],
        "output": [torch.randn(hidden, heads * dim) for _ in range(LAYERS)],
        "gate_up": [torch.randn(2 * inner, hidden) for _ in range(LAYERS)],
        "down": [torch.randn(hidden, inner) for _ in range(LAYERS)],
    }
    norm = torch.randn(hidden)
    for batch in [1, 8, 64]:
        x = {name: torch.randn(batch, matrices[0].shape[1]) for name, matrices in weights.items()}
        rows = torch.randn(batch, hidden)
        kept = [torch.randn(batch * LENGTH, 2 * kv_heads, dim) for _ in range(LAYERS)]
        query = torch.randn(batch, heads, dim)
        index = lambda values: torch.tensor(values, dtype=torch.int32)
        starts, keys = index(range(batch + 1)), index([i * LENGTH for i in range(batch + 1)])
        lengths = index([LENGTH] * batch)
        attend = lambda i: torch.ops.aten._flash_attention_forward(
            query, kept[i][:, :kv_heads], kept[i][:, kv_heads:], starts, keys, 1, BUCKET, 0.0, True, False, seqused_k=lengths
        )
        linear = lambda name: lambda i: torch.nn.functional.linear(x[name], weights[name][i])
        add = lambda name: lambda i: rows.addmm_(x[name], weights[name][i].t())
        operations = {
            "norm": (lambda _: torch.rms_norm(rows, [hidden], norm, 1e-6), 0),
            "qkv": (linear("qkv"), weights["qkv"][0].nbytes),
            "attention": (attend, kept[0].nbytes),
            "output": (add("output"), weights["output"][0].nbytes),
            "gate_up": (linear("gate_up"), weights["gate_up"][0].nbytes),
            "down": (add("down"), weights["down"][0].nbytes),
        }
        for name, (run, size) in operations.items():
            taken = seconds(run, device)
            line = dict(operation=name, batch=batch, us=round(taken * 1e6, 2))
            if size:
                line["of_bandwidth"] = round(size / bandwidth / taken, 3)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
