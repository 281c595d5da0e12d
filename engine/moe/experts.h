// The routed experts of one layer that this rank holds: a gated feed-forward over the rows brought
// to them. Owned by its MoeLayer; used by the rank's thread.
#pragma once

#include <memory>
#include <utility>

#include "engine/moe/dispatcher.h"
#include "kernels/backend.h"

namespace gatehouse {

class Experts {
 public:
  Experts(const ActivationOptions& activation, std::unique_ptr<PackedExperts> weights)
      : activation_(activation), weights_(std::move(weights)) {}

  void Run(Backend& backend, const ExpertBatch& batch) const {
    backend.ExpertFfn({.x = batch.x,
                       .groups = batch.groups,
                       .experts = weights_.get(),
                       .activation = activation_,
                       .scratch = batch.hidden,
                       .out = batch.out});
  }

 private:
  ActivationOptions activation_;
  std::unique_ptr<PackedExperts> weights_;
};

}  // namespace gatehouse
