"""llama.cpp (through llama-cpp-python) as a peer of `starling-bench engine`: measures when told to, as bench_transformers.py does.

usage: bench_llama.py MODEL_FOLDER THREADS [--dtype float32|bfloat16|q8_0]

The folder's Qwen3 model is first written as GGUF, with these weights. Sequences run together in one context, greedily, without
text; flash attention is off, because on processors it costs llama.cpp time.
"""

import argparse
import ctypes
import json
import pathlib
import sys
import tempfile
import time

import gguf
import llama_cpp
import numpy
import torch
from safetensors.torch import safe_open

TYPES = {
    "float32": gguf.GGMLQuantizationType.F32,
    "bfloat16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
# Tokens of a context: the longest prompts of a batch with their answers.
CONTEXT, SEQUENCES = 8192, 8


def write_gguf(folder, path, kind):
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3])
    layers = config["num_hidden_layers"]
    rope = config.get("rope_parameters") or config
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, layers)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():
                if name == "lm_head.weight" and config["tie_word_embeddings"]:
                    continue
                values = tensors.get_tensor(name).to(torch.float32).numpy()
                # Norms are always f32.
                of = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
                writer.add_tensor(
                    names.get_name(name, try_suffixes=(".weight",)),
                    gguf.quants.quantize(values, of),
                    raw_dtype=of,
                )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Model:
    def __init__(self, path, threads):
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = CONTEXT
        parameters.n_batch = CONTEXT
        parameters.n_ubatch = 512
        parameters.n_seq_max = SEQUENCES
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        assert self.model and self.context, "llama.cpp cannot load the model"
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(CONTEXT, 0, 1)

    def step(self, rows):
        """One pass over rows of (sequence, position, token, whether its logits are wanted): the best tokens, in order."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for index, (sequence, position, token, wanted) in enumerate(rows):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wanted
        failed = llama_cpp.llama_decode(self.context, batch)
        assert not failed, f"llama_decode: {failed}"
        best = []
        for index, row in enumerate(rows):
            if row[3]:
                logits = llama_cpp.llama_get_logits_ith(self.context, index)
                logits = numpy.ctypeslib.as_array(logits, shape=(self.vocabulary,))
                best.append(int(logits.argmax()))
        return best

    def measure(self, prompt, batch, tokens):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        last = len(prompt) - 1
        rows = [
            (sequence, position, token, position == last)
            for sequence in range(batch)
            for position, token in enumerate(prompt)
        ]
        start = time.perf_counter()
        best = self.step(rows)
        middle = time.perf_counter()
        for position in range(len(prompt), len(prompt) + tokens - 1):
            best = self.step([(sequence, position, token, True) for sequence, token in enumerate(best)])
        return {"prefill": middle - start, "decode": time.perf_counter() - middle}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("threads", type=int)
    arguments.add_argument("--dtype", choices=TYPES, default="float32")
    arguments = arguments.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda level, text, _: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.gguf"
        write_gguf(arguments.folder, path, TYPES[arguments.dtype])
        model = Model(path, arguments.threads)
    ready = f"llama-cpp-python {llama_cpp.__version__}, {arguments.dtype} weights, flash attention off"
    print(json.dumps({"ready": ready}), flush=True)
    for line in sys.stdin:
        print(json.dumps(model.measure(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
