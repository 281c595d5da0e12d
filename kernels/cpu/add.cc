// Residual connection. Memory-bound and small beside the products around it, so rows go to the
// threads only when there are many.
#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kRowsPerUnit = 16;

}  // namespace

void Add(Machine machine, const AddArgs& args) {
  CheckArgs(args);
  const int64_t num_rows = args.out.num_rows;
  const int64_t num_units = (num_rows + kRowsPerUnit - 1) / kRowsPerUnit;
  machine.pool.Run(static_cast<int>(num_units), [&](int /*thread*/, int unit) {
    const int64_t end = std::min(num_rows, (unit + 1) * kRowsPerUnit);
    for (int64_t r = unit * kRowsPerUnit; r < end; ++r) {
      float scale = args.scale;
      if (args.gates != nullptr) {
        float sigmoid = 0;
        machine.isa.row.sigmoid(args.gates + r, &sigmoid, 1);
        scale *= sigmoid;
      }
      machine.isa.gemm.add(args.x.row(r), scale, args.out.row(r), args.out.num_cols);
    }
  });
}

}  // namespace gatehouse::cpu
