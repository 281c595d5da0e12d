// The Engine of one model in this process: an inbox, one loop thread, and the streams of the
// requests it serves. What it schedules and what computes come in by constructor, so tests run it
// with a worker that computes nothing.
//
// Threads: any thread may call the Engine methods; they only touch what mutex_ guards. The loop
// thread alone touches scheduler, worker, streams and sinks, and holds no lock while it does.
//
//   EngineLoop engine({.scheduler = ..., .worker = std::move(worker), ...}, clock, observer);
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/completion_rate.h"
#include "engine/engine.h"
#include "engine/fault_board.h"
#include "engine/rebalancer.h"
#include "engine/request_stream.h"
#include "engine/scheduler/admission.h"
#include "engine/scheduler/scheduler.h"
#include "engine/shadow_exact.h"
#include "engine/worker.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

struct EngineParts {
  SchedulerOptions scheduler;
  int32_t block_tokens = 16;
  int num_ranks = 1;
  std::unique_ptr<Worker> worker;
  std::shared_ptr<FaultBoard> faults = nullptr;  // null: not allowed
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template = nullptr;  // null: none
  ModelDescription model;
  MemoryPlan memory_plan;  // num_kv_blocks is the size of a rank's pool
  RequestLimits limits;    // max_context is lowered to what the pool can hold
  HashKey routing_secret{};
  double shadow_exact_fraction = 0;
};

class EngineLoop final : public Engine {
 public:
  // `clock` and `observer` outlive the engine.
  EngineLoop(EngineParts parts, const Clock& clock, StepObserver& observer);
  ~EngineLoop() override;

  absl::StatusOr<Ticket> Submit(Request request, std::shared_ptr<TokenSink> sink) override;
  absl::Status CheckQueueOpen(const Tenant& tenant) const override GATEHOUSE_EXCLUDES(mutex_);
  void Cancel(Ticket ticket) override;
  void Drain(TimePoint deadline) override;

  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  const ChatTemplate* chat_template() const override { return chat_template_.get(); }
  const ModelDescription& model() const override { return model_; }
  const MemoryPlan& memory_plan() const override { return memory_plan_; }
  const RequestLimits& limits() const override { return limits_; }
  EngineStatus Status() const override;
  std::vector<ExpertPlacement> Placements() const override GATEHOUSE_EXCLUDES(mutex_);
  absl::Status Rebalance(const RebalanceOptions& options) override GATEHOUSE_EXCLUDES(mutex_);
  RebalanceStatus Rebalancing() const override GATEHOUSE_EXCLUDES(mutex_);
  absl::Status Inject(const Fault& fault) override GATEHOUSE_EXCLUDES(mutex_);
  Duration RetryAfter(const std::string& tenant) const override;

 private:
  struct Submission {
    Ticket ticket = 0;
    std::shared_ptr<const Request> request;
    std::shared_ptr<TokenSink> sink;
    TimePoint submitted{};
  };
  struct Inbox {
    std::vector<Submission> submissions;
    std::vector<Ticket> cancels;
    std::vector<int> full_ranks;  // whose cache is full, on purpose
    bool draining = false;
    bool close_all = false;  // the drain's deadline has passed
    bool empty() const { return submissions.empty() && cancels.empty() && full_ranks.empty(); }
  };

  struct TenantLoad {
    int32_t weight = 1;
    TenantQueueLoad queue;
    int32_t num_running = 0;
    std::optional<Duration> retry_after;  // while some of its requests have ended
  };
  struct TenantProgress {
    CompletionRate rate;
    int32_t num_ended = 0;  // since the last step
  };

  // On the loop thread, without the lock.
  void Run();
  bool WaitForWork() GATEHOUSE_EXCLUDES(mutex_);
  void Admit(Inbox inbox);
  Inbox TakeInbox(TimePoint now) GATEHOUSE_EXCLUDES(mutex_);
  void EndExpired(TimePoint now);
  bool Regroup() GATEHOUSE_EXCLUDES(mutex_);
  void AdvanceRebalance() GATEHOUSE_EXCLUDES(mutex_);
  bool Abandon(const absl::Status& status);
  void RunStep(const StepPlan& plan, TimePoint begin);
  void RunShadowStep(TimePoint begin);
  void CollectSampling(const StepPlan& plan);
  void EndAll(const absl::Status& status);
  void MeasureTenants(Duration step);
  void End(Ticket ticket, absl::Status status);
  void Publish() GATEHOUSE_EXCLUDES(mutex_);
  void PublishTenants() GATEHOUSE_REQUIRES(mutex_);
  TenantLoad& LoadOf(const Request& request) GATEHOUSE_REQUIRES(mutex_);
  void CountWaiting(const Request& request) GATEHOUSE_REQUIRES(mutex_);
  QueueLoad LoadFor(const Tenant& tenant) const GATEHOUSE_REQUIRES(mutex_);
  void ObserveStep(const FinishedStep& step);

  // Constant after construction.
  const SchedulerOptions options_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  const std::unique_ptr<const ChatTemplate> chat_template_;
  const ModelDescription model_;
  const MemoryPlan memory_plan_;
  const RequestLimits limits_;
  const std::shared_ptr<FaultBoard> faults_;  // null: not allowed
  const Clock& clock_;

  // The loop thread's own. A ticket is the id of the first sequence.
  StepObserver& observer_;
  const std::unique_ptr<Worker> worker_;
  Scheduler scheduler_;
  ShadowExact shadow_;
  std::unordered_map<Ticket, std::unique_ptr<RequestStream>> streams_;
  std::mt19937_64 seeds_;  // for requests without one
  std::vector<RowSampling> sampling_;
  StepStats step_stats_;
  CompletionRate completion_rate_;
  std::unordered_map<std::string, TenantProgress> tenant_progress_;  // of those with requests
  TimePoint last_step_;
  int32_t num_ended_ = 0;  // since the last Publish
  int num_abandoned_ = 0;  // steps in a row
  std::string last_loss_;

  mutable Mutex mutex_;
  CondVar work_;  // the inbox is not empty, or stopping_
  CondVar idle_;  // num_open_ is 0
  Inbox inbox_ GATEHOUSE_GUARDED_BY(mutex_);
  Rebalancer rebalancer_ GATEHOUSE_GUARDED_BY(mutex_);
  // By name, of those that have requests; the inbox counted, as in status_.
  std::unordered_map<std::string, TenantLoad> tenant_loads_ GATEHOUSE_GUARDED_BY(mutex_);
  EngineStatus status_ GATEHOUSE_GUARDED_BY(mutex_);  // num_waiting counts the inbox
  Duration retry_after_ GATEHOUSE_GUARDED_BY(mutex_){};
  int32_t num_open_ GATEHOUSE_GUARDED_BY(mutex_) = 0;  // submitted and not closed
  Ticket next_ticket_ GATEHOUSE_GUARDED_BY(mutex_) = 1;
  TimePoint drain_deadline_ GATEHOUSE_GUARDED_BY(mutex_) = kNoDeadline;
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace gatehouse
