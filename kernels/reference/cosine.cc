#include <cmath>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {

void ReferenceBackend::BlockMeans(const BlockMeansArgs& args) {
  CheckArgs(args);
  const int64_t num_parts = args.out.num_cols, width = args.x.num_cols / num_parts;
  for (int64_t r = 0; r < args.out.num_rows; ++r) {
    for (int64_t i = 0; i < num_parts; ++i) {
      double sum = 0;
      for (int64_t c = i * width; c < (i + 1) * width; ++c) sum += args.x.row(r)[c];
      args.out.row(r)[i] = static_cast<float>(sum / static_cast<double>(width));
    }
  }
}

void ReferenceBackend::Cosines(const CosinesArgs& args) {
  CheckArgs(args);
  for (int64_t r = 0; r < args.dots.num_rows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < args.x.num_cols; ++c) squares += std::pow(double{args.x.row(r)[c]}, 2);
    const double length = std::isfinite(static_cast<float>(squares)) ? std::sqrt(squares) : NAN;
    for (int64_t i = 0; i < args.dots.num_cols; ++i) {
      const double norm = args.norms[i], dot = args.dots.row(r)[i];
      args.dots.row(r)[i] =
          static_cast<float>(norm == 0 ? 0 * length : dot / ((length + 1e-9) * norm));
    }
  }
}

}  // namespace gatehouse
