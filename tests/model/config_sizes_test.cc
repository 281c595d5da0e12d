// A size of any family's config.json that cannot be one is refused by its name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/model/model_config.h"

namespace gatehouse {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* kSizes[] = {"first_k_dense_replace",
                                  "head_dim",
                                  "hidden_size",
                                  "intermediate_size",
                                  "kv_lora_rank",
                                  "max_position_embeddings",
                                  "moe_intermediate_size",
                                  "n_group",
                                  "n_routed_experts",
                                  "n_shared_experts",
                                  "num_attention_heads",
                                  "num_experts",
                                  "num_experts_per_tok",
                                  "num_hidden_layers",
                                  "num_key_value_heads",
                                  "num_local_experts",
                                  "q_lora_rank",
                                  "qk_nope_head_dim",
                                  "qk_rope_head_dim",
                                  "shared_expert_intermediate_size",
                                  "topk_group",
                                  "v_head_dim",
                                  "vocab_size"};

std::vector<json> NoSizes() {
  return {-1,
          std::numeric_limits<int64_t>::max(),
          std::numeric_limits<uint64_t>::max(),
          4.5,
          1e300,
          "4",
          true,
          json::array({4}),
          json::object()};
}

std::map<std::string, json> GoldenConfigs() {
  std::map<std::string, json> configs;
  for (const auto& folder :
       std::filesystem::directory_iterator(GATEHOUSE_SOURCE_DIR "/tests/golden")) {
    std::ifstream file(folder.path() / "config.json");
    if (file) configs[folder.path().filename()] = json::parse(file);
  }
  return configs;
}

TEST(ConfigSizesTest, WhatCannotBeASizeIsRefusedByName) {
  std::map<std::string, int> families_of_key;
  const auto configs = GoldenConfigs();
  for (const auto& [name, config] : configs) {
    ASSERT_TRUE(ParseModelConfig(config.dump(), "config.json").ok()) << name;
    for (const char* key : kSizes) {
      if (!config.contains(key) || !config[key].is_number()) continue;
      ++families_of_key[key];
      for (const json& value : NoSizes()) {
        json spoilt = config;
        spoilt[key] = value;
        const absl::Status status = ParseModelConfig(spoilt.dump(), "config.json").status();
        EXPECT_THAT(std::string(status.message()),
                    HasSubstr("config.json: " + std::string(key) + ": got "))
            << name << " took " << value;
      }
    }
  }
  EXPECT_GE(configs.size(), 20u);
  EXPECT_EQ(families_of_key.size(), std::size(kSizes));
}

}  // namespace
}  // namespace gatehouse
