// What was measured of a model's routing on an operator's text: thresholds, floors and costs, to
// set bounds by. A value; written by `gatehouse-lab calibrate`, read by whoever sets a policy.
// Bound to its model by a hash, since thresholds of another one would drop at random.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/moe/routing_policy.h"

namespace gatehouse {

// Of one MoE layer.
struct CalibratedLayer {
  std::vector<float> thresholds;  // [num_experts] c_i of rule R18, on the calibration's affinity
  // For the theory floor (R10), of cosines less their expert's mean over the rows:
  double delta = 0;          // 10th percentile between a row and the experts it chose
  double effective_dim = 0;  // 1 / variance between rows and all experts
  double bound_cost = 0;     // loss if this layer alone is bounded, nats/token
  bool exempt = false;       // proposed: route exactly here
};

// Of one policy at one capacity factor, against exact routing on the same tokens.
struct MeasuredQuality {
  std::string policy;
  double factor = 0;           // of the mean load
  double loss_difference = 0;  // nats/token
  double kl = 0;               // nats/token, of exact from bounded
  double drop_share = 0;       // of pairs; not a measure of quality
  double gate_mass_kept = 0;
};

struct Calibration {
  std::string model_hash;  // ModelDescription
  int32_t num_experts = 0;
  Affinity affinity = Affinity::kShare;  // that thresholds are of
  double drop_share = 0;                 // of pairs, that they were set for
  int64_t num_tokens = 0;                // measured on
  double loss = 0;                       // of exact routing, nats/token
  double expert_rows_per_second = 0;     // of this machine's experts: v_d of rule R11
  std::vector<CalibratedLayer> layers;   // [num_moe_layers]
  std::vector<MeasuredQuality> quality;
};

// Versioned JSON.
std::string FormatCalibration(const Calibration& calibration);
// FAILED_PRECONDITION "<file>: <field>: got <value>, expected <what>".
absl::StatusOr<Calibration> ParseCalibration(std::string_view text, const std::string& file);
absl::StatusOr<Calibration> LoadCalibration(const std::string& file);

// FAILED_PRECONDITION if it was made for a model of another hash or of other counts.
struct CalibratedModel {
  std::string_view hash;
  int32_t num_moe_layers = 0;
  int32_t num_experts = 0;
};
absl::Status CheckCalibration(const Calibration& calibration, const CalibratedModel& model,
                              const std::string& file);

}  // namespace gatehouse
