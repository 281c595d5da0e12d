#include "server/tenants.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kToken[] = "0123456789abcdef";
// printf 0123456789abcdef | sha256sum
constexpr char kDigest[] =
    "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";

std::string NameOf(const Tenants& tenants, const std::string& authorization) {
  const auto policy = tenants.Authenticate(authorization);
  return policy.ok() ? (*policy)->tenant->name : std::string(policy.status().message());
}

TEST(TenantTableTest, ReadsEveryKey) {
  const auto table = TenantTable::Parse(R"(
tenants:
  - name: research
    weight: 3
    max-priority: normal
    max-running-requests: 16
    max-queued-tokens: 200000
    default-mode: exact
    loosest-mode: isolated
    tokens: [0123456789abcdef]
  - {name: web-1, tokens: [sha256:0000000000000000000000000000000000000000000000000000000000000000]}
)");
  ASSERT_TRUE(table.ok()) << table.status();
  const auto policy = table->Find(kToken);
  ASSERT_NE(policy, nullptr);
  EXPECT_EQ(policy->tenant->name, "research");
  EXPECT_EQ(policy->tenant->weight, 3);
  EXPECT_EQ(policy->tenant->max_priority, Priority::kNormal);
  EXPECT_EQ(policy->tenant->max_running_requests, 16);
  EXPECT_EQ(policy->tenant->max_queued_tokens, 200000);
  EXPECT_EQ(policy->default_mode, RoutingMode::kExact);
  EXPECT_EQ(policy->loosest_mode, RoutingMode::kIsolated);
  ASSERT_EQ(table->policies().size(), 2u);
  const TenantPolicy& plain = *table->policies()[1];
  EXPECT_EQ(plain.tenant->weight, 1);
  EXPECT_EQ(plain.tenant->max_priority, Priority::kHigh);
  EXPECT_EQ(plain.loosest_mode, RoutingMode::kExact) << "looser ones must be granted";
}

TEST(TenantTableTest, TakesATokenByItsDigest) {
  const auto table =
      TenantTable::ParseTokens(std::string("# rotated in May\n\n") + kDigest + "\r\n");
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_NE(table->Find(kToken), nullptr);
  EXPECT_EQ(table->Find(kToken)->tenant->name, "default");
  EXPECT_EQ(table->Find("0123456789abcdeF"), nullptr);
  EXPECT_EQ(table->Find(kDigest), nullptr) << "a digest is no token";
}

struct BadFile {
  const char* yaml;
  const char* fragment;
};

TEST(TenantTableTest, NamesWhatIsWrongAndRepeatsNoToken) {
  const BadFile kBadFiles[] = {
      {"", "tenants:"},
      {"[]", "tenants:"},
      {"tenants: []", "tenants: expected at least one"},
      {"tenants: 7", "tenants:"},
      {"tenants: []\nother: 1", "nothing else"},
      {"tenants: [7]", "tenants[0]: expected a map"},
      {"tenants: [{tokens: [0123456789abcdef]}]", "tenants[0].name"},
      {"tenants: [{name: A B, tokens: [0123456789abcdef]}]", "tenants[0].name: expected 1 to 64"},
      {"tenants: [{name: a}]", "tenants[0].tokens: expected at least one"},
      {"tenants: [{name: a, tokens: 0123456789abcdef}]", "tenants[0].tokens: expected a list"},
      {"tenants: [{name: a, tokens: [0123456789abcde]}]", "token 1 of tenant a"},
      {"tenants: [{name: a, tokens: [sha256:12345678]}]", "64 hexadecimal digits"},
      {"tenants: [{name: a, weight: 0, tokens: [0123456789abcdef]}]", "from 1 to 1000"},
      {"tenants: [{name: a, weight: 1e9, tokens: [0123456789abcdef]}]", "from 1 to 1000"},
      {"tenants: [{name: a, max-priority: top, tokens: [0123456789abcdef]}]",
       "low, normal or high"},
      {"tenants: [{name: a, default-mode: shared, tokens: [0123456789abcdef]}]", "loosest-mode"},
      {"tenants: [{name: a, default-mode: loose, tokens: [0123456789abcdef]}]",
       "exact, isolated or shared"},
      {"tenants: [{name: a, name: b, tokens: [0123456789abcdef]}]", "one such key"},
      {"tenants: [{name: a, token: [0123456789abcdef]}]",
       "tenants[0].token: expected name, weight"},
      {"tenants: [{name: a, tokens: [0123456789abcdef]}, {name: a, tokens: [0123456789abcdeg]}]",
       "tenants[1].name: expected another name"},
      {"tenants: [{name: a, tokens: [0123456789abcdef]}, {name: b, tokens: [0123456789abcdef]}]",
       "not there already"},
      {"tenants: [{name: a, tokens: [0123456789abcdef}", "line 1: expected YAML"},
  };
  for (const BadFile& bad : kBadFiles) {
    const auto table = TenantTable::Parse(bad.yaml);
    ASSERT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << bad.yaml;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(bad.fragment)) << bad.yaml;
    EXPECT_THAT(std::string(table.status().message()), Not(HasSubstr("0123456789abc")));
  }
  EXPECT_FALSE(TenantTable::Parse("tenants: " + std::string(100'000, '[')).ok());
  EXPECT_FALSE(TenantTable::ParseTokens("# none\n").ok());
  EXPECT_FALSE(TenantTable::ParseTokens("too short\n").ok());
}

TEST(TenantsTest, WithoutTokensEverybodyIsTheDefaultTenant) {
  const Tenants tenants;
  EXPECT_EQ((*tenants.Authenticate(std::nullopt))->tenant->name, "default");
  EXPECT_EQ(NameOf(tenants, "Bearer whatever"), "default");
}

TEST(TenantsTest, OnlyAKnownBearerTokenGetsIn) {
  Tenants tenants(*TenantTable::ParseTokens(kToken));
  EXPECT_EQ(NameOf(tenants, std::string("Bearer ") + kToken), "default");
  EXPECT_EQ(NameOf(tenants, std::string("bearer ") + kToken), "default") << "schemes have no case";
  for (const std::string authorization :
       {"", "Bearer", "Bearer ", "Bearer wrong-wrong-wrong", "Basic 0123456789abcdef",
        "0123456789abcdef", "Bearer  0123456789abcdef", "Bearer 0123456789abcdef "}) {
    const auto policy = tenants.Authenticate(authorization);
    EXPECT_EQ(policy.status().code(), absl::StatusCode::kUnauthenticated) << authorization;
    EXPECT_THAT(std::string(policy.status().message()), Not(HasSubstr("wrong")));
  }
  EXPECT_EQ(tenants.Authenticate(std::nullopt).status().code(), absl::StatusCode::kUnauthenticated);
  tenants.Set(*TenantTable::ParseTokens("fedcba9876543210"));
  EXPECT_FALSE(tenants.Authenticate(std::string("Bearer ") + kToken).ok());
  EXPECT_TRUE(tenants.Authenticate("Bearer fedcba9876543210").ok());
}

}  // namespace
}  // namespace gatehouse
