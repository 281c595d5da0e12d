#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/op_checks.h"
#include "kernels/reference/packed.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {
namespace {

double Dot(const ReferenceMatrix& matrix, int64_t row, const std::vector<double>& x) {
  double sum = 0;
  for (int64_t c = 0; c < matrix.cols; ++c) {
    sum += matrix.values[row * matrix.cols + c] * x[c];
  }
  return sum;
}

double BiasAt(const std::vector<float>& bias, int64_t i) { return bias.empty() ? 0.0 : bias[i]; }

double Activate(const ActivationOptions& activation, double gate, double up) {
  if (activation.kind == ExpertActivation::kSwiglu) return gate / (1 + std::exp(-gate)) * up;
  const double limit = activation.limit;
  gate = std::min(gate, limit);
  up = std::clamp(up, -limit, limit);
  return (up + 1) * gate / (1 + std::exp(-activation.alpha * gate));
}

}  // namespace

void ReferenceBackend::ExpertFfn(const ExpertFfnArgs& args) {
  const auto& packed = static_cast<const ReferenceExperts&>(*args.experts);
  const int64_t num_assignments = static_cast<int64_t>(args.groups.row_ids.size());
  CheckView(args.scratch, num_assignments, packed.intermediate_size());
  CheckView(args.out, num_assignments, packed.hidden_size());
  for (int e = 0; e < packed.num_experts(); ++e) {
    const ReferenceExperts::Expert& expert = packed.experts[e];
    for (int32_t a = args.groups.expert_begin[e]; a < args.groups.expert_begin[e + 1]; ++a) {
      const std::vector<double> x =
          ActivationsFor(expert.gate.format, args.x.row(args.groups.row_ids[a]), expert.gate.cols);
      for (int64_t i = 0; i < packed.intermediate_size(); ++i) {
        const double gate = Dot(expert.gate, i, x) + BiasAt(expert.gate_bias, i);
        const double up = Dot(expert.up, i, x) + BiasAt(expert.up_bias, i);
        args.scratch.row(a)[i] = static_cast<float>(Activate(args.activation, gate, up));
      }
      const std::vector<double> hidden =
          ActivationsFor(expert.down.format, args.scratch.row(a), expert.down.cols);
      for (int64_t n = 0; n < packed.hidden_size(); ++n) {
        args.out.row(a)[n] =
            static_cast<float>(Dot(expert.down, n, hidden) + BiasAt(expert.down_bias, n));
      }
    }
  }
}

}  // namespace gatehouse
