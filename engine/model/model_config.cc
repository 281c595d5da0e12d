#include "engine/model/model_config.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "engine/model/families/families.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

std::string ServedFamilies() {
  std::string names;
  for (const Family& family : Families()) {
    if (!names.empty()) names += ", ";
    names += family.model_type;
  }
  return names;
}

}  // namespace

int32_t ModelConfig::num_moe_layers() const {
  return static_cast<int32_t>(std::count(is_moe_layer.begin(), is_moe_layer.end(), true));
}

std::vector<int32_t> ReadEosTokenIds(JsonFields& fields, int32_t vocab_size,
                                     std::vector<std::string>& ignored) {
  std::vector<int32_t> ids = fields.IntOrIntList("eos_token_id", {INT32_MIN, INT32_MAX});
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::vector<int32_t> known;
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocab_size) {
      known.push_back(id);
    } else {
      ignored.push_back(absl::StrFormat("eos_token_id %d (vocab_size is %d)", id, vocab_size));
    }
  }
  return known;
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view text, const std::string& file) {
  GATEHOUSE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(text, file));
  JsonFields fields(document, file);
  const std::string model_type = fields.String("model_type", std::nullopt);
  GATEHOUSE_RETURN_IF_ERROR(fields.status());
  for (const Family& family : Families()) {
    if (family.model_type != model_type) continue;
    for (const char* key : {"quantization_config", "compression_config"}) {
      if (fields.Has(key)) fields.Refuse(key, "none: weights are read as f32, bf16 or f16");
    }
    ModelConfig config = family.read_config(fields);
    GATEHOUSE_RETURN_IF_ERROR(fields.status());
    config.family = model_type;
    return config;
  }
  fields.Refuse("model_type", absl::StrFormat("one of: %s", ServedFamilies()));
  return fields.status();
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir) {
  const std::string path = model_dir + "/config.json";
  absl::StatusOr<std::string> text = ReadTextFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: no such file, expected the model's configuration", path));
  }
  GATEHOUSE_RETURN_IF_ERROR(text.status());
  return ParseModelConfig(*text, path);
}

namespace {

// Of latent attention in one layer, without the input norm.
int64_t CountLatentAttention(const ModelConfig& config) {
  const AttentionConfig& attention = config.attention;
  const LatentConfig& latent = attention.latent;
  const int64_t hidden = config.hidden_size, num_heads = attention.num_heads;
  const int64_t q_width = num_heads * attention.head_dim, kv_rank = latent.kv_rank;
  const int64_t kv_outputs = kv_rank + latent.rope_dim;
  int64_t count = (latent.q_rank > 0 ? latent.q_rank : hidden) * q_width;
  if (latent.q_rank > 0) count += latent.q_rank * (hidden + 1);
  count += hidden * kv_outputs + kv_rank;
  count += num_heads * (latent.nope_dim + latent.value_dim) * kv_rank;
  count += num_heads * latent.value_dim * hidden;
  if (attention.qkv_bias) count += latent.q_rank + kv_outputs;
  if (attention.o_bias) count += hidden;
  return count;
}

int64_t CountAttention(const ModelConfig& config) {
  const AttentionConfig& attention = config.attention;
  if (attention.latent.kv_rank > 0) return CountLatentAttention(config);
  const int64_t hidden = config.hidden_size;
  const int64_t q_width = int64_t{attention.num_heads} * attention.head_dim;
  const int64_t kv_width = int64_t{attention.num_kv_heads} * attention.head_dim;
  int64_t count = hidden * (2 * q_width + 2 * kv_width);  // q, o, k, v
  if (attention.qkv_bias) count += q_width + 2 * kv_width;
  if (attention.o_bias) count += hidden;
  if (attention.qk_norm == QkNorm::kPerHead) count += int64_t{2} * attention.head_dim;
  if (attention.qk_norm == QkNorm::kFullWidth) count += q_width + kv_width;
  if (!config.tensor_names.sinks.empty()) count += attention.num_heads;
  return count;
}

}  // namespace

ParameterCount CountParameters(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t layer = 2 * hidden + CountAttention(config);  // norms before both halves
  const int64_t num_moe_layers = config.num_moe_layers();
  const TensorNames& names = config.tensor_names;
  const int64_t intermediate = config.moe.intermediate_size;
  int64_t expert = 3 * hidden * intermediate;
  if (!names.expert_gate_up_bias.empty()) expert += 2 * intermediate + hidden;
  int64_t moe_layer = 0;  // router and shared expert
  if (!names.router.empty()) moe_layer += config.moe.num_experts * hidden;
  if (!names.router_bias.empty()) moe_layer += config.moe.num_experts;
  if (!names.choice_bias.empty()) moe_layer += config.moe.num_experts;
  moe_layer += 3 * hidden * config.moe.shared_intermediate_size;
  if (!names.shared_scale.empty()) moe_layer += hidden;
  const int64_t dense_mlp = 3 * hidden * config.dense_intermediate_size;
  const int64_t embeddings = config.vocab_size * hidden * (config.tie_word_embeddings ? 1 : 2);

  ParameterCount count;
  count.expert = num_moe_layers * config.moe.num_experts * expert;
  count.dense = embeddings + hidden + config.num_layers * layer + num_moe_layers * moe_layer +
                (config.num_layers - num_moe_layers) * dense_mlp;
  count.active = count.dense + num_moe_layers * config.moe.gate.top_k * expert;
  return count;
}

}  // namespace gatehouse
