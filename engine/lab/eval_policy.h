// Policies of the workbench by the words of a route file (docs/routing.md), for a range of capacity
// factors: "name: gamma F devices 4 order arrival", F standing for the factor.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/moe/calibration.h"
#include "engine/moe/pinned_policy.h"

namespace gatehouse {

// What a policy has to know of a model.
struct PolicyModel {
  int32_t num_moe_layers = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  bool renormalises = false;  // R16, `after_drop family`
  bool has_shared_expert = false;
};

struct EvalPolicy {
  std::string name;
  std::string words;  // with F where the factor goes

  bool has_factor() const;
};

// INVALID_ARGUMENT for a text without a name.
absl::StatusOr<EvalPolicy> ParseEvalPolicy(std::string_view text);

// Those of docs/routing.md: arrival, random, score, reroute (on one device, and on four, where R14
// keeps a pair to devices that its token is on anyway), device.
std::vector<EvalPolicy> CurvePolicies(Affinity affinity);

// At one factor; inf: no bound. `calibration` may be null; `thresholds calibrated` asks for it. No
// layer is exempt but those of `exempt_layers`, indices of MoE layers.
struct PolicyPlace {
  double factor = 0;
  const Calibration* calibration = nullptr;
  std::vector<int32_t> exempt_layers;
};
absl::StatusOr<PinnedPolicy> MakePinnedPolicy(const EvalPolicy& policy, const PolicyModel& model,
                                              const PolicyPlace& place);

}  // namespace gatehouse
