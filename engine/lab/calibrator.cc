#include "engine/lab/calibrator.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/lab/eval_policy.h"
#include "engine/lab/eval_run.h"
#include "engine/lab/model_facts.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr double kLeastCost = 0.001;  // nats/token; smaller ones are noise on some 10,000 tokens
constexpr double kStandsOut = 3;      // times the median

// The value below which `count` of the values lie; below all of them if count is 0. Equal values
// stay together above it.
float Below(std::vector<float> values, int64_t count) {
  if (values.empty() || count <= 0) return -std::numeric_limits<float>::max();
  std::sort(values.begin(), values.end());
  return values[std::min<int64_t>(count, static_cast<int64_t>(values.size()) - 1)];
}

float AffinityOf(Affinity affinity, const GateScores& scores, int row, int rank) {
  const int64_t at = scores.At(row, rank);
  if (affinity == Affinity::kCosine) return scores.affinity[at];
  if (affinity == Affinity::kGate) return scores.gate[at];
  float sum = 0;
  for (int i = 0; i < scores.num_chosen[row]; ++i) sum += scores.gate[scores.At(row, i)];
  return scores.gate[at] / (sum + 1e-20f);
}

// Exact routing whose observer sees cosines.
PinnedPolicy ObservingPolicy(const PolicyModel& model) {
  PinnedPolicy policy{.version = 1, .name = "exact"};
  policy.affinity = Affinity::kCosine;
  policy.placement = LinearPlacement(model.num_experts, 1);
  policy.layer_exempt.assign(model.num_moe_layers, 1);
  return policy;
}

std::vector<int32_t> AllLayersBut(int32_t num_layers, int32_t kept) {
  std::vector<int32_t> layers;
  for (int32_t l = 0; l < num_layers; ++l) {
    if (l != kept) layers.push_back(l);
  }
  return layers;
}

std::vector<int32_t> ExemptLayers(const std::vector<CalibratedLayer>& layers) {
  std::vector<int32_t> exempt;
  for (size_t l = 0; l < layers.size(); ++l) {
    if (layers[l].exempt) exempt.push_back(static_cast<int32_t>(l));
  }
  return exempt;
}

absl::StatusOr<std::vector<EvalResult>> Evaluate(Evaluator& evaluator, const EvalTokens& tokens,
                                                 const std::vector<EvalCase>& cases,
                                                 int64_t max_windows) {
  EvalRunOptions options{.max_windows = max_windows};
  options.exact_placement = LinearPlacement(evaluator.parts().model.moe.num_experts, 1);
  return RunEval(evaluator, tokens, cases, options, [](int64_t) {});
}

absl::Status Observe(Evaluator& evaluator, const EvalTokens& tokens, int64_t num_windows,
                     AffinityCollector& collector) {
  const PolicyModel model = PolicyModelOf(evaluator.parts());
  const PinnedPolicy policy = ObservingPolicy(model);
  const int64_t batch = evaluator.options().batch_windows;
  for (int64_t first = 0; first < num_windows; first += batch) {
    std::vector<std::span<const int32_t>> windows;
    for (int64_t w = first; w < std::min(first + batch, num_windows); ++w) {
      windows.push_back(tokens.inputs(w));
    }
    GATEHOUSE_RETURN_IF_ERROR(evaluator.Forward(windows, &policy, &collector, model.num_experts));
  }
  return absl::OkStatus();
}

// Each layer bounded alone, by every expert's mean load in score order: a bound that is felt.
absl::Status MeasureLayers(Evaluator& evaluator, const EvalTokens& tokens, int64_t max_windows,
                           std::vector<CalibratedLayer>& layers) {
  const PolicyModel model = PolicyModelOf(evaluator.parts());
  std::vector<EvalCase> cases;
  for (int32_t l = 0; l < model.num_moe_layers; ++l) {
    GATEHOUSE_ASSIGN_OR_RETURN(
        PinnedPolicy policy,
        MakePinnedPolicy({"one layer", "gamma 1 nbar_min 0 coverage off affinity share"}, model,
                         {.exempt_layers = AllLayersBut(model.num_moe_layers, l)}));
    cases.push_back({.name = "one layer", .factor = 1, .policy = std::move(policy)});
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<EvalResult> results,
                             Evaluate(evaluator, tokens, cases, max_windows));
  for (size_t l = 0; l < layers.size(); ++l) layers[l].bound_cost = results[l + 1].loss_difference;
  return absl::OkStatus();
}

// Quality against capacity, the proposed layers exempt; and how fast the experts are, from what a
// pass takes with and without them.
absl::Status MeasureQuality(Evaluator& evaluator, const EvalTokens& tokens, int64_t max_windows,
                            Calibration& calibration) {
  const PolicyModel model = PolicyModelOf(evaluator.parts());
  const std::vector<int32_t> exempt = ExemptLayers(calibration.layers);
  const char* names[] = {"gate", "share", "cosine"};
  const std::string affinity =
      std::string(" nbar_min 0 affinity ") + names[static_cast<int>(calibration.affinity)];
  std::vector<EvalCase> cases;
  const auto add = [&](const EvalPolicy& policy, double factor,
                       const std::vector<int32_t>& layers) -> absl::Status {
    GATEHOUSE_ASSIGN_OR_RETURN(
        PinnedPolicy pinned,
        MakePinnedPolicy(policy, model,
                         {.factor = factor, .calibration = &calibration, .exempt_layers = layers}));
    cases.push_back({.name = policy.name, .factor = factor, .policy = std::move(pinned)});
    return absl::OkStatus();
  };
  GATEHOUSE_RETURN_IF_ERROR(add({"nothing", "capacity 0 coverage off"}, 0, {}));
  for (const double factor : {0.75, 1.0, 1.25, 1.5, 2.0}) {
    GATEHOUSE_RETURN_IF_ERROR(add({"device", "gamma_dev F devices 4" + affinity}, factor, exempt));
    GATEHOUSE_RETURN_IF_ERROR(add({"expert", "gamma F" + affinity}, factor, exempt));
  }
  GATEHOUSE_RETURN_IF_ERROR(add({"threshold", "mode threshold thresholds calibrated" + affinity},
                                1 - calibration.drop_share, exempt));
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<EvalResult> results,
                             Evaluate(evaluator, tokens, cases, max_windows));
  const EvalResult &exact = results[0], &nothing = results[1];
  calibration.loss = exact.loss;
  calibration.num_tokens = exact.num_tokens;
  const double seconds = exact.seconds - nothing.seconds;
  const auto rows = static_cast<double>(exact.totals.report.assignments);
  calibration.expert_rows_per_second = seconds > 0 ? rows / seconds : 0;
  for (size_t i = 2; i < results.size(); ++i) {
    const EvalResult& result = results[i];
    calibration.quality.push_back({.policy = result.name,
                                   .factor = result.factor,
                                   .loss_difference = result.loss_difference,
                                   .kl = result.kl,
                                   .drop_share = result.totals.drop_share(),
                                   .gate_mass_kept = result.totals.gate_mass_kept()});
  }
  return absl::OkStatus();
}

}  // namespace

void AffinityCollector::OnLayer(int moe_layer_idx, const GateScores& scores,
                                const RouteDecision& /*decision*/) {
  const auto index = static_cast<size_t>(moe_layer_idx);
  if (layers_.size() <= index) layers_.resize(index + 1, LayerSeen(scores.num_experts));
  LayerSeen& layer = layers_[index];
  for (int row = 0; row < scores.num_rows; ++row) {
    if (scores.row_failed[row] != 0) continue;
    for (int rank = 0; rank < scores.num_ranked; ++rank) {
      const int32_t expert = scores.ranked_ids[scores.At(row, rank)];
      if (expert < 0) break;
      ExpertSeen& seen = layer[expert];
      const float cosine = scores.affinity[scores.At(row, rank)];
      seen.sum += cosine;
      seen.squares += double{cosine} * cosine;
      ++seen.num_rows;
      if (rank >= scores.num_chosen[row]) continue;
      ++seen.num_pairs;
      seen.chosen_cosines.push_back(cosine);
      if (rank > 0) seen.droppable.push_back(AffinityOf(affinity_, scores, row, rank));
    }
  }
}

std::vector<float> AffinityCollector::OneThreshold(const LayerSeen& layer, double drop_share) {
  std::vector<float> all;
  int64_t num_pairs = 0;
  for (const ExpertSeen& expert : layer) {
    all.insert(all.end(), expert.droppable.begin(), expert.droppable.end());
    num_pairs += expert.num_pairs;
  }
  const auto drops = static_cast<int64_t>(drop_share * static_cast<double>(num_pairs));
  return std::vector<float>(layer.size(), Below(std::move(all), drops));
}

std::vector<float> AffinityCollector::BalancedThresholds(const LayerSeen& layer,
                                                         double drop_share) {
  int64_t num_pairs = 0;
  for (const ExpertSeen& expert : layer) num_pairs += expert.num_pairs;
  const auto places = static_cast<int64_t>(std::ceil(
      (1 - drop_share) * static_cast<double>(num_pairs) / static_cast<double>(layer.size())));
  std::vector<float> thresholds;
  for (const ExpertSeen& expert : layer) {
    thresholds.push_back(Below(expert.droppable, expert.num_pairs - places));
  }
  return thresholds;
}

void AffinityCollector::MeasureCosines(const LayerSeen& layer, CalibratedLayer& calibrated) {
  double variance = 0;
  std::vector<float> centred;
  int64_t num_seen = 0;
  for (const ExpertSeen& expert : layer) {
    if (expert.num_rows == 0) continue;
    const auto rows = static_cast<double>(expert.num_rows);
    const double mean = expert.sum / rows;
    variance += expert.squares / rows - mean * mean;
    ++num_seen;
    for (const float cosine : expert.chosen_cosines) {
      centred.push_back(static_cast<float>(cosine - mean));
    }
  }
  variance /= static_cast<double>(std::max<int64_t>(num_seen, 1));
  calibrated.effective_dim = variance > 0 ? std::min(1 / variance, 1e12) : 0;
  const auto tenth = static_cast<int64_t>(centred.size() / 10);
  calibrated.delta =
      centred.empty()
          ? 0
          : std::clamp(double{Below(std::move(centred), std::max<int64_t>(tenth, 1))}, -1.0, 1.0);
}

std::vector<CalibratedLayer> AffinityCollector::Layers(const Thresholds& wanted) const {
  std::vector<CalibratedLayer> layers;
  for (const LayerSeen& seen : layers_) {
    CalibratedLayer layer;
    layer.thresholds = wanted.balance ? BalancedThresholds(seen, wanted.drop_share)
                                      : OneThreshold(seen, wanted.drop_share);
    MeasureCosines(seen, layer);
    layers.push_back(std::move(layer));
  }
  return layers;
}

void ProposeExemptions(std::vector<CalibratedLayer>& layers) {
  if (layers.empty()) return;
  std::vector<double> costs;
  costs.reserve(layers.size());
  for (const CalibratedLayer& layer : layers) costs.push_back(layer.bound_cost);
  std::sort(costs.begin(), costs.end());
  const double limit = std::max(kLeastCost, kStandsOut * costs[costs.size() / 2]);
  for (CalibratedLayer& layer : layers) layer.exempt = layer.bound_cost > limit;
}

absl::StatusOr<Calibration> Calibrate(Evaluator& evaluator, const EvalTokens& tokens,
                                      const CalibrateOptions& options) {
  const LoadedParts& parts = evaluator.parts();
  if (parts.model.num_moe_layers() == 0) {
    return absl::FailedPreconditionError("the model has no layer of experts");
  }
  int64_t num_windows = tokens.num_windows();
  if (options.max_windows > 0) num_windows = std::min(num_windows, options.max_windows);
  AffinityCollector collector(options.affinity);
  GATEHOUSE_RETURN_IF_ERROR(Observe(evaluator, tokens, num_windows, collector));
  Calibration calibration{.model_hash = parts.description.hash,
                          .num_experts = parts.model.moe.num_experts,
                          .affinity = options.affinity,
                          .drop_share = options.drop_share};
  calibration.layers =
      collector.Layers({.drop_share = options.drop_share, .balance = options.balance});
  GATEHOUSE_RETURN_IF_ERROR(
      MeasureLayers(evaluator, tokens, options.max_probe_windows, calibration.layers));
  ProposeExemptions(calibration.layers);
  GATEHOUSE_RETURN_IF_ERROR(MeasureQuality(evaluator, tokens, options.max_windows, calibration));
  return calibration;
}

}  // namespace gatehouse
