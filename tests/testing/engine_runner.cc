#include "tests/testing/engine_runner.h"

#include <utility>

#include "kernels/backend.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

void Append(std::vector<TokenOutput>& to, std::vector<TokenOutput> from) {
  for (TokenOutput& token : from) to.push_back(std::move(token));
}

}  // namespace

bool CollectingSink::Push(SinkEvent event) {
  MutexLock lock(mutex_);
  std::visit(Overloaded{[this](StartedEvent& e) { started = std::move(e); },
                        [this](PromptEvent& e) { Append(prompt, std::move(e.tokens)); },
                        [this](DeltaEvent& e) {
                          text += e.text;
                          output_indices.resize(output_indices.size() + e.tokens.size(),
                                                e.output_index);
                          Append(tokens, std::move(e.tokens));
                        },
                        [this](FinishedEvent& e) { finished = std::move(e); }},
             event);
  return true;
}

void CollectingSink::Close(absl::Status status) {
  MutexLock lock(mutex_);
  ++num_closes;
  status_ = std::move(status);
  closed_.NotifyAll();
}

absl::Status CollectingSink::Wait() {
  MutexLock lock(mutex_);
  while (!status_) closed_.Wait(mutex_);
  return *status_;
}

void GatedObserver::SetShut(bool shut) {
  MutexLock lock(mutex_);
  shut_ = shut;
  opened_.NotifyAll();
}

void GatedObserver::OnStep(const StepStats&) {
  MutexLock lock(mutex_);
  while (shut_) opened_.Wait(mutex_);
}

absl::StatusOr<std::unique_ptr<EngineRunner>> EngineRunner::Create(const RunnerOptions& options) {
  std::unique_ptr<EngineRunner> runner(new EngineRunner);
  GATEHOUSE_ASSIGN_OR_RETURN(
      Backends backends,
      MakeBackends("cpu", {.num_threads = options.num_threads, .isa = options.isa},
                   options.num_ranks));
  EngineConfig config = options.config;
  config.model.model_dir = options.model_dir;
  GATEHOUSE_ASSIGN_OR_RETURN(runner->engine_, Engine::Create(config, std::move(backends),
                                                             runner->clock_, runner->observer_));
  return runner;
}

std::vector<std::shared_ptr<CollectingSink>> EngineRunner::Run(
    const std::vector<Request>& requests) {
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  observer_.SetShut(true);
  for (const Request& request : requests) {
    sinks.push_back(std::make_shared<CollectingSink>());
    const auto ticket = engine_->Submit(request, sinks.back());
    if (!ticket.ok()) sinks.back()->Close(ticket.status());
  }
  observer_.SetShut(false);
  for (const auto& sink : sinks) sink->Wait().IgnoreError();
  return sinks;
}

}  // namespace gatehouse
