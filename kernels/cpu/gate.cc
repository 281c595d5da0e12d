// The choice of experts. A row is some hundred logits: few rows are not worth a second thread.
#include <algorithm>
#include <memory>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kRowsPerUnit = 32;

// The k largest, in order: rule R6, an equal later logit never passes an earlier one.
void RankTopK(const float* logits, int64_t num_experts, int top_k, int32_t* expert_ids) {
  int num_ranked = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    if (num_ranked == top_k && !(logits[e] > logits[expert_ids[top_k - 1]])) continue;
    int slot = num_ranked < top_k ? num_ranked++ : top_k - 1;
    for (; slot > 0 && logits[e] > logits[expert_ids[slot - 1]]; --slot) {
      expert_ids[slot] = expert_ids[slot - 1];
    }
    expert_ids[slot] = static_cast<int32_t>(e);
  }
}

void ChooseExperts(const RowKernels& kernels, const GateTopKArgs& args, int64_t row, float* p) {
  int32_t* expert_ids = args.expert_ids.row(row);
  float* weights = args.weights.row(row);
  if (!kernels.softmax(args.logits.row(row), p, args.logits.num_cols)) {
    args.row_failed[row] = 1;
    for (int slot = 0; slot < args.top_k; ++slot) {
      expert_ids[slot] = slot;
      weights[slot] = 0;
    }
    return;
  }
  RankTopK(args.logits.row(row), args.logits.num_cols, args.top_k, expert_ids);
  float sum = 0;
  for (int slot = 0; slot < args.top_k; ++slot) sum += p[expert_ids[slot]];
  const float divisor = args.renormalise ? sum + 1e-20f : 1.0f;
  for (int slot = 0; slot < args.top_k; ++slot) {
    weights[slot] = p[expert_ids[slot]] / divisor * args.scale;
  }
}

}  // namespace

void GateTopK(Machine machine, const GateTopKArgs& args) {
  CheckArgs(args);
  const int64_t num_rows = args.logits.num_rows, num_experts = args.logits.num_cols;
  const auto scratch =
      std::make_unique_for_overwrite<float[]>(machine.pool.num_threads() * num_experts);
  const int64_t num_units = (num_rows + kRowsPerUnit - 1) / kRowsPerUnit;
  machine.pool.Run(static_cast<int>(num_units), [&](int thread, int unit) {
    const int64_t end = std::min(num_rows, (unit + 1) * kRowsPerUnit);
    for (int64_t r = unit * kRowsPerUnit; r < end; ++r) {
      ChooseExperts(machine.isa.row, args, r, scratch.get() + thread * num_experts);
    }
  });
}

}  // namespace gatehouse::cpu
