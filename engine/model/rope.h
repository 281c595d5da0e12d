// Rotary position embedding: which frequencies a model rotates with, computed as transformers'
// modeling_rope_utils computes them, in the same order and precision.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace gatehouse {

class JsonFields;

constexpr int32_t kMaxPositions = 1 << 24;

enum class RopeType { kDefault, kLinear, kYarn };

struct RopeConfig {
  RopeType type = RopeType::kDefault;
  int32_t rotary_dim = 0;  // channels of a head that rotate, even
  double theta = 10000;
  double factor = 1;  // linear, yarn: how far the context was stretched, >= 1
  // Yarn alone.
  int64_t original_max_positions = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;  // round the borders of the ramp to whole channels
  std::optional<double> attention_factor;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;  // of linear too, for what a family makes of it
};

struct RopeFrequencies {
  std::vector<float> inv_freq;  // [rotary_dim / 2] radians a position
  double attention_factor = 1;  // cosines and sines are multiplied by it
};

RopeFrequencies ComputeRopeFrequencies(const RopeConfig& config);

// Positions a model was made for: max_position_embeddings, or with yarn the original context times
// the factor where that is more (published files give the unstretched maximum there).
int32_t MaxContext(const RopeConfig& config, int32_t max_positions);

// What a config.json says about rope, in the old spelling (rope_theta and rope_scaling with "type"
// or "rope_type") or the new one (rope_parameters); where both stand, transformers' precedence.
// Errors stick in `fields`.
struct RopeDefaults {
  int32_t head_dim = 0;
  int64_t max_positions = 0;  // max_position_embeddings
  double theta = 10000;
  // What holds where the file says nothing of rope but perhaps rope_theta.
  RopeConfig unless_given;
};
RopeConfig ReadRopeConfig(JsonFields& fields, const RopeDefaults& defaults);

}  // namespace gatehouse
