#include "engine/moe/calibration.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

using nlohmann::ordered_json;

constexpr char kFormat[] = "gatehouse-calibration";
constexpr int32_t kVersion = 1;
constexpr int64_t kMaxFileBytes = int64_t{256} << 20;
constexpr int32_t kMaxExperts = 1 << 13;
constexpr double kLargest = 1e30;
constexpr const char* kAffinityNames[] = {"gate", "share", "cosine"};  // in the order of Affinity

std::vector<float> ReadThresholds(JsonFields& fields, int32_t num_experts) {
  const nlohmann::json* list = fields.Find("thresholds");
  std::vector<float> thresholds;
  if (list == nullptr || !list->is_array() || static_cast<int64_t>(list->size()) != num_experts) {
    fields.Refuse("thresholds", absl::StrFormat("a list of %d numbers", num_experts));
    return thresholds;
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const nlohmann::json& value = (*list)[i];
    const double number = value.is_number() ? value.get<double>() : INFINITY;
    if (!(std::abs(number) <= kLargest)) {
      fields.RefuseAt(absl::StrFormat("thresholds[%d]", i), &value, "a finite number");
    }
    thresholds.push_back(static_cast<float>(number));
  }
  return thresholds;
}

CalibratedLayer ReadLayer(JsonFields& fields, int32_t num_experts) {
  fields.ExpectOnly({"thresholds", "delta", "effective_dim", "bound_cost", "exempt"});
  return {.thresholds = ReadThresholds(fields, num_experts),
          .delta = fields.Number("delta", std::nullopt, {-1, 1}),
          .effective_dim = fields.Number("effective_dim", std::nullopt, {0, kLargest}),
          .bound_cost = fields.Number("bound_cost", std::nullopt, {-kLargest, kLargest}),
          .exempt = fields.Bool("exempt", std::nullopt)};
}

MeasuredQuality ReadQuality(JsonFields& fields) {
  fields.ExpectOnly({"policy", "factor", "loss_difference", "kl", "drop_share", "gate_mass_kept"});
  const NumberRange any = {-kLargest, kLargest};
  return {.policy = fields.String("policy", std::nullopt),
          .factor = fields.Number("factor", std::nullopt, {0, kLargest}),
          .loss_difference = fields.Number("loss_difference", std::nullopt, any),
          .kl = fields.Number("kl", std::nullopt, any),
          .drop_share = fields.Number("drop_share", std::nullopt, {0, 1}),
          .gate_mass_kept = fields.Number("gate_mass_kept", std::nullopt, {0, kLargest})};
}

Affinity ReadAffinity(JsonFields& fields) {
  const std::string name = fields.String("affinity", std::nullopt);
  for (int i = 0; i < 3; ++i) {
    if (name == kAffinityNames[i]) return static_cast<Affinity>(i);
  }
  fields.Refuse("affinity", "gate, share or cosine");
  return Affinity::kGate;
}

}  // namespace

std::string FormatCalibration(const Calibration& calibration) {
  ordered_json layers = ordered_json::array(), quality = ordered_json::array();
  for (const CalibratedLayer& layer : calibration.layers) {
    layers.push_back({{"thresholds", layer.thresholds},
                      {"delta", layer.delta},
                      {"effective_dim", layer.effective_dim},
                      {"bound_cost", layer.bound_cost},
                      {"exempt", layer.exempt}});
  }
  for (const MeasuredQuality& cell : calibration.quality) {
    quality.push_back({{"policy", cell.policy},
                       {"factor", cell.factor},
                       {"loss_difference", cell.loss_difference},
                       {"kl", cell.kl},
                       {"drop_share", cell.drop_share},
                       {"gate_mass_kept", cell.gate_mass_kept}});
  }
  const ordered_json document = {
      {"format", kFormat},
      {"version", kVersion},
      {"model_hash", calibration.model_hash},
      {"num_experts", calibration.num_experts},
      {"affinity", kAffinityNames[static_cast<int>(calibration.affinity)]},
      {"drop_share", calibration.drop_share},
      {"num_tokens", calibration.num_tokens},
      {"loss", calibration.loss},
      {"expert_rows_per_second", calibration.expert_rows_per_second},
      {"layers", layers},
      {"quality", quality}};
  return document.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

absl::StatusOr<Calibration> ParseCalibration(std::string_view text, const std::string& file) {
  GATEHOUSE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(text, file));
  JsonFields fields(document, file);
  if (fields.String("format", std::nullopt) != kFormat) fields.Refuse("format", kFormat);
  if (fields.Int("version", std::nullopt, {0, INT32_MAX}) != kVersion) {
    fields.Refuse("version", absl::StrFormat("%d", kVersion));
  }
  GATEHOUSE_RETURN_IF_ERROR(fields.status());
  fields.ExpectOnly({"format", "version", "model_hash", "num_experts", "affinity", "drop_share",
                     "num_tokens", "loss", "expert_rows_per_second", "layers", "quality"});
  Calibration calibration;
  calibration.model_hash = fields.String("model_hash", std::nullopt);
  calibration.num_experts = fields.Int("num_experts", std::nullopt, {1, kMaxExperts});
  calibration.affinity = ReadAffinity(fields);
  calibration.drop_share = fields.Number("drop_share", std::nullopt, {0, 1});
  calibration.num_tokens =
      static_cast<int64_t>(fields.Number("num_tokens", std::nullopt, {0, 1e15}));
  calibration.loss = fields.Number("loss", std::nullopt, {0, kLargest});
  calibration.expert_rows_per_second =
      fields.Number("expert_rows_per_second", std::nullopt, {0, kLargest});
  GATEHOUSE_RETURN_IF_ERROR(fields.status());
  for (JsonFields& layer : fields.Objects("layers")) {
    calibration.layers.push_back(ReadLayer(layer, calibration.num_experts));
  }
  for (JsonFields& cell : fields.Objects("quality")) {
    calibration.quality.push_back(ReadQuality(cell));
  }
  GATEHOUSE_RETURN_IF_ERROR(fields.status());
  return calibration;
}

absl::StatusOr<Calibration> LoadCalibration(const std::string& file) {
  absl::StatusOr<std::string> text = ReadTextFile(file, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: no such file, expected a calibration", file));
  }
  GATEHOUSE_RETURN_IF_ERROR(text.status());
  return ParseCalibration(*text, file);
}

absl::Status CheckCalibration(const Calibration& calibration, const CalibratedModel& model,
                              const std::string& file) {
  if (calibration.model_hash != model.hash) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: model_hash: got %s, expected %s: it was made for another model", file,
                        Printable(calibration.model_hash), model.hash));
  }
  if (static_cast<int32_t>(calibration.layers.size()) != model.num_moe_layers) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: layers: got %d, expected one for each of %d MoE layers", file,
                        calibration.layers.size(), model.num_moe_layers));
  }
  if (calibration.num_experts != model.num_experts) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: num_experts: got %d, expected %d", file, calibration.num_experts, model.num_experts));
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
