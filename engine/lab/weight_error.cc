#include "engine/lab/weight_error.h"

#include <algorithm>
#include <cmath>

#include "kernels/quantise.h"

namespace gatehouse {
namespace {

float Rounded(WeightFormat format, float value) {
  return format == WeightFormat::kBF16 ? BF16ToF32(F32ToBF16(value)) : value;
}

void Add(const NamedTensor& tensor, const std::string& suffix, std::vector<NamedMatrix>& matrices) {
  if (!tensor.name.empty()) matrices.push_back({tensor.name + suffix, tensor.view});
}

void Add(const ExpertTensors& expert, const std::string& suffix,
         std::vector<NamedMatrix>& matrices) {
  for (const NamedTensor* part : {&expert.gate, &expert.up, &expert.down}) {
    Add(*part, suffix, matrices);
  }
}

}  // namespace

double RelativeError(WeightFormat format, const WeightView& weights) {
  double error = 0, total = 0;
  for (int64_t r = 0; r < weights.num_rows; ++r) {
    for (int64_t begin = 0; begin < weights.num_cols; begin += kQuantGroup) {
      const auto count = static_cast<int>(std::min<int64_t>(kQuantGroup, weights.num_cols - begin));
      float values[kQuantGroup] = {};
      for (int i = 0; i < count; ++i) values[i] = weights.at(r, begin + i);
      WeightGroup group;
      if (IsQuantised(format)) group = QuantiseWeights(format, values);
      for (int i = 0; i < count; ++i) {
        const double rounded = IsQuantised(format)
                                   ? WeightValue(format, group.scale, group.codes[i])
                                   : Rounded(format, values[i]);
        error += (rounded - values[i]) * (rounded - values[i]);
        total += double{values[i]} * values[i];
      }
    }
  }
  return total > 0 ? std::sqrt(error / total) : 0;
}

std::vector<NamedMatrix> RoundedMatrices(const ModelTensors& tensors) {
  std::vector<NamedMatrix> matrices;
  for (const LayerTensors& layer : tensors.layers) {
    for (const NamedTensor* matrix :
         {&layer.latent.q_down, &layer.latent.kv_down, &layer.q, &layer.k, &layer.v, &layer.o}) {
      Add(*matrix, "", matrices);
    }
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      const bool is_fused =
          layer.experts.size() > 1 && layer.experts[0].gate.name == layer.experts[1].gate.name;
      Add(layer.experts[e], is_fused ? " " + std::to_string(e) : "", matrices);
    }
    Add(layer.shared, "", matrices);
  }
  Add(tensors.head, "", matrices);
  return matrices;
}

}  // namespace gatehouse
