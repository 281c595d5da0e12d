// The call of one worker to the first rank, from its first message to its last: what is to be
// written waits in a queue, answers wait for who asked. Held by the deployment until gRPC is done
// with it, and by the rank that uses it. Any thread.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatehouse/v1/worker.pb.h"
#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

class WorkerCall;

// Called on gRPC's threads, or on those that end a call; never with a lock held.
class WorkerCallOwner {
 public:
  virtual ~WorkerCallOwner() = default;
  virtual void OnHello(WorkerCall& call, const v1::RankHello& hello) = 0;
  virtual void OnLoaded(WorkerCall& call, const v1::RankLoaded& loaded) = 0;
  virtual void OnKey(WorkerCall& call, const v1::RankKey& key) = 0;
  // Once: the worker is gone, or is told to go.
  virtual void OnEnd(WorkerCall& call, const absl::Status& why) = 0;
  virtual void OnGone(WorkerCall* call) = 0;  // gRPC is done: may destroy it
};

class WorkerCall final : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::WorkerCommand> {
 public:
  WorkerCall(WorkerCallOwner& owner, grpc::CallbackServerContext& context);

  // Reads the first message. Before, the call is refused by End.
  void Begin();
  // Nothing where the call has ended.
  void Send(v1::WorkerCommand command) GATEHOUSE_EXCLUDES(mutex_);
  // Whoever waits hears UNAVAILABLE, the worker `status`. The first counts.
  void End(const absl::Status& status) GATEHOUSE_EXCLUDES(mutex_);
  // Of the deployment's pulse: says that we live, and ends the call of one that is silent.
  void Beat(bool was_held_up) GATEHOUSE_EXCLUDES(mutex_);

  // The worker's answer; UNAVAILABLE once the call has ended.
  absl::Status AwaitFormed(int64_t epoch) GATEHOUSE_EXCLUDES(mutex_);
  absl::StatusOr<v1::RankStepResult> AwaitResult(int64_t step) GATEHOUSE_EXCLUDES(mutex_);

  // Of the slot that the deployment gave it; -1: none. Set once, before others know the call.
  int rank() const { return rank_.load(); }
  void set_rank(int rank) { rank_.store(rank); }
  std::string peer() const { return peer_; }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override GATEHOUSE_EXCLUDES(mutex_);
  void OnCancel() override;
  void OnDone() override;

 private:
  void Receive();
  void Pump() GATEHOUSE_EXCLUDES(mutex_);
  void Cut() GATEHOUSE_EXCLUDES(context_mutex_);

  WorkerCallOwner& owner_;
  grpc::CallbackServerContext& context_;
  const std::string peer_;
  std::atomic<int> rank_{-1};
  std::atomic<TimePoint> last_heard_;
  v1::WorkerMessage read_;     // while a read is under way, gRPC's
  v1::WorkerCommand written_;  // while a write is, likewise

  Mutex mutex_;
  CondVar changed_;
  std::deque<v1::WorkerCommand> queue_ GATEHOUSE_GUARDED_BY(mutex_);
  bool writing_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool finished_ GATEHOUSE_GUARDED_BY(mutex_) = false;  // Finish was called
  bool ending_ GATEHOUSE_GUARDED_BY(mutex_) = false;    // End was called
  std::optional<absl::Status> end_ GATEHOUSE_GUARDED_BY(mutex_);
  std::optional<v1::RankFormed> formed_ GATEHOUSE_GUARDED_BY(mutex_);
  std::optional<v1::RankStepResult> result_ GATEHOUSE_GUARDED_BY(mutex_);

  Mutex context_mutex_;  // gRPC may answer a cancellation on the same thread
  bool gone_ GATEHOUSE_GUARDED_BY(context_mutex_) = false;  // OnDone: the context is gRPC's again
};

}  // namespace gatehouse
