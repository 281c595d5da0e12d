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

// The part of a tensor that plays a part of its own.
NamedTensor PartOf(const NamedTensor& whole, const WeightView& part) { return {whole.name, part}; }

// A tensor of the whole layer cut by expert (ExpertLayout); what the family lacks stays empty.
class FusedExperts {
 public:
  FusedExperts(const ModelConfig& config, const Lookup& find)
      : layout_(config.tensor_names.expert_layout),
        hidden_(config.hidden_size),
        intermediate_(config.moe.intermediate_size) {
    const TensorNames& names = config.tensor_names;
    gate_up_ = find.OfLayer(names.expert_gate_up);
    down_ = find.OfLayer(names.expert_down);
    if (names.expert_gate_up_bias.empty()) return;
    gate_up_bias_ = find.OfLayer(names.expert_gate_up_bias);
    down_bias_ = find.OfLayer(names.expert_down_bias);
  }

  ExpertTensors Expert(int32_t e) const {
    ExpertTensors expert = layout_ == ExpertLayout::kFused ? Halves(e) : Interleaved(e);
    if (gate_up_bias_.name.empty()) return expert;
    const WeightView bias = gate_up_bias_.view.Rows(e, 1);
    expert.gate_bias = PartOf(gate_up_bias_, bias.Cols(0, intermediate_, 2));
    expert.up_bias = PartOf(gate_up_bias_, bias.Cols(1, intermediate_, 2));
    expert.down_bias = PartOf(down_bias_, down_bias_.view.Rows(e, 1));
    return expert;
  }

 private:
  ExpertTensors Halves(int64_t e) const {
    const WeightView gate_up = gate_up_.view.Rows(e * 2 * intermediate_, 2 * intermediate_);
    return {.gate = PartOf(gate_up_, gate_up.Rows(0, intermediate_)),
            .up = PartOf(gate_up_, gate_up.Rows(intermediate_, intermediate_)),
            .down = PartOf(down_, down_.view.Rows(e * hidden_, hidden_))};
  }
  ExpertTensors Interleaved(int64_t e) const {
    const WeightView gate_up = gate_up_.view.Rows(e * hidden_, hidden_);
    const WeightView down = down_.view.Rows(e * intermediate_, intermediate_);
    return {.gate = PartOf(gate_up_, gate_up.Cols(0, intermediate_, 2).Transposed()),
            .up = PartOf(gate_up_, gate_up.Cols(1, intermediate_, 2).Transposed()),
            .down = PartOf(down_, down.Transposed())};
  }

  const ExpertLayout layout_;
  const int64_t hidden_, intermediate_;
  NamedTensor gate_up_, down_, gate_up_bias_, down_bias_;
};

// The rows of heads on top of each other, or one. Of each head's last rope_dim rows the even ones
// come before the odd ones if they rotate in pairs.
std::vector<WeightView> RowsInHalves(const WeightView& view, int64_t num_heads,
                                     const LatentConfig& latent) {
  if (!latent.rotates_pairs) return {view};
  const int64_t head_dim = view.num_rows / num_heads, rope_dim = latent.rope_dim;
  std::vector<WeightView> rows;
  for (int64_t end = head_dim; end <= view.num_rows; end += head_dim) {
    rows.push_back(view.Rows(end - head_dim, head_dim - rope_dim));
    rows.push_back(view.Rows(end - rope_dim, rope_dim / 2, 2));
    rows.push_back(view.Rows(end - rope_dim + 1, rope_dim / 2, 2));
  }
  return rows;
}

void GroupLatentAttention(const ModelConfig& config, const Lookup& find, LayerTensors& layer) {
  const TensorNames& names = config.tensor_names;
  const LatentConfig& latent = config.attention.latent;
  LatentTensors& tensors = layer.latent;
  if (latent.q_rank > 0) {
    tensors.q_down = find.Weight(names.q_down);
    tensors.q_latent_norm = find.OfLayer(names.q_latent_norm);
    if (config.attention.qkv_bias) tensors.q_down_bias = find.Bias(names.q_down);
  }
  tensors.q_rows = RowsInHalves(layer.q.view, config.attention.num_heads, latent);
  tensors.kv_down = find.Weight(names.kv_down);
  tensors.kv_rows = RowsInHalves(tensors.kv_down.view, 1, latent);
  if (config.attention.qkv_bias) {
    tensors.kv_down_bias = find.Bias(names.kv_down);
    tensors.kv_bias_rows = RowsInHalves(tensors.kv_down_bias.view.Transposed(), 1, latent);
  }
  tensors.latent_norm = find.OfLayer(names.latent_norm);
  tensors.kv_up = find.OfLayer(names.kv_up);
  const int64_t head_rows = int64_t{latent.nope_dim} + latent.value_dim;
  for (int64_t first = 0; first < tensors.kv_up.view.num_rows; first += head_rows) {
    const WeightView head = tensors.kv_up.view.Rows(first, head_rows);
    tensors.absorb.push_back(head.Rows(0, latent.nope_dim).Transposed());
    tensors.expand.push_back(head.Rows(latent.nope_dim, latent.value_dim));
  }
}

void GroupAttention(const ModelConfig& config, const Lookup& find, LayerTensors& layer) {
  const TensorNames& names = config.tensor_names;
  layer.attention_norm = find.OfLayer(names.attention_norm);
  layer.q = find.Weight(names.q);
  layer.o = find.Weight(names.o);
  if (config.attention.o_bias) layer.o_bias = find.Bias(names.o);
  if (config.attention.latent.kv_rank > 0) return GroupLatentAttention(config, find, layer);
  layer.k = find.Weight(names.k);
  layer.v = find.Weight(names.v);
  if (config.attention.qkv_bias) {
    layer.q_bias = find.Bias(names.q);
    layer.k_bias = find.Bias(names.k);
    layer.v_bias = find.Bias(names.v);
  }
  if (config.attention.qk_norm != QkNorm::kNone) {
    layer.q_norm = find.OfLayer(names.q_norm);
    layer.k_norm = find.OfLayer(names.k_norm);
  }
  if (!names.sinks.empty()) layer.sinks = find.OfLayer(names.sinks);
}

void GroupMoe(const ModelConfig& config, const Lookup& find, LayerTensors& layer) {
  const TensorNames& names = config.tensor_names;
  layer.is_moe = true;
  if (!names.router.empty()) layer.router = find.OfLayer(names.router);
  layer.gate_by_cosine = config.moe.gate_by_cosine;
  if (!names.router_bias.empty()) layer.router_bias = find.OfLayer(names.router_bias);
  if (!names.choice_bias.empty()) layer.choice_bias = find.OfLayer(names.choice_bias);
  if (names.expert_layout == ExpertLayout::kSeparate) {
    for (int32_t e = 0; e < config.moe.num_experts; ++e) {
      layer.experts.push_back({.gate = find.OfExpert(names.expert_gate, e),
                               .up = find.OfExpert(names.expert_up, e),
                               .down = find.OfExpert(names.expert_down, e)});
    }
  } else {
    const FusedExperts fused(config, find);
    for (int32_t e = 0; e < config.moe.num_experts; ++e) layer.experts.push_back(fused.Expert(e));
  }
  if (config.moe.shared_intermediate_size == 0) return;
  layer.shared = {.gate = find.OfLayer(names.shared_gate),
                  .up = find.OfLayer(names.shared_up),
                  .down = find.OfLayer(names.shared_down)};
  if (!names.shared_scale.empty()) layer.shared_scale = find.OfLayer(names.shared_scale);
}

LayerTensors GroupLayer(const ModelConfig& config, const TensorViews& views, int32_t l) {
  const Lookup find(views, l);
  const TensorNames& names = config.tensor_names;
  LayerTensors layer;
  GroupAttention(config, find, layer);
  layer.ffn_norm = find.OfLayer(names.ffn_norm);
  if (config.is_moe_layer[l]) {
    GroupMoe(config, find, layer);
  } else {
    layer.experts.push_back({.gate = find.OfLayer(names.dense_gate),
                             .up = find.OfLayer(names.dense_up),
                             .down = find.OfLayer(names.dense_down)});
  }
  return layer;
}

int64_t VectorBytes(const LayerTensors& layer) {
  int64_t num_values = 0;
  for (const NamedTensor* vector :
       {&layer.attention_norm, &layer.q_bias, &layer.k_bias, &layer.v_bias, &layer.q_norm,
        &layer.k_norm, &layer.sinks, &layer.o_bias, &layer.ffn_norm, &layer.router_bias,
        &layer.choice_bias, &layer.latent.q_down_bias, &layer.latent.q_latent_norm,
        &layer.latent.kv_down_bias, &layer.latent.latent_norm}) {
    num_values += vector->view.num_cols;
  }
  return num_values * static_cast<int64_t>(sizeof(float));
}

// Matrices that are packed alone.
std::vector<const NamedTensor*> AloneMatrices(const LayerTensors& layer) {
  std::vector<const NamedTensor*> matrices = {&layer.o};
  if (!layer.is_latent()) return matrices;
  if (!layer.latent.q_down.name.empty()) matrices.push_back(&layer.latent.q_down);
  matrices.insert(matrices.end(), {&layer.q, &layer.latent.kv_down});
  return matrices;
}

}  // namespace

ExpertsShape ShapeOf(const ExpertTensors& first, size_t num_experts) {
  return {.num_experts = static_cast<int>(num_experts),
          .hidden_size = first.gate.view.num_cols,
          .intermediate_size = first.gate.view.num_rows,
          .has_bias = !first.gate_bias.name.empty()};
}

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
  const std::optional<WeightFormat> wanted = layer.is_moe ? formats.experts : formats.dense;
  for (const ExpertTensors& expert : layer.experts) {
    const WeightFormat format = FormatOf({&expert.gate, &expert.up, &expert.down}, wanted);
    if (format == WeightFormat::kF32) return format;
  }
  return wanted.value_or(WeightFormat::kBF16);
}

WeightFormat FormatOfHeads(const LayerTensors& layer, const WeightFormats& formats) {
  const bool quantised = formats.dense && IsQuantised(*formats.dense);
  return FormatOf({&layer.latent.kv_up}, quantised ? std::nullopt : formats.dense);
}

namespace {

// Gives `visit` the parts of a layer.
class LayerParts {
 public:
  LayerParts(const LayerTensors& layer, const WeightFormats& formats, const Backend& backend,
             const std::function<void(const PackedPart&)>& visit)
      : layer_(layer), formats_(formats), backend_(backend), visit_(visit) {}

  void Visit() const {
    const std::initializer_list<const NamedTensor*> qkv = {&layer_.q, &layer_.k, &layer_.v};
    if (!layer_.is_latent()) Stacked(qkv, FormatOf(qkv, formats_.dense));
    for (const NamedTensor* matrix : AloneMatrices(layer_)) {
      Stacked({matrix}, FormatOf({matrix}, formats_.dense));
    }
    for (const auto* heads : {&layer_.latent.absorb, &layer_.latent.expand}) {
      for (const WeightView& head : *heads) {
        Matrix(head.num_rows, head.num_cols, FormatOfHeads(layer_, formats_));
      }
    }
    const auto num_experts = static_cast<int>(layer_.experts.size());
    Experts(layer_.is_moe ? PackedPart::Use::kRoutedRows : PackedPart::Use::kEveryRow,
            ShapeOf(layer_.experts.front(), num_experts), FormatOfExperts(layer_, formats_));
    if (!layer_.router.name.empty()) Stacked({&layer_.router}, FormatOfRouter(layer_));
    if (!layer_.has_shared()) return;
    Experts(PackedPart::Use::kEveryRow, ShapeOf(layer_.shared, 1),
            FormatOfShared(layer_, formats_));
    if (layer_.shared_scale.name.empty()) return;
    Stacked({&layer_.shared_scale}, FormatOf({&layer_.shared_scale}, {}));
  }

 private:
  void Stacked(std::initializer_list<const NamedTensor*> parts, WeightFormat format) const {
    int64_t num_outputs = 0;
    for (const NamedTensor* part : parts) num_outputs += part->view.num_rows;
    Matrix(num_outputs, (*parts.begin())->view.num_cols, format);
  }
  void Matrix(int64_t num_outputs, int64_t num_inputs, WeightFormat format) const {
    visit_({.format = format,
            .num_weights = num_outputs * num_inputs,
            .num_bytes =
                static_cast<int64_t>(backend_.PackedMatrixBytes(num_outputs, num_inputs, format))});
  }
  void Experts(PackedPart::Use use, const ExpertsShape& shape, WeightFormat format) const {
    visit_({.use = use,
            .format = format,
            .num_weights = 3 * shape.hidden_size * shape.intermediate_size,
            .num_bytes = static_cast<int64_t>(backend_.PackedExpertsBytes(shape, format)),
            .num_experts = shape.num_experts});
  }

  const LayerTensors& layer_;
  const WeightFormats& formats_;
  const Backend& backend_;
  const std::function<void(const PackedPart&)>& visit_;
};

}  // namespace

void ForEachPart(const ModelTensors& tensors, const WeightFormats& formats, const Backend& backend,
                 const std::function<void(const PackedPart&)>& visit) {
  for (const LayerTensors& layer : tensors.layers) {
    LayerParts(layer, formats, backend, visit).Visit();
  }
  const WeightView& head = tensors.head.view;
  const WeightFormat format = FormatOf({&tensors.head}, formats.dense);
  visit({.use = PackedPart::Use::kLogitRows,
         .format = format,
         .num_weights = head.num_rows * head.num_cols,
         .num_bytes = static_cast<int64_t>(
             backend.PackedMatrixBytes(head.num_rows, head.num_cols, format))});
}

WeightBytes MeasureWeights(const ModelTensors& tensors, const WeightFormats& formats,
                           const Backend& backend) {
  const WeightView& table = tensors.embedding.view;
  WeightBytes bytes;
  bytes.dense = table.num_rows * table.num_cols * static_cast<int64_t>(DTypeBytes(table.dtype));
  bytes.dense += tensors.final_norm.view.num_cols * static_cast<int64_t>(sizeof(float));
  for (const LayerTensors& layer : tensors.layers) {
    bytes.dense += VectorBytes(layer);
    if (layer.gate_by_cosine) {
      bytes.dense += static_cast<int64_t>(layer.experts.size() * sizeof(float));
    }
  }
  ForEachPart(tensors, formats, backend, [&](const PackedPart& part) {
    const bool is_routed = part.use == PackedPart::Use::kRoutedRows;
    (is_routed ? bytes.experts : bytes.dense) += part.num_bytes;
  });
  return bytes;
}

WeightFormatNames NameFormats(const ModelTensors& tensors, const WeightFormats& formats) {
  std::set<WeightFormat> experts, dense = {FormatOf({&tensors.head}, formats.dense)};
  for (const LayerTensors& layer : tensors.layers) {
    if (layer.is_latent()) {
      dense.insert(FormatOfHeads(layer, formats));
    } else {
      dense.insert(FormatOf({&layer.q, &layer.k, &layer.v}, formats.dense));
    }
    for (const NamedTensor* matrix : AloneMatrices(layer)) {
      dense.insert(FormatOf({matrix}, formats.dense));
    }
    (layer.is_moe ? experts : dense).insert(FormatOfExperts(layer, formats));
    if (layer.has_shared()) dense.insert(FormatOfShared(layer, formats));
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
