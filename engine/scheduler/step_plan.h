// What one step runs, as flat arrays: made by Scheduler::Plan, read by the worker, taken back by
// Scheduler::Commit. The block tables are the sequences' own: a plan is valid until its Commit.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/moe/pinned_policy.h"
#include "engine/moe/routed_token.h"
#include "kernels/backend.h"

namespace gatehouse {

// One output of one request: the request's ticket plus the output's index. So a request with n
// outputs owns n ids, of which the first is its ticket.
using SequenceId = uint64_t;

// A row whose logits are wanted: to sample the sequence's next token, or for the log-probability of
// a prompt token.
struct LogitRow {
  SequenceId sequence = 0;
  int32_t output_index = 0;
  int32_t row = 0;             // in the step, ascending over the plan
  int32_t position = 0;        // of the row's own token; the logits speak of position + 1
  int32_t prompt_target = -1;  // >= 0: only this prompt token's log-probability is wanted

  SequenceId ticket() const { return sequence - output_index; }
};

struct StepPlan {
  std::vector<int32_t> token_ids;          // [num_rows]
  std::vector<int32_t> positions;          // [num_rows]
  std::vector<SequenceSpan> spans;         // decodes first, then prefill chunks
  std::vector<SequenceId> span_sequences;  // [spans.size()]
  std::vector<int32_t> span_ranks;         // [spans.size()] whose cache the blocks are of
  std::vector<LogitRow> logit_rows;
  std::vector<RoutedToken> routed_tokens;     // [num_rows]; empty: every row is routed exactly
  std::vector<const PinnedPolicy*> policies;  // of routed_tokens; the requests keep them alive
  int32_t num_prefill_tokens = 0;  // rows that only fill the cache, and a prompt's last row
  int32_t num_decode_tokens = 0;
  int32_t num_new_prompt_tokens = 0;  // positions of prompts that no step has computed before
  bool is_replay = false;             // of what has been served before: no trace records it

  int32_t num_rows() const { return static_cast<int32_t>(token_ids.size()); }
  bool empty() const { return token_ids.empty(); }
  BatchLayout layout() const { return {token_ids, positions, spans}; }
};

}  // namespace gatehouse
