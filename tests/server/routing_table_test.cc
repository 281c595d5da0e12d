#include "server/routing_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

TEST(ModeForTest, ARequestThatSaysNothingGetsItsTenantsDefaultThenTheServers) {
  RoutingTable table{.default_mode = RoutingMode::kShared};
  TenantPolicy tenant{.default_mode = RoutingMode::kIsolated};
  EXPECT_EQ(*ModeFor(table, tenant, std::nullopt), RoutingMode::kIsolated);
  tenant.default_mode.reset();
  EXPECT_EQ(*ModeFor(table, tenant, std::nullopt), RoutingMode::kShared);
  tenant.loosest_mode = RoutingMode::kIsolated;
  EXPECT_EQ(*ModeFor(table, tenant, std::nullopt), RoutingMode::kIsolated);
  table.loosest_mode = RoutingMode::kExact;
  EXPECT_EQ(*ModeFor(table, tenant, std::nullopt), RoutingMode::kExact);
}

TEST(ModeForTest, MoreThanTenantOrServerAllowIsDeniedNamingBoth) {
  const RoutingTable table;
  TenantPolicy tenant{.loosest_mode = RoutingMode::kIsolated};
  EXPECT_EQ(*ModeFor(table, tenant, RoutingMode::kExact), RoutingMode::kExact);
  EXPECT_EQ(*ModeFor(table, tenant, RoutingMode::kIsolated), RoutingMode::kIsolated);
  const absl::Status denied = ModeFor(table, tenant, RoutingMode::kShared).status();
  EXPECT_EQ(denied.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(denied.message()),
              HasSubstr("got shared, the loosest mode of tenant \"default\" is isolated"));
  const RoutingTable strict{.loosest_mode = RoutingMode::kExact};
  EXPECT_THAT(std::string(ModeFor(strict, tenant, RoutingMode::kIsolated).status().message()),
              HasSubstr("got isolated, the loosest mode of tenant \"default\" is exact"));
}

}  // namespace
}  // namespace gatehouse
