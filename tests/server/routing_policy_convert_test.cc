#include "server/routing_policy_convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "proto/message_yaml.h"

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

ModelDescription ModelWith(int32_t top_k) {
  ModelDescription model;
  model.moe_layers = {1, 2, 4};
  model.num_experts = 6;
  model.top_k = top_k;
  return model;
}

// A policy file with one mode's block, against a model of 6 experts; what was read, defaults and
// all, comes back in `policy`.
absl::StatusOr<RoutingTable> Convert(const std::string& mode, const std::string& block,
                                     v1::RoutingPolicy& policy, int32_t top_k = 2) {
  const ModelDescription model = ModelWith(top_k);
  const absl::Status read = MessageFromYaml(mode + ": {" + block + "}", policy);
  if (!read.ok()) return read;
  return ToRoutingTable({.model = model, .block_tokens = 16, .max_chunk_tokens = 128}, policy);
}

std::string ErrorOf(const std::string& mode, const std::string& block) {
  v1::RoutingPolicy policy;
  return std::string(Convert(mode, block, policy).status().message());
}

struct TableRow {  // of docs/routing.md
  std::string policy;
  std::string settings;  // the least that it wants
  int32_t top_k;
  bool threshold, block, shared;
};
const TableRow kTable[] = {
    {"token_choice", "", 2, true, false, true},
    {"threshold", ", exempt_layers: {layers: [1, 2, 4]}", 2, true, false, false},
    {"locmoe_plus", ", expert_factor: 1.25", 2, false, true, true},
    {"locmoe", ", capacity: 8", 2, false, true, true},
    {"device_bound", "", 2, false, false, true},
    {"switch", ", expert_factor: 1.25", 1, false, true, false},
};

TEST(ToRoutingTableTest, GivesEachPolicyTheModesOfTheTableAndNoOther) {
  for (const TableRow& row : kTable) {
    const std::string block = "policy: " + row.policy + row.settings;
    const std::string causality = row.policy == "switch" ? "BLOCK" : "BLOCK_CAUSAL";
    v1::RoutingPolicy threshold, blocks, shared;
    EXPECT_EQ(Convert("isolated", block + ", isolation: THRESHOLD", threshold, row.top_k).ok(),
              row.threshold)
        << row.policy;
    EXPECT_EQ(Convert("isolated", block + ", isolation: " + causality, blocks, row.top_k).ok(),
              row.block)
        << row.policy;
    EXPECT_EQ(Convert("shared", block + ", force: true", shared, row.top_k).ok(), row.shared)
        << row.policy;
  }
}

TEST(ToRoutingTableTest, WhatItFilledInReadsBackAsTheSamePolicy) {
  for (const TableRow& row : kTable) {
    v1::RoutingPolicy first;
    const std::string block = "policy: " + row.policy + row.settings;
    const std::string mode = row.shared ? "shared" : "isolated";
    const auto table = Convert(mode, block + (row.shared ? ", force: true" : ""), first, row.top_k);
    ASSERT_TRUE(table.ok()) << row.policy << ": " << table.status();
    v1::RoutingPolicy second;
    ASSERT_TRUE(MessageFromYaml(MessageToYaml(first), second).ok());
    EXPECT_EQ(second.SerializeAsString(), first.SerializeAsString()) << row.policy;
    const ModelDescription model = ModelWith(row.top_k);
    ASSERT_TRUE(
        ToRoutingTable({.model = model, .block_tokens = 16, .max_chunk_tokens = 128}, second).ok());
    EXPECT_EQ(second.SerializeAsString(), first.SerializeAsString()) << row.policy;
  }
}

TEST(ToRoutingTableTest, RefusesFactorsOutOfRangeNamingTheField) {
  for (const char* value : {"0", "-1", ".nan", ".inf", "1e7"}) {
    for (const char* field : {"expert_factor", "device_factor"}) {
      EXPECT_THAT(ErrorOf("shared",
                          std::string("policy: locmoe_plus, force: true, ") + field + ": " + value),
                  HasSubstr(std::string("shared.") + field + ": got "))
          << value;
    }
  }
}

TEST(ToRoutingTableTest, RefusesWhatWouldBreakTheModesPromise) {
  EXPECT_THAT(ErrorOf("shared", "policy: locmoe_plus"),
              HasSubstr("shared.calibration_file: not set"));
  EXPECT_THAT(ErrorOf("shared", "policy: locmoe_plus, force: true, isolation: BLOCK"),
              HasSubstr("shared.isolation: set"));
  const std::string blocks = "policy: locmoe_plus, expert_factor: 1";
  EXPECT_EQ(ErrorOf("isolated", blocks), "");
  EXPECT_THAT(ErrorOf("isolated", blocks + ", device_factor: 1"),
              HasSubstr("isolated.device_factor: set"));
  EXPECT_THAT(ErrorOf("isolated", blocks + ", bound_decode: true"),
              HasSubstr("isolated.bound_decode: true"));
  EXPECT_THAT(ErrorOf("isolated", blocks + ", block_tokens: 144"),
              HasSubstr("isolated.block_tokens: got 144"));
}

TEST(MessageFromYamlTest, NamesAnUnknownField) {
  EXPECT_THAT(ErrorOf("shared", "policy: locmoe_plus, expert_factr: 1"), HasSubstr("expert_factr"));
}

}  // namespace
}  // namespace gatehouse
