// Measures of a model what a calibration says (engine/moe/calibration.h), on given tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/lab/eval_tokens.h"
#include "engine/lab/evaluator.h"
#include "engine/moe/calibration.h"
#include "engine/moe/step_routing.h"

namespace gatehouse {

struct CalibrateOptions {
  Affinity affinity = Affinity::kShare;  // that the thresholds are of
  double drop_share = 0.25;              // of pairs, that they drop
  bool balance = false;  // a threshold an expert, so that none expects more than its share of what
                         // is kept; else one for all experts of a layer
  int64_t max_windows = 0;        // 0: all
  int64_t max_probe_windows = 0;  // for the costs of single layers; 0: all
};

// Sees exact routing's affinities, layer by layer. Memory grows with the pairs seen.
class AffinityCollector final : public RouteObserver {
 public:
  explicit AffinityCollector(Affinity affinity) : affinity_(affinity) {}

  // `scores` rank all experts and have cosines as affinities.
  void OnLayer(int moe_layer_idx, const GateScores& scores, const RouteDecision& decision) override;

  struct Thresholds {
    double drop_share = 0;
    bool balance = false;
  };
  // Of what was seen: thresholds, delta and the effective dimension of each layer.
  std::vector<CalibratedLayer> Layers(const Thresholds& wanted) const;

 private:
  struct ExpertSeen {
    std::vector<float> droppable;  // affinities of pairs behind a row's first choice
    int64_t num_pairs = 0;
    std::vector<float> chosen_cosines;
    double sum = 0, squares = 0;  // of the cosines with all rows
    int64_t num_rows = 0;
  };
  using LayerSeen = std::vector<ExpertSeen>;  // [num_experts]

  static std::vector<float> OneThreshold(const LayerSeen& layer, double drop_share);
  static std::vector<float> BalancedThresholds(const LayerSeen& layer, double drop_share);
  static void MeasureCosines(const LayerSeen& layer, CalibratedLayer& calibrated);

  Affinity affinity_;
  std::vector<LayerSeen> layers_;
};

// Layers whose cost stands out, in nats/token: above 0.001 and three times the median.
void ProposeExemptions(std::vector<CalibratedLayer>& layers);

absl::StatusOr<Calibration> Calibrate(Evaluator& evaluator, const EvalTokens& tokens,
                                      const CalibrateOptions& options);

}  // namespace gatehouse
