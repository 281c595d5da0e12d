// The engine: requests in, tokens out. Knows nothing of gRPC, protobuf or Prometheus.
//
// Owner: main. It owns the model, the cache, the scheduler and one loop thread, the only one that
// touches them. Any thread may call the methods below. Every submitted request ends with exactly
// one TokenSink::Close.
//
//   auto engine = Engine::Create(config, std::move(backends), clock, observer);
//   auto ticket = (*engine)->Submit(std::move(request), sink);  // events come from the loop
//   (*engine)->Cancel(*ticket);
//   (*engine)->Drain(clock.Now() + std::chrono::seconds(30));
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/chat_template/chat_template.h"
#include "engine/comm/membership.h"
#include "engine/engine_config.h"
#include "engine/memory_plan.h"
#include "engine/model/packed_cache_report.h"
#include "engine/moe/expert_placement.h"
#include "engine/rebalance_status.h"
#include "engine/request/request.h"
#include "engine/request/token_sink.h"
#include "engine/step_stats.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/backend.h"
#include "kernels/base/clock.h"

namespace gatehouse {

struct Fault;
class RemoteRanks;

// What a client may know of the loaded model.
struct ModelDescription {
  std::string name;    // last component of the model directory
  std::string family;  // qwen3_moe
  std::string hash;    // of configuration and weights (engine/model/model_hash.h)
  int64_t num_parameters = 0;
  int64_t num_active_parameters = 0;  // that one token uses
  int32_t num_layers = 0;
  std::vector<int32_t> moe_layers;  // indices of the layers with experts
  int32_t hidden_size = 0;
  int32_t vocab_size = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int32_t max_context = 0;  // in force
  std::vector<int32_t> eos_token_ids;
  bool has_chat_template = false;
  bool renormalises_weights = false;  // over a token's chosen experts
  bool has_shared_expert = false;
  std::string expert_weight_format;
  std::string dense_weight_format;
  SamplingParams default_sampling;     // generation_config.json over our own defaults
  int32_t default_max_new_tokens = 0;  // generation_config.json's; 0: it has none
  std::vector<std::string> warnings;   // what the folder holds and the server ignores, to be logged
  PackedCacheReport packed_cache;      // to be logged too
};

// For health and status: read without stopping the loop.
struct EngineStatus {
  int32_t num_running = 0;
  int32_t num_waiting = 0;
  int64_t num_waiting_tokens = 0;
  PriorityCounts priority_counts;
  std::vector<std::pair<std::string, QueueCounts>> tenant_counts;  // of those with requests
  int64_t num_kv_blocks_used = 0;
  int64_t num_kv_blocks_total = 0;
  TimePoint last_step{};  // end of the last step, or start of the engine
  bool has_work = false;  // work is waiting or running: with an old last_step the engine is stalled
  bool draining = false;
  Membership membership;  // of the ranks that run steps
  std::string last_loss;  // why ranks had to form another group; empty: they never had
};

class Engine {
 public:
  using Ticket = uint64_t;

  // Loads the model and starts the loop. FAILED_PRECONDITION "<file>: <problem>, expected ..." when
  // the model cannot be loaded; RESOURCE_EXHAUSTED with the plan's numbers when it cannot fit.
  // One back end for each rank of this process; `others` (null: none) are those of other processes.
  // `clock`, `observer` and `others` outlive the engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineConfig& config,
                                                        Backends backends, const Clock& clock,
                                                        StepObserver& observer,
                                                        RemoteRanks* others = nullptr);
  virtual ~Engine() = default;  // drains at once: what runs is closed with UNAVAILABLE

  // INVALID_ARGUMENT (ValidateRequest), RESOURCE_EXHAUSTED (queue full), UNAVAILABLE (draining),
  // DEADLINE_EXCEEDED (it has passed): then the sink is not used. Otherwise the sink is kept until
  // its Close.
  virtual absl::StatusOr<Ticket> Submit(Request request, std::shared_ptr<TokenSink> sink) = 0;
  // What Submit would refuse of the tenant whatever the request holds (UNAVAILABLE while draining,
  // RESOURCE_EXHAUSTED when too many wait): worth asking before a long prompt is tokenised.
  virtual absl::Status CheckQueueOpen(const Tenant& tenant) const = 0;
  // Ends the request with CANCELLED within one step. An unknown or ended ticket is no error.
  virtual void Cancel(Ticket ticket) = 0;
  // Refuses new requests at once, returns when all running ones have ended; those still there at
  // `deadline` are closed with UNAVAILABLE. The engine stays usable for queries.
  virtual void Drain(TimePoint deadline) = 0;

  virtual const Tokenizer& tokenizer() const = 0;
  virtual const ChatTemplate* chat_template() const = 0;  // null: the model has none
  virtual const ModelDescription& model() const = 0;
  virtual const MemoryPlan& memory_plan() const = 0;
  virtual const RequestLimits& limits() const = 0;
  virtual EngineStatus Status() const = 0;
  // Where the experts of each MoE layer lie, a device for each rank.
  virtual std::vector<ExpertPlacement> Placements() const = 0;
  // Asks for a rebalance; how it goes stands in Rebalancing. Errors as of Rebalancer::Request;
  // UNAVAILABLE while draining.
  virtual absl::Status Rebalance(const RebalanceOptions& options) = 0;
  virtual RebalanceStatus Rebalancing() const = 0;
  // A fault on purpose. FAILED_PRECONDITION where config.allow_faults is not set; else errors as of
  // FaultBoard::Inject.
  virtual absl::Status Inject(const Fault& fault) = 0;
  // How long a refused request of the tenant should wait before the next try, from the rate at
  // which the tenant's requests end; or all requests, where nothing is known of it.
  virtual Duration RetryAfter(const std::string& tenant) const = 0;
};

}  // namespace gatehouse
