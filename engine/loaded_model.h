// A model folder brought into memory, for the ranks of this process: everything the engine needs
// but the loop.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat_template/chat_template.h"
#include "engine/engine.h"
#include "engine/engine_config.h"
#include "engine/fault_board.h"
#include "engine/memory_plan.h"
#include "engine/model/model_config.h"
#include "engine/model/step_cost.h"
#include "engine/model/transformer.h"
#include "engine/rank.h"
#include "engine/remote_ranks.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/worker.h"
#include "kernels/backend.h"

namespace gatehouse {

// Its parts, for who runs steps without a scheduler (engine/lab).
struct LoadedParts {
  EngineConfig config;  // as asked for, what was left open decided
  ModelConfig model;
  ModelDescription description;
  MemoryPlan memory_plan;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;  // null: none
  std::vector<RankParts> ranks;                       // they share the weights
  ModelCost cost;
};

struct LoadedModel {
  EngineConfig config;  // as asked for, what was left open decided
  ModelDescription description;
  MemoryPlan memory_plan;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;  // null: none
  std::unique_ptr<Worker> worker;
};

// Reads and checks config.json, generation_config.json, tokenizer.json, the chat template and the
// checkpoint's headers, plans memory, then packs the weights. FAILED_PRECONDITION "<file>:
// <problem>, expected
// ..." for a model that cannot be loaded; RESOURCE_EXHAUSTED with numbers for one that cannot fit;
// INVALID_ARGUMENT for a configuration that the model cannot honour.
// One back end a rank of this process; the first packs the weights.
absl::StatusOr<LoadedParts> LoadParts(const EngineConfig& config, Backends backends);
// The same with a worker that owns them. `others` (null: none) are ranks of other processes, for
// config.num_other_ranks of which it waits; then this process has one. Ranks obey `faults` (null:
// none).
absl::StatusOr<LoadedModel> LoadModel(const EngineConfig& config, Backends backends,
                                      RemoteRanks* others = nullptr,
                                      const std::shared_ptr<FaultBoard>& faults = nullptr);

}  // namespace gatehouse
