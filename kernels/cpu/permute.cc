// The experts' rows back to their tokens.
#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kTokensPerUnit = 4;  // of some 8 rows each: 4 us

}  // namespace

void Combine(Machine machine, const CombineArgs& args) {
  CheckArgs(args);
  const int64_t num_tokens = args.out.num_rows;
  const int64_t num_units = (num_tokens + kTokensPerUnit - 1) / kTokensPerUnit;
  machine.pool.Run(static_cast<int>(num_units), [&](int /*thread*/, int unit) {
    const int64_t end = std::min(num_tokens, (unit + 1) * kTokensPerUnit);
    for (int64_t t = unit * kTokensPerUnit; t < end; ++t) {
      const int32_t begin = args.token_begin[t];
      machine.isa.row.combine({.expert_rows = args.expert_rows.data,
                               .stride = args.expert_rows.stride,
                               .assignment_ids = args.assignment_ids.data() + begin,
                               .weights = args.weights.data() + begin,
                               .count = args.token_begin[t + 1] - begin,
                               .out = args.out.row(t),
                               .num_cols = args.out.num_cols});
    }
  });
}

}  // namespace gatehouse::cpu
