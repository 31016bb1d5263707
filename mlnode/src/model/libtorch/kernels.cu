// What stands between the matrix products of a layer, in one kernel each: libtorch has no fused ones, and at small batches the
// time to launch kernels is the time of a step. Compiled when a model is loaded, by NVRTC, with HALF defined for f16 and not for
// bf16; so nothing is included. Arithmetic is f32, only what is stored has 16 bits.

typedef unsigned short Word;

#define INFINITY_F __int_as_float(0x7f800000)

__device__ __forceinline__ float widen(Word word) {
  float x;
#ifdef HALF
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(word));
#else
  x = __uint_as_float((unsigned int)word << 16);
#endif
  return x;
}

__device__ __forceinline__ Word narrow(float x) {
  Word word;
#ifdef HALF
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(word) : "f"(x));
#else
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(word) : "f"(x));
#endif
  return word;
}

// Pairs of a head that a lane of a warp holds at most: heads of up to 256 numbers.
#define PAIRS 4

// Normalises and rotates queries and keys of `qkv` (rows, heads + 2 key_heads, dim), queries in place, keys into the store, and
// copies values there. `weights` (heads + key_heads, dim) are those of the norms, null where there are none; `rotations`
// (positions, 2, dim) as `Libtorch::rotations`; `store` (tokens, 2 key_heads, dim). A warp for each row and head: blocks of
// (32, 4) threads, a grid of (rows, a quarter of the heads).
extern "C" __global__ void rotate_and_keep(
    Word* qkv, const Word* weights, const float* rotations, const long long* positions, const long long* places,
    Word* store, int heads, int key_heads, int dim, float eps) {
  const int row = blockIdx.x, head = blockIdx.y * blockDim.y + threadIdx.y, lane = threadIdx.x;
  const int all = heads + 2 * key_heads, half = dim / 2;
  if (head >= all) return;
  Word* x = qkv + ((size_t)row * all + head) * dim;
  Word* to = x;
  if (head >= heads) {
    to = store + ((size_t)places[row] * 2 * key_heads + (head - heads)) * dim;
  }
  if (head >= heads + key_heads) {
    for (int i = lane; i < dim; i += 32) to[i] = x[i];
    return;
  }
  float low[PAIRS], high[PAIRS], sum = 0.0f;
#pragma unroll
  for (int pair = 0; pair < PAIRS; pair++) {
    const int i = lane + 32 * pair;
    low[pair] = i < half ? widen(x[i]) : 0.0f;
    high[pair] = i < half ? widen(x[i + half]) : 0.0f;
    sum += low[pair] * low[pair] + high[pair] * high[pair];
  }
  if (weights != nullptr) {
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    const float scale = rsqrtf(sum / dim + eps);
    const Word* weight = weights + (size_t)head * dim;
#pragma unroll
    for (int pair = 0; pair < PAIRS; pair++) {
      const int i = lane + 32 * pair;
      if (i < half) {
        low[pair] *= scale * widen(weight[i]);
        high[pair] *= scale * widen(weight[i + half]);
      }
    }
  }
  // Cosines of the first half; sines of the second, which have their own sign.
  const float* cosines = rotations + (size_t)positions[row] * 2 * dim;
  const float* sines = cosines + dim + half;
#pragma unroll
  for (int pair = 0; pair < PAIRS; pair++) {
    const int i = lane + 32 * pair;
    if (i < half) {
      to[i] = narrow(low[pair] * cosines[i] - high[pair] * sines[i]);
      to[i + half] = narrow(high[pair] * cosines[i] + low[pair] * sines[i]);
    }
  }
}

// `silu(gate) * up` for rows (gate, up), each of `width` numbers, an even number. A thread for two neighbours.
extern "C" __global__ void gate(const Word* both, Word* out, int width, long long pairs) {
  const long long pair = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (pair >= pairs) return;
  const int in_row = width / 2;
  const long long row = pair / in_row;
  const unsigned int* from = (const unsigned int*)(both + row * 2 * width);
  const unsigned int gates = from[pair % in_row], ups = from[pair % in_row + in_row];
  unsigned int found = 0;
#pragma unroll
  for (int part = 0; part < 2; part++) {
    const float x = widen((Word)(gates >> (16 * part))), up = widen((Word)(ups >> (16 * part)));
    found |= (unsigned int)narrow(x / (1.0f + __expf(-x)) * up) << (16 * part);
  }
  ((unsigned int*)out)[pair] = found;
}

// The best of a vocabulary. Among equals the lower token is better, as on the processor.

#define THREADS 256
#define WARPS (THREADS / 32)
#define EACH 8
#define NO_TOKEN 0x7fffffff

struct Pick {
  float value;
  int token;
};

__device__ __forceinline__ bool better(Pick a, Pick b) {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

// The best pick of all threads of a block, to all of them. Calls in turn take another of two `room`s.
__device__ Pick best_of_block(Pick pick, Pick* room) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const Pick other = {
        __shfl_xor_sync(0xffffffffu, pick.value, offset), __shfl_xor_sync(0xffffffffu, pick.token, offset)};
    if (better(other, pick)) pick = other;
  }
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = pick;
  __syncthreads();
  pick = room[0];
  for (int warp = 1; warp < WARPS; warp++) {
    if (better(room[warp], pick)) pick = room[warp];
  }
  return pick;
}

// The sum over all threads of a block, to all of them. NaN wins.
__device__ float sum_of_block(float x, float* room) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  x = 0.0f;
  for (int warp = 0; warp < WARPS; warp++) x += room[warp];
  return x;
}

// Of each chunk of THREADS * EACH logits of each row: the best `k`, and the sum of exp(logit - largest). A grid of
// (chunks, rows); the results are (rows, chunks, k) and (rows, chunks).
extern "C" __global__ void best_of_chunks(
    const float* logits, int vocabulary, int k, Pick* picks, float* largest, float* sums) {
  __shared__ Pick rooms[2][WARPS];
  __shared__ float sum_room[WARPS];
  const int chunk = blockIdx.x, chunks = gridDim.x, row = blockIdx.y;
  const size_t place = (size_t)row * chunks + chunk;
  Pick mine[EACH];
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    const int token = (chunk * EACH + j) * THREADS + threadIdx.x;
    mine[j].value = token < vocabulary ? logits[(size_t)row * vocabulary + token] : -INFINITY_F;
    mine[j].token = token < vocabulary ? token : NO_TOKEN;
  }
  Pick last = {INFINITY_F, -1};
  float top = 0.0f;
  for (int round = 0; round < k; round++) {
    Pick pick = {-INFINITY_F, NO_TOKEN};
#pragma unroll
    for (int j = 0; j < EACH; j++) {
      if (better(last, mine[j]) && better(mine[j], pick)) pick = mine[j];
    }
    last = best_of_block(pick, rooms[round % 2]);
    if (round == 0) top = last.value;
    if (threadIdx.x == 0) picks[place * k + round] = last;
  }
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    // Also what is no number, so that nobody takes the row for one of numbers.
    if (mine[j].token != NO_TOKEN && mine[j].value != -INFINITY_F) sum += expf(mine[j].value - top);
  }
  sum = sum_of_block(sum, sum_room);
  if (threadIdx.x == 0) {
    largest[place] = top;
    sums[place] = sum;
  }
}

// Of each row the best `k` of its chunks: `found` (rows, 2, k) has log-probabilities and tokens, `totals` (rows) the log of the sum
// of exp(logit). A block for each row.
extern "C" __global__ void best_of_rows(
    const Pick* picks, const float* largest, const float* sums, int chunks, int k, float* found, float* totals) {
  __shared__ Pick rooms[2][WARPS];
  __shared__ float sum_room[WARPS];
  const size_t row = blockIdx.x;
  picks += row * chunks * k;
  largest += row * chunks;
  sums += row * chunks;
  Pick last = {INFINITY_F, -1};
  float total = 0.0f;
  for (int round = 0; round < k; round++) {
    Pick pick = {-INFINITY_F, NO_TOKEN};
    for (int i = threadIdx.x; i < chunks * k; i += THREADS) {
      const Pick other = picks[i];
      if (better(last, other) && better(other, pick)) pick = other;
    }
    last = best_of_block(pick, rooms[round % 2]);
    if (round == 0) {
      float sum = 0.0f;
      for (int i = threadIdx.x; i < chunks; i += THREADS) {
        if (largest[i] != -INFINITY_F || sums[i] != 0.0f) sum += sums[i] * expf(largest[i] - last.value);
      }
      total = last.value + logf(sum_of_block(sum, sum_room));
      if (threadIdx.x == 0) totals[row] = total;
    }
    if (threadIdx.x == 0) {
      found[row * 2 * k + round] = last.value - total;
      found[row * 2 * k + k + round] = (float)last.token;
    }
  }
}
