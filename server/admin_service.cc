#include "server/admin_service.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/fault_board.h"
#include "kernels/base/status_macros.h"
#include "server/field_check.h"
#include "server/generate_service.h"
#include "server/placement_convert.h"

namespace gatehouse {
namespace {

constexpr double kMinIntervalSeconds = 0.1;  // the watcher's period
constexpr double kMaxIntervalSeconds = 3600;
constexpr double kMaxFaultSeconds = 3600;
constexpr double kMaxFaultDelaySeconds = 60;
constexpr double kMaxDrainSeconds = 86400;
constexpr int kMaxListedRequests = 10000;
constexpr int kDefaultListedRequests = 1000;

Duration Seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

absl::Status CheckRange(const std::string& path, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidField(path, absl::StrFormat("got %g, must be in [%g, %g]", value, low, high));
}

v1::ServerStatus::State ToState(EngineState state) {
  switch (state) {
    case EngineState::kLoading:
      return v1::ServerStatus::LOADING;
    case EngineState::kServing:
      return v1::ServerStatus::SERVING;
    case EngineState::kDraining:
      return v1::ServerStatus::DRAINING;
    case EngineState::kStalled:
      return v1::ServerStatus::STALLED;
  }
  return v1::ServerStatus::STATE_UNSPECIFIED;
}

v1::ActiveRequest::State ToState(CallSnapshot::State state) {
  switch (state) {
    case CallSnapshot::State::kQueued:
      return v1::ActiveRequest::QUEUED;
    case CallSnapshot::State::kRunning:
      return v1::ActiveRequest::RUNNING;
    case CallSnapshot::State::kEnding:
      return v1::ActiveRequest::ENDING;
  }
  return v1::ActiveRequest::STATE_UNSPECIFIED;
}

// Layers that the model does not have are an error; none means all.
using LayerIds = google::protobuf::RepeatedField<int32_t>;
absl::Status CheckLayers(const LayerIds& layers, const Engine& engine) {
  const std::vector<int32_t>& known = engine.model().moe_layers;
  for (int i = 0; i < layers.size(); ++i) {
    if (std::find(known.begin(), known.end(), layers[i]) == known.end()) {
      return InvalidField(
          absl::StrFormat("layers[%d]", i),
          absl::StrFormat("got %d, expected one of ModelInfo.moe_layers", layers[i]));
    }
  }
  return absl::OkStatus();
}

v1::ExpertLoad ToExpertLoad(const std::vector<LayerLoadCounts>& counts, const LayerIds& layers) {
  v1::ExpertLoad load;
  for (const LayerLoadCounts& from : counts) {
    if (!layers.empty() && std::find(layers.begin(), layers.end(), from.layer) == layers.end()) {
      continue;
    }
    v1::LayerExpertLoad& to = *load.add_layers();
    to.set_layer(from.layer);
    to.mutable_tokens()->Add(from.expert_tokens.begin(), from.expert_tokens.end());
    to.set_imbalance(from.imbalance);
    to.mutable_rerouted()->Add(from.expert_rerouted.begin(), from.expert_rerouted.end());
    to.mutable_dropped()->Add(from.expert_dropped.begin(), from.expert_dropped.end());
    if (std::any_of(from.expert_capacity.begin(), from.expert_capacity.end(),
                    [](int64_t places) { return places != kNoBound; })) {
      to.mutable_capacity()->Add(from.expert_capacity.begin(), from.expert_capacity.end());
    }
  }
  return load;
}

void WriteTotals(const EngineTotals& from, v1::Totals& to) {
  to.set_prompt_tokens(from.num_prompt_tokens);
  to.set_generated_tokens(from.num_generated_tokens);
  to.set_steps(from.num_steps);
  to.set_ended_requests(from.num_ended_requests);
  to.set_preemptions(from.num_preemptions);
  to.set_cached_prompt_tokens(from.num_cached_prompt_tokens);
}

void WriteThroughput(const RecentWork& recent, v1::Throughput& to) {
  const double seconds = recent.window_seconds;
  if (seconds <= 0) return;
  to.set_window_seconds(seconds);
  to.set_prompt_tokens_per_second(static_cast<double>(recent.work.num_prompt_tokens) / seconds);
  to.set_generated_tokens_per_second(static_cast<double>(recent.work.num_generated_tokens) /
                                     seconds);
  to.set_steps_per_second(static_cast<double>(recent.work.num_steps) / seconds);
}

void WriteRoofline(const RecentWork& recent, v1::Roofline& to) {
  const EngineTotals& work = recent.work;
  const auto tokens = static_cast<double>(work.num_prompt_tokens + work.num_generated_tokens);
  if (tokens > 0) to.set_weight_bytes_per_token(work.weight_bytes / tokens);
  if (work.step_seconds > 0) to.set_weight_bytes_per_second(work.weight_bytes / work.step_seconds);
  to.set_step_share(std::min(1.0, work.step_seconds / recent.window_seconds));
}

void WriteEngine(const Engine& engine, TimePoint now, v1::ServerStatus& status) {
  const EngineStatus from = engine.Status();
  status.set_model(engine.model().name);
  status.set_running_requests(from.num_running);
  status.set_waiting_requests(from.num_waiting);
  status.set_waiting_tokens(from.num_waiting_tokens);
  status.set_kv_blocks_used(from.num_kv_blocks_used);
  status.set_kv_blocks_total(from.num_kv_blocks_total);
  status.set_last_step_age_seconds(ToSeconds(now - from.last_step));
  status.set_retry_after_seconds(ToSeconds(engine.RetryAfter(/*tenant=*/"")));
}

absl::StatusOr<Fault> ToFault(const v1::InjectFaultRequest& request) {
  const double duration = request.has_duration_seconds() ? request.duration_seconds() : 5;
  const double delay = request.has_delay_seconds() ? request.delay_seconds() : 0.1;
  GATEHOUSE_RETURN_IF_ERROR(CheckRange("duration_seconds", duration, 0, kMaxFaultSeconds));
  GATEHOUSE_RETURN_IF_ERROR(CheckRange("delay_seconds", delay, 0, kMaxFaultDelaySeconds));
  Fault fault{.rank = request.rank(), .duration = Seconds(duration), .delay = Seconds(delay)};
  switch (request.fault()) {
    case v1::InjectFaultRequest::SLOW_RANK:
      fault.kind = FaultKind::kSlowRank;
      return fault;
    case v1::InjectFaultRequest::DEAD_RANK:
      fault.kind = FaultKind::kDeadRank;
      return fault;
    case v1::InjectFaultRequest::LOST_MESSAGE:
      fault.kind = FaultKind::kLostMessage;
      return fault;
    case v1::InjectFaultRequest::FULL_CACHE:
      fault.kind = FaultKind::kFullCache;
      return fault;
    default:
      return InvalidField("fault", absl::StrFormat("got %d, expected one of SLOW_RANK, DEAD_RANK, "
                                                   "LOST_MESSAGE, FULL_CACHE",
                                                   request.fault()));
  }
}

void WriteRanks(const EngineStatus& from, bool serving, v1::ServerStatus& status) {
  for (int r = 0; r < from.membership.num_ranks; ++r) {
    v1::RankStatus& rank = *status.add_ranks();
    rank.set_rank(r);
    rank.set_serving(serving && from.membership.has(r));
    if (from.membership.has(r)) continue;
    status.add_degraded(
        absl::StrFormat("rank %d is lost, epoch %d (the last time a step failed: %s)", r,
                        from.membership.epoch, from.last_loss));
  }
  status.set_epoch(from.membership.epoch);
}

}  // namespace

AdminService::AdminService(AdminParts parts, const ServerFacts& facts, const ServerConfig& config)
    : parts_(std::move(parts)), facts_(facts), config_(config), start_(parts_.clock.Now()) {}

absl::Status AdminService::Enter(const grpc::CallbackServerContext& context) const {
  return parts_.operators.Authenticate(AuthorizationOf(context)).status();
}

grpc::ServerUnaryReactor* AdminService::Answer(grpc::CallbackServerContext* context,
                                               const std::function<absl::Status()>& work) const {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::Status status = Enter(*context);
  if (status.ok()) status = work();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

// What was counted, and where it lies now.
v1::ExpertLoad AdminService::Load(const Engine& engine, const LayerIds& layers) const {
  v1::ExpertLoad load = ToExpertLoad(parts_.metrics.ReadExpertLoad(), layers);
  const std::vector<ExpertPlacement> placements = engine.Placements();
  const std::vector<int32_t>& known = engine.model().moe_layers;
  for (v1::LayerExpertLoad& layer : *load.mutable_layers()) {
    const auto found = std::find(known.begin(), known.end(), layer.layer());
    const auto layer_idx = static_cast<size_t>(found - known.begin());
    if (layer_idx < placements.size()) WriteCopies(placements[layer_idx], layer);
  }
  return load;
}

v1::ServerStatus AdminService::Status() const {
  const TimePoint now = parts_.clock.Now();
  v1::ServerStatus status;
  const HealthReport health = parts_.state.health();
  status.set_state(ToState(health.state));
  if (!health.reason.empty()) status.add_reasons(health.reason);
  status.set_version(facts_.version);
  status.set_uptime_seconds(ToSeconds(now - start_));
  status.set_kv_block_tokens(config_.engine.cache.block_tokens);
  WriteTotals(parts_.metrics.Totals(), *status.mutable_totals());
  const RecentWork recent = parts_.rates.Read();
  WriteThroughput(recent, *status.mutable_throughput());
  const Engine* engine = parts_.state.engine();
  if (engine == nullptr) return status;
  WriteEngine(*engine, now, status);
  WriteRanks(engine->Status(), health.serving(), status);
  if (recent.work.num_steps > 0 && recent.window_seconds > 0) {
    WriteRoofline(recent, *status.mutable_roofline());
  }
  return status;
}

grpc::ServerUnaryReactor* AdminService::GetStatus(grpc::CallbackServerContext* context,
                                                  const v1::GetStatusRequest*,
                                                  v1::ServerStatus* response) {
  return Answer(context, [&] {
    *response = Status();
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::ServerStatus>* AdminService::WatchStatus(
    grpc::CallbackServerContext* context, const v1::WatchStatusRequest* request) {
  const double interval = request->has_interval_seconds() ? request->interval_seconds() : 1;
  absl::Status admission = Enter(*context);
  if (admission.ok()) {
    admission = CheckRange("interval_seconds", interval, kMinIntervalSeconds, kMaxIntervalSeconds);
  }
  const Duration period = admission.ok() ? Seconds(interval) : Duration::zero();
  return parts_.watches.Open<v1::ServerStatus>(admission, period, parts_.clock.Now(),
                                               [this] { return Status(); });
}

grpc::ServerUnaryReactor* AdminService::GetExpertLoad(grpc::CallbackServerContext* context,
                                                      const v1::GetExpertLoadRequest* request,
                                                      v1::ExpertLoad* response) {
  return Answer(context, [&] {
    const Engine* engine = parts_.state.engine();
    if (engine == nullptr) return ServingState::LoadingError();
    GATEHOUSE_RETURN_IF_ERROR(CheckLayers(request->layers(), *engine));
    *response = Load(*engine, request->layers());
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::ExpertLoad>* AdminService::WatchExpertLoad(
    grpc::CallbackServerContext* context, const v1::WatchExpertLoadRequest* request) {
  const double interval = request->has_interval_seconds() ? request->interval_seconds() : 1;
  const Engine* engine = parts_.state.engine();
  absl::Status admission = Enter(*context);
  if (admission.ok() && engine == nullptr) admission = ServingState::LoadingError();
  if (admission.ok()) {
    admission = CheckRange("interval_seconds", interval, kMinIntervalSeconds, kMaxIntervalSeconds);
  }
  if (admission.ok()) admission = CheckLayers(request->layers(), *engine);
  const Duration period = admission.ok() ? Seconds(interval) : Duration::zero();
  return parts_.watches.Open<v1::ExpertLoad>(
      admission, period, parts_.clock.Now(),
      [this, engine, layers = request->layers()] { return Load(*engine, layers); });
}

grpc::ServerUnaryReactor* AdminService::GetRequests(grpc::CallbackServerContext* context,
                                                    const v1::GetRequestsRequest* request,
                                                    v1::GetRequestsResponse* response) {
  return Answer(context, [&] {
    const int max_requests =
        request->has_max_requests() ? request->max_requests() : kDefaultListedRequests;
    GATEHOUSE_RETURN_IF_ERROR(CheckRange("max_requests", max_requests, 1, kMaxListedRequests));
    std::vector<CallSnapshot> calls;
    for (const auto& call : parts_.active.All()) {
      CallSnapshot snapshot = call->Snapshot();
      if (!request->tenant().empty() && snapshot.tenant != request->tenant()) continue;
      calls.push_back(std::move(snapshot));
    }
    std::sort(calls.begin(), calls.end(),
              [](const CallSnapshot& a, const CallSnapshot& b) { return a.start < b.start; });
    response->set_total(static_cast<int32_t>(calls.size()));
    const TimePoint now = parts_.clock.Now();
    calls.resize(std::min(calls.size(), static_cast<size_t>(max_requests)));
    for (const CallSnapshot& call : calls) {
      v1::ActiveRequest& to = *response->add_requests();
      to.set_request_id(call.id);
      to.set_tenant(call.tenant);
      to.set_state(ToState(call.state));
      to.set_priority(ToProto(call.priority));
      to.set_mode(ToProto(call.mode));
      to.set_age_seconds(ToSeconds(now - call.start));
      to.set_prompt_tokens(call.num_prompt_tokens);
      to.set_cached_prompt_tokens(call.num_cached_prompt_tokens);
      to.set_generated_tokens(call.num_generated_tokens);
      to.set_unread_bytes(static_cast<int64_t>(call.unread_bytes));
      to.set_traceparent(call.traceparent);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::CancelRequest(grpc::CallbackServerContext* context,
                                                      const v1::CancelRequestRequest* request,
                                                      v1::CancelRequestResponse* response) {
  return Answer(context, [&] {
    if (request->request_id().empty()) return InvalidField("request_id", "not set");
    int num_cancelled = 0;
    for (const auto& call : parts_.active.All()) {
      const CallSnapshot snapshot = call->Snapshot();
      if (snapshot.id != request->request_id()) continue;
      if (!request->tenant().empty() && snapshot.tenant != request->tenant()) continue;
      if (call->CancelByOperator()) ++num_cancelled;
    }
    if (num_cancelled == 0) return absl::NotFoundError("request_id: no open request has it");
    parts_.logger.Log(LogLevel::kInfo, "operator cancelled",
                      {{"id", request->request_id()}, {"requests", std::to_string(num_cancelled)}});
    response->set_cancelled(num_cancelled);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::Drain(grpc::CallbackServerContext* context,
                                              const v1::DrainRequest* request,
                                              v1::DrainResponse* response) {
  return Answer(context, [&] {
    if (parts_.state.engine() == nullptr) return ServingState::LoadingError();
    const double seconds = request->has_seconds() ? request->seconds() : config_.drain_seconds;
    GATEHOUSE_RETURN_IF_ERROR(CheckRange("seconds", seconds, 0, kMaxDrainSeconds));
    response->set_open_requests(static_cast<int32_t>(parts_.active.size()));
    parts_.logger.Log(LogLevel::kInfo, "operator drains", {});
    parts_.request_drain(Seconds(seconds));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::SetLogLevel(grpc::CallbackServerContext* context,
                                                    const v1::SetLogLevelRequest* request,
                                                    v1::SetLogLevelResponse* response) {
  return Answer(context, [&] {
    using Request = v1::SetLogLevelRequest;
    if (request->level() < Request::DEBUG || request->level() > Request::ERROR) {
      return InvalidField("level", absl::StrFormat("got %d, expected DEBUG, INFO, WARNING or ERROR",
                                                   static_cast<int>(request->level())));
    }
    // The same order, one apart.
    const LogLevel previous = parts_.logger.SetLevel(static_cast<LogLevel>(request->level() - 1));
    response->set_previous(static_cast<Request::Level>(static_cast<int>(previous) + 1));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::GetRoutingPolicy(grpc::CallbackServerContext* context,
                                                         const v1::GetRoutingPolicyRequest*,
                                                         v1::RoutingPolicy* response) {
  return Answer(context, [&] {
    if (parts_.state.engine() == nullptr) return ServingState::LoadingError();
    *response = parts_.routing.policy();
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::SetRoutingPolicy(grpc::CallbackServerContext* context,
                                                         const v1::SetRoutingPolicyRequest* request,
                                                         v1::RoutingPolicy* response) {
  return Answer(context, [&]() -> absl::Status {
    GATEHOUSE_ASSIGN_OR_RETURN(*response, parts_.routing.Set(*request));
    parts_.metrics.SetRoutingPolicyVersion(response->version());
    parts_.logger.Log(LogLevel::kInfo, "operator set the routing policy",
                      {{"version", std::to_string(response->version())},
                       {"isolated", response->isolated().policy()},
                       {"shared", response->shared().policy()}});
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::GetPlacement(grpc::CallbackServerContext* context,
                                                     const v1::GetPlacementRequest* request,
                                                     v1::Placement* response) {
  return Answer(context, [&] {
    const Engine* engine = parts_.state.engine();
    if (engine == nullptr) return ServingState::LoadingError();
    GATEHOUSE_RETURN_IF_ERROR(CheckLayers(request->layers(), *engine));
    *response = ToProto(engine->Placements(), engine->model().moe_layers, request->layers());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::Rebalance(grpc::CallbackServerContext* context,
                                                  const v1::RebalanceRequest* request,
                                                  v1::RebalanceStatus* response) {
  return Answer(context, [&] {
    Engine* engine = parts_.state.engine();
    if (engine == nullptr) return ServingState::LoadingError();
    GATEHOUSE_RETURN_IF_ERROR(
        engine->Rebalance({.num_replicas = request->replicas(), .force = request->force()}));
    *response = ToProto(engine->Rebalancing());
    parts_.logger.Log(LogLevel::kInfo, "operator rebalances",
                      {{"id", std::to_string(response->id())},
                       {"replicas", std::to_string(request->replicas())}});
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::RebalanceStatus>* AdminService::WatchRebalance(
    grpc::CallbackServerContext* context, const v1::WatchRebalanceRequest* request) {
  const double interval = request->has_interval_seconds() ? request->interval_seconds() : 1;
  const Engine* engine = parts_.state.engine();
  absl::Status admission = Enter(*context);
  if (admission.ok() && engine == nullptr) admission = ServingState::LoadingError();
  if (admission.ok()) {
    admission = CheckRange("interval_seconds", interval, kMinIntervalSeconds, kMaxIntervalSeconds);
  }
  const Duration period = admission.ok() ? Seconds(interval) : Duration::zero();
  return parts_.watches.Open<v1::RebalanceStatus>(
      admission, period, parts_.clock.Now(), [engine] { return ToProto(engine->Rebalancing()); });
}

grpc::ServerUnaryReactor* AdminService::InjectFault(grpc::CallbackServerContext* context,
                                                    const v1::InjectFaultRequest* request,
                                                    v1::InjectFaultResponse*) {
  return Answer(context, [&]() -> absl::Status {
    Engine* engine = parts_.state.engine();
    if (engine == nullptr) return ServingState::LoadingError();
    GATEHOUSE_ASSIGN_OR_RETURN(const Fault fault, ToFault(*request));
    GATEHOUSE_RETURN_IF_ERROR(engine->Inject(fault));
    parts_.logger.Log(LogLevel::kWarning, "operator injected a fault",
                      {{"fault", v1::InjectFaultRequest::Fault_Name(request->fault())},
                       {"rank", std::to_string(fault.rank)}});
    return absl::OkStatus();
  });
}

}  // namespace gatehouse
