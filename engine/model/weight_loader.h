// Reads a checkpoint's tensors, checks their values and packs them on a back end, or takes them
// packed from a cache, whose checksums stand for that check.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/model/checkpoint.h"
#include "engine/model/layer_tensors.h"
#include "engine/model/model_config.h"
#include "engine/model/packed_cache.h"
#include "engine/model/transformer.h"
#include "kernels/backend.h"

namespace gatehouse {

struct WeightSource {
  const ModelConfig& config;
  std::shared_ptr<const Checkpoint> checkpoint;
  const ModelTensors& tensors;
  const WeightFormats& formats;
  int64_t num_positions = 0;
  PackedCache* cache = nullptr;  // null: everything is packed
};

// FAILED_PRECONDITION for values that are not finite; RESOURCE_EXHAUSTED when memory cannot be had.
// The result keeps the checkpoint, where the embedding table stays.
absl::StatusOr<TransformerWeights> LoadWeights(const WeightSource& source, Backend& backend);

// The values of a RopeTable (kernels/backend.h), [num_positions, rotary_dim].
absl::StatusOr<Buffer> LoadRopeTable(const RopeConfig& config, int64_t num_positions,
                                     Backend& backend);

// Of the two all zeros which a model does not have.
AttentionOptions AttentionOptionsOf(const ModelConfig& config, int32_t layer_idx);
LatentAttentionOptions LatentOptionsOf(const ModelConfig& config);

}  // namespace gatehouse
