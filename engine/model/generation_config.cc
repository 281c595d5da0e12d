#include "engine/model/generation_config.h"

#include <algorithm>

#include "engine/json/json_fields.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{16} << 20;
constexpr double kSmallest = 1e-6;  // of a filter that must be above 0

// A key that changes what is generated, and the value that changes nothing.
struct IgnoredKey {
  const char* key;
  double neutral;
};
constexpr IgnoredKey kIgnoredNumbers[] = {
    {"num_beams", 1},      {"num_beam_groups", 1},      {"no_repeat_ngram_size", 0},
    {"epsilon_cutoff", 0}, {"eta_cutoff", 0},           {"guidance_scale", 1},
    {"length_penalty", 1}, {"num_return_sequences", 1}, {"penalty_alpha", 0},
    {"min_length", 0},     {"min_new_tokens", 0},       {"diversity_penalty", 0}};
constexpr const char* kIgnoredLists[] = {"bad_words_ids",
                                         "suppress_tokens",
                                         "begin_suppress_tokens",
                                         "forced_bos_token_id",
                                         "forced_eos_token_id",
                                         "sequence_bias",
                                         "stop_strings",
                                         "watermarking_config",
                                         "exponential_decay_length_penalty",
                                         "max_time"};

std::vector<std::string> IgnoredKeys(JsonFields& fields) {
  std::vector<std::string> keys;
  for (const auto& [key, neutral] : kIgnoredNumbers) {
    if (fields.OptionalNumber(key, {-1e9, 1e9}).value_or(neutral) != neutral) keys.push_back(key);
  }
  for (const char* key : kIgnoredLists) {
    if (fields.Has(key)) keys.push_back(key);
  }
  return keys;
}

SamplingParams ReadSampling(JsonFields& fields) {
  SamplingParams sampling;
  const auto read = [&](const char* key, NumberRange range, float& value) {
    value = static_cast<float>(fields.OptionalNumber(key, range).value_or(value));
  };
  read("temperature", {0, 100}, sampling.temperature);
  read("top_p", {kSmallest, 1}, sampling.top_p);
  read("min_p", {0, 1}, sampling.min_p);
  read("typical_p", {kSmallest, 1}, sampling.typical_p);
  read("repetition_penalty", {kSmallest, 10}, sampling.repetition_penalty);
  sampling.top_k = fields.OptionalInt("top_k", {0, kMaxVocabSize}).value_or(sampling.top_k);
  if (fields.Has("do_sample") && !fields.Bool("do_sample", true)) sampling.temperature = 0;
  return sampling;
}

}  // namespace

absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view text,
                                                       const std::string& file,
                                                       const ModelConfig& model) {
  GATEHOUSE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(text, file));
  JsonFields fields(document, file);
  GenerationConfig config;
  config.sampling = ReadSampling(fields);
  config.max_new_tokens = fields.OptionalInt("max_new_tokens", {1, kMaxPositions}).value_or(0);
  config.ignored_keys = IgnoredKeys(fields);
  // An id that the model has not is still what the file says, so config.json's does not stand in.
  config.eos_token_ids = ReadEosTokenIds(fields, model.vocab_size, config.ignored_keys);
  if (!fields.Has("eos_token_id")) config.eos_token_ids = model.eos_token_ids;
  GATEHOUSE_RETURN_IF_ERROR(fields.status());
  return config;
}

absl::StatusOr<GenerationConfig> LoadGenerationConfig(const std::string& model_dir,
                                                      const ModelConfig& model) {
  const std::string path = model_dir + "/generation_config.json";
  const absl::StatusOr<std::string> text = ReadTextFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return ParseGenerationConfig("{}", path, model);
  GATEHOUSE_RETURN_IF_ERROR(text.status());
  return ParseGenerationConfig(*text, path, model);
}

}  // namespace gatehouse
