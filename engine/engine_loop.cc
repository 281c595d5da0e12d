#include "engine/engine_loop.h"

#include <algorithm>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// A step that fails so often in a row is not helped by being made again.
constexpr int kMaxAbandoned = 8;
// How long an idle engine may not see that a rank is lost or has come back.
constexpr Duration kRanksPoll = std::chrono::milliseconds(100);

// A request never outgrows the cache, so none can wait for blocks that do not exist.
RequestLimits LimitsWithin(RequestLimits limits, const MemoryPlan& plan, int32_t block_tokens) {
  const int64_t cache_tokens = plan.num_kv_blocks * block_tokens;
  limits.max_context = static_cast<int32_t>(std::min<int64_t>(limits.max_context, cache_tokens));
  return limits;
}

ModelDescription WithContext(ModelDescription model, int32_t max_context) {
  model.max_context = max_context;
  return model;
}

// Rows of which bounds moved, dropped or forced a pair in some layer; empty: there were no bounds.
std::vector<uint8_t> TouchedRows(const std::vector<RoutePlan>& routes) {
  std::vector<uint8_t> touched;
  for (const RoutePlan& route : routes) {
    if (route.exact()) continue;
    touched.resize(route.num_rows);
    for (int row = 0; row < route.num_rows; ++row) {
      if (!ReportOf(route, row, row + 1).exact()) touched[row] = 1;
    }
  }
  return touched;
}

StepOutcome OutcomeOf(const absl::StatusOr<StepResult>& result,
                      std::span<const uint8_t> row_touched, Duration duration) {
  if (!result.ok()) return {.status = result.status(), .duration = duration};
  return {.samples = result->samples,
          .row_failed = result->row_failed,
          .row_touched = row_touched,
          .duration = duration};
}

}  // namespace

EngineLoop::EngineLoop(EngineParts parts, const Clock& clock, StepObserver& observer)
    : options_(parts.scheduler),
      tokenizer_(std::move(parts.tokenizer)),
      chat_template_(std::move(parts.chat_template)),
      model_(WithContext(
          std::move(parts.model),
          LimitsWithin(parts.limits, parts.memory_plan, parts.block_tokens).max_context)),
      memory_plan_(parts.memory_plan),
      limits_(LimitsWithin(parts.limits, parts.memory_plan, parts.block_tokens)),
      faults_(std::move(parts.faults)),
      clock_(clock),
      observer_(observer),
      worker_(std::move(parts.worker)),
      scheduler_({.options = options_,
                  .num_ranks = parts.num_ranks,
                  .num_blocks = static_cast<int32_t>(memory_plan_.num_kv_blocks),
                  .block_tokens = parts.block_tokens,
                  .eos_token_ids = model_.eos_token_ids,
                  .hash_seed = std::random_device{}(),
                  .routing_secret = parts.routing_secret}),
      shadow_({.fraction = parts.shadow_exact_fraction,
               .secret = parts.routing_secret,
               .max_step_tokens = options_.max_step_tokens},
              scheduler_, observer_),
      seeds_(std::random_device{}()),
      last_step_(clock.Now()),
      rebalancer_(worker_->placements()) {
  status_.membership = worker_->membership();
  Publish();
  thread_ = std::thread([this] { Run(); });
}

EngineLoop::~EngineLoop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    status_.draining = true;
  }
  work_.NotifyOne();
  thread_.join();
}

void EngineLoop::Run() {
  while (WaitForWork()) {
    const TimePoint now = clock_.Now();
    if (scheduler_.empty()) last_step_ = now;  // idle until now is not stalled
    Admit(TakeInbox(now));
    EndExpired(now);
    if (worker_->needs_regroup() && !Regroup()) continue;
    AdvanceRebalance();
    if (!scheduler_.empty()) shadow_.Yield();
    const StepPlan& plan = scheduler_.Plan();
    Publish();
    if (!plan.empty()) {
      RunStep(plan, now);
    } else if (shadow_.has_work()) {
      RunShadowStep(now);
    }
    Publish();
  }
  Admit(TakeInbox(clock_.Now()));
  EndAll(absl::UnavailableError("the server is shutting down"));
}

void EngineLoop::RunStep(const StepPlan& plan, TimePoint begin) {
  CollectSampling(plan);
  const absl::StatusOr<StepResult> result = worker_->Run(plan, sampling_);
  if (Abandon(result.status())) return;
  const FinishedStep step{.plan = &plan,
                          .result = result.ok() ? &*result : nullptr,
                          .begin = begin,
                          .end = clock_.Now()};
  const std::vector<uint8_t> touched =
      result.ok() ? TouchedRows(result->routes) : std::vector<uint8_t>();
  const std::span<const SequenceUpdate> updates =
      scheduler_.Commit(OutcomeOf(result, touched, step.end - begin));
  ObserveStep(step);  // first: who has seen a token finds its step counted
  for (const SequenceUpdate& update : updates) {
    const auto found = streams_.find(update.ticket());
    if (found == streams_.end()) continue;  // another output of this step has ended the request
    RequestStream& stream = *found->second;
    if (auto end = stream.Deliver(update, step, observer_)) {
      End(update.ticket(), *std::move(end));
    } else if (stream.HasFinished(update.output_index)) {
      scheduler_.RemoveOutput(update.sequence);
    }
  }
  last_step_ = step.end;
  completion_rate_.Add(num_ended_, step.end - begin);
  MeasureTenants(step.end - begin);
}

// Of a step in which a rank was lost nothing is left; what others have computed before is. True:
// its sequences wait to be planned again.
bool EngineLoop::Abandon(const absl::Status& status) {
  if (!absl::IsUnavailable(status) || num_abandoned_ == kMaxAbandoned) {
    num_abandoned_ = 0;
    return false;
  }
  ++num_abandoned_;
  last_loss_ = std::string(status.message());
  scheduler_.Abandon();
  return true;
}

// False: the ranks have formed no group, and no step can be made.
bool EngineLoop::Regroup() {
  const TimePoint begin = clock_.Now();
  const absl::StatusOr<Regrouped> regrouped = worker_->Regroup();
  if (!regrouped.ok()) {
    last_loss_ = std::string(regrouped.status().message());
    Publish();
    return false;
  }
  const Membership& membership = regrouped->membership;
  scheduler_.SetMembers(membership.members, regrouped->emptied);
  observer_.OnRegroup(membership, ToSeconds(clock_.Now() - begin));
  MutexLock lock(mutex_);
  for (const int layer_idx : rebalancer_.SetMembers(membership)) {
    worker_->Place(layer_idx, rebalancer_.placements()[layer_idx]);
  }
  status_.membership = membership;
  return true;
}

// No observer hears of the step: it is nobody's, and an engine that runs it is idle.
void EngineLoop::RunShadowStep(TimePoint begin) {
  const StepPlan& plan = shadow_.Plan();
  const absl::StatusOr<StepResult> result = worker_->Run(plan, shadow_.sampling());
  shadow_.Commit(result, clock_.Now() - begin);
}

void EngineLoop::Admit(Inbox inbox) {
  if (inbox.draining) shadow_.Close();
  for (Submission& submission : inbox.submissions) {
    BoundedRun* const run = shadow_.Watch(submission.ticket, submission.request);
    scheduler_.Add(submission.ticket, submission.request, submission.submitted);
    streams_.emplace(submission.ticket, std::make_unique<RequestStream>(RequestStreamSetup{
                                            .request = std::move(submission.request),
                                            .sink = std::move(submission.sink),
                                            .tokenizer = tokenizer_.get(),
                                            .eos_token_ids = model_.eos_token_ids,
                                            .seed = seeds_(),
                                            .submitted = submission.submitted,
                                            .run = run}));
  }
  for (const Ticket ticket : inbox.cancels) {
    if (streams_.count(ticket) > 0) End(ticket, absl::CancelledError("the request was cancelled"));
  }
  for (const int rank : inbox.full_ranks) scheduler_.PreemptAll(rank);
  if (inbox.close_all) {
    EndAll(absl::UnavailableError("the time to drain is over, the request was not finished"));
  }
}

void EngineLoop::EndExpired(TimePoint now) {
  for (const SequenceId id : scheduler_.TakeExpired(now)) {
    End(id, absl::DeadlineExceededError("the deadline passed before the request was finished"));
  }
}

// One layer between two steps. Whoever calls the engine waits meanwhile: 0.01 s for a layer of 256
// experts on 64 ranks.
void EngineLoop::AdvanceRebalance() {
  MutexLock lock(mutex_);
  const std::optional<int> layer_idx = rebalancer_.Advance();
  if (layer_idx) worker_->Place(*layer_idx, rebalancer_.placements()[*layer_idx]);
}

void EngineLoop::EndAll(const absl::Status& status) {
  while (!streams_.empty()) End(streams_.begin()->first, status);
}

// The one way out of the engine: whatever the reason, the blocks are free and the sink is closed.
void EngineLoop::End(Ticket ticket, absl::Status status) {
  scheduler_.Remove(ticket);  // nothing to do when Commit has ended it
  const auto node = streams_.extract(ticket);
  ++tenant_progress_[node.mapped()->tenant_name()].num_ended;
  const bool finished = status.ok();
  node.mapped()->Close(std::move(status), clock_.Now(), observer_);
  shadow_.Ended(ticket, finished);
  ++num_ended_;
}

void EngineLoop::MeasureTenants(Duration step) {
  for (const auto& state : scheduler_.tenants()) {
    const auto found = tenant_progress_.find(state->tenant.name);
    if (state->is_active()) {
      TenantProgress& progress = tenant_progress_[state->tenant.name];
      progress.rate.Add(std::exchange(progress.num_ended, 0), step);
    } else if (found != tenant_progress_.end()) {
      tenant_progress_.erase(found);
    }
  }
}

void EngineLoop::CollectSampling(const StepPlan& plan) {
  sampling_.clear();
  for (const LogitRow& row : plan.logit_rows) {
    sampling_.push_back(streams_.at(row.ticket())->SamplingFor(row));
  }
}

void EngineLoop::ObserveStep(const FinishedStep& step) {
  step_stats_.time = step.end;
  step_stats_.duration_seconds = ToSeconds(step.end - step.begin);
  step_stats_.num_prefill_tokens = step.plan->num_prefill_tokens;
  step_stats_.num_decode_tokens = step.plan->num_decode_tokens;
  step_stats_.num_new_prompt_tokens = step.plan->num_new_prompt_tokens;
  step_stats_.num_cached_prompt_tokens = scheduler_.num_cached_prompt_tokens();
  step_stats_.num_running = scheduler_.num_running();
  step_stats_.num_waiting = scheduler_.num_waiting();
  step_stats_.num_waiting_tokens = scheduler_.num_waiting_tokens();
  step_stats_.priority_counts = scheduler_.priority_counts();
  step_stats_.num_kv_blocks_used = scheduler_.num_used_blocks();
  step_stats_.num_kv_blocks_total = scheduler_.num_blocks();
  step_stats_.num_preemptions = scheduler_.num_preemptions();
  const size_t num_layers = step.result == nullptr ? 0 : step.result->routes.size();
  GATEHOUSE_CHECK(num_layers <= model_.moe_layers.size()) << num_layers << " routed layers";
  step_stats_.layer_loads.clear();
  for (size_t i = 0; i < num_layers; ++i) {
    step_stats_.layer_loads.push_back(
        LayerLoadOf(model_.moe_layers[i], step.result->routes[i], step.plan->routed_tokens));
  }
  {
    MutexLock lock(mutex_);
    rebalancer_.OnStep(step_stats_.layer_loads);
  }
  step_stats_.cost = step.result == nullptr ? StepCost{} : step.result->cost;
  step_stats_.exchanges =
      step.result == nullptr ? std::span<const RankExchanges>() : step.result->exchanges;
  observer_.OnStep(step_stats_);
  step_stats_.exchanges = {};  // the result goes with the step
}

bool EngineLoop::WaitForWork() {
  MutexLock lock(mutex_);
  while (!stopping_ && inbox_.empty() && scheduler_.empty() && !shadow_.has_work() &&
         !rebalancer_.has_work() && !worker_->needs_regroup()) {
    if (scheduler_.num_ranks() == 1) {
      work_.Wait(mutex_);
    } else {
      work_.WaitFor(mutex_, kRanksPoll);
    }
  }
  return !stopping_;
}

EngineLoop::Inbox EngineLoop::TakeInbox(TimePoint now) {
  MutexLock lock(mutex_);
  inbox_.draining = status_.draining;
  inbox_.close_all = now >= drain_deadline_;
  return std::exchange(inbox_, {});
}

void EngineLoop::Publish() {
  MutexLock lock(mutex_);
  status_.num_running = scheduler_.num_running();
  status_.num_waiting = scheduler_.num_waiting();
  status_.num_waiting_tokens = scheduler_.num_waiting_tokens();
  status_.priority_counts = scheduler_.priority_counts();
  for (const Submission& submission : inbox_.submissions) CountWaiting(*submission.request);
  status_.num_kv_blocks_used = scheduler_.num_used_blocks();
  status_.num_kv_blocks_total = scheduler_.num_blocks();
  PublishTenants();
  status_.last_step = last_step_;
  status_.last_loss = last_loss_;
  retry_after_ = completion_rate_.RetryAfter(status_.num_waiting);
  num_open_ -= std::exchange(num_ended_, 0);
  status_.has_work = num_open_ > 0;
  if (num_open_ == 0) idle_.NotifyAll();
}

void EngineLoop::PublishTenants() {
  for (const auto& state : scheduler_.tenants()) {
    if (state->is_active()) {
      const auto progress = tenant_progress_.find(state->tenant.name);
      std::optional<Duration> retry_after;
      if (progress != tenant_progress_.end() && progress->second.rate.is_known()) {
        retry_after = progress->second.rate.RetryAfter(state->num_waiting());
      }
      tenant_loads_[state->tenant.name] = {
          .weight = state->tenant.weight,
          .queue = {.num_waiting = state->num_waiting(),
                    .num_waiting_tokens = state->num_waiting_tokens},
          .num_running = state->use.num_running,
          .retry_after = retry_after};
    } else {
      tenant_loads_.erase(state->tenant.name);
    }
  }
  for (const Submission& submission : inbox_.submissions) {
    TenantQueueLoad& queue = LoadOf(*submission.request).queue;
    ++queue.num_waiting;
    queue.num_waiting_tokens += static_cast<int64_t>(submission.request->prompt_ids.size());
  }
}

EngineLoop::TenantLoad& EngineLoop::LoadOf(const Request& request) {
  const Tenant tenant = request.tenant == nullptr ? Tenant{} : *request.tenant;
  TenantLoad& load = tenant_loads_[tenant.name];
  load.weight = tenant.weight;
  return load;
}

void EngineLoop::CountWaiting(const Request& request) {
  const auto num_tokens = static_cast<int64_t>(request.prompt_ids.size());
  ++status_.num_waiting;
  status_.num_waiting_tokens += num_tokens;
  QueueCounts& counts = status_.priority_counts[static_cast<size_t>(request.priority)];
  ++counts.num_waiting;
  counts.num_waiting_tokens += num_tokens;
}

QueueLoad EngineLoop::LoadFor(const Tenant& tenant) const {
  QueueLoad load{.num_running = status_.num_running,
                 .num_waiting = status_.num_waiting,
                 .num_waiting_tokens = status_.num_waiting_tokens,
                 .draining = status_.draining};
  int64_t total_weight = tenant.weight;
  for (const auto& [name, other] : tenant_loads_) {
    if (name == tenant.name) {
      load.tenant = other.queue;
    } else {
      total_weight += other.weight;
    }
  }
  load.tenant.share = static_cast<double>(tenant.weight) / static_cast<double>(total_weight);
  return load;
}

absl::StatusOr<Engine::Ticket> EngineLoop::Submit(Request request,
                                                  std::shared_ptr<TokenSink> sink) {
  GATEHOUSE_RETURN_IF_ERROR(ValidateRequest(limits_, request));
  const TimePoint now = clock_.Now();
  const auto num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  MutexLock lock(mutex_);
  const QueueLoad load = LoadFor(request.tenant == nullptr ? Tenant{} : *request.tenant);
  GATEHOUSE_RETURN_IF_ERROR(CheckAdmission(options_, load, request, now));
  TenantQueueLoad& tenant_queue = LoadOf(request).queue;
  ++tenant_queue.num_waiting;
  tenant_queue.num_waiting_tokens += num_prompt_tokens;
  const Ticket ticket = next_ticket_;
  next_ticket_ += static_cast<Ticket>(request.sampling.n);  // one id for each output
  inbox_.submissions.push_back({.ticket = ticket,
                                .request = std::make_shared<const Request>(std::move(request)),
                                .sink = std::move(sink),
                                .submitted = now});
  CountWaiting(*inbox_.submissions.back().request);
  if (num_open_++ == 0) status_.last_step = now;
  status_.has_work = true;
  work_.NotifyOne();
  return ticket;
}

absl::Status EngineLoop::CheckQueueOpen(const Tenant& tenant) const {
  MutexLock lock(mutex_);
  return gatehouse::CheckQueueOpen(options_, LoadFor(tenant));
}

absl::Status EngineLoop::Inject(const Fault& fault) {
  if (faults_ == nullptr) {
    return absl::FailedPreconditionError("the server was not started with --allow-fault-injection");
  }
  GATEHOUSE_RETURN_IF_ERROR(faults_->Inject(fault));
  if (fault.kind != FaultKind::kFullCache) return absl::OkStatus();
  MutexLock lock(mutex_);
  inbox_.full_ranks.push_back(fault.rank);
  work_.NotifyOne();
  return absl::OkStatus();
}

void EngineLoop::Cancel(Ticket ticket) {
  MutexLock lock(mutex_);
  inbox_.cancels.push_back(ticket);
  work_.NotifyOne();
}

// While a request is open the loop goes from step to step and sees the deadline itself.
void EngineLoop::Drain(TimePoint deadline) {
  MutexLock lock(mutex_);
  status_.draining = true;
  drain_deadline_ = std::min(drain_deadline_, deadline);
  while (num_open_ > 0) idle_.Wait(mutex_);
}

EngineStatus EngineLoop::Status() const {
  MutexLock lock(mutex_);
  EngineStatus status = status_;
  for (const auto& [name, load] : tenant_loads_) {
    status.tenant_counts.emplace_back(
        name, QueueCounts{.num_running = load.num_running,
                          .num_waiting = load.queue.num_waiting,
                          .num_waiting_tokens = load.queue.num_waiting_tokens});
  }
  return status;
}

std::vector<ExpertPlacement> EngineLoop::Placements() const {
  MutexLock lock(mutex_);
  return rebalancer_.placements();
}

absl::Status EngineLoop::Rebalance(const RebalanceOptions& options) {
  MutexLock lock(mutex_);
  if (status_.draining) return absl::UnavailableError("the server is draining");
  GATEHOUSE_RETURN_IF_ERROR(rebalancer_.Request(options));
  work_.NotifyOne();
  return absl::OkStatus();
}

RebalanceStatus EngineLoop::Rebalancing() const {
  MutexLock lock(mutex_);
  return rebalancer_.status();
}

Duration EngineLoop::RetryAfter(const std::string& tenant) const {
  MutexLock lock(mutex_);
  const auto found = tenant_loads_.find(tenant);
  return found == tenant_loads_.end() ? retry_after_
                                      : found->second.retry_after.value_or(retry_after_);
}

}  // namespace gatehouse
