"""`transformers` as a peer of `starling-bench engine`: measures when told to, one JSON object per line each way.

usage: bench_transformers.py MODEL_FOLDER THREADS

    {"prompt": [ids], "batch": n, "tokens": n}  ->  {"prefill": seconds, "decode": seconds}

The prompt is repeated `batch` times. `prefill` is the first pass, of which only the last position's logits are made;
`decode` is a bare greedy loop of `tokens` - 1 further passes over the cache: without sampling, streaming or text, faster
than `generate`. Prints {"ready": versions} first.
"""

import json
import sys
import time

import torch
import transformers

folder, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def measure(prompt, batch, tokens):
    ids = torch.tensor([prompt] * batch)
    start = time.perf_counter()
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1].argmax(-1, keepdim=True)
    middle = time.perf_counter()
    for _ in range(tokens - 1):
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
    return {"prefill": middle - start, "decode": time.perf_counter() - middle}


versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
print(json.dumps({"ready": versions, "attention": model.config._attn_implementation}), flush=True)
for line in sys.stdin:
    print(json.dumps(measure(**json.loads(line))), flush=True)
