#include "engine/local_rank.h"

#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

LocalRank::LocalRank(int rank, RankParts parts, int num_moe_layers, JoinGroup join)
    : rank_(rank),
      compute_(std::move(parts)),
      join_(std::move(join)),
      placements_(num_moe_layers),
      local_dispatcher_(compute_.backend()) {}

absl::Status LocalRank::Join(const Membership& membership) {
  rank_dispatcher_.reset();
  GATEHOUSE_ASSIGN_OR_RETURN(std::shared_ptr<Communicator> comm, join_(membership, rank_));
  rank_dispatcher_.emplace(compute_.backend(), *comm);
  const MutexLock lock(mutex_);
  comm_ = std::move(comm);
  return absl::OkStatus();
}

absl::StatusOr<RankResult> LocalRank::Run(const RankStep& step) {
  if (join_ == nullptr) {
    local_dispatcher_.BeginStep(step.rows->num_rows());
    return compute_.Run(*step.slice, step.routing, local_dispatcher_, step.sampling);
  }
  GATEHOUSE_CHECK(rank_dispatcher_.has_value()) << "rank " << rank_ << " is in no group";
  rank_dispatcher_->BeginStep(*step.rows, placements_);
  GATEHOUSE_ASSIGN_OR_RETURN(
      RankResult result, compute_.Run(*step.slice, step.routing, *rank_dispatcher_, step.sampling));
  result.exchanges = rank_dispatcher_->TakeExchanges();
  return result;
}

void LocalRank::Lose(int rank) {
  const MutexLock lock(mutex_);
  if (comm_ != nullptr) comm_->Lose(rank);
}

}  // namespace gatehouse
