#include "kernels/cpu/panel_product.h"

#include <algorithm>

#include "kernels/cpu/packed_layout.h"
#include "kernels/cpu/work_split.h"
#include "kernels/quantise.h"

namespace gatehouse::cpu {

size_t QuantRowsBytes(WeightFormat format, int64_t num_rows, int64_t num_inputs) {
  if (!IsQuantised(format)) return 0;
  return static_cast<size_t>(num_rows * QuantRowBytes(num_inputs));
}

QuantRows QuantRowsAt(char* memory, int64_t num_inputs) {
  return {.data = memory,
          .num_groups = NumQuantGroups(num_inputs),
          .stride = QuantRowBytes(num_inputs)};
}

void QuantiseRows(Machine machine, const MatrixView<const float>& x,
                  std::span<const int32_t> row_ids, const QuantRows& out) {
  constexpr int64_t kInputsPerUnit = 8192;  // a microsecond's work
  const auto num_rows = row_ids.empty() ? x.num_rows : static_cast<int64_t>(row_ids.size());
  const int64_t rows_per_unit = std::max<int64_t>(1, kInputsPerUnit / x.num_cols);
  const int64_t num_units = (num_rows + rows_per_unit - 1) / rows_per_unit;
  machine.pool.Run(static_cast<int>(num_units), [&](int /*thread*/, int unit) {
    const int64_t end = std::min(num_rows, (unit + 1) * rows_per_unit);
    for (int64_t r = unit * rows_per_unit; r < end; ++r) {
      const float* row = x.row(row_ids.empty() ? r : row_ids[r]);
      machine.isa.quant.quantise(row, x.num_cols, 0, out.num_groups, out.row(r));
    }
  });
}

PanelProduct PanelProduct::Multiply(const IsaKernels& isa, WeightFormat format) {
  PanelProduct product;
  product.store_ = isa.gemm.store;
  switch (format) {
    case WeightFormat::kF32:
      product.whole_ = isa.gemm.multiply_f32;
      break;
    case WeightFormat::kBF16:
      product.whole_ = isa.gemm.multiply_bf16;
      break;
    case WeightFormat::kInt8:
      product.sum_ = isa.quant.sum_int8;
      break;
    case WeightFormat::kInt4:
      product.sum_ = isa.quant.sum_int4;
      break;
  }
  return product;
}

PanelProduct PanelProduct::GateUp(const IsaKernels& isa, ExpertActivation activation,
                                  WeightFormat format) {
  const GemmKernels& gemm = isa.gemm;
  const bool is_clamped = activation == ExpertActivation::kClampedSwiglu;
  PanelProduct product = Multiply(isa, format);
  product.store_ = is_clamped ? gemm.store_clamped_swiglu : gemm.store_swiglu;
  if (format == WeightFormat::kF32) {
    product.whole_ = is_clamped ? gemm.clamped_swiglu_f32 : gemm.swiglu_f32;
  } else if (format == WeightFormat::kBF16) {
    product.whole_ = is_clamped ? gemm.clamped_swiglu_bf16 : gemm.swiglu_bf16;
  }
  return product;
}

void PanelProduct::Run(const PanelTile& tile, const QuantRows& rows) const {
  if (whole_ != nullptr) {
    whole_(tile);
    return;
  }
  const int64_t num_tiles = (tile.num_rows + kQuantTileRows - 1) / kQuantTileRows;
  for (int64_t t = 0; t < num_tiles; ++t) {
    const Part part = NthPart(tile.num_rows, num_tiles, t);
    const char* records[kQuantTileRows];
    alignas(64) float sums[kQuantTileRows * kPanelCols];
    const auto count = static_cast<int>(part.end - part.begin);
    for (int r = 0; r < count; ++r) {
      const int64_t row = part.begin + r;
      records[r] = rows.row(tile.row_ids != nullptr ? tile.row_ids[row] : row);
    }
    sum_({.panel = tile.panel,
          .num_groups = rows.num_groups,
          .rows = records,
          .num_rows = count,
          .sums = sums});
    for (int r = 0; r < count; ++r) {
      store_(tile, sums + r * kPanelCols, tile.out + (part.begin + r) * tile.out_stride);
    }
  }
}

}  // namespace gatehouse::cpu
