// One Generate call: translates between gRPC's reactor and a StreamQueue, and nothing else.
//
//   refused at the door, or
//   request --(front pool if long)--> ToRequest, Engine::Submit
//   engine loop --Push, Close--> StreamQueue --Pump--> StartWrite ... Finish
//
// CallParts::active holds it until OnDone; the engine shares it until Close has returned. Finish
// always comes after Close, so nothing of the call is used once gRPC has let go of it.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "gatehouse/v1/inference.pb.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "kernels/base/mutex.h"
#include "server/byte_budget.h"
#include "server/convert.h"
#include "server/front_pool.h"
#include "server/health.h"
#include "server/live_set.h"
#include "server/prometheus_metrics.h"
#include "server/routing_control.h"
#include "server/stream_queue.h"
#include "server/tenants.h"

namespace gatehouse {

class GenerateCall;

// What every call uses; all of it outlives the calls.
struct CallParts {
  const ServingState& state;
  PrometheusMetrics& metrics;
  const Logger& logger;
  const Clock& clock;
  FrontPool& front;
  LiveSet<GenerateCall>& active;  // the calls that gRPC has not let go of
  const RoutingControl& routing;
  ByteBudget& open_bytes;  // of their requests, which gRPC keeps as long
  StreamLimits limits;
};

// Longer messages are tokenised by the front pool: at some 5 MB/s these are 2 ms of a callback
// thread, of which gRPC has few.
inline constexpr size_t kMaxInlineBytes = size_t{8} << 10;

// What operators may know of a call.
struct CallSnapshot {
  enum class State { kQueued, kRunning, kEnding };
  std::string id;
  std::string traceparent;
  std::string tenant;
  Priority priority = Priority::kNormal;
  RoutingMode mode = RoutingMode::kExact;
  State state = State::kQueued;
  TimePoint start{};
  int32_t num_prompt_tokens = 0;  // 0 until started
  int32_t num_cached_prompt_tokens = 0;
  int32_t num_generated_tokens = 0;
  size_t unread_bytes = 0;
};

class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                           public TokenSink,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  // `context` and `request` belong to gRPC and live until OnDone. `default_id` is the request's id
  // unless the client gave one. `policy` is null when nobody knows who calls.
  GenerateCall(const CallParts& parts, grpc::CallbackServerContext* context,
               const v1::GenerateRequest* request, const std::string& default_id,
               std::shared_ptr<const TenantPolicy> policy);
  // Refused, unless `admission` is OK: the caller is known then, and the model is there.
  void Start(const absl::Status& admission);

  // TokenSink: engine loop.
  bool Push(SinkEvent event) override;
  void Close(absl::Status status) override;

  // Reactor: gRPC's threads.
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // From the server's watcher: ends a stream whose reader takes nothing any more.
  void CheckStall();

  // Any thread.
  CallSnapshot Snapshot() const;
  // As the client's own cancel, but the reason is the operator's. False: it has ended already.
  bool CancelByOperator();

 private:
  // For operators and the log line. Written by the engine loop, priority and mode before it.
  struct Record {
    std::atomic<Priority> priority = Priority::kNormal;  // in force
    std::atomic<RoutingMode> mode = RoutingMode::kExact;
    std::atomic<CallSnapshot::State> state = CallSnapshot::State::kQueued;
    std::atomic<int32_t> num_prompt_tokens = 0;
    std::atomic<int32_t> num_cached_prompt_tokens = 0;
    std::atomic<int32_t> num_generated_tokens = 0;
    double queue_seconds = 0;  // these two are read after Close only
    double time_to_first_token_seconds = 0;
  };

  void Note(const SinkEvent& event);
  void Cancel(absl::Status status);
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
  const std::shared_ptr<const TenantPolicy> policy_;
  size_t taken_bytes_ = 0;  // of parts_.open_bytes; set by Start
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

}  // namespace gatehouse
