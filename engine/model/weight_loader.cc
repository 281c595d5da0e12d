#include "engine/model/weight_loader.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// Of what the gate multiplies by. A row of block means holds n / hidden in hidden / n places, of n
// experts.
std::vector<float> GateRowNorms(const LayerTensors& layer) {
  const auto num_experts = static_cast<int64_t>(layer.experts.size());
  const WeightView& rows = layer.router.view;
  std::vector<float> norms;
  for (int64_t e = 0; e < num_experts; ++e) {
    double sum = 0;
    for (int64_t c = 0; c < rows.num_cols; ++c) sum += double{rows.at(e, c)} * rows.at(e, c);
    if (layer.router.name.empty()) {
      sum = static_cast<double>(num_experts) / static_cast<double>(layer.ffn_norm.view.num_cols);
    }
    norms.push_back(static_cast<float>(std::sqrt(sum)));
  }
  return norms;
}

class Loader {
 public:
  Loader(const WeightSource& source, Backend& backend)
      : checkpoint_(*source.checkpoint),
        formats_(source.formats),
        cache_(source.cache),
        backend_(backend) {}

  // Vectors one after another as f32. Those that the model lacks count nothing; a list of none
  // gives an empty buffer.
  absl::StatusOr<Buffer> Vectors(std::initializer_list<const NamedTensor*> parts) {
    std::vector<float> values;
    for (const NamedTensor* part : parts) {
      if (part->name.empty()) continue;
      GATEHOUSE_RETURN_IF_ERROR(checkpoint_.CheckFinite(part->name));
      for (int64_t i = 0; i < part->view.num_cols; ++i) values.push_back(part->view.at(0, i));
    }
    if (values.empty()) return Buffer();
    return Upload(values);
  }

  absl::StatusOr<Buffer> Upload(const std::vector<float>& values) {
    const size_t num_bytes = values.size() * sizeof(float);
    GATEHOUSE_ASSIGN_OR_RETURN(Buffer buffer, backend_.Allocate(num_bytes));
    backend_.CopyFromHost(buffer.as<void>(), values.data(), num_bytes);
    return buffer;
  }

  // Matrices on top of each other, which are the tensors of those names or parts of them.
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Matrix(const std::vector<std::string_view>& names,
                                                       std::span<const WeightView> stacked,
                                                       WeightFormat format) {
    std::unique_ptr<PackedMatrix> packed;
    if (cache_ != nullptr) {
      int64_t num_outputs = 0;
      for (const WeightView& matrix : stacked) num_outputs += matrix.num_rows;
      GATEHOUSE_ASSIGN_OR_RETURN(packed, cache_->Matrix(num_outputs, stacked[0].num_cols, format));
    }
    if (packed == nullptr) {
      for (const std::string_view name : names) {
        GATEHOUSE_RETURN_IF_ERROR(checkpoint_.CheckFinite(name));
      }
      GATEHOUSE_ASSIGN_OR_RETURN(packed, backend_.PackMatrix(stacked, format));
    }
    if (cache_ != nullptr) cache_->Add(packed->bytes());
    return packed;
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> Stacked(
      std::initializer_list<const NamedTensor*> parts, WeightFormat format) {
    std::vector<std::string_view> names;
    std::vector<WeightView> views;
    for (const NamedTensor* part : parts) {
      names.emplace_back(part->name);
      views.push_back(part->view);
    }
    return Matrix(names, views, format);
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> Dense(
      std::initializer_list<const NamedTensor*> parts) {
    return Stacked(parts, FormatOf(parts, formats_.dense));
  }

  absl::StatusOr<std::unique_ptr<PackedExperts>> Experts(std::span<const ExpertTensors> experts,
                                                         WeightFormat format) {
    std::unique_ptr<PackedExperts> packed;
    if (cache_ != nullptr) {
      GATEHOUSE_ASSIGN_OR_RETURN(packed,
                                 cache_->Experts(ShapeOf(experts[0], experts.size()), format));
    }
    if (packed == nullptr) {
      GATEHOUSE_ASSIGN_OR_RETURN(packed, PackExperts(experts, format));
    }
    if (cache_ != nullptr) cache_->Add(packed->bytes());
    return packed;
  }

  absl::StatusOr<std::unique_ptr<PackedExperts>> PackExperts(std::span<const ExpertTensors> experts,
                                                             WeightFormat format) {
    std::vector<ExpertSource> sources;
    std::set<std::string_view> checked;  // a fused tensor is the part of many experts
    for (const ExpertTensors& expert : experts) {
      for (const NamedTensor* part : {&expert.gate, &expert.up, &expert.down, &expert.gate_bias,
                                      &expert.up_bias, &expert.down_bias}) {
        if (part->name.empty() || !checked.insert(part->name).second) continue;
        GATEHOUSE_RETURN_IF_ERROR(checkpoint_.CheckFinite(part->name));
      }
      sources.push_back({.gate = expert.gate.view,
                         .up = expert.up.view,
                         .down = expert.down.view,
                         .gate_bias = expert.gate_bias.view,
                         .up_bias = expert.up_bias.view,
                         .down_bias = expert.down_bias.view});
    }
    return backend_.PackExperts(sources, format);
  }

  // Parts of one tensor, on top of each other.
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Parts(const NamedTensor& whole,
                                                      std::span<const WeightView> parts) {
    return Matrix({whole.name}, parts, FormatOf({&whole}, formats_.dense));
  }
  // Each a matrix of its own, of one tensor.
  absl::StatusOr<std::vector<std::unique_ptr<PackedMatrix>>> Heads(
      std::span<const WeightView> heads, WeightFormat format) {
    std::vector<std::unique_ptr<PackedMatrix>> packed;
    for (const WeightView& head : heads) {
      GATEHOUSE_ASSIGN_OR_RETURN(std::unique_ptr<PackedMatrix> matrix,
                                 Matrix({}, {&head, 1}, format));
      packed.push_back(std::move(matrix));
    }
    return packed;
  }

  absl::StatusOr<Buffer> LatentBias(const LatentTensors& latent) {
    if (latent.kv_bias_rows.empty()) return Buffer();
    GATEHOUSE_RETURN_IF_ERROR(checkpoint_.CheckFinite(latent.kv_down_bias.name));
    std::vector<float> values;
    for (const WeightView& rows : latent.kv_bias_rows) {
      for (int64_t r = 0; r < rows.num_rows; ++r) values.push_back(rows.at(r, 0));
    }
    return Upload(values);
  }

  absl::StatusOr<LatentAttentionWeights> LatentAttention(const LayerTensors& layer) {
    const LatentTensors& latent = layer.latent;
    LatentAttentionWeights weights;
    GATEHOUSE_ASSIGN_OR_RETURN(weights.input_norm, Vectors({&layer.attention_norm}));
    if (!latent.q_down.name.empty()) {
      GATEHOUSE_ASSIGN_OR_RETURN(weights.q_down, Dense({&latent.q_down}));
    }
    GATEHOUSE_ASSIGN_OR_RETURN(weights.q_down_bias, Vectors({&latent.q_down_bias}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.q_latent_norm, Vectors({&latent.q_latent_norm}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.q, Parts(layer.q, latent.q_rows));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.kv, Parts(latent.kv_down, latent.kv_rows));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.kv_bias, LatentBias(latent));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.latent_norm, Vectors({&latent.latent_norm}));
    GATEHOUSE_RETURN_IF_ERROR(checkpoint_.CheckFinite(latent.kv_up.name));
    const WeightFormat head_format = FormatOfHeads(layer, formats_);
    GATEHOUSE_ASSIGN_OR_RETURN(weights.absorb, Heads(latent.absorb, head_format));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.expand, Heads(latent.expand, head_format));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.output, Dense({&layer.o}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.output_bias, Vectors({&layer.o_bias}));
    return weights;
  }

  absl::StatusOr<AttentionWeights> Attention(const LayerTensors& layer) {
    AttentionWeights weights;
    GATEHOUSE_ASSIGN_OR_RETURN(weights.input_norm, Vectors({&layer.attention_norm}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.qkv, Dense({&layer.q, &layer.k, &layer.v}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.qkv_bias,
                               Vectors({&layer.q_bias, &layer.k_bias, &layer.v_bias}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.q_norm, Vectors({&layer.q_norm}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.k_norm, Vectors({&layer.k_norm}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.sinks, Vectors({&layer.sinks}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.output, Dense({&layer.o}));
    GATEHOUSE_ASSIGN_OR_RETURN(weights.output_bias, Vectors({&layer.o_bias}));
    return weights;
  }

  absl::StatusOr<AnyAttentionLayer> AnyAttention(const ModelConfig& config,
                                                 const LayerTensors& layer, int32_t layer_idx) {
    if (layer.is_latent()) {
      GATEHOUSE_ASSIGN_OR_RETURN(LatentAttentionWeights weights, LatentAttention(layer));
      return LatentAttentionLayer(LatentOptionsOf(config), std::move(weights));
    }
    GATEHOUSE_ASSIGN_OR_RETURN(AttentionWeights weights, Attention(layer));
    return AttentionLayer(AttentionOptionsOf(config, layer_idx), std::move(weights));
  }

  absl::StatusOr<std::variant<MoeLayer, DenseMlp>> FeedForward(const MoeConfig& moe,
                                                               const LayerTensors& layer) {
    GATEHOUSE_ASSIGN_OR_RETURN(std::unique_ptr<PackedExperts> experts,
                               Experts(layer.experts, FormatOfExperts(layer, formats_)));
    if (!layer.is_moe) return DenseMlp(std::move(experts));
    GateWeights gate;
    if (!layer.router.name.empty()) {
      GATEHOUSE_ASSIGN_OR_RETURN(gate.router, Stacked({&layer.router}, FormatOfRouter(layer)));
    }
    gate.row_norms = GateRowNorms(layer);
    if (layer.gate_by_cosine) {
      GATEHOUSE_ASSIGN_OR_RETURN(gate.cosine_norms, Upload(gate.row_norms));
    }
    GATEHOUSE_ASSIGN_OR_RETURN(gate.logit_bias, Vectors({&layer.router_bias}));
    GATEHOUSE_ASSIGN_OR_RETURN(gate.choice_bias, Vectors({&layer.choice_bias}));
    GATEHOUSE_ASSIGN_OR_RETURN(std::optional<SharedExpert> shared, Shared(layer));
    return MoeLayer(Gate(moe.gate, std::move(gate)),
                    gatehouse::Experts(moe.activation, std::move(experts)), std::move(shared));
  }

  absl::StatusOr<std::optional<SharedExpert>> Shared(const LayerTensors& layer) {
    if (!layer.has_shared()) return std::nullopt;
    GATEHOUSE_ASSIGN_OR_RETURN(std::unique_ptr<PackedExperts> expert,
                               Experts({&layer.shared, 1}, FormatOfShared(layer, formats_)));
    std::unique_ptr<PackedMatrix> scale;
    if (!layer.shared_scale.name.empty()) {
      const WeightFormat format = FormatOf({&layer.shared_scale}, std::nullopt);
      GATEHOUSE_ASSIGN_OR_RETURN(scale, Stacked({&layer.shared_scale}, format));
    }
    return SharedExpert(DenseMlp(std::move(expert)), std::move(scale));
  }

 private:
  const Checkpoint& checkpoint_;
  const WeightFormats& formats_;
  PackedCache* const cache_;  // null: none
  Backend& backend_;
};

}  // namespace

// In slabs: a table of a million positions must not stand in memory twice. Angles in f32 as
// transformers computes them; cos and sin in double and then rounded, so that they do not depend on
// the host's float libm.
absl::StatusOr<Buffer> LoadRopeTable(const RopeConfig& config, int64_t num_positions,
                                     Backend& backend) {
  constexpr int64_t kSlabPositions = 4096;
  const RopeFrequencies rope = ComputeRopeFrequencies(config);
  const auto factor = static_cast<float>(rope.attention_factor);
  const auto half = static_cast<int64_t>(rope.inv_freq.size());
  const auto row_bytes = static_cast<size_t>(2 * half) * sizeof(float);
  GATEHOUSE_ASSIGN_OR_RETURN(Buffer table,
                             backend.Allocate(static_cast<size_t>(num_positions) * row_bytes));
  std::vector<float> slab(std::min(num_positions, kSlabPositions) * 2 * half);
  for (int64_t first = 0; first < num_positions; first += kSlabPositions) {
    const int64_t num_rows = std::min(num_positions - first, kSlabPositions);
    for (int64_t r = 0; r < num_rows; ++r) {
      float* row = slab.data() + r * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(first + r) * rope.inv_freq[i];
        row[i] = static_cast<float>(std::cos(double{angle})) * factor;
        row[half + i] = static_cast<float>(std::sin(double{angle})) * factor;
      }
    }
    backend.CopyFromHost(table.as<float>() + first * 2 * half, slab.data(),
                         static_cast<size_t>(num_rows) * row_bytes);
  }
  return table;
}

LatentAttentionOptions LatentOptionsOf(const ModelConfig& config) {
  constexpr float kLatentNormEps = 1e-6f;  // whatever rms_norm_eps says, as in transformers
  const AttentionConfig& attention = config.attention;
  const LatentConfig& latent = attention.latent;
  if (latent.kv_rank == 0) return {};
  return {.num_heads = attention.num_heads,
          .q_rank = latent.q_rank,
          .kv_rank = latent.kv_rank,
          .nope_dim = latent.nope_dim,
          .rope_dim = latent.rope_dim,
          .value_dim = latent.value_dim,
          .norm_eps = config.norm_eps,
          .latent_norm_eps = kLatentNormEps,
          .scale = attention.scale};
}

AttentionOptions AttentionOptionsOf(const ModelConfig& config, int32_t layer_idx) {
  const AttentionConfig& attention = config.attention;
  if (attention.latent.kv_rank > 0) return {};
  return {.num_heads = attention.num_heads,
          .num_kv_heads = attention.num_kv_heads,
          .head_dim = attention.head_dim,
          .norm_eps = config.norm_eps,
          .scale = attention.scale,
          .window = attention.windows[layer_idx],
          .clip_qkv = attention.clip_qkv,
          .norms_full_width = attention.qk_norm == QkNorm::kFullWidth,
          .residual_scale = config.residual_scale};
}

absl::StatusOr<TransformerWeights> LoadWeights(const WeightSource& source, Backend& backend) {
  const ModelConfig& config = source.config;
  const ModelTensors& tensors = source.tensors;
  Loader load(source, backend);
  TransformerWeights weights;
  for (int32_t l = 0; l < config.num_layers; ++l) {
    const LayerTensors& layer = tensors.layers[l];
    GATEHOUSE_ASSIGN_OR_RETURN(AnyAttentionLayer attention, load.AnyAttention(config, layer, l));
    GATEHOUSE_ASSIGN_OR_RETURN(Buffer ffn_norm, load.Vectors({&layer.ffn_norm}));
    GATEHOUSE_ASSIGN_OR_RETURN(auto ffn, load.FeedForward(config.moe, layer));
    weights.layers.push_back({std::move(attention), std::move(ffn_norm), std::move(ffn)});
    source.checkpoint->DropPages();  // packed: the file's copy need not stay in memory beside it
  }
  GATEHOUSE_ASSIGN_OR_RETURN(weights.final_norm, load.Vectors({&tensors.final_norm}));
  GATEHOUSE_ASSIGN_OR_RETURN(weights.head, load.Dense({&tensors.head}));
  GATEHOUSE_RETURN_IF_ERROR(source.checkpoint->CheckFinite(tensors.embedding.name));
  source.checkpoint->DropPages();
  GATEHOUSE_ASSIGN_OR_RETURN(weights.rope_table,
                             LoadRopeTable(config.attention.rope, source.num_positions, backend));
  weights.embedding = tensors.embedding.view;
  weights.mapping = source.checkpoint;
  return weights;
}

}  // namespace gatehouse
