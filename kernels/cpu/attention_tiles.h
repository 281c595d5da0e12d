// The attention kernel of one instruction set: some query vectors of one kv head of one sequence
// against all keys they see.
#pragma once

#include <cstdint>

#include "kernels/kv_type.h"

namespace gatehouse::cpu {

// Keys are taken by 64 from position 0 on, whatever the block size and wherever a chunk began: each
// softmax step of a row is then a function of its own position alone.
constexpr int kKeysPerStep = 64;
constexpr int kMaxTileQueries = 6;   // whose scores stay in registers
constexpr int kMaxUnitQueries = 48;  // that pass by a step's keys and values while these are in L1

// Query i of the unit belongs to row (first_query + i) / heads_per_kv of the sequence's chunk and
// head (first_query + i) % heads_per_kv of the group; it sees positions 0 .. its own, or with a
// window the last `window` of these.
struct AttentionUnit {
  const float* q = nullptr;  // head 0 of the group in row 0; heads are head_dim apart
  int64_t q_stride = 0;
  float* out = nullptr;  // likewise, value_dim apart
  int64_t out_stride = 0;
  float scale = 0;
  const float* sinks = nullptr;  // [heads_per_kv] or null
  int64_t window = 0;            // 0: none

  int heads_per_kv = 0;
  int first_query = 0;
  int num_queries = 0;         // 1 .. kMaxUnitQueries
  int64_t first_position = 0;  // of row 0

  // Where this kv head's parts lie in a block (kv_layout.h), in bytes.
  const char* cache = nullptr;
  int64_t block_bytes = 0;
  int64_t key_offset = 0, value_offset = 0;
  int64_t key_scale_offset = 0, value_scale_offset = 0;
  KvType kv_type = KvType::kF32;
  bool values_in_keys = false;  // one row holds both; key_offset means nothing
  const int32_t* block_ids = nullptr;
  int block_tokens = 0;
  int head_dim = 0;
  int value_dim = 0;  // <= head_dim

  float* scratch = nullptr;  // AttentionScratchFloats(head_dim), of this thread
};

// Floats, by query: q, the output sums, and the running sum (8 lanes) and maximum; then a step's
// keys and values.
constexpr int64_t AttentionScratchFloats(int64_t head_dim) {
  const int64_t padded_dim = (head_dim + 7) / 8 * 8;
  return kMaxUnitQueries * (head_dim + padded_dim + 8 + 1) + 2 * kKeysPerStep * padded_dim;
}

struct AttentionKernels {
  void (*attend)(const AttentionUnit& unit);
};

}  // namespace gatehouse::cpu
