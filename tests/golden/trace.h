// What a request told, for comparison bit for bit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/testing/engine_runner.h"

namespace gatehouse {

// Everything about a token that a client could compare, bit for bit.
struct Trace {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;  // prompt (from the second token on), then generated
  std::vector<float> top;
  std::vector<float> weights;  // of the routers
  std::vector<int32_t> experts;
  std::string text;
  bool operator==(const Trace&) const = default;
};

inline Trace TraceOf(const CollectingSink& sink) {
  Trace trace;
  const auto add = [&](const TokenOutput& token) {
    trace.ids.push_back(token.id);
    if (token.logprob) trace.logprobs.push_back(*token.logprob);
    for (const TokenLogprob& top : token.top) trace.top.push_back(top.logprob);
    if (token.routed_experts) {
      const RoutedExperts& routed = *token.routed_experts;
      trace.weights.insert(trace.weights.end(), routed.weights.begin(), routed.weights.end());
      trace.experts.insert(trace.experts.end(), routed.expert_ids.begin(), routed.expert_ids.end());
    }
  };
  for (const TokenOutput& token : sink.prompt) add(token);
  for (const TokenOutput& token : sink.tokens) add(token);
  trace.text = sink.text;
  return trace;
}

}  // namespace gatehouse
