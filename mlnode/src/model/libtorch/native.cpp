// What the engine needs of libtorch and tch does not bind. The kernels live in libtorch_cuda.so; nothing here links to it, and no
// header of CUDA is needed: attention and streams go through the dispatcher and the device guards, recorded steps through symbols
// that are looked up.
//
// Every function returns null, or a message for `starling_free`.

#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

template <typename Run>
char* guarded(Run run) {
  try {
    run();
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an unknown error");
  }
}

template <typename Function>
Function symbol(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  if (found == nullptr) throw std::runtime_error(std::string("libtorch has no ") + name);
  return reinterpret_cast<Function>(found);
}

// `at::cuda::CUDAGraph` of libtorch 2.11, whose header needs CUDA's: an object that is only handed to its own functions, in more
// room than it takes.
struct alignas(64) Graph {
  unsigned char object[4096];
};

using Void = void (*)(Graph*);
// The pool of memory of its own, and cudaStreamCaptureModeThreadLocal.
using Begin = void (*)(Graph*, std::pair<unsigned long long, unsigned long long>, int);

}  // namespace

extern "C" {

void starling_free(char* message) {
  free(message);
}

// Attention of the rows `query` (rows, heads, dim), of which sequence i has rows `query_starts[i]..query_starts[i + 1]`,
// over its `lengths[i]` tokens from row `key_starts[i]` of `keys` and `values` (tokens, key heads, dim). A sequence's last
// row sees all its tokens, the row before it one less, and so on. Writes the result (rows, heads, dim) to `out`.
char* starling_flash_attention(
    at::Tensor** out,
    const at::Tensor* query,
    const at::Tensor* keys,
    const at::Tensor* values,
    const at::Tensor* query_starts,
    const at::Tensor* key_starts,
    const at::Tensor* lengths,
    int64_t query_most,
    int64_t length_most) {
  return guarded([&] {
    auto found = at::_flash_attention_forward(
        *query, *keys, *values, *query_starts, *key_starts, query_most, length_most,
        /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false,
        /*scale=*/std::nullopt, /*window_size_left=*/std::nullopt, /*window_size_right=*/std::nullopt,
        /*seqused_k=*/*lengths, /*alibi_slopes=*/std::nullopt);
    *out = new at::Tensor(std::get<0>(found));
  });
}

// Lets libtorch use a stream of its own for what this thread does on a CUDA device: what goes to the default one cannot be
// recorded. Writes the CUDA stream to `handle`.
char* starling_use_stream(int device, void** handle) {
  return guarded([&] {
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    const auto stream =
        guard.getStreamFromGlobalPool(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)));
    guard.exchangeStream(stream);
    *handle = stream.native_handle();
  });
}

// Begins to record what this thread does on its stream, without doing it.
char* starling_graph_begin(Graph** out) {
  return guarded([&] {
    const auto make = symbol<void (*)(Graph*, bool)>("_ZN2at4cuda9CUDAGraphC1Eb");
    const auto begin =
        symbol<Begin>("_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode");
    auto* graph = new Graph;
    make(graph, false);
    *out = graph;
    begin(graph, {0, 0}, 1);
  });
}

// Ends it.
char* starling_graph_end(Graph* graph) {
  return guarded([&] { symbol<Void>("_ZN2at4cuda9CUDAGraph11capture_endEv")(graph); });
}

// Does what was recorded.
char* starling_graph_replay(Graph* graph) {
  return guarded([&] {
    static const auto replay = symbol<Void>("_ZN2at4cuda9CUDAGraph6replayEv");
    replay(graph);
  });
}

char* starling_graph_free(Graph* graph) {
  return guarded([&] {
    symbol<Void>("_ZN2at4cuda9CUDAGraphD1Ev")(graph);
    delete graph;
  });
}
}
