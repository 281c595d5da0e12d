// Which tensors a checkpoint of a given ModelConfig holds, and of which shapes: checked all at once
// before any memory is planned.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/checkpoint.h"
#include "engine/model/model_config.h"

namespace gatehouse {

using TensorShape = std::vector<int64_t>;

// Calls `visit` for every tensor of the model, layer by layer.
void ForEachTensor(const ModelConfig& config,
                   const std::function<void(const std::string&, const TensorShape&)>& visit);

using TensorViews = std::map<std::string, WeightView, std::less<>>;

// Every tensor of the model, each there with its shape and a usable dtype; an output matrix beside
// tied embeddings equals them. Else the first problem, as Checkpoint words it. The views live as
// long as the checkpoint.
absl::StatusOr<TensorViews> FindTensors(const Checkpoint& checkpoint, const ModelConfig& config);

// Tensors that the model does not use, ascending. Ignored with a warning, as transformers does:
// published files hold leftovers (rotary inv_freq, heads for multi-token prediction).
std::vector<std::string> UnusedTensors(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace gatehouse
