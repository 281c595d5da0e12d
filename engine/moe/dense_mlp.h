// A dense SwiGLU feed-forward: one expert that every row goes to. Owned by the transformer, or by
// the shared expert it is.
#pragma once

#include <cstdint>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/backend.h"

namespace gatehouse {

class DenseMlp {
 public:
  explicit DenseMlp(std::unique_ptr<PackedExperts> weights) : weights_(std::move(weights)) {}

  // out [num_rows, hidden]; hidden [>= num_rows, intermediate] is workspace.
  void Forward(Backend& backend, MatrixView<const float> x, MatrixView<float> hidden,
               MatrixView<float> out) const {
    std::vector<int32_t> row_ids(x.num_rows);
    std::iota(row_ids.begin(), row_ids.end(), 0);
    const int32_t expert_begin[] = {0, static_cast<int32_t>(x.num_rows)};
    backend.ExpertFfn({.x = x,
                       .groups = {row_ids, expert_begin},
                       .experts = weights_.get(),
                       .scratch = hidden.FirstRows(x.num_rows),
                       .out = out});
  }

 private:
  std::unique_ptr<PackedExperts> weights_;
};

}  // namespace gatehouse
