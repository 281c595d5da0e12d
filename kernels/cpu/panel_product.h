// A product of rows with one panel, whatever the format of the weights: the kernels of f32 and bf16
// take the rows as they are, those of int8 and int4 the rows quantised before (QuantiseRows).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_ops.h"

namespace gatehouse::cpu {

// Bytes of `num_rows` quantised rows; 0 where `format` needs none.
size_t QuantRowsBytes(WeightFormat format, int64_t num_rows, int64_t num_inputs);

// Room for them at `memory`.
QuantRows QuantRowsAt(char* memory, int64_t num_inputs);

// Rows row_ids of x (empty: all of x) become rows 0, 1, .. of `out`: one parallel region, or none
// for a few rows.
void QuantiseRows(Machine machine, const MatrixView<const float>& x,
                  std::span<const int32_t> row_ids, const QuantRows& out);

class PanelProduct {
 public:
  // out = scale * (x * panel (+ bias)) (+ out)
  static PanelProduct Multiply(const IsaKernels& isa, WeightFormat format);
  // out = activation(gate, up)
  static PanelProduct GateUp(const IsaKernels& isa, ExpertActivation activation,
                             WeightFormat format);

  // Of quantised weights, `rows` stands for tile.x, and tile.row_ids count within it.
  void Run(const PanelTile& tile, const QuantRows& rows) const;

 private:
  PanelFn whole_ = nullptr;  // f32 and bf16; else the two below
  void (*sum_)(const QuantTile& tile) = nullptr;
  StoreFn store_ = nullptr;
};

}  // namespace gatehouse::cpu
