// What a load run sends and when, as pure functions of options and seed: the same on every machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/load_options.h"
#include "gatehouse/v1/inference.pb.h"

namespace gatehouse {

// SplitMix64: small, seeded, and equal everywhere, which the distributions of <random> are not.
class SeededRandom {
 public:
  explicit SeededRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  double NextUnit();                   // [0, 1)
  uint64_t NextBelow(uint64_t bound);  // [0, bound), bound > 0
 private:
  uint64_t state_;
};

// Moments of a Poisson process: independent, exponentially distributed gaps.
class PoissonArrivals {
 public:
  PoissonArrivals(double rate, uint64_t seed) : rate_(rate), random_(seed) {}
  double NextSeconds();  // since the start; never decreases

 private:
  const double rate_;
  SeededRandom random_;
  double seconds_ = 0;
};

// Makes the requests of one run. Thread-safe (constant after Create).
class RequestPlan {
 public:
  // Reads the prompt file if there is one. `vocab_size` and `special_ids` are the model's: random
  // prompts hold no special id.
  static absl::StatusOr<RequestPlan> Create(const LoadOptions& options, const v1::ModelInfo& model);
  v1::GenerateRequest Request(uint64_t request_idx) const;

 private:
  RequestPlan() = default;

  v1::GenerateRequest template_;
  uint64_t seed_ = 0;
  int num_prompt_tokens_ = 0;
  std::vector<std::string> texts_;     // or
  std::vector<int32_t> ordinary_ids_;  // what random prompts are made of
};

}  // namespace gatehouse
