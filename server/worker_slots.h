// Which worker is which rank of the deployment, and who of them is up. A rank keeps its slot for
// the deployment's life; the worker in it may be lost and come back. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/comm/key_board.h"
#include "engine/comm/membership.h"
#include "kernels/base/mutex.h"
#include "server/worker_call.h"

namespace gatehouse {

class WorkerSlots {
 public:
  explicit WorkerSlots(int num_workers);  // ranks 1 ..

  int num_ranks() const { return num_ranks_; }
  // The slot that it had, or the first that is free. ALREADY_EXISTS: there is none.
  absl::StatusOr<int> Take(const std::shared_ptr<WorkerCall>& call, std::optional<int> last_rank)
      GATEHOUSE_EXCLUDES(mutex_);
  // It has loaded the model: it may be a member of the next group.
  void SetUp(const WorkerCall& call) GATEHOUSE_EXCLUDES(mutex_);
  // Its slot is free, and the group that it was in ends for all.
  void Leave(const WorkerCall& call) GATEHOUSE_EXCLUDES(mutex_);
  void WaitUntilAllUp() GATEHOUSE_EXCLUDES(mutex_);

  std::vector<std::shared_ptr<WorkerCall>> Taken() const GATEHOUSE_EXCLUDES(mutex_);
  std::shared_ptr<WorkerCall> Up(int rank) const GATEHOUSE_EXCLUDES(mutex_);  // null: it is not
  int64_t num_returns(int rank) const GATEHOUSE_EXCLUDES(mutex_);

  // A group is being formed; UNAVAILABLE when a member is down already.
  absl::Status BeginEpoch(const Membership& membership) GATEHOUSE_EXCLUDES(mutex_);
  // Members of that epoch wait for `rank` in vain.
  void EndEpoch(int64_t epoch, int rank) GATEHOUSE_EXCLUDES(mutex_);
  // How a rank is reached: to this board and to all workers but itself.
  void Publish(const BoardKey& key, int from_rank) GATEHOUSE_EXCLUDES(mutex_);
  KeyBoard& board() { return board_; }

 private:
  struct Slot {
    std::shared_ptr<WorkerCall> call;  // null: free
    bool is_up = false;
    int64_t num_joins = 0;
  };

  void SendToOthers(const v1::WorkerCommand& command, int but_rank) GATEHOUSE_EXCLUDES(mutex_);

  const int num_ranks_;
  KeyBoard board_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<Slot> slots_ GATEHOUSE_GUARDED_BY(mutex_);  // [num_ranks], the first is not used
  Membership group_ GATEHOUSE_GUARDED_BY(mutex_);
};

}  // namespace gatehouse
