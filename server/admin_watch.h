// The streams of operators that watch something: a message now and one each interval, made by the
// server's watcher thread. While a reader is slow, messages are left out, never queued.
//
//   AdminWatches watches(/*max_watches=*/64);
//   return watches.Open<v1::ServerStatus>(interval, now, [this] { return Status(); });
//   watches.Tick(now);                              // the watcher, each period
//   watches.EndAll(absl::UnavailableError("..."));  // before the gRPC server goes
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"
#include "server/grpc_status.h"
#include "server/live_set.h"

namespace gatehouse {

class AdminWatches;

// When to write and when to finish; knows no message type. Shared by AdminWatches until OnDone.
class AdminWatch {
 public:
  virtual ~AdminWatch() = default;
  void Tick(TimePoint now) GATEHOUSE_EXCLUDES(mutex_);
  // Once; later calls change nothing.
  void End(const absl::Status& status) GATEHOUSE_EXCLUDES(mutex_);

 protected:
  AdminWatch(Duration interval, TimePoint now) : interval_(interval), due_(now) {}
  void Written(bool ok) GATEHOUSE_EXCLUDES(mutex_);

 private:
  virtual void Write() = 0;
  virtual void FinishWith(const absl::Status& status) = 0;

  const Duration interval_;
  Mutex mutex_;
  TimePoint due_ GATEHOUSE_GUARDED_BY(mutex_);
  bool writing_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool ended_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  absl::Status end_ GATEHOUSE_GUARDED_BY(mutex_);
};

// Thread-safe.
class AdminWatches {
 public:
  explicit AdminWatches(int max_watches) : max_watches_(static_cast<size_t>(max_watches)) {}

  // A stream that is refused (RESOURCE_EXHAUSTED when there are too many, or `admission`) is a
  // stream, too.
  template <typename Message>
  grpc::ServerWriteReactor<Message>* Open(const absl::Status& admission, Duration interval,
                                          TimePoint now, std::function<Message()> make);
  void Tick(TimePoint now);
  // Later ones are refused with `status`.
  void EndAll(const absl::Status& status);

 private:
  template <typename Message>
  friend class WatchStream;

  // RESOURCE_EXHAUSTED, or EndAll's status: then it is not added.
  absl::Status AddIfRoom(const std::shared_ptr<AdminWatch>& watch) GATEHOUSE_EXCLUDES(mutex_);

  const size_t max_watches_;
  LiveSet<AdminWatch> watches_;  // one that was refused is among them, until gRPC lets go of it
  mutable Mutex mutex_;
  absl::Status end_ GATEHOUSE_GUARDED_BY(mutex_);  // not OK: EndAll was called
};

template <typename Message>
class WatchStream final : public grpc::ServerWriteReactor<Message>, public AdminWatch {
 public:
  WatchStream(AdminWatches& watches, Duration interval, TimePoint now,
              std::function<Message()> make)
      : AdminWatch(interval, now), owner_(watches), make_(std::move(make)) {}

  void OnWriteDone(bool ok) override { Written(ok); }
  void OnCancel() override { End(absl::CancelledError("the client cancelled the call")); }
  void OnDone() override { owner_.watches_.Remove(this); }

 private:
  void Write() override {
    message_ = make_();
    this->StartWrite(&message_);
  }
  void FinishWith(const absl::Status& status) override { this->Finish(ToGrpcStatus(status)); }

  AdminWatches& owner_;
  const std::function<Message()> make_;
  Message message_;  // in use while writing
};

template <typename Message>
grpc::ServerWriteReactor<Message>* AdminWatches::Open(const absl::Status& admission,
                                                      Duration interval, TimePoint now,
                                                      std::function<Message()> make) {
  const auto stream = std::make_shared<WatchStream<Message>>(*this, interval, now, std::move(make));
  const absl::Status status = admission.ok() ? AddIfRoom(stream) : admission;
  if (!status.ok()) {
    stream->End(status);  // first: from Add on the watcher may tick it
    watches_.Add(stream);
  }
  stream->Tick(now);
  return stream.get();  // watches_ holds it until OnDone, which cannot come before this returns
}

}  // namespace gatehouse
