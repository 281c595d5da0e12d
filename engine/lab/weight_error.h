// What rounding the weights of a model to a format loses, matrix by matrix.
#pragma once

#include <string>
#include <vector>

#include "engine/model/layer_tensors.h"
#include "kernels/tensor.h"
#include "kernels/weight_format.h"

namespace gatehouse {

// sqrt(sum of (rounded - stored)^2 / sum of stored^2); 0 for a matrix of zeros.
double RelativeError(WeightFormat format, const WeightView& weights);

struct NamedMatrix {
  std::string name;  // the tensor's, and the expert's number where a tensor holds many
  WeightView view;   // [num_outputs, num_inputs]
};
// Those that --weights and --dense-weights round; `tensors` outlives the result.
std::vector<NamedMatrix> RoundedMatrices(const ModelTensors& tensors);

}  // namespace gatehouse
