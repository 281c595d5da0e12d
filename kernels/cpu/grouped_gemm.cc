// The experts of one layer over rows grouped by expert: one region for gate, up and activation, one
// for down. A unit is a few panels of an expert with its rows, read through their index list: no
// row is copied. Experts with most rows come first, so that the last unit to finish is a small one.
#include <algorithm>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/work_split.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kHalfPanel = kPanelCols / 2;

// Assignments [begin, end), all of one expert.
struct ExpertRows {
  int32_t expert = 0;
  int64_t begin = 0, end = 0;
};

// Experts without rows are left out, those with too many for the cache are cut. Most rows first.
std::vector<ExpertRows> SplitRows(const ExpertGroups& groups, int num_experts, int64_t num_inputs) {
  const int64_t max_rows = MaxRangeRows(num_inputs);
  std::vector<ExpertRows> ranges;
  ranges.reserve(static_cast<size_t>(num_experts));
  for (int32_t e = 0; e < num_experts; ++e) {
    const int64_t begin = groups.expert_begin[e], num_rows = groups.expert_begin[e + 1] - begin;
    const int64_t num_ranges = (num_rows + max_rows - 1) / max_rows;
    for (int64_t i = 0; i < num_ranges; ++i) {
      const Part rows = NthPart(num_rows, num_ranges, i);
      ranges.push_back({e, begin + rows.begin, begin + rows.end});
    }
  }
  std::stable_sort(ranges.begin(), ranges.end(), [](const ExpertRows& a, const ExpertRows& b) {
    return a.end - a.begin > b.end - b.begin;
  });
  return ranges;
}

// Calls run(rows, panel) for every range and panel, by units of several panels.
template <typename RunPanel>
void ForEachPanel(ThreadPool& pool, const std::vector<ExpertRows>& ranges, int64_t num_panels,
                  const RunPanel& run) {
  const int64_t num_ranges = static_cast<int64_t>(ranges.size());
  const int64_t per_unit =
      std::min(num_panels, PanelsPerUnit(num_panels * num_ranges, pool.num_threads()));
  const int64_t num_groups = (num_panels + per_unit - 1) / per_unit;
  pool.Run(static_cast<int>(num_ranges * num_groups), [&](int /*thread*/, int unit) {
    const ExpertRows& rows = ranges[static_cast<size_t>(unit / num_groups)];
    const int64_t first = unit % num_groups * per_unit;
    const int64_t end = std::min(first + per_unit, num_panels);
    for (int64_t panel = first; panel < end; ++panel) run(rows, panel);
  });
}

}  // namespace

void ExpertFfn(Machine machine, const ExpertFfnArgs& args) {
  CheckArgs(args);
  const auto& experts = static_cast<const CpuPackedExperts&>(*args.experts);
  const int64_t hidden = experts.hidden_size(), intermediate = experts.intermediate_size();
  const std::vector<ExpertRows> ranges =
      SplitRows(args.groups, experts.num_experts(), std::max(hidden, intermediate));

  const PanelFn activate = GateUpFn(machine.isa.gemm, args.activation.kind, experts.format());
  const auto gate_up = [&](const ExpertRows& rows, int64_t panel) {
    const int64_t col = panel * kHalfPanel;
    const float* biases = experts.biases(rows.expert);
    activate({.panel = experts.gate_up_panel(rows.expert, panel),
              .num_inputs = hidden,
              .x = args.x.data,
              .x_stride = args.x.stride,
              .row_ids = args.groups.row_ids.data() + rows.begin,
              .num_rows = rows.end - rows.begin,
              .out = args.scratch.row(rows.begin) + col,
              .out_stride = args.scratch.stride,
              .num_cols = static_cast<int>(std::min(kHalfPanel, intermediate - col)),
              .bias = biases == nullptr ? nullptr : biases + col,
              .up_bias = biases == nullptr ? nullptr : biases + intermediate + col,
              .alpha = args.activation.alpha,
              .limit = args.activation.limit});
  };
  ForEachPanel(machine.pool, ranges, experts.num_gate_up_panels(), gate_up);

  const PanelFn multiply = MultiplyFn(machine.isa.gemm, experts.format());
  const auto down = [&](const ExpertRows& rows, int64_t panel) {
    const int64_t col = panel * kPanelCols;
    const float* biases = experts.biases(rows.expert);
    multiply({.panel = experts.down_panel(rows.expert, panel),
              .num_inputs = intermediate,
              .x = args.scratch.row(rows.begin),
              .x_stride = args.scratch.stride,
              .num_rows = rows.end - rows.begin,
              .out = args.out.row(rows.begin) + col,
              .out_stride = args.out.stride,
              .num_cols = static_cast<int>(std::min<int64_t>(kPanelCols, hidden - col)),
              .bias = biases == nullptr ? nullptr : biases + 2 * intermediate + col});
  };
  ForEachPanel(machine.pool, ranges, experts.num_down_panels(), down);
}

}  // namespace gatehouse::cpu
