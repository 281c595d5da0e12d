// The expert that every row of an MoE layer goes to beside those it chose: added whole, or weighted
// by the sigmoid of one logit a row. Owned by its MoeLayer; used by the rank's thread.
#pragma once

#include <memory>
#include <utility>

#include "engine/moe/dense_mlp.h"
#include "engine/moe/dispatcher.h"
#include "kernels/backend.h"

namespace gatehouse {

class SharedExpert {
 public:
  // scale [1, hidden] or null.
  SharedExpert(DenseMlp mlp, std::unique_ptr<PackedMatrix> scale)
      : mlp_(std::move(mlp)), scale_(std::move(scale)) {}

  // out [num_rows, hidden] += (sigmoid(scale . x)) expert(x)
  void AddTo(Backend& backend, MatrixView<const float> x, const MoeWorkspace& workspace,
             MatrixView<float> out) const {
    const MatrixView<float> rows = workspace.shared_rows.FirstRows(x.num_rows);
    const MatrixView<float> gates = workspace.shared_gates.FirstRows(x.num_rows);
    mlp_.Forward(backend, x, workspace.shared_hidden, rows);
    if (scale_ != nullptr) backend.Gemm({.x = x, .weights = scale_.get(), .out = gates});
    backend.Add({.x = rows, .gates = scale_ == nullptr ? nullptr : gates.data, .out = out});
  }

 private:
  DenseMlp mlp_;
  std::unique_ptr<PackedMatrix> scale_;
};

}  // namespace gatehouse
