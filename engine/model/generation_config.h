// generation_config.json: what a request that says nothing gets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/request/sampling_params.h"

namespace gatehouse {

struct GenerationConfig {
  SamplingParams sampling;             // do_sample false: temperature 0
  int32_t max_new_tokens = 0;          // 0: not said
  std::vector<int32_t> eos_token_ids;  // distinct, ascending; config.json's where the file has none
  // Keys that ask for something no request can ask for (num_beams), to be logged.
  std::vector<std::string> ignored_keys;
};

// DIR/generation_config.json over our own defaults; without the file, the defaults and
// config.json's end tokens. A key that is absent leaves its default: temperature 1 and no filter
// (transformers' own top_k of 50 is not taken over), and do_sample counts only where it stands.
// FAILED_PRECONDITION "<file>: <field>: got <value>, expected <what>".
absl::StatusOr<GenerationConfig> LoadGenerationConfig(const std::string& model_dir,
                                                      const ModelConfig& model);
absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view text,
                                                       const std::string& file,
                                                       const ModelConfig& model);

}  // namespace gatehouse
