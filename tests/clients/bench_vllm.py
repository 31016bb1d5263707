"""vLLM's build for processors as a peer of `starling-bench engine`, compiled: measures when told to, as bench_transformers.py does.

usage: bench_vllm.py MODEL_FOLDER THREADS [--dtype float32|bfloat16]

Its engine steps in this process, without server, tokenizer, text or prefix cache, greedily. `prefill` is the time until every
sequence has its first token, `decode` the time from there to the end.
"""

import argparse
import json
import os
import sys
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("folder")
arguments.add_argument("threads", type=int)
arguments.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
arguments = arguments.parse_args()
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{arguments.threads - 1}")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
# What it says belongs to standard error: standard output is for answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch
import vllm
from vllm.sampling_params import RequestOutputKind

# A context for the longest prompt with its answer; one step reads all prompts of a batch.
LENGTH, BUDGET = 1024, 8192
model = vllm.LLM(
    arguments.folder,
    dtype=arguments.dtype,
    skip_tokenizer_init=True,
    enable_prefix_caching=False,
    max_model_len=LENGTH,
    max_num_batched_tokens=BUDGET,
    max_num_seqs=16,
)
engine = model.llm_engine
asked = 0


def measure(prompt, batch, tokens):
    global asked
    parameters = vllm.SamplingParams(
        temperature=0,
        max_tokens=tokens,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.CUMULATIVE,
    )
    start = time.perf_counter()
    for _ in range(batch):
        asked += 1
        engine.add_request(str(asked), {"prompt_token_ids": prompt}, parameters)
    begun, middle = set(), None
    while engine.has_unfinished_requests():
        begun.update(output.request_id for output in engine.step() if output.outputs[0].token_ids)
        if middle is None and len(begun) == batch:
            middle = time.perf_counter()
    return {"prefill": middle - start, "decode": time.perf_counter() - middle}


def answer(value):
    print(json.dumps(value), file=answers, flush=True)


answer({"ready": f"vllm-cpu {vllm.__version__}, torch {torch.__version__}"})
for line in sys.stdin:
    answer(measure(**json.loads(line)))
