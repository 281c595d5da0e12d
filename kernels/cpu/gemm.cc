// Matrix product. A unit is a panel of 32 columns and a range of rows, usually all of them: a panel
// is read from memory once and stays in the second-level cache while the rows pass by.
#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

// Enough units that the last one to finish costs little.
constexpr int64_t kUnitsPerThread = 4;
// Rows of a range, when the panels alone are too few units: a multiple of the 6 rows of a block.
constexpr int64_t kRowGrain = 12;

// Into how many ranges the rows are cut.
int64_t NumRowRanges(int64_t num_rows, int64_t num_panels, int num_threads) {
  const int64_t wanted = (kUnitsPerThread * num_threads + num_panels - 1) / num_panels;
  const int64_t most = (num_rows + kRowGrain - 1) / kRowGrain;
  return num_threads == 1 ? 1 : std::clamp<int64_t>(wanted, 1, most);
}

}  // namespace

void Gemm(Machine machine, const GemmArgs& args) {
  CheckArgs(args);
  const auto& weights = static_cast<const CpuPackedMatrix&>(*args.weights);
  const int64_t num_rows = args.out.num_rows;
  if (num_rows == 0) return;

  const PanelFn multiply = MultiplyFn(machine.isa.gemm, weights.format());
  const int64_t num_panels = weights.num_panels();
  const int64_t num_ranges = NumRowRanges(num_rows, num_panels, machine.pool.num_threads());
  machine.pool.Run(static_cast<int>(num_panels * num_ranges), [&](int /*thread*/, int unit) {
    const int64_t panel = unit / num_ranges, range = unit % num_ranges;
    const int64_t begin = num_rows * range / num_ranges, end = num_rows * (range + 1) / num_ranges;
    const int64_t col = panel * kPanelCols;
    multiply({.panel = weights.panel(panel),
              .num_inputs = weights.num_inputs(),
              .x = args.row_ids.empty() ? args.x.row(begin) : args.x.data,
              .x_stride = args.x.stride,
              .row_ids = args.row_ids.empty() ? nullptr : args.row_ids.data() + begin,
              .num_rows = end - begin,
              .out = args.out.row(begin) + col,
              .out_stride = args.out.stride,
              .num_cols = static_cast<int>(std::min<int64_t>(kPanelCols, args.out.num_cols - col)),
              .bias = args.bias == nullptr ? nullptr : args.bias + col,
              .accumulate = args.accumulate});
  });
}

}  // namespace gatehouse::cpu
