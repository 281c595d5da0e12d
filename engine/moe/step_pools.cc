#include "engine/moe/step_pools.h"

#include <set>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

absl::Status CheckBelow(const char* name, int64_t value, int64_t end) {
  if (value >= 0 && value < end) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: got %d, expected one from 0, below %d", name, value, end));
}

absl::Status CheckToken(const RoutingStep& step, const RoutedToken& token) {
  GATEHOUSE_RETURN_IF_ERROR(CheckBelow("position", token.position, kNoBound));
  GATEHOUSE_RETURN_IF_ERROR(CheckBelow("rank", token.rank, step.num_ranks));
  if (token.policy_idx < 0 && token.mode == TokenMode::kExact) {
    return CheckBelow("home", token.home_device, step.placement.num_devices);
  }
  GATEHOUSE_RETURN_IF_ERROR(
      CheckBelow("policy", token.policy_idx, static_cast<int64_t>(step.policies.size())));
  const LayerPolicy& rules = step.policies[token.policy_idx];
  GATEHOUSE_RETURN_IF_ERROR(CheckBelow("home", token.home_device, rules.placement->num_devices));
  const bool in_block = token.mode == TokenMode::kBlock || token.mode == TokenMode::kBlockCausal;
  if (token.mode == TokenMode::kThreshold && rules.thresholds.empty()) {
    return absl::InvalidArgumentError("thresholds: got none, threshold mode needs one an expert");
  }
  if (in_block && rules.policy->block_tokens < 1) {
    return absl::InvalidArgumentError("block: got none, the block modes need its tokens");
  }
  return absl::OkStatus();
}

absl::Status CheckStep(const RoutingStep& step) {
  const size_t num_limits = step.limits.device_rows.size();
  for (const LayerPolicy& rules : step.policies) {
    if (num_limits == 0 || num_limits == static_cast<size_t>(rules.placement->num_devices))
      continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("devices: the policy places experts on %d, memory is given for %d",
                        rules.placement->num_devices, num_limits));
  }
  for (const RoutedToken& token : step.tokens) {
    if (!token.padding) GATEHOUSE_RETURN_IF_ERROR(CheckToken(step, token));
  }
  return absl::OkStatus();
}

// A row that fails takes all rows of its request with it.
std::vector<uint8_t> MarkFailedRows(const RoutingStep& step) {
  std::set<int64_t> requests;
  for (int row = 0; row < step.scores.num_rows; ++row) {
    const RoutedToken& token = step.tokens[row];
    if (!token.padding && step.scores.row_failed[row] != 0) requests.insert(token.request);
  }
  std::vector<uint8_t> failed(step.scores.num_rows);
  if (requests.empty()) return failed;
  for (int row = 0; row < step.scores.num_rows; ++row) {
    const RoutedToken& token = step.tokens[row];
    failed[row] = !token.padding && requests.contains(token.request) ? 1 : 0;
  }
  return failed;
}

Pool& PoolOf(StepPools& pools, const RoutingStep& step, const RoutedToken& token) {
  switch (token.mode) {
    case TokenMode::kExact:
    case TokenMode::kThreshold:
      break;
    case TokenMode::kBlock:
    case TokenMode::kBlockCausal: {
      const int64_t block = token.position / step.policies[token.policy_idx].policy->block_tokens;
      return pools.blocks[{token.request, block, token.mode == TokenMode::kBlockCausal}];
    }
    case TokenMode::kShared: {
      const bool rank_local = step.policies[token.policy_idx].policy->capacity.rank_local;
      return pools.shared[{token.domain, rank_local ? token.rank : 0}];
    }
  }
  return pools.unbounded[token.policy_idx];
}

}  // namespace

absl::StatusOr<StepPools> GatherPools(const RoutingStep& step) {
  GATEHOUSE_RETURN_IF_ERROR(CheckStep(step));
  const std::vector<uint8_t> failed = MarkFailedRows(step);
  StepPools pools;
  for (int row = 0; row < step.scores.num_rows; ++row) {
    const RoutedToken& token = step.tokens[row];
    if (failed[row] != 0) pools.failed_rows.push_back(row);
    if (failed[row] != 0 || token.padding) continue;
    Pool& pool = PoolOf(pools, step, token);
    if (pool.rows.empty()) pool.policy_idx = token.policy_idx;
    if (pool.policy_idx != token.policy_idx) {
      return absl::InvalidArgumentError(
          absl::StrFormat("policy: got %d and %d in one domain or block, expected one",
                          pool.policy_idx, token.policy_idx));
    }
    pool.rows.push_back(row);
  }
  return pools;
}

}  // namespace gatehouse
