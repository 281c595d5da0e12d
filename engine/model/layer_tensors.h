// A checkpoint's tensors by the part they play, and the format each will be packed in: what memory
// is planned from and weights are loaded from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"
#include "kernels/backend.h"
#include "kernels/weight_format.h"

namespace gatehouse {

struct NamedTensor {
  std::string name;  // empty: the model has no such tensor
  WeightView view;
};
struct ExpertTensors {
  NamedTensor gate, up, down;
  NamedTensor gate_bias, up_bias, down_bias;
};
// Of experts that are packed together.
ExpertsShape ShapeOf(const ExpertTensors& first, size_t num_experts);
// Of latent attention; q and o stand in the layer. What the model lacks is empty. Where a file has
// channels that rotate in neighbouring pairs, the rows below bring them half a width apart, in q
// and kv alike, so that their products stay what they are.
struct LatentTensors {
  NamedTensor q_down, q_down_bias, q_latent_norm;
  NamedTensor kv_down, kv_down_bias, latent_norm, kv_up;
  std::vector<WeightView> q_rows, kv_rows;  // of q and kv_down, on top of each other
  std::vector<WeightView> kv_bias_rows;     // of kv_down_bias, each [.., 1]
  // Parts of kv_up by head: W_uk^T [kv_rank, nope_dim] and W_uv [value_dim, kv_rank].
  std::vector<WeightView> absorb, expand;  // [num_heads]
};
struct LayerTensors {
  NamedTensor attention_norm, q, k, v, o;
  NamedTensor q_bias, k_bias, v_bias, o_bias;
  NamedTensor q_norm, k_norm, sinks;
  LatentTensors latent;
  NamedTensor ffn_norm;
  bool is_moe = false;  // else dense
  NamedTensor router;   // empty: the gate has no stored rows
  NamedTensor router_bias, choice_bias;
  bool gate_by_cosine = false;
  std::vector<ExpertTensors> experts;  // of a dense layer one
  ExpertTensors shared;
  NamedTensor shared_scale;
  bool is_latent() const { return !latent.kv_up.name.empty(); }
  bool has_shared() const { return !shared.gate.name.empty(); }
};
struct ModelTensors {
  NamedTensor embedding, final_norm, head;  // head is the embedding where they are tied
  std::vector<LayerTensors> layers;
};

// `views` are those of FindTensors for the same config; the result points where they point.
ModelTensors GroupTensors(const ModelConfig& config, const TensorViews& views);

// Absent: each matrix keeps what its file holds, without loss.
struct WeightFormats {
  std::optional<WeightFormat> experts;
  std::optional<WeightFormat> dense;
};
// One format for matrices that are packed together: f32 as soon as one of them needs it.
WeightFormat FormatOf(std::initializer_list<const NamedTensor*> tensors,
                      std::optional<WeightFormat> wanted);
WeightFormat FormatOfExperts(const LayerTensors& layer, const WeightFormats& formats);
inline WeightFormat FormatOfShared(const LayerTensors& layer, const WeightFormats& formats) {
  return FormatOf({&layer.shared.gate, &layer.shared.up, &layer.shared.down}, formats.dense);
}
// The matrices of latent attention's heads are small and never quantised.
WeightFormat FormatOfHeads(const LayerTensors& layer, const WeightFormats& formats);
// The router decides, so it is never rounded.
inline WeightFormat FormatOfRouter(const LayerTensors& layer) {
  return FormatOf({&layer.router}, std::nullopt);
}

// What is packed as one, with what it is for.
struct PackedPart {
  enum class Use { kEveryRow, kLogitRows, kRoutedRows };
  Use use = Use::kEveryRow;
  WeightFormat format = WeightFormat::kF32;
  int64_t num_weights = 0;  // that a row is multiplied by: of a matrix, of one expert
  int64_t num_bytes = 0;    // of all experts
  int num_experts = 1;
};
// Layer by layer, the output head last; of a layer at most one has routed rows.
void ForEachPart(const ModelTensors& tensors, const WeightFormats& formats, const Backend& backend,
                 const std::function<void(const PackedPart&)>& visit);

struct WeightBytes {
  int64_t experts = 0;  // routed experts of all layers, their biases counted
  int64_t dense = 0;    // everything else, the mapped embedding table counted
};
// What loading will take of `backend`.
WeightBytes MeasureWeights(const ModelTensors& tensors, const WeightFormats& formats,
                           const Backend& backend);

// The formats in force, for people: "bf16", or "f32+bf16" where a model mixes them.
struct WeightFormatNames {
  std::string experts;
  std::string dense;
};
WeightFormatNames NameFormats(const ModelTensors& tensors, const WeightFormats& formats);

}  // namespace gatehouse
