// Matrix product. A unit is a few panels of 32 columns and a range of rows. Ranges come one after
// another and panels pass within a range: the rows stay in the second-level cache, and a panel is
// read from memory once a range. For quantised weights the rows are quantised first, once for all
// panels.
#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/panel_product.h"
#include "kernels/cpu/work_split.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

// Into how many ranges the rows are cut: by the cache, and further while there are so few panels (a
// router has one or two) that threads would stand idle.
int64_t NumRowRanges(int64_t num_rows, int64_t num_panels, int64_t max_rows, int num_threads) {
  constexpr int64_t kMinRows = 12, kUnitsPerThread = 4;
  const int64_t by_cache = (num_rows + max_rows - 1) / max_rows;
  if (num_threads == 1) return by_cache;
  const int64_t by_threads = (kUnitsPerThread * num_threads + num_panels - 1) / num_panels;
  return std::max(by_cache, std::min(by_threads, (num_rows + kMinRows - 1) / kMinRows));
}

}  // namespace

void Gemm(Machine machine, const GemmArgs& args) {
  CheckArgs(args);
  const auto& weights = static_cast<const CpuPackedMatrix&>(*args.weights);
  const int64_t num_rows = args.out.num_rows, num_panels = weights.num_panels();
  if (num_rows == 0) return;

  const WeightFormat format = weights.format();
  const bool quantised = IsQuantised(format);
  const auto multiply = PanelProduct::Multiply(machine.isa, format);
  QuantRows rows_of_x;
  if (quantised) {
    const size_t num_bytes = QuantRowsBytes(format, num_rows, weights.num_inputs());
    rows_of_x = QuantRowsAt(machine.scratch.Take(num_bytes), weights.num_inputs());
    QuantiseRows(machine, args.row_ids.empty() ? args.x.FirstRows(num_rows) : args.x, args.row_ids,
                 rows_of_x);
  }
  const std::span<const int32_t> row_ids = quantised ? std::span<const int32_t>() : args.row_ids;
  const int num_threads = machine.pool.num_threads();
  const int64_t num_ranges =
      NumRowRanges(num_rows, num_panels, MaxRangeRows(weights.num_inputs(), format), num_threads);
  const int64_t per_unit = PanelsPerUnit(num_panels, num_threads);
  const int64_t num_groups = (num_panels + per_unit - 1) / per_unit;
  const auto run_panel = [&](Part rows, int64_t panel) {
    const int64_t col = panel * kPanelCols;
    const PanelTile tile{
        .panel = weights.panel(panel),
        .num_inputs = weights.num_inputs(),
        .x = row_ids.empty() ? args.x.row(rows.begin) : args.x.data,
        .x_stride = args.x.stride,
        .row_ids = row_ids.empty() ? nullptr : row_ids.data() + rows.begin,
        .num_rows = rows.end - rows.begin,
        .out = args.out.row(rows.begin) + col,
        .out_stride = args.out.stride,
        .num_cols = static_cast<int>(std::min<int64_t>(kPanelCols, args.out.num_cols - col)),
        .bias = args.bias == nullptr ? nullptr : args.bias + col,
        .scale = args.scale,
        .accumulate = args.accumulate};
    multiply.Run(tile, rows_of_x.From(rows.begin));
  };
  machine.pool.Run(static_cast<int>(num_ranges * num_groups), [&](int /*thread*/, int unit) {
    const Part rows = NthPart(num_rows, num_ranges, unit / num_groups);
    const int64_t first = unit % num_groups * per_unit;
    const int64_t end = std::min(first + per_unit, num_panels);
    for (int64_t panel = first; panel < end; ++panel) run_panel(rows, panel);
  });
}

// A unit is one head and a range of rows.
void HeadGemm(Machine machine, const HeadGemmArgs& args) {
  CheckArgs(args);
  const auto num_heads = static_cast<int64_t>(args.weights.size());
  const int64_t num_rows = args.out.num_rows;
  if (num_rows == 0) return;
  const int64_t x_stride = args.x.num_cols / num_heads, out_stride = args.out.num_cols / num_heads;
  const int64_t num_ranges = NumRowRanges(
      num_rows, num_heads, MaxRangeRows(args.weights[0]->num_inputs()), machine.pool.num_threads());
  machine.pool.Run(static_cast<int>(num_ranges * num_heads), [&](int /*thread*/, int unit) {
    const Part rows = NthPart(num_rows, num_ranges, unit / num_heads);
    const int64_t head = unit % num_heads;
    const auto& weights = static_cast<const CpuPackedMatrix&>(*args.weights[head]);
    GATEHOUSE_CHECK(!IsQuantised(weights.format()));
    const auto multiply = PanelProduct::Multiply(machine.isa, weights.format());
    for (int64_t panel = 0; panel < weights.num_panels(); ++panel) {
      const int64_t col = panel * kPanelCols;
      const PanelTile tile{
          .panel = weights.panel(panel),
          .num_inputs = weights.num_inputs(),
          .x = args.x.row(rows.begin) + head * x_stride,
          .x_stride = args.x.stride,
          .num_rows = rows.end - rows.begin,
          .out = args.out.row(rows.begin) + head * out_stride + col,
          .out_stride = args.out.stride,
          .num_cols = static_cast<int>(std::min<int64_t>(kPanelCols, weights.num_outputs() - col))};
      multiply.Run(tile, {});
    }
  });
}

}  // namespace gatehouse::cpu
