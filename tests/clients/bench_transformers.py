"""`transformers` as a peer of `starling-bench engine`: measures when told to, one JSON object per line each way.

usage: bench_transformers.py MODEL_FOLDER THREADS [--device cpu|cuda:N] [--dtype float32|bfloat16|float16]

    {"prompt": [ids], "batch": n, "tokens": n}  ->  {"prefill": seconds, "decode": seconds}

The prompt is repeated `batch` times. `prefill` is the first pass, of which only the last position's logits are made;
`decode` is a bare greedy loop of `tokens` - 1 further passes over the cache: without sampling, streaming or text, faster
than `generate`. Each time is taken when the device is done. Prints {"ready": versions} first.
"""

import argparse
import json
import sys
import time

import torch
import transformers

arguments = argparse.ArgumentParser()
arguments.add_argument("folder")
arguments.add_argument("threads", type=int)
arguments.add_argument("--device", default="cpu")
arguments.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
arguments = arguments.parse_args()
torch.set_num_threads(arguments.threads)
device = torch.device(arguments.device)
dtype = getattr(torch, arguments.dtype)
model = transformers.AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=dtype).to(device).eval()


def now():
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.inference_mode()
def measure(prompt, batch, tokens):
    ids = torch.tensor([prompt] * batch, device=device)
    start = now()
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1].argmax(-1, keepdim=True)
    middle = now()
    for _ in range(tokens - 1):
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
    return {"prefill": middle - start, "decode": now() - middle}


versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
print(json.dumps({"ready": versions, "attention": model.config._attn_implementation}), flush=True)
for line in sys.stdin:
    print(json.dumps(measure(**json.loads(line))), flush=True)
