// The flags of a deployment with ranks in other processes, and what they must be together.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "server/config_option.h"
#include "server/server_config.h"

namespace gatehouse {

void AddDeploymentOptions(std::vector<Option>& options);

// INVALID_ARGUMENT names the flag that is missing or does not fit.
absl::Status ValidateDeployment(const ServerConfig& config);

}  // namespace gatehouse
