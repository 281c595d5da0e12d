// What a step must do at least, counted from its plan: bytes to read and operations. Against the
// machine's limits it says how near a step came to what its hardware allows. Pure functions.
//
//   bytes       weights of dense matrices once, of the output head if a logit is wanted, of every
//               routed expert that got a row; keys and values of every position that a row sees,
//               once a sequence and layer. Not activations, and not the embedding's rows.
//   operations  two for each weight and row that it is multiplied by; two for each channel of a
//               key and of a value, query head and (row, position) pair that sees one another
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/layer_tensors.h"
#include "engine/model/model_config.h"
#include "engine/moe/route_plan.h"
#include "kernels/backend.h"
#include "kernels/machine_limits.h"

namespace gatehouse {

struct Operations {
  double in_float = 0;
  double in_integer = 0;  // products of int8 and int4 weights
};

struct StepCost {
  double dense_bytes = 0;   // everything but routed experts, the output head counted
  double expert_bytes = 0;  // routed
  double kv_bytes = 0;
  Operations operations;

  double bytes() const { return dense_bytes + expert_bytes + kv_bytes; }
};

// What every step of a model is counted from.
struct ModelCost {
  struct Part {  // weights that are read together
    double bytes = 0;
    Operations row;  // of one row
  };
  struct Window {           // layers that see equally far
    int32_t positions = 0;  // 0: all
    int32_t num_layers = 0;
  };
  Part dense;  // of all layers, without the output head
  Part head;
  std::vector<Part> experts;  // one expert of each MoE layer
  std::vector<Window> windows;
  double kv_position_bytes = 0;  // of one layer
  double pair_operations = 0;    // of one layer and (row, position) pair
};
ModelCost CostOfModel(const ModelConfig& config, const ModelTensors& tensors,
                      const WeightFormats& formats, const KvShape& kv, const Backend& backend);

struct StepShape {
  std::span<const SequenceSpan> sequences;
  int64_t num_logit_rows = 0;
  std::span<const RoutePlan> routes;  // one a MoE layer
};
StepCost CostOfStep(const ModelCost& model, const StepShape& step);

// Seconds that the cost takes at the limits: of reading and of computing, which may overlap, so
// that the larger of them is the bound. 0 where the limit was not measured.
struct StepBound {
  double read_seconds = 0;
  double compute_seconds = 0;

  double seconds() const { return read_seconds > compute_seconds ? read_seconds : compute_seconds; }
};
StepBound BoundOf(const StepCost& cost, const MachineLimits& limits);

}  // namespace gatehouse
