#include "server/remote_rank.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

absl::Status RemoteRank::Join(const Membership& membership) {
  joined_ = slots_.Up(rank_);
  policies_ = {};
  {
    const MutexLock lock(mutex_);
    to_tell_ = joined_;
    epoch_ = membership.epoch;
  }
  absl::Status formed =
      absl::UnavailableError(absl::StrFormat("rank %d lost in epoch %d", rank_, membership.epoch));
  if (joined_ != nullptr) {
    v1::WorkerCommand command;
    *command.mutable_form() = ToProto(membership);
    joined_->Send(std::move(command));
    formed = joined_->AwaitFormed(membership.epoch);
  }
  // The others need not wait for it until their deadline.
  if (!formed.ok()) slots_.EndEpoch(membership.epoch, rank_);
  return formed;
}

void RemoteRank::Place(int moe_layer_idx, const ExpertPlacement& placement) {
  if (joined_ == nullptr) return;
  v1::WorkerCommand command;
  command.mutable_place()->set_moe_layer(moe_layer_idx);
  *command.mutable_place()->mutable_placement() = ToProto(placement);
  joined_->Send(std::move(command));
}

absl::StatusOr<RankResult> RemoteRank::Run(const RankStep& step) {
  if (joined_ == nullptr) return absl::UnavailableError(absl::StrFormat("rank %d is lost", rank_));
  v1::WorkerCommand command;
  *command.mutable_step() = ToProto(step);
  policies_.AddTo(step.routing.policies, *command.mutable_step());
  command.mutable_step()->set_step(++num_steps_);
  joined_->Send(std::move(command));
  GATEHOUSE_ASSIGN_OR_RETURN(const v1::RankStepResult result, joined_->AwaitResult(num_steps_));
  return FromProto(result, step.slice->token_ids.size(), step.sampling.size());
}

void RemoteRank::Lose(int rank) {
  v1::WorkerCommand command;
  std::shared_ptr<WorkerCall> call;
  {
    const MutexLock lock(mutex_);
    call = to_tell_;
    command.mutable_lost()->set_epoch(epoch_);
    command.mutable_lost()->set_rank(rank);
  }
  if (call != nullptr) call->Send(std::move(command));
}

}  // namespace gatehouse
