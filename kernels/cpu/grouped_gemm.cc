// The experts of one layer over rows grouped by expert: one region for gate, up and SwiGLU, one for
// down. A unit is a panel of an expert with all its rows, read through their index list: no row is
// copied. Experts with most rows come first, so that the last unit to finish is a small one.
#include <algorithm>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kHalfPanel = kPanelCols / 2;

// Experts that have rows, most rows first, ties by id.
std::vector<int32_t> BusyExperts(const ExpertGroups& groups, int num_experts) {
  const auto num_rows = [&](int32_t e) {
    return groups.expert_begin[e + 1] - groups.expert_begin[e];
  };
  std::vector<int32_t> busy;
  busy.reserve(static_cast<size_t>(num_experts));
  for (int32_t e = 0; e < num_experts; ++e) {
    if (num_rows(e) > 0) busy.push_back(e);
  }
  std::sort(busy.begin(), busy.end(), [&](int32_t a, int32_t b) {
    return num_rows(a) != num_rows(b) ? num_rows(a) > num_rows(b) : a < b;
  });
  return busy;
}

}  // namespace

void ExpertFfn(Machine machine, const ExpertFfnArgs& args) {
  CheckArgs(args);
  const auto& experts = static_cast<const CpuPackedExperts&>(*args.experts);

  const ExpertGroups& groups = args.groups;
  const std::vector<int32_t> busy = BusyExperts(groups, experts.num_experts());
  const int num_busy = static_cast<int>(busy.size());

  const PanelFn swiglu = SwigluFn(machine.isa.gemm, experts.format());
  const int num_gate_up = static_cast<int>(experts.num_gate_up_panels());
  machine.pool.Run(num_busy * num_gate_up, [&](int /*thread*/, int unit) {
    const int expert = busy[unit / num_gate_up], panel = unit % num_gate_up;
    const int64_t begin = groups.expert_begin[expert], col = panel * kHalfPanel;
    swiglu({.panel = experts.gate_up_panel(expert, panel),
            .num_inputs = experts.hidden_size(),
            .x = args.x.data,
            .x_stride = args.x.stride,
            .row_ids = groups.row_ids.data() + begin,
            .num_rows = groups.expert_begin[expert + 1] - begin,
            .out = args.scratch.row(begin) + col,
            .out_stride = args.scratch.stride,
            .num_cols = static_cast<int>(std::min(kHalfPanel, experts.intermediate_size() - col))});
  });

  const PanelFn multiply = MultiplyFn(machine.isa.gemm, experts.format());
  const int num_down = static_cast<int>(experts.num_down_panels());
  machine.pool.Run(num_busy * num_down, [&](int /*thread*/, int unit) {
    const int expert = busy[unit / num_down], panel = unit % num_down;
    const int64_t begin = groups.expert_begin[expert], col = int64_t{panel} * kPanelCols;
    multiply(
        {.panel = experts.down_panel(expert, panel),
         .num_inputs = experts.intermediate_size(),
         .x = args.scratch.row(begin),
         .x_stride = args.scratch.stride,
         .num_rows = groups.expert_begin[expert + 1] - begin,
         .out = args.out.row(begin) + col,
         .out_stride = args.out.stride,
         .num_cols = static_cast<int>(std::min<int64_t>(kPanelCols, experts.hidden_size() - col))});
  });
}

}  // namespace gatehouse::cpu
