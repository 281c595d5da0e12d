// What gates without a matrix and gates by cosine need beside a product: one pass over the rows,
// small beside the experts', so rows go to the threads only when there are many.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kRowsPerUnit = 16;

template <typename Row>
void ForEachRow(Machine machine, int64_t num_rows, const Row& row) {
  const int64_t num_units = (num_rows + kRowsPerUnit - 1) / kRowsPerUnit;
  machine.pool.Run(static_cast<int>(num_units), [&](int /*thread*/, int unit) {
    const int64_t end = std::min(num_rows, (unit + 1) * kRowsPerUnit);
    for (int64_t r = unit * kRowsPerUnit; r < end; ++r) row(r);
  });
}

}  // namespace

void BlockMeans(Machine machine, const BlockMeansArgs& args) {
  CheckArgs(args);
  const int64_t num_parts = args.out.num_cols, width = args.x.num_cols / num_parts;
  ForEachRow(machine, args.out.num_rows, [&](int64_t r) {
    const float* x = args.x.row(r);
    for (int64_t i = 0; i < num_parts; ++i) {
      args.out.row(r)[i] = machine.isa.row.sum(x + i * width, width) / static_cast<float>(width);
    }
  });
}

void Cosines(Machine machine, const CosinesArgs& args) {
  CheckArgs(args);
  ForEachRow(machine, args.dots.num_rows, [&](int64_t r) {
    float length = std::sqrt(machine.isa.row.sum_squares(args.x.row(r), args.x.num_cols));
    if (!std::isfinite(length))
      length = NAN;  // else a row too long would be at right angles to all
    float* dots = args.dots.row(r);
    for (int64_t i = 0; i < args.dots.num_cols; ++i) {
      const float norm = args.norms[i];
      dots[i] = norm == 0 ? 0 * length : dots[i] / ((length + 1e-9f) * norm);
    }
  });
}

}  // namespace gatehouse::cpu
