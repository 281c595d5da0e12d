// Everything the engine is told, with defaults beside their reason. One tree, passed down whole.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "kernels/kv_type.h"
#include "kernels/weight_format.h"

namespace gatehouse {

struct ModelOptions {
  std::string model_dir;
  std::optional<WeightFormat> expert_weights;  // absent: what the file holds, without loss
  std::optional<WeightFormat> dense_weights;
  std::string packed_cache;  // folder of packed weights (engine/model/packed_cache.h); empty: none
};

struct CacheOptions {
  int32_t block_tokens =
      16;  // vLLM's and everyone's: small enough to waste little, large enough to stream
  int64_t kv_cache_bytes =
      0;  // 0: enough for max_sequences * max_context, at most half of the free memory
  KvType kv_type = KvType::kF32;  // narrower types round keys and values: only when asked for
};

struct SchedulerOptions {
  int32_t max_sequences = 64;     // running at once
  int32_t max_step_tokens = 512;  // rows of one step: one prefill chunk plus all decodes
  double max_step_ms = 250;       // what a prefill chunk may add to running streams
  int32_t max_queued_requests =
      1024;  // beyond: RESOURCE_EXHAUSTED, so that nobody waits for a minute to be refused
  int64_t max_queued_tokens = 1 << 20;  // prompt tokens
  int32_t max_context = 0;              // 0: the model's
};

// The least a step leaves for prompts: without it a slow machine would never finish one.
inline constexpr int32_t kMinPrefillTokens = 16;

// Sequences that run at once: max_sequences, or fewer where a step has no room for one row of each
// and a prompt beside them.
inline int32_t MaxRunning(const SchedulerOptions& options) {
  return std::clamp(options.max_step_tokens - kMinPrefillTokens, 1,
                    std::max(options.max_sequences, 1));
}

// What the gates say, step by step, for gatehouse-lab simulate. Costs a ranking a row.
struct TraceOptions {
  std::string file;                        // empty: none
  int64_t max_bytes = int64_t{256} << 20;  // some thousand steps; no step beyond is recorded
};

struct RoutingOptions {
  // By what bounded routing breaks ties and chooses home devices: the same replays a trace. Absent:
  // drawn at the start, so that nobody can prepare requests that win.
  std::optional<std::array<uint64_t, 2>> secret;
  // Of the bounded requests, replayed exactly when nobody wants the engine.
  double shadow_exact_fraction = 0;
};

struct EngineConfig {
  int num_other_ranks = 0;    // of the deployment, in other processes
  bool allow_faults = false;  // on purpose (engine/fault_board.h)
  ModelOptions model;
  CacheOptions cache;
  SchedulerOptions scheduler;
  TraceOptions trace;
  RoutingOptions routing;
};

}  // namespace gatehouse
