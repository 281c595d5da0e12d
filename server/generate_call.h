// One Generate call: translates between gRPC's reactor and a StreamQueue, and nothing else.
//
//   request --(front pool if long)--> ToRequest, Engine::Submit
//   engine loop --Push, Close--> StreamQueue --Pump--> StartWrite ... Finish
//
// ActiveCalls owns it until OnDone; the engine shares it until Close has returned. Finish always
// comes after Close, so nothing of the call is used once gRPC has let go of it.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.h"
#include "gatehouse/v1/inference.pb.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "kernels/base/mutex.h"
#include "server/convert.h"
#include "server/front_pool.h"
#include "server/prometheus_metrics.h"
#include "server/stream_queue.h"

namespace gatehouse {

class ActiveCalls;

// What every call uses; all of it outlives the calls.
struct CallParts {
  Engine& engine;
  PrometheusMetrics& metrics;
  const Logger& logger;
  const Clock& clock;
  FrontPool& front;
  ActiveCalls& active;
  StreamLimits limits;
};

// Longer messages are tokenised by the front pool: at some 5 MB/s these are 2 ms of a callback
// thread, of which gRPC has few.
inline constexpr size_t kMaxInlineBytes = size_t{8} << 10;

class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                           public TokenSink,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  // `context` and `request` belong to gRPC and live until OnDone. `default_id` is the request's id
  // unless the client gave one.
  GenerateCall(const CallParts& parts, grpc::CallbackServerContext* context,
               const v1::GenerateRequest* request, const std::string& default_id);
  void Start();

  // TokenSink: engine loop.
  bool Push(SinkEvent event) override;
  void Close(absl::Status status) override;

  // Reactor: gRPC's threads.
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // From the server's watcher: ends a stream whose reader takes nothing any more.
  void CheckStall();

 private:
  // For the log line. Written by the engine loop until Close, read after it.
  struct Record {
    int32_t num_prompt_tokens = 0;
    int32_t num_generated_tokens = 0;
    double queue_seconds = 0;
    double time_to_first_token_seconds = 0;
  };

  void Submit();
  absl::StatusOr<Engine::Ticket> SubmitToEngine();
  void Refuse(absl::Status status);
  absl::Status StatusOfLostClient() const;
  void Pump();
  void Report(const absl::Status& status);
  grpc::Status FinalStatus(const absl::Status& status);

  const CallParts parts_;
  grpc::CallbackServerContext* const context_;
  const v1::GenerateRequest* const request_;
  const TimePoint start_;
  const TimePoint deadline_;
  const std::string traceparent_;
  const std::string id_;
  StreamQueue queue_;

  EventConverter converter_;       // by whoever has the write
  v1::GenerateResponse response_;  // the same; in use until OnWriteDone
  Record record_;

  Mutex mutex_;
  std::optional<Engine::Ticket> ticket_ GATEHOUSE_GUARDED_BY(mutex_);
  bool cancelled_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool refused_ GATEHOUSE_GUARDED_BY(mutex_) = false;  // never became the engine's
  bool done_ GATEHOUSE_GUARDED_BY(mutex_) = false;     // context_ is gone
  std::optional<TimePoint> lost_since_ GATEHOUSE_GUARDED_BY(mutex_);
};

// The calls that gRPC has not let go of. Any thread.
class ActiveCalls {
 public:
  void Add(std::shared_ptr<GenerateCall> call);
  void Remove(const GenerateCall* call);
  void CheckStalls();
  // False when calls are left after `timeout`.
  bool WaitUntilNone(Duration timeout);

 private:
  Mutex mutex_;
  CondVar removed_;
  std::map<const GenerateCall*, std::shared_ptr<GenerateCall>> calls_ GATEHOUSE_GUARDED_BY(mutex_);
};

}  // namespace gatehouse
