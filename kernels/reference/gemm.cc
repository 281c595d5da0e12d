#include <vector>

#include "kernels/op_checks.h"
#include "kernels/reference/packed.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {

void ReferenceBackend::Gemm(const GemmArgs& args) {
  const auto& weights = static_cast<const ReferenceMatrix&>(*args.weights);
  CheckView(args.x, args.x.num_rows, weights.cols);
  CheckView(args.out, args.out.num_rows, weights.rows);
  for (int64_t r = 0; r < args.out.num_rows; ++r) {
    const std::vector<double> x = ActivationsFor(
        weights.format, args.x.row(args.row_ids.empty() ? r : args.row_ids[r]), weights.cols);
    for (int64_t n = 0; n < weights.rows; ++n) {
      double sum = args.bias != nullptr ? args.bias[n] : 0.0;
      for (int64_t k = 0; k < weights.cols; ++k) {
        sum += x[k] * weights.values[n * weights.cols + k];
      }
      const double before = args.accumulate ? args.out.row(r)[n] : 0.0;
      args.out.row(r)[n] = static_cast<float>(args.scale * sum + before);
    }
  }
}

void ReferenceBackend::HeadGemm(const HeadGemmArgs& args) {
  CheckArgs(args);
  const auto num_heads = static_cast<int64_t>(args.weights.size());
  const int64_t x_dim = args.x.num_cols / num_heads, out_dim = args.out.num_cols / num_heads;
  for (int64_t h = 0; h < num_heads; ++h) {
    const PackedMatrix& weights = *args.weights[h];
    Gemm({.x = args.x.Cols(h * x_dim, weights.num_inputs()),
          .weights = &weights,
          .out = args.out.Cols(h * out_dim, weights.num_outputs())});
  }
}

}  // namespace gatehouse
