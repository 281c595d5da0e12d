// The flags of `gatehouse admin ...` and `gatehouse top`, parsed into the requests that they stand
// for.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "gatehouse/v1/admin.pb.h"

namespace CLI {
class App;
}

namespace gatehouse {

struct CliOptions;

struct AdminOptions {
  double interval_seconds = 1;       // watch, top
  int64_t max_updates = 0;           // watch, top; 0: until interrupted
  v1::GetExpertLoadRequest experts;  // experts, top
  v1::GetPlacementRequest placement;
  v1::RebalanceRequest rebalance;
  v1::GetRequestsRequest requests;
  v1::CancelRequestRequest cancel;
  v1::DrainRequest drain;
  v1::SetLogLevelRequest log_level;
  v1::InjectFaultRequest fault;
  std::string routing_file;                 // routing set; '-': standard input
  v1::SetRoutingPolicyRequest set_routing;  // without the policy

  std::chrono::milliseconds interval() const {
    return std::chrono::milliseconds(static_cast<int64_t>(interval_seconds * 1000));
  }
};

// Adds the commands `admin ...` and `top`, which set options.command and fill options.admin.
// `options` must outlive the parsing.
void AddAdmin(CLI::App& app, CliOptions& options);

}  // namespace gatehouse
