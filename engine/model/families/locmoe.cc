// Gatehouse-LocMoE: Qwen3-MoE with the gate of LocMoE+. Its rows are grouped average pooling
// (nothing stored) or learned, and rank by cosine or by product.
#include <cmath>

#include "absl/strings/str_format.h"
#include "engine/model/families/common.h"
#include "engine/model/families/families.h"

namespace gatehouse {
namespace {

// How the model was trained. Hints for whoever sets bounds: read, so that nonsense is refused, and
// never applied.
void ReadTrainingHints(JsonFields& fields) {
  fields.Number("capacity_factor", 0, {0, 1e6});
  if (fields.Number("affinity_mass", 1, {0, 1}) == 0) fields.Refuse("affinity_mass", "more than 0");
  fields.Int("capacity_floor", 0, {0, INT32_MAX});
  if (fields.String("drop_order", "affinity") != "affinity") {
    fields.Refuse("drop_order", "affinity");
  }
}

void ReadGate(JsonFields& fields, ModelConfig& config) {
  const std::string rows = fields.String("gate", std::nullopt);
  if (rows == "grap") {
    config.moe.gate_rows = GateRows::kBlockMeans;
    std::swap(config.tensor_names.router, config.tensor_names.refused_router);
    if (config.moe.num_experts > 0 && config.hidden_size % config.moe.num_experts != 0) {
      fields.Refuse(
          "num_experts",
          absl::StrFormat("a divisor of hidden_size (%d): the gate is grap", config.hidden_size));
    }
  } else if (rows != "learned") {
    fields.Refuse("gate", "grap or learned");
  }
  const std::string affinity = fields.String("affinity", "cosine");
  config.moe.gate_by_cosine = affinity == "cosine";
  if (!config.moe.gate_by_cosine && affinity != "dot") fields.Refuse("affinity", "cosine or dot");
  const double scale = fields.Number(
      "router_scale", std::sqrt(static_cast<double>(config.hidden_size)), {1e-6, 1e6});
  if (config.moe.gate_by_cosine) config.moe.gate.logit_scale = static_cast<float>(scale);
  if (fields.String("combine", "softmax") != "softmax") fields.Refuse("combine", "softmax");
}

}  // namespace

ModelConfig ReadLocMoeConfig(JsonFields& fields) {
  ModelConfig config = ReadQwen3MoeConfig(fields);
  ReadGate(fields, config);
  ReadTrainingHints(fields);
  return config;
}

}  // namespace gatehouse
