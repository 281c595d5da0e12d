#include "client/generate_streams.h"

#include <grpcpp/alarm.h>

#include <condition_variable>
#include <mutex>
#include <optional>

#include "client/channel.h"
#include "client/retry.h"

namespace gatehouse {
namespace {

absl::Status CancelledByCaller() { return absl::CancelledError("cancelled by the caller"); }

// The state that both readers share: what was delivered, and so whether a retry is still allowed.
class Attempts {
 public:
  explicit Attempts(const GenerateSetup& setup) : tries_(setup.retry, setup.options) {}

  void Prepare(const GenerateSetup& setup, grpc::ClientContext& context) const {
    AddMetadata(setup.authorization, setup.options, context);
    if (tries_.deadline().has_value()) context.set_deadline(*tries_.deadline());
  }

  // Whether the caller gets `event`: of all tries together one `started`.
  bool Deliver(const v1::GenerateResponse& event) {
    if (!event.has_started()) {
      delivered_ = true;
      return true;
    }
    return !std::exchange(started_, true);
  }

  std::optional<std::chrono::milliseconds> Next(const absl::Status& status) {
    if (delivered_) return std::nullopt;
    return tries_.Next(status);
  }

 private:
  Tries tries_;
  bool started_ = false;
  bool delivered_ = false;
};

class SyncStream final : public GenerateStream {
 public:
  explicit SyncStream(GenerateSetup setup) : setup_(std::move(setup)), attempts_(setup_) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Start();
  }
  ~SyncStream() override {
    if (ended_) return;
    Cancel();
    Finish().IgnoreError();  // nobody is left to hear it
  }

  bool Next(v1::GenerateResponse& event) override {
    while (!ended_) {
      if (!reader_->Read(&event)) {
        status_ = FromGrpc(reader_->Finish());
        ended_ = !TryAgain();
      } else if (attempts_.Deliver(event)) {
        return true;
      }
    }
    return false;
  }
  absl::Status Finish() override {
    v1::GenerateResponse unread;  // gRPC's Finish before the last Read would wait for ever
    while (Next(unread)) {
    }
    return status_;
  }
  void Cancel() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    context_->TryCancel();
    wake_.notify_all();
  }

 private:
  bool TryAgain() {
    const auto delay = attempts_.Next(status_);
    if (!delay.has_value()) return false;
    std::unique_lock<std::mutex> lock(mutex_);
    if (wake_.wait_for(lock, *delay, [this] { return cancelled_; })) {
      status_ = CancelledByCaller();
      return false;
    }
    Start();
    return true;
  }
  void Start() {  // with the lock: Cancel must see either context whole
    reader_.reset();
    context_.emplace();
    attempts_.Prepare(setup_, *context_);
    reader_ = setup_.stub->Generate(&*context_, setup_.request);
  }

  const GenerateSetup setup_;
  Attempts attempts_;                                                 // reading thread
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;  // reading thread
  absl::Status status_;                                               // reading thread
  bool ended_ = false;                                                // reading thread

  std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<grpc::ClientContext> context_;  // replaced under mutex_
  bool cancelled_ = false;                      // guarded by mutex_
};

// Holds itself alive from Start to the last OnDone. gRPC touches a reactor for the last time when
// it calls OnDone, so that the same one may start the next try.
class CallbackCall final : public GenerateCall,
                           public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  CallbackCall(GenerateSetup setup, std::shared_ptr<GenerateHandler> handler)
      : setup_(std::move(setup)), handler_(std::move(handler)), attempts_(setup_) {}

  void Start(std::shared_ptr<CallbackCall> self) {
    self_ = std::move(self);
    StartTry();
  }
  void Cancel() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (std::exchange(cancelled_, true)) return;
      context_->TryCancel();
    }
    // Not under the lock, which the alarm's callback takes. Nobody replaces the alarm any more:
    // that is done under the lock and not once cancelled.
    if (alarm_ != nullptr) alarm_->Cancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (attempts_.Deliver(response_)) handler_->OnEvent(response_);
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& grpc_status) override {
    const absl::Status status = FromGrpc(grpc_status);
    const auto delay = attempts_.Next(status);
    if (!delay.has_value()) return End(status);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!cancelled_) {
        alarm_ = std::make_unique<grpc::Alarm>();
        alarm_->Set(std::chrono::system_clock::now() + *delay, [this](bool) { StartTry(); });
        return;
      }
    }
    End(CancelledByCaller());
  }

 private:
  void StartTry() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!cancelled_) {
        context_.emplace();
        attempts_.Prepare(setup_, *context_);
      } else {
        context_.reset();
      }
    }
    // A Cancel from here on finds a context that remembers it until its call starts.
    if (!context_.has_value()) return End(CancelledByCaller());
    setup_.stub->async()->Generate(&*context_, &setup_.request, this);
    StartRead(&response_);
    StartCall();
  }
  void End(const absl::Status& status) {
    const std::shared_ptr<CallbackCall> self = std::move(self_);
    handler_->OnDone(status);
    handler_.reset();  // a caller may still hold the call: break the cycle
  }

  const GenerateSetup setup_;
  v1::GenerateResponse response_;
  std::shared_ptr<GenerateHandler> handler_;
  std::shared_ptr<CallbackCall> self_;
  Attempts attempts_;

  std::mutex mutex_;
  std::optional<grpc::ClientContext> context_;  // replaced under mutex_, by the running try
  std::unique_ptr<grpc::Alarm> alarm_;          // replaced under mutex_, unless cancelled_
  bool cancelled_ = false;                      // guarded by mutex_
};

}  // namespace

std::unique_ptr<GenerateStream> MakeGenerateStream(GenerateSetup setup) {
  return std::make_unique<SyncStream>(std::move(setup));
}

std::shared_ptr<GenerateCall> MakeGenerateCall(GenerateSetup setup,
                                               std::shared_ptr<GenerateHandler> handler) {
  auto call = std::make_shared<CallbackCall>(std::move(setup), std::move(handler));
  call->Start(call);
  return call;
}

}  // namespace gatehouse
