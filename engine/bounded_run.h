// What the first output of a bounded request drew its tokens from: filled by its OutputStream, read
// when it is replayed exactly (shadow_exact.h). The engine loop's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/request/request.h"
#include "kernels/backend.h"

namespace gatehouse {

struct BoundedRun {
  // As many as a client may ask for (RequestLimits): what is exported can be checked from outside.
  static constexpr int32_t kTopTokens = 20;
  // Of one output: with the most likely tokens some 48 KiB.
  static constexpr int32_t kMaxTokens = 256;

  struct NextToken {
    int32_t id = 0;                // the one that came
    std::vector<int32_t> top_ids;  // most likely first
    std::vector<float> top_logprobs;
  };

  std::shared_ptr<const Request> request;
  std::vector<NextToken> tokens;

  bool wants_more() const { return static_cast<int32_t>(tokens.size()) < kMaxTokens; }
  void Append(const RowSample& sample) {
    NextToken& next = tokens.emplace_back(NextToken{.id = sample.token_id});
    for (const TokenLogprob& top : sample.top) {
      next.top_ids.push_back(top.id);
      next.top_logprobs.push_back(top.logprob);
    }
  }
};

}  // namespace gatehouse
