// The row-wise kernels of one instruction set: each makes one row of its operation.
#pragma once

#include <cstdint>

namespace gatehouse::cpu {

// One token of rule R17: out = sum of weights[i] * row assignment_ids[i] of expert_rows, in order.
struct CombineTile {
  const float* expert_rows = nullptr;
  int64_t stride = 0;
  const int32_t* assignment_ids = nullptr;  // [count]
  const float* weights = nullptr;           // [count]
  int64_t count = 0;
  float* out = nullptr;  // [num_cols]
  int64_t num_cols = 0;
};

struct RowKernels {
  float (*sum)(const float* x, int64_t n);
  float (*sum_squares)(const float* x, int64_t n);
  // out = x / sqrt(mean(x^2) + eps) * weight; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, float* out, int64_t n);
  // Turns channel i of [0, rotary_dim / 2) with channel i + rotary_dim / 2.
  void (*rotate)(const float* cos_sin, int64_t rotary_dim, float* head);
  // p = softmax(logits), which may be p. False if a logit is not finite; p means nothing then.
  bool (*softmax)(const float* logits, float* p, int64_t n);
  // p[i] = 1 / (1 + e^-logits[i]), likewise.
  bool (*sigmoid)(const float* logits, float* p, int64_t n);
  void (*combine)(const CombineTile& tile);
};

}  // namespace gatehouse::cpu
