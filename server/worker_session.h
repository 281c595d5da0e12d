// One call of a worker to the first rank, as the worker has it: what comes is handed on, what goes
// may be written by any thread, and a pulse of its own says that the worker lives. Owned by
// RankWorker, whose thread runs it.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "gatehouse/v1/worker.grpc.pb.h"
#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

class WorkerSession {
 public:
  // `token` empty: none.
  WorkerSession(v1::Deployment::Stub& stub, const std::string& token);

  // Says hello once the first rank is there, then reads until the call ends; `on_command` is called
  // on this thread. How the call ended: what Cancel said, what the first rank said, or UNAVAILABLE:
  // it is gone.
  absl::Status Run(const v1::RankHello& hello,
                   const std::function<void(v1::WorkerCommand)>& on_command);
  // Any thread. Nothing where the call has ended.
  void Send(const v1::WorkerMessage& message) GATEHOUSE_EXCLUDES(write_mutex_);
  // Any thread: the call ends with `status`. The first counts.
  void Cancel(const absl::Status& status) GATEHOUSE_EXCLUDES(mutex_);

 private:
  using Stream = grpc::ClientReaderWriter<v1::WorkerMessage, v1::WorkerCommand>;

  void Beat(bool was_held_up);

  grpc::ClientContext context_;
  std::atomic<TimePoint> last_heard_;
  Mutex write_mutex_;
  std::unique_ptr<Stream> stream_;  // read by one thread, written to under write_mutex_
  Mutex mutex_;
  absl::Status cancelled_ GATEHOUSE_GUARDED_BY(mutex_);
};

}  // namespace gatehouse
