#include "engine/model/step_cost.h"

#include <algorithm>
#include <map>

#include "kernels/base/check.h"

namespace gatehouse {
namespace {

Operations OfWeights(double num_weights, WeightFormat format) {
  const double operations = 2 * num_weights;
  return IsQuantised(format) ? Operations{.in_integer = operations}
                             : Operations{.in_float = operations};
}

void Add(double factor, const Operations& more, Operations& sum) {
  sum.in_float += factor * more.in_float;
  sum.in_integer += factor * more.in_integer;
}

// Pairs of a row and a position that it sees.
double NumPairs(const SequenceSpan& span, int32_t window) {
  double pairs = 0;
  for (int32_t r = 0; r < span.num_rows; ++r) {
    const int32_t seen = span.first_position + r + 1;
    pairs += window > 0 ? std::min(seen, window) : seen;
  }
  return pairs;
}

// Positions that any row of the span sees.
double NumPositions(const SequenceSpan& span, int32_t window) {
  const int32_t first = window > 0 ? std::max(0, span.first_position - window + 1) : 0;
  return span.first_position + span.num_rows - first;
}

}  // namespace

ModelCost CostOfModel(const ModelConfig& config, const ModelTensors& tensors,
                      const WeightFormats& formats, const KvShape& kv, const Backend& backend) {
  ModelCost cost;
  ForEachPart(tensors, formats, backend, [&](const PackedPart& part) {
    const auto bytes = static_cast<double>(part.num_bytes);
    const Operations row = OfWeights(static_cast<double>(part.num_weights), part.format);
    if (part.use == PackedPart::Use::kRoutedRows) {
      cost.experts.push_back({.bytes = bytes / part.num_experts, .row = row});
      return;
    }
    ModelCost::Part& whole = part.use == PackedPart::Use::kLogitRows ? cost.head : cost.dense;
    whole.bytes += bytes;
    Add(1, row, whole.row);
  });
  std::map<int32_t, int32_t> windows;
  for (int32_t l = 0; l < config.num_layers; ++l) ++windows[config.attention.windows[l]];
  for (const auto& [positions, num_layers] : windows) {
    cost.windows.push_back({.positions = positions, .num_layers = num_layers});
  }
  cost.kv_position_bytes = static_cast<double>(backend.KvBlockBytes(kv)) / kv.block_tokens;
  cost.pair_operations =
      2.0 * config.attention.num_heads * (double{1} * kv.head_dim + kv.value_dim());
  return cost;
}

StepCost CostOfStep(const ModelCost& model, const StepShape& step) {
  GATEHOUSE_CHECK(step.routes.size() == model.experts.size()) << step.routes.size();
  StepCost cost{.dense_bytes = model.dense.bytes};
  double num_rows = 0;
  for (const SequenceSpan& span : step.sequences) {
    num_rows += span.num_rows;
    for (const ModelCost::Window& window : model.windows) {
      cost.kv_bytes +=
          window.num_layers * model.kv_position_bytes * NumPositions(span, window.positions);
      cost.operations.in_float +=
          window.num_layers * model.pair_operations * NumPairs(span, window.positions);
    }
  }
  Add(num_rows, model.dense.row, cost.operations);
  if (step.num_logit_rows > 0) cost.dense_bytes += model.head.bytes;
  Add(static_cast<double>(step.num_logit_rows), model.head.row, cost.operations);
  for (size_t i = 0; i < step.routes.size(); ++i) {
    const RoutePlan& route = step.routes[i];
    int num_active = 0;
    for (int e = 0; e < route.num_experts; ++e) {
      num_active += route.expert_begin[e + 1] > route.expert_begin[e] ? 1 : 0;
    }
    cost.expert_bytes += num_active * model.experts[i].bytes;
    Add(route.num_pairs(), model.experts[i].row, cost.operations);
  }
  return cost;
}

StepBound BoundOf(const StepCost& cost, const MachineLimits& limits) {
  const auto seconds = [](double amount, double rate) { return rate > 0 ? amount / rate : 0; };
  return {
      .read_seconds = seconds(cost.bytes(), limits.read_bytes_per_second),
      .compute_seconds = seconds(cost.operations.in_float, limits.float_operations_per_second) +
                         seconds(cost.operations.in_integer, limits.integer_operations_per_second)};
}

}  // namespace gatehouse
