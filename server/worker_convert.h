// What the first rank tells ranks in other processes and hears of them: messages of worker.proto to
// engine types and back. Pure, but for PolicyNumbers and KnownPolicies, each of one connection.
//
// Of a message every index is checked that another part of the engine would trust: INTERNAL, since
// both ends are ours.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/comm/key_board.h"
#include "engine/comm/membership.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/pinned_policy.h"
#include "engine/rank.h"
#include "engine/rank_peer.h"
#include "engine/rank_slice.h"
#include "engine/remote_ranks.h"
#include "gatehouse/v1/worker.pb.h"

namespace gatehouse {

v1::RankWelcome ToProto(const RankSettings& settings, int rank);
// INTERNAL for a type of cache that is none.
absl::StatusOr<RankSettings> FromProto(const v1::RankWelcome& welcome);

v1::RankGroup ToProto(const Membership& membership);
Membership FromProto(const v1::RankGroup& group, int num_ranks);

v1::RankKey ToProto(const BoardKey& key);
BoardKey FromProto(const v1::RankKey& key);

v1::RankError ToProto(const absl::Status& status);
absl::Status FromProto(const v1::RankError& error);

v1::ExpertsOnDevices ToProto(const ExpertPlacement& placement);
absl::StatusOr<ExpertPlacement> FromProto(const v1::ExpertsOnDevices& message);

v1::RankPolicy ToProto(const PinnedPolicy& policy);
absl::StatusOr<PinnedPolicy> FromProto(const v1::RankPolicy& message);

// Which policies the other end knows, by what they say: a pointer may come back as another policy.
class PolicyNumbers {
 public:
  // Adds the policies of a step to its message, those in full that are new.
  void AddTo(std::span<const PinnedPolicy* const> policies, v1::RankStep& message);

 private:
  std::map<std::string, int32_t> numbers_;  // of what a policy serialises to
};

// The other end of PolicyNumbers.
class KnownPolicies {
 public:
  // Of the step, by policy_idx; valid until the next call.
  absl::StatusOr<std::vector<const PinnedPolicy*>> Read(const v1::RankStep& message);

 private:
  std::map<int32_t, std::unique_ptr<const PinnedPolicy>> policies_;
};

// Without its policies.
v1::RankStep ToProto(const RankStep& step);

// A step and the memory behind it. Not moved: its views point into it.
struct ReceivedStep {
  ReceivedStep() = default;
  ReceivedStep(const ReceivedStep&) = delete;
  ReceivedStep& operator=(const ReceivedStep&) = delete;

  StepRows rows;
  RankSlice slice;
  std::vector<RoutedToken> tokens;
  std::vector<const PinnedPolicy*> policies;
  std::vector<RowSampling> sampling;
  bool observed = false;
  int num_observed_ranks = 0;

  std::vector<std::vector<std::pair<int32_t, float>>> biases;  // [sampling.size()]
};

// What a step may name.
struct StepLimits {
  int num_ranks = 1;
  int rank = 0;
  int32_t vocab_size = 0;
  int num_moe_layers = 0;
  int num_experts = 0;
  int32_t max_rows = 0;
  int32_t max_context = 0;
  int32_t block_tokens = 1;
  int64_t num_kv_blocks = 0;
};
// `message` outlives `step`: lists of ids are views of it.
absl::Status Read(const v1::RankStep& message, const StepLimits& limits, KnownPolicies& policies,
                  ReceivedStep& step);

v1::RankStepResult ToProto(int64_t step, const absl::StatusOr<RankResult>& result);
// Of a step of so many own rows and rows of logits. The result's routes stay empty: every rank
// makes the same, and the first has its own.
absl::StatusOr<RankResult> FromProto(const v1::RankStepResult& message, size_t num_rows,
                                     size_t num_samples);

}  // namespace gatehouse
