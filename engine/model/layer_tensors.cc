#include "engine/model/layer_tensors.h"

#include <set>
#include <utility>

#include "kernels/base/check.h"

namespace gatehouse {
namespace {

class Lookup {
 public:
  Lookup(const TensorViews& views, int32_t layer) : views_(views), layer_(layer) {}

  NamedTensor Named(std::string name) const {
    const auto found = views_.find(name);
    GATEHOUSE_CHECK(found != views_.end()) << name;
    return {std::move(name), found->second};
  }
  NamedTensor OfLayer(const std::string& pattern) const {
    return Named(LayerTensor(pattern, layer_));
  }
  NamedTensor Weight(const std::string& pattern) const {
    return Named(WeightName(LayerTensor(pattern, layer_)));
  }
  NamedTensor Bias(const std::string& pattern) const {
    return Named(BiasName(LayerTensor(pattern, layer_)));
  }
  NamedTensor OfExpert(const std::string& pattern, int32_t expert_id) const {
    return Named(ExpertTensor(pattern, layer_, expert_id));
  }

 private:
  const TensorViews& views_;
  const int32_t layer_;
};

LayerTensors GroupLayer(const ModelConfig& config, const TensorViews& views, int32_t l) {
  const Lookup find(views, l);
  const TensorNames& names = config.tensor_names;
  LayerTensors layer{.attention_norm = find.OfLayer(names.attention_norm),
                     .q = find.Weight(names.q),
                     .k = find.Weight(names.k),
                     .v = find.Weight(names.v),
                     .o = find.Weight(names.o),
                     .ffn_norm = find.OfLayer(names.ffn_norm)};
  if (config.attention.qkv_bias) {
    layer.q_bias = find.Bias(names.q);
    layer.k_bias = find.Bias(names.k);
    layer.v_bias = find.Bias(names.v);
  }
  if (config.attention.o_bias) layer.o_bias = find.Bias(names.o);
  if (config.attention.qk_norm == QkNorm::kPerHead) {
    layer.q_norm = find.OfLayer(names.q_norm);
    layer.k_norm = find.OfLayer(names.k_norm);
  }
  if (!config.is_moe_layer[l]) {
    layer.experts.push_back({find.OfLayer(names.dense_gate), find.OfLayer(names.dense_up),
                             find.OfLayer(names.dense_down)});
    return layer;
  }
  layer.router = find.OfLayer(names.router);
  for (int32_t e = 0; e < config.moe.num_experts; ++e) {
    layer.experts.push_back({find.OfExpert(names.expert_gate, e), find.OfExpert(names.expert_up, e),
                             find.OfExpert(names.expert_down, e)});
  }
  return layer;
}

int64_t VectorBytes(const LayerTensors& layer) {
  int64_t num_values = 0;
  for (const NamedTensor* vector :
       {&layer.attention_norm, &layer.q_bias, &layer.k_bias, &layer.v_bias, &layer.q_norm,
        &layer.k_norm, &layer.o_bias, &layer.ffn_norm}) {
    num_values += vector->view.num_cols;
  }
  return num_values * static_cast<int64_t>(sizeof(float));
}

}  // namespace

ModelTensors GroupTensors(const ModelConfig& config, const TensorViews& views) {
  const Lookup find(views, 0);
  const TensorNames& names = config.tensor_names;
  ModelTensors tensors{.embedding = find.Named(names.embedding),
                       .final_norm = find.Named(names.final_norm)};
  tensors.head = config.tie_word_embeddings ? tensors.embedding : find.Named(names.lm_head);
  for (int32_t l = 0; l < config.num_layers; ++l) {
    tensors.layers.push_back(GroupLayer(config, views, l));
  }
  return tensors;
}

WeightFormat FormatOf(std::initializer_list<const NamedTensor*> tensors,
                      std::optional<WeightFormat> wanted) {
  if (wanted) return *wanted;
  for (const NamedTensor* tensor : tensors) {
    if (LosslessFormat(tensor->view.dtype) == WeightFormat::kF32) return WeightFormat::kF32;
  }
  return WeightFormat::kBF16;
}

WeightFormat FormatOfExperts(const LayerTensors& layer, const WeightFormats& formats) {
  const std::optional<WeightFormat> wanted = layer.is_moe() ? formats.experts : formats.dense;
  for (const ExpertTensors& expert : layer.experts) {
    const WeightFormat format = FormatOf({&expert.gate, &expert.up, &expert.down}, wanted);
    if (format == WeightFormat::kF32) return format;
  }
  return wanted.value_or(WeightFormat::kBF16);
}

WeightBytes MeasureWeights(const ModelTensors& tensors, const WeightFormats& formats,
                           const Backend& backend) {
  const auto stacked_bytes = [&](std::initializer_list<const NamedTensor*> parts,
                                 WeightFormat format) {
    int64_t num_outputs = 0;
    for (const NamedTensor* part : parts) num_outputs += part->view.num_rows;
    return static_cast<int64_t>(
        backend.PackedMatrixBytes(num_outputs, (*parts.begin())->view.num_cols, format));
  };
  const WeightView& table = tensors.embedding.view;
  WeightBytes bytes;
  bytes.dense = table.num_rows * table.num_cols * static_cast<int64_t>(DTypeBytes(table.dtype));
  bytes.dense += stacked_bytes({&tensors.head}, FormatOf({&tensors.head}, formats.dense));
  for (const LayerTensors& layer : tensors.layers) {
    const std::initializer_list<const NamedTensor*> qkv = {&layer.q, &layer.k, &layer.v};
    bytes.dense += stacked_bytes(qkv, FormatOf(qkv, formats.dense));
    bytes.dense += stacked_bytes({&layer.o}, FormatOf({&layer.o}, formats.dense));
    bytes.dense += VectorBytes(layer);
    const WeightView& gate = layer.experts.front().gate.view;  // [intermediate, hidden]
    const auto ffn_bytes = static_cast<int64_t>(
        backend.PackedExpertsBytes({.num_experts = static_cast<int>(layer.experts.size()),
                                    .hidden_size = gate.num_cols,
                                    .intermediate_size = gate.num_rows},
                                   FormatOfExperts(layer, formats)));
    (layer.is_moe() ? bytes.experts : bytes.dense) += ffn_bytes;
    if (layer.is_moe()) bytes.dense += stacked_bytes({&layer.router}, FormatOfRouter(layer));
  }
  return bytes;
}

WeightFormatNames NameFormats(const ModelTensors& tensors, const WeightFormats& formats) {
  std::set<WeightFormat> experts, dense = {FormatOf({&tensors.head}, formats.dense)};
  for (const LayerTensors& layer : tensors.layers) {
    dense.insert(FormatOf({&layer.q, &layer.k, &layer.v}, formats.dense));
    dense.insert(FormatOf({&layer.o}, formats.dense));
    (layer.is_moe() ? experts : dense).insert(FormatOfExperts(layer, formats));
  }
  const auto join = [](const std::set<WeightFormat>& used) {
    std::string text;
    for (const WeightFormat format : used) {
      if (!text.empty()) text += '+';
      text += WeightFormatName(format);
    }
    return text;
  };
  return {.experts = join(experts), .dense = join(dense)};
}

}  // namespace gatehouse
