#include "engine/model/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/checkpoint_builder.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ModelConfig SomeModel() {
  ModelConfig model;
  model.vocab_size = 100;
  model.eos_token_ids = {7};
  return model;
}

GenerationConfig Parse(std::string_view text) {
  const absl::StatusOr<GenerationConfig> config =
      ParseGenerationConfig(text, "generation_config.json", SomeModel());
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : GenerationConfig();
}

TEST(GenerationConfigTest, ReadsEverySamplingField) {
  const GenerationConfig config = Parse(R"({
    "do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05,
    "typical_p": 0.9, "repetition_penalty": 1.05, "max_new_tokens": 64})");
  EXPECT_FLOAT_EQ(config.sampling.temperature, 0.6f);
  EXPECT_EQ(config.sampling.top_k, 20);
  EXPECT_FLOAT_EQ(config.sampling.top_p, 0.95f);
  EXPECT_FLOAT_EQ(config.sampling.min_p, 0.05f);
  EXPECT_FLOAT_EQ(config.sampling.typical_p, 0.9f);
  EXPECT_FLOAT_EQ(config.sampling.repetition_penalty, 1.05f);
  EXPECT_EQ(config.max_new_tokens, 64);
}

TEST(GenerationConfigTest, LeavesDefaultsWhereTheFileSaysNothing) {
  const GenerationConfig config = Parse(R"({"temperature": null, "transformers_version": "4"})");
  EXPECT_EQ(config.sampling.temperature, SamplingParams().temperature);
  EXPECT_EQ(config.sampling.top_k, SamplingParams().top_k);
  EXPECT_EQ(config.max_new_tokens, 0);
  EXPECT_THAT(config.ignored_keys, IsEmpty());
}

TEST(GenerationConfigTest, IsGreedyWithoutSamplingWhateverTheTemperature) {
  EXPECT_EQ(Parse(R"({"do_sample": false, "temperature": 0.7})").sampling.temperature, 0);
}

TEST(GenerationConfigTest, TakesEndTokensFromTheFileAndElseFromTheModel) {
  EXPECT_THAT(Parse(R"({"eos_token_id": [9, 3, 9]})").eos_token_ids, ElementsAre(3, 9));
  EXPECT_THAT(Parse(R"({"eos_token_id": 5})").eos_token_ids, ElementsAre(5));
  EXPECT_THAT(Parse(R"({"eos_token_id": null})").eos_token_ids, ElementsAre(7));
  EXPECT_THAT(Parse("{}").eos_token_ids, ElementsAre(7));
  const GenerationConfig outside = Parse(R"({"eos_token_id": [-1, 100, 5]})");
  EXPECT_THAT(outside.eos_token_ids, ElementsAre(5));
  EXPECT_THAT(outside.ignored_keys, ElementsAre("eos_token_id -1 (vocab_size is 100)",
                                                "eos_token_id 100 (vocab_size is 100)"));
  EXPECT_THAT(Parse(R"({"eos_token_id": 100})").eos_token_ids, IsEmpty());
}

TEST(GenerationConfigTest, NamesWhatItCannotHonour) {
  const GenerationConfig config =
      Parse(R"({"num_beams": 4, "no_repeat_ngram_size": 0, "suppress_tokens": [1]})");
  EXPECT_THAT(config.ignored_keys, ElementsAre("num_beams", "suppress_tokens"));
  EXPECT_THAT(Parse(R"({"min_new_tokens": 3, "diversity_penalty": 0.5, "max_time": 2.0,
                        "exponential_decay_length_penalty": [5, 1.1]})")
                  .ignored_keys,
              ElementsAre("min_new_tokens", "diversity_penalty", "exponential_decay_length_penalty",
                          "max_time"));
  EXPECT_THAT(Parse(R"({"min_new_tokens": 0, "diversity_penalty": 0.0})").ignored_keys, IsEmpty());
}

TEST(GenerationConfigTest, IsNotNeeded) {
  TempDir dir;
  const absl::StatusOr<GenerationConfig> config = LoadGenerationConfig(dir.path(), SomeModel());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->sampling.temperature, 1);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(7));
}

}  // namespace
}  // namespace gatehouse
