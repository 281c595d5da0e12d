#include "engine/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

// The channel, as a real number, that turns `num_rotations` times over the original context.
double CorrectionChannel(const RopeConfig& config, double num_rotations) {
  const double turns =
      static_cast<double>(config.original_max_positions) / (num_rotations * 2 * std::numbers::pi);
  return config.rotary_dim * std::log(turns) / (2 * std::log(config.theta));
}

// float32 throughout, as torch does it: the low bits reach the angles of far positions.
std::vector<float> YarnInverseFrequencies(const RopeConfig& config,
                                          const std::vector<float>& wavelengths) {
  double low = CorrectionChannel(config, config.beta_fast);
  double high = CorrectionChannel(config, config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, config.rotary_dim - 1.0);
  if (low == high) high += 0.001;
  const float width = static_cast<float>(high - low), start = static_cast<float>(low);
  const float factor = static_cast<float>(config.factor);
  std::vector<float> inv_freq(wavelengths.size());
  for (size_t i = 0; i < wavelengths.size(); ++i) {
    const float ramp = std::clamp((static_cast<float>(i) - start) / width, 0.0f, 1.0f);
    const float extrapolated_share = 1 - ramp;
    const float interpolated = 1.0f / (factor * wavelengths[i]);
    const float extrapolated = 1.0f / wavelengths[i];
    inv_freq[i] = interpolated * (1 - extrapolated_share) + extrapolated * extrapolated_share;
  }
  return inv_freq;
}

double YarnAttentionFactor(const RopeConfig& config) {
  if (config.attention_factor.has_value()) return *config.attention_factor;
  const auto mscale = [&](double weight) {
    return config.factor <= 1 ? 1.0 : 0.1 * weight * std::log(config.factor) + 1;
  };
  const double numerator = config.mscale.value_or(0),
               denominator = config.mscale_all_dim.value_or(0);
  if (numerator == 0 || denominator == 0) return mscale(1);
  return mscale(numerator) / mscale(denominator);
}

RopeType ReadRopeType(JsonFields& rope) {
  const char* key = rope.Has("rope_type") ? "rope_type" : "type";
  const std::string name = rope.Has(key) ? rope.String(key, "default") : "default";
  if (name == "linear") return RopeType::kLinear;
  if (name == "yarn") return RopeType::kYarn;
  if (name != "default") rope.Refuse(key, "one of default, linear, yarn");
  return RopeType::kDefault;
}

void ReadYarn(JsonFields& top, JsonFields& rope, int64_t max_positions, RopeConfig& config) {
  JsonFields& holder = top.Has("original_max_position_embeddings") ? top : rope;
  config.original_max_positions =
      holder.OptionalInt("original_max_position_embeddings", {1, kMaxPositions})
          .value_or(max_positions);
  config.factor = rope.OptionalNumber("factor", {1, 1e6})
                      .value_or(static_cast<double>(max_positions) / config.original_max_positions);
  if (config.factor < 1) rope.Refuse("factor", "a number of at least 1");
  config.attention_factor = rope.OptionalNumber("attention_factor", {0, 1e3});
  config.mscale = rope.OptionalNumber("mscale", {0, 1e3});
  config.mscale_all_dim = rope.OptionalNumber("mscale_all_dim", {0, 1e3});
  const auto or_default = [&](const char* key, double fallback) {
    const double value = rope.OptionalNumber(key, {0, 1e6}).value_or(0);
    return value == 0 ? fallback : value;
  };
  config.beta_fast = or_default("beta_fast", config.beta_fast);
  config.beta_slow = or_default("beta_slow", config.beta_slow);
  if (config.beta_fast < config.beta_slow) {
    rope.Refuse("beta_fast", absl::StrFormat("at least beta_slow (%g)", config.beta_slow));
  }
  config.truncate = rope.Bool("truncate", config.truncate);
}

}  // namespace

RopeFrequencies ComputeRopeFrequencies(const RopeConfig& config) {
  GATEHOUSE_CHECK(config.rotary_dim > 0 && config.rotary_dim % 2 == 0) << config.rotary_dim;
  const int num_pairs = config.rotary_dim / 2;
  std::vector<float> wavelengths(num_pairs);  // over 2 pi
  for (int i = 0; i < num_pairs; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.rotary_dim);
    wavelengths[i] = static_cast<float>(
        std::pow(static_cast<double>(static_cast<float>(config.theta)), exponent));
  }
  RopeFrequencies frequencies;
  if (config.type == RopeType::kYarn) {
    frequencies.inv_freq = YarnInverseFrequencies(config, wavelengths);
    frequencies.attention_factor = YarnAttentionFactor(config);
    return frequencies;
  }
  const float factor = config.type == RopeType::kLinear ? static_cast<float>(config.factor) : 1.0f;
  for (const float wavelength : wavelengths) {
    frequencies.inv_freq.push_back(1.0f / wavelength / factor);
  }
  return frequencies;
}

int32_t MaxContext(const RopeConfig& config, int32_t max_positions) {
  if (config.type != RopeType::kYarn) return max_positions;
  const double stretched = static_cast<double>(config.original_max_positions) * config.factor;
  const double longest = std::max<double>(max_positions, std::floor(stretched));
  return static_cast<int32_t>(std::min<double>(longest, kMaxPositions));
}

RopeConfig ReadRopeConfig(JsonFields& fields, const RopeDefaults& defaults) {
  const char* key = fields.HasNonEmptyObject("rope_scaling") ? "rope_scaling" : "rope_parameters";
  JsonFields rope = fields.Object(key);
  // Settings for each kind of layer, {"full_attention": {...}, ...}; no family here has kinds of
  // them.
  rope.RefuseObjects("no object: all layers rotate alike");
  RopeConfig config;
  const bool is_given = fields.HasNonEmptyObject(key) || fields.Has("rope_parameters");
  if (!is_given) config = defaults.unless_given;
  config.rotary_dim = defaults.head_dim;
  const NumberRange theta_range = {1.0000001, 1e15};
  const double top_theta = fields.Number("rope_theta", defaults.theta, theta_range);
  config.theta = rope.Number("rope_theta", top_theta, theta_range);
  for (JsonFields* holder : {&fields, &rope}) {
    if (holder->OptionalNumber("partial_rotary_factor", {0, 1}).value_or(1) != 1) {
      holder->Refuse("partial_rotary_factor", "1: this family rotates whole heads");
    }
  }
  if (!is_given) return config;
  config.type = ReadRopeType(rope);
  if (config.type == RopeType::kLinear) {
    config.factor = rope.Number("factor", std::nullopt, {1, 1e6});
    config.mscale_all_dim = rope.OptionalNumber("mscale_all_dim", {0, 1e3});
  } else if (config.type == RopeType::kYarn) {
    ReadYarn(fields, rope, defaults.max_positions, config);
  }
  return config;
}

}  // namespace gatehouse
