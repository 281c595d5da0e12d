// The reference's weights: the values a format allows, row-major; and the values that a format of
// weights leaves of activations.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/backend.h"
#include "kernels/quantise.h"

namespace gatehouse {

struct ReferenceMatrix final : PackedMatrix {
  int64_t num_outputs() const override { return rows; }
  int64_t num_inputs() const override { return cols; }
  size_t num_bytes() const override { return values.size() * sizeof(float); }

  WeightFormat format = WeightFormat::kF32;
  int64_t rows = 0, cols = 0;
  std::vector<float> values;  // [rows, cols]
};

struct ReferenceExperts final : PackedExperts {
  int num_experts() const override { return static_cast<int>(experts.size()); }
  int64_t hidden_size() const override { return experts[0].gate.cols; }
  int64_t intermediate_size() const override { return experts[0].gate.rows; }
  size_t num_bytes() const override {
    size_t num_bytes = 0;
    for (const Expert& e : experts) {
      num_bytes += e.gate.num_bytes() + e.up.num_bytes() + e.down.num_bytes();
      num_bytes += (e.gate_bias.size() + e.up_bias.size() + e.down_bias.size()) * sizeof(float);
    }
    return num_bytes;
  }

  struct Expert {
    ReferenceMatrix gate, up, down;
    std::vector<float> gate_bias, up_bias, down_bias;  // or empty
  };
  std::vector<Expert> experts;
};

inline std::vector<double> ActivationsFor(WeightFormat format, const float* x, int64_t count) {
  std::vector<double> values(x, x + count);
  for (int64_t begin = 0; IsQuantised(format) && begin < count; begin += kQuantGroup) {
    const int64_t end = std::min(count, begin + kQuantGroup);
    float group[kQuantGroup] = {};
    std::copy(x + begin, x + end, group);
    const ActivationGroup rounded = QuantiseActivations(group);
    for (int64_t k = begin; k < end; ++k) {
      values[k] = double{rounded.scale} * rounded.codes[k - begin];
    }
  }
  return values;
}

}  // namespace gatehouse
