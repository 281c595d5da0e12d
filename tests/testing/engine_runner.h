// Runs requests on a real engine and collects what comes out: for golden, invariance and benchmark
// programs.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/request/token_sink.h"
#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

// Everything one request received. Thread-safe; events come from the engine loop.
class CollectingSink final : public TokenSink {
 public:
  bool Push(SinkEvent event) override;
  void Close(absl::Status status) override;

  // Blocks until Close; then the members below may be read.
  absl::Status Wait();

  int num_closes = 0;
  std::optional<StartedEvent> started;
  std::vector<TokenOutput> prompt;      // position by position
  std::vector<TokenOutput> tokens;      // of all outputs, as they came
  std::vector<int32_t> output_indices;  // [tokens.size()]
  std::string text;
  std::optional<FinishedEvent> finished;

 private:
  Mutex mutex_;
  CondVar closed_;
  std::optional<absl::Status> status_ GATEHOUSE_GUARDED_BY(mutex_);
};

class IgnoringObserver final : public StepObserver {
 public:
  void OnStep(const StepStats&) override {}
  void OnToken(double) override {}
  void OnFirstToken(double) override {}
  void OnRequestEnd(const RequestStats&) override {}
};

// Holds the engine at the end of a step while the gate is shut.
class GatedObserver final : public StepObserver {
 public:
  void SetShut(bool shut);
  void OnStep(const StepStats&) override;
  void OnToken(double) override {}
  void OnFirstToken(double) override {}
  void OnRequestEnd(const RequestStats&) override {}

 private:
  Mutex mutex_;
  CondVar opened_;
  bool shut_ GATEHOUSE_GUARDED_BY(mutex_) = false;
};

struct RunnerOptions {
  std::string model_dir;
  int num_threads = 1;
  int num_ranks = 1;    // they share the threads
  std::string isa;      // empty: the best of this machine
  EngineConfig config;  // config.model.model_dir is taken from above
};

class EngineRunner {
 public:
  static absl::StatusOr<std::unique_ptr<EngineRunner>> Create(const RunnerOptions& options);

  Engine& engine() { return *engine_; }
  // Submits all within one step and waits for all. A refused request's sink is closed with the
  // refusal.
  std::vector<std::shared_ptr<CollectingSink>> Run(const std::vector<Request>& requests);

 private:
  EngineRunner() = default;
  SteadyClock clock_;
  GatedObserver observer_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace gatehouse
