// The experts of one layer over rows grouped by expert: one region for gate, up and activation, one
// for down. A unit is a few panels of an expert with its rows, read through their index list: no
// row is copied. Experts with most rows come first, so that the last unit to finish is a small one.
//
// Of quantised weights the rows of x are quantised first, in a region of their own, and each unit
// of gate and up quantises what it made: 32 hidden values, two panels of it, are a group.
#include <algorithm>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/panel_product.h"
#include "kernels/cpu/work_split.h"
#include "kernels/op_checks.h"
#include "kernels/quantise.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kHalfPanel = kPanelCols / 2;

// Assignments [begin, end), all of one expert.
struct ExpertRows {
  int32_t expert = 0;
  int64_t begin = 0, end = 0;
};

// Experts without rows are left out, those with too many for the cache are cut. Most rows first.
std::vector<ExpertRows> SplitRows(const ExpertGroups& groups, int num_experts, int64_t max_rows) {
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

// Calls run(rows, panels) for every range and every few of its panels, their first a multiple of
// `multiple`.
template <typename RunUnit>
void ForEachUnit(ThreadPool& pool, const std::vector<ExpertRows>& ranges, int64_t num_panels,
                 int64_t multiple, const RunUnit& run) {
  const int64_t num_ranges = static_cast<int64_t>(ranges.size());
  const int64_t wanted = PanelsPerUnit(num_panels * num_ranges, pool.num_threads());
  const int64_t per_unit = std::min(num_panels, (wanted + multiple - 1) / multiple * multiple);
  const int64_t num_groups = (num_panels + per_unit - 1) / per_unit;
  pool.Run(static_cast<int>(num_ranges * num_groups), [&](int /*thread*/, int unit) {
    const int64_t first = unit % num_groups * per_unit;
    run(ranges[static_cast<size_t>(unit / num_groups)],
        Part{first, std::min(first + per_unit, num_panels)});
  });
}

// One call of ExpertFfn.
class Ffn {
 public:
  Ffn(Machine machine, const ExpertFfnArgs& args)
      : machine_(machine),
        args_(args),
        experts_(static_cast<const CpuPackedExperts&>(*args.experts)),
        hidden_(experts_.hidden_size()),
        intermediate_(experts_.intermediate_size()),
        gate_up_(PanelProduct::GateUp(machine.isa, args.activation.kind, experts_.format())),
        down_(PanelProduct::Multiply(machine.isa, experts_.format())) {}

  void Run() {
    const int64_t max_rows = MaxRangeRows(std::max(hidden_, intermediate_), experts_.format());
    const std::vector<ExpertRows> ranges =
        SplitRows(args_.groups, experts_.num_experts(), max_rows);
    const bool quantised = IsQuantised(experts_.format());
    if (quantised) QuantiseX();
    const auto gate_up = [&](const ExpertRows& rows, Part panels) {
      for (int64_t panel = panels.begin; panel < panels.end; ++panel) GateUp(rows, panel);
      if (quantised) QuantiseHidden(rows, panels);
    };
    ForEachUnit(machine_.pool, ranges, experts_.num_gate_up_panels(), quantised ? 2 : 1, gate_up);
    const auto down = [&](const ExpertRows& rows, Part panels) {
      for (int64_t panel = panels.begin; panel < panels.end; ++panel) Down(rows, panel);
    };
    ForEachUnit(machine_.pool, ranges, experts_.num_down_panels(), 1, down);
  }

 private:
  void QuantiseX() {
    const size_t x_bytes = QuantRowsBytes(experts_.format(), args_.x.num_rows, hidden_);
    char* memory = machine_.scratch.Take(
        x_bytes + QuantRowsBytes(experts_.format(), args_.scratch.num_rows, intermediate_));
    quant_x_ = QuantRowsAt(memory, hidden_);
    quant_hidden_ = QuantRowsAt(memory + x_bytes, intermediate_);
    QuantiseRows(machine_, args_.x, {}, quant_x_);
  }

  void GateUp(const ExpertRows& rows, int64_t panel) const {
    const int64_t col = panel * kHalfPanel;
    const float* biases = experts_.biases(rows.expert);
    const PanelTile tile{.panel = experts_.gate_up_panel(rows.expert, panel),
                         .num_inputs = hidden_,
                         .x = args_.x.data,
                         .x_stride = args_.x.stride,
                         .row_ids = args_.groups.row_ids.data() + rows.begin,
                         .num_rows = rows.end - rows.begin,
                         .out = args_.scratch.row(rows.begin) + col,
                         .out_stride = args_.scratch.stride,
                         .num_cols = static_cast<int>(std::min(kHalfPanel, intermediate_ - col)),
                         .bias = biases == nullptr ? nullptr : biases + col,
                         .up_bias = biases == nullptr ? nullptr : biases + intermediate_ + col,
                         .alpha = args_.activation.alpha,
                         .limit = args_.activation.limit};
    gate_up_.Run(tile, quant_x_);
  }

  // What the panels made, whole groups of it.
  void QuantiseHidden(const ExpertRows& rows, Part panels) const {
    const int64_t begin = panels.begin * kHalfPanel;
    const int64_t end = std::min(panels.end * kHalfPanel, intermediate_);
    for (int64_t a = rows.begin; a < rows.end; ++a) {
      machine_.isa.quant.quantise(args_.scratch.row(a) + begin, end - begin, begin / kQuantGroup,
                                  quant_hidden_.num_groups, quant_hidden_.row(a));
    }
  }

  void Down(const ExpertRows& rows, int64_t panel) const {
    const int64_t col = panel * kPanelCols;
    const float* biases = experts_.biases(rows.expert);
    const PanelTile tile{.panel = experts_.down_panel(rows.expert, panel),
                         .num_inputs = intermediate_,
                         .x = args_.scratch.row(rows.begin),
                         .x_stride = args_.scratch.stride,
                         .num_rows = rows.end - rows.begin,
                         .out = args_.out.row(rows.begin) + col,
                         .out_stride = args_.out.stride,
                         .num_cols = static_cast<int>(std::min<int64_t>(kPanelCols, hidden_ - col)),
                         .bias = biases == nullptr ? nullptr : biases + 2 * intermediate_ + col};
    down_.Run(tile, quant_hidden_.From(rows.begin));
  }

  const Machine machine_;
  const ExpertFfnArgs& args_;
  const CpuPackedExperts& experts_;
  const int64_t hidden_, intermediate_;
  const PanelProduct gate_up_, down_;
  QuantRows quant_x_;       // rows of args.x
  QuantRows quant_hidden_;  // rows of args.scratch
};

}  // namespace

void ExpertFfn(Machine machine, const ExpertFfnArgs& args) {
  CheckArgs(args);
  Ffn(machine, args).Run();
}

}  // namespace gatehouse::cpu
