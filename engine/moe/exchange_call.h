// One exchange between ranks as one of them saw it, for metrics: a value.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "engine/comm/communicator.h"

namespace gatehouse {

// What is exchanged in a MoE layer, in this order: what rows chose; rows to their experts; results.
enum class ExchangePhase { kGather, kDispatch, kCombine };
inline constexpr int kNumExchangePhases = 3;
inline constexpr std::array<std::string_view, kNumExchangePhases> kExchangePhaseNames = {
    "gather", "dispatch", "combine"};

struct ExchangeCall {
  ExchangePhase phase = ExchangePhase::kGather;
  CommStats spent;
};

// Of one rank in one step.
struct RankExchanges {
  std::vector<ExchangeCall> calls;
  int64_t num_computed = 0;  // pairs of a row and an expert that the rank computed
};

}  // namespace gatehouse
