// The attention kernel of one instruction set: some query vectors of one kv head of one sequence
// against all keys they see.
#pragma once

#include <cstdint>

namespace gatehouse::cpu {

// Keys are taken by 64 from position 0 on, whatever the block size and wherever a chunk began: each
// softmax step of a row is then a function of its own position alone.
constexpr int kKeysPerStep = 64;
constexpr int kMaxTileQueries = 6;   // whose scores stay in registers
constexpr int kMaxUnitQueries = 48;  // that pass by a step's keys and values while these are in L1

// Query i of the unit belongs to row (first_query + i) / heads_per_kv of the sequence's chunk and
// head (first_query + i) % heads_per_kv of the group; it sees positions 0 .. its own.
struct AttentionUnit {
  const float* q = nullptr;  // head 0 of the group in row 0; heads are head_dim apart
  int64_t q_stride = 0;
  float* out = nullptr;  // likewise
  int64_t out_stride = 0;
  float scale = 0;

  int heads_per_kv = 0;
  int first_query = 0;
  int num_queries = 0;         // 1 .. kMaxUnitQueries
  int64_t first_position = 0;  // of row 0

  const float* keys = nullptr;    // of this kv head in block 0 (kv_layout.h)
  const float* values = nullptr;  // likewise
  int64_t block_stride = 0;       // floats from one block to the next
  const int32_t* block_ids = nullptr;
  int block_tokens = 0;
  int head_dim = 0;

  float* scratch = nullptr;  // AttentionScratchFloats(head_dim), of this thread
};

// Floats, by query: q, the output sums, and the running sum (8 lanes) and maximum.
constexpr int64_t AttentionScratchFloats(int64_t head_dim) {
  return kMaxUnitQueries * (head_dim + (head_dim + 7) / 8 * 8 + 8 + 1);
}

struct AttentionKernels {
  void (*attend)(const AttentionUnit& unit);
};

}  // namespace gatehouse::cpu
