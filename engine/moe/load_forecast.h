// What each expert of each layer will be asked to compute, by what it was asked: a mean whose
// weights halve with every `half_life_pairs` pairs. By pairs and not by steps, so that a step of
// four decoding rows does not count like one of a thousand. A value; it needs one thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace gatehouse {

// Of one layer: about 250 steps of 512 rows that choose 8 experts. Popularity shifts with the mix
// of requests, over minutes; chance shifts it by 1 / sqrt(pairs seen).
inline constexpr double kLoadHalfLifePairs = 1e6;

class LoadForecast {
 public:
  // INVALID_ARGUMENT for less than one layer, expert or pair.
  static absl::StatusOr<LoadForecast> Make(int num_layers, int num_experts,
                                           double half_life_pairs = kLoadHalfLifePairs);

  // Pairs that each expert was asked for in one step [num_experts].
  // INVALID_ARGUMENT, with nothing added: no such layer, other counts than experts, a count that is
  // below 0 or above 2^53.
  absl::Status Add(int layer, std::span<const int64_t> counts);

  // [num_experts], sum 1 once something was added, else all 0.
  std::vector<double> Shares(int layer) const;
  // Pairs that the forecast rests on, older ones counted for less.
  double num_pairs(int layer) const { return num_pairs_[layer]; }
  int num_layers() const { return static_cast<int>(num_pairs_.size()); }

 private:
  LoadForecast(int num_layers, int num_experts, double half_life_pairs);

  int num_experts_;
  double half_life_pairs_;
  std::vector<double> num_pairs_;           // [num_layers]
  std::vector<std::vector<double>> loads_;  // [num_layers][num_experts]
};

}  // namespace gatehouse
