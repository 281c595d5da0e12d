// What policies and calibrations have to know of a loaded model.
#pragma once

#include "engine/lab/eval_policy.h"
#include "engine/loaded_model.h"
#include "engine/moe/calibration.h"

namespace gatehouse {

// R16: families that renormalise, and those of the softmax over the chosen.
inline PolicyModel PolicyModelOf(const LoadedParts& parts) {
  const MoeConfig& moe = parts.model.moe;
  return {.num_moe_layers = parts.model.num_moe_layers(),
          .num_experts = moe.num_experts,
          .top_k = moe.gate.top_k,
          .renormalises = moe.gate.renormalise || moe.gate.score == GateScore::kSoftmaxOfChosen,
          .has_shared_expert = moe.shared_intermediate_size > 0};
}

inline CalibratedModel CalibratedModelOf(const LoadedParts& parts) {
  return {.hash = parts.description.hash,
          .num_moe_layers = parts.model.num_moe_layers(),
          .num_experts = parts.model.moe.num_experts};
}

}  // namespace gatehouse
