// config.json: what is accepted must stay within the bounds of model_config.h, so that nothing
// computed from it overflows.
#include <cmath>

#include "engine/model/model_config.h"
#include "kernels/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gatehouse;
  const auto config = ParseModelConfig({reinterpret_cast<const char*>(data), size}, "config.json");
  if (!config.ok()) {
    GATEHOUSE_CHECK(config.status().message().find('\n') == absl::string_view::npos)
        << config.status();
    return 0;
  }
  GATEHOUSE_CHECK(config->is_moe_layer.size() == static_cast<size_t>(config->num_layers));
  GATEHOUSE_CHECK(config->max_context >= 1 && config->max_context <= kMaxPositions);
  for (const int32_t id : config->eos_token_ids) {
    GATEHOUSE_CHECK(id >= 0 && id < config->vocab_size) << id;
  }
  const ParameterCount count = CountParameters(*config);
  GATEHOUSE_CHECK(count.expert >= 0 && count.dense > 0 && count.active <= count.total());
  if (config->attention.rope.rotary_dim > 0) {
    for (const float frequency : ComputeRopeFrequencies(config->attention.rope).inv_freq) {
      GATEHOUSE_CHECK(std::isfinite(frequency)) << frequency;
    }
  }
  return 0;
}
