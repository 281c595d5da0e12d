#include "engine/engine.h"

#include <random>
#include <utility>

#include "engine/engine_loop.h"
#include "engine/loaded_model.h"
#include "engine/remote_ranks.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

HashKey RandomKey() {
  std::random_device device;
  const auto word = [&device] { return uint64_t{device()} << 32 | device(); };
  return {word(), word()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineConfig& config,
                                                       Backends backends, const Clock& clock,
                                                       StepObserver& observer,
                                                       RemoteRanks* others) {
  const int num_ranks = static_cast<int>(backends.size()) + config.num_other_ranks;
  std::shared_ptr<FaultBoard> faults;
  if (config.allow_faults) faults = std::make_shared<FaultBoard>(num_ranks, clock);
  GATEHOUSE_ASSIGN_OR_RETURN(LoadedModel model,
                             LoadModel(config, std::move(backends), others, faults));
  const RequestLimits limits{.vocab_size = model.description.vocab_size,
                             .max_context = model.config.scheduler.max_context,
                             .default_max_new_tokens = model.description.default_max_new_tokens};
  EngineParts parts{.scheduler = model.config.scheduler,
                    .block_tokens = model.config.cache.block_tokens,
                    .num_ranks = num_ranks,
                    .worker = std::move(model.worker),
                    .faults = std::move(faults),
                    .tokenizer = std::move(model.tokenizer),
                    .chat_template = std::move(model.chat_template),
                    .model = std::move(model.description),
                    .memory_plan = model.memory_plan,
                    .limits = limits,
                    .routing_secret = config.routing.secret.value_or(RandomKey()),
                    .shadow_exact_fraction = config.routing.shadow_exact_fraction};
  return std::make_unique<EngineLoop>(std::move(parts), clock, observer);
}

}  // namespace gatehouse
