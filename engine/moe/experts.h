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
  Experts(Backend& backend, const ActivationOptions& activation,
          std::unique_ptr<PackedExperts> weights)
      : backend_(backend), activation_(activation), weights_(std::move(weights)) {}

  void Run(const ExpertBatch& batch) const {
    backend_.ExpertFfn({.x = batch.x,
                        .groups = batch.groups,
                        .experts = weights_.get(),
                        .activation = activation_,
                        .scratch = batch.hidden,
                        .out = batch.out});
  }

 private:
  Backend& backend_;
  ActivationOptions activation_;
  std::unique_ptr<PackedExperts> weights_;
};

}  // namespace gatehouse
