// What one request's next token is drawn with: its parameters, its random draw and what its earlier
// tokens change (penalties, bans). Depends on the request, the seed and its own tokens alone.
//
// Owned by the engine loop beside the sequence; its thread only. Cannot fail: the request has
// passed ValidateRequest.
//
//   SamplingState state(request, seed, eos_token_ids);
//   const RowSampling row = state.Next();   // spans stay valid until the next call of either
//   state.Append(sampled.token_id);
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/request/request.h"
#include "kernels/backend.h"

namespace gatehouse {

class SamplingState {
 public:
  SamplingState(std::shared_ptr<const Request> request, uint64_t seed,
                std::span<const int32_t> eos_token_ids);

  RowSampling Next();
  void Append(int32_t token_id);

  // For the log-probability of the prompt token `target`: nothing is chosen.
  static RowSampling ForPromptTarget(const Request& request, int32_t target);

 private:
  void NoteRepetition(int32_t token_id);
  void NotePenalties(int32_t token_id);
  void NoteHistory(int32_t token_id);
  void BanStops();
  void BanBadWords();
  void Ban(int32_t token_id);

  const std::shared_ptr<const Request> request_;
  const uint64_t seed_;
  std::vector<int32_t> stop_ids_;  // every token that would stop the request
  int32_t num_generated_ = 0;

  // Three parts: the request's logit_bias, one entry for each generated token with a penalty, and
  // the bans of the next token alone, from num_lasting_ on.
  std::vector<std::pair<int32_t, float>> bias_;
  size_t num_lasting_ = 0;
  std::unordered_map<int32_t, size_t> token_to_penalty_;  // index in bias_

  std::vector<int32_t> repeated_ids_;      // distinct, of prompt and output
  std::unordered_set<int32_t> generated_;  // of the output, where not in the prompt

  size_t history_tokens_ = 0;     // one less than the longest bad word
  std::vector<int32_t> history_;  // the last of prompt and output, at most history_tokens_
};

}  // namespace gatehouse
