#include "kernels/cpu/packed.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"
#include "kernels/cpu/memory.h"
#include "kernels/quantise.h"

namespace gatehouse::cpu {
namespace {

constexpr int kHalfPanel = kPanelCols / 2;

int InputsPerStep(WeightFormat format) { return format == WeightFormat::kF32 ? 1 : 2; }
int GroupBytes(WeightFormat format) {
  return format == WeightFormat::kInt8 ? kInt8GroupBytes : kInt4GroupBytes;
}

// Element i of a checkpoint's tensor, which may lie at any address.
template <DType kDType>
float ReadAt(const void* data, int64_t i) {
  if constexpr (kDType == DType::kF32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(data) + i * 4, 4);
    return value;
  } else {
    uint16_t bits;
    std::memcpy(&bits, static_cast<const char*>(data) + i * 2, 2);
    return kDType == DType::kBF16 ? BF16ToF32(bits) : F16ToF32(bits);
  }
}

// Column `col` of a group.
void PackGroup(const WeightGroup& group, WeightFormat format, char* out, int col) {
  constexpr int kHighStep = 4;
  auto* codes = reinterpret_cast<uint8_t*>(out) + col * 4;
  for (int i = 0; i < kGroupInputs; ++i) {
    const int step = i / 4, byte = i % 4;
    if (format == WeightFormat::kInt8 || step < kHighStep) {
      codes[step * kPanelStepBytes + byte] = group.codes[i];
    } else {
      codes[(step - kHighStep) * kPanelStepBytes + byte] |=
          static_cast<uint8_t>(group.codes[i] << 4);
    }
  }
  std::memcpy(out + GroupBytes(format) - kScaleBytes + col * 2, &group.scale, 2);
}

// Source row `row` becomes column `col` of the panel.
template <DType kDType>
void PackQuantisedRow(const WeightView& source, int64_t row, WeightFormat format, char* panel,
                      int col) {
  const int64_t first = source.index(row, 0), step = source.col_stride;
  for (int64_t begin = 0; begin < source.num_cols; begin += kGroupInputs) {
    float values[kGroupInputs] = {};
    const int64_t count = std::min<int64_t>(kGroupInputs, source.num_cols - begin);
    for (int64_t i = 0; i < count; ++i) {
      values[i] = ReadAt<kDType>(source.data, first + (begin + i) * step);
    }
    PackGroup(QuantiseWeights(format, values), format,
              panel + begin / kGroupInputs * GroupBytes(format), col);
  }
}

// Likewise.
template <DType kDType>
void PackRow(const WeightView& source, int64_t row, WeightFormat format, char* panel, int col) {
  const int64_t first = source.index(row, 0), step = source.col_stride;
  char* column = panel + col * 4;
  if (IsQuantised(format)) {
    PackQuantisedRow<kDType>(source, row, format, panel, col);
  } else if (format == WeightFormat::kF32) {
    for (int64_t k = 0; k < source.num_cols; ++k) {
      const float value = ReadAt<kDType>(source.data, first + k * step);
      std::memcpy(column + k * kPanelStepBytes, &value, 4);
    }
  } else {
    for (int64_t k = 0; k < source.num_cols; ++k) {
      const uint16_t bits = F32ToBF16(ReadAt<kDType>(source.data, first + k * step));
      std::memcpy(column + k / 2 * kPanelStepBytes + k % 2 * 2, &bits, 2);
    }
  }
}

// Rows [first, first + count) of the source, as far as it has them, become columns from `col` on.
void PackRows(const WeightView& source, int64_t first, int count, WeightFormat format, char* panel,
              int col) {
  for (int i = 0; i < count && first + i < source.num_rows; ++i) {
    switch (source.dtype) {
      case DType::kF32:
        PackRow<DType::kF32>(source, first + i, format, panel, col + i);
        break;
      case DType::kBF16:
        PackRow<DType::kBF16>(source, first + i, format, panel, col + i);
        break;
      case DType::kF16:
        PackRow<DType::kF16>(source, first + i, format, panel, col + i);
        break;
    }
  }
}

// One panel of matrices on top of each other.
void PackStackedPanel(std::span<const WeightView> stacked, int64_t panel_idx, WeightFormat format,
                      char* panel) {
  int64_t first = panel_idx * kPanelCols;  // wanted next, counted within `matrix`
  int col = 0;
  for (const WeightView& matrix : stacked) {
    if (first < matrix.num_rows) {
      PackRows(matrix, first, kPanelCols - col, format, panel, col);
      const int64_t taken = std::min<int64_t>(kPanelCols - col, matrix.num_rows - first);
      col += static_cast<int>(taken);
      first += taken;
    }
    if (col == kPanelCols) return;
    first -= matrix.num_rows;
  }
}

// Written to `out` one after another.
void CopyBiases(const ExpertSource& source, float* out) {
  for (const WeightView* bias : {&source.gate_bias, &source.up_bias, &source.down_bias}) {
    for (int64_t i = 0; i < bias->num_cols; ++i) *out++ = bias->at(0, i);
  }
}

ExpertsShape ShapeOf(std::span<const ExpertSource> experts) {
  GATEHOUSE_CHECK(!experts.empty());
  const int64_t intermediate = experts[0].gate.num_rows, hidden = experts[0].gate.num_cols;
  const bool has_bias = experts[0].gate_bias.data != nullptr;
  GATEHOUSE_CHECK(intermediate >= 1 && hidden >= 1) << intermediate << " x " << hidden;
  for (const ExpertSource& expert : experts) {
    GATEHOUSE_CHECK(expert.gate.num_rows == intermediate && expert.gate.num_cols == hidden);
    GATEHOUSE_CHECK(expert.up.num_rows == intermediate && expert.up.num_cols == hidden);
    GATEHOUSE_CHECK(expert.down.num_rows == hidden && expert.down.num_cols == intermediate);
    GATEHOUSE_CHECK(expert.gate_bias.num_cols == (has_bias ? intermediate : 0) &&
                    expert.up_bias.num_cols == (has_bias ? intermediate : 0) &&
                    expert.down_bias.num_cols == (has_bias ? hidden : 0));
  }
  return {.num_experts = static_cast<int>(experts.size()),
          .hidden_size = hidden,
          .intermediate_size = intermediate,
          .has_bias = has_bias};
}

}  // namespace

int64_t PanelBytes(WeightFormat format, int64_t num_inputs) {
  if (IsQuantised(format)) return NumQuantGroups(num_inputs) * GroupBytes(format);
  const int per_step = InputsPerStep(format);
  return (num_inputs + per_step - 1) / per_step * kPanelStepBytes;
}

size_t MatrixBytes(WeightFormat format, int64_t num_outputs, int64_t num_inputs) {
  const int64_t num_panels = (num_outputs + kPanelCols - 1) / kPanelCols;
  return static_cast<size_t>(num_panels * PanelBytes(format, num_inputs));
}

size_t ExpertsBytes(WeightFormat format, const ExpertsShape& shape) {
  const int64_t hidden = shape.hidden_size, intermediate = shape.intermediate_size;
  const int64_t gate_up_panels = (intermediate + kHalfPanel - 1) / kHalfPanel;
  const int64_t num_biases = shape.has_bias ? 2 * intermediate + hidden : 0;
  return shape.num_experts * (static_cast<size_t>(gate_up_panels * PanelBytes(format, hidden)) +
                              MatrixBytes(format, hidden, intermediate) +
                              static_cast<size_t>(num_biases) * sizeof(float));
}

CpuPackedMatrix::CpuPackedMatrix(WeightFormat format, int64_t num_outputs, int64_t num_inputs,
                                 Buffer panels)
    : format_(format),
      num_outputs_(num_outputs),
      num_inputs_(num_inputs),
      panel_bytes_(PanelBytes(format, num_inputs)),
      panels_(std::move(panels)) {}

CpuPackedExperts::CpuPackedExperts(WeightFormat format, const ExpertsShape& shape, Buffer panels)
    : format_(format),
      shape_(shape),
      gate_up_panel_bytes_(PanelBytes(format, shape.hidden_size)),
      down_panel_bytes_(PanelBytes(format, shape.intermediate_size)),
      panels_(std::move(panels)) {}

absl::StatusOr<std::unique_ptr<CpuPackedMatrix>> Pack(ThreadPool& pool,
                                                      std::span<const WeightView> stacked,
                                                      WeightFormat format) {
  GATEHOUSE_CHECK(!stacked.empty());
  const int64_t num_inputs = stacked[0].num_cols;
  int64_t num_outputs = 0;
  for (const WeightView& matrix : stacked) {
    GATEHOUSE_CHECK(matrix.num_cols == num_inputs) << matrix.num_cols << " " << num_inputs;
    num_outputs += matrix.num_rows;
  }
  GATEHOUSE_CHECK(num_outputs >= 1 && num_inputs >= 1) << num_outputs << " x " << num_inputs;
  GATEHOUSE_ASSIGN_OR_RETURN(Buffer panels,
                             AllocateZeroed(MatrixBytes(format, num_outputs, num_inputs)));
  char* data = panels.as<char>();
  const int64_t panel_bytes = PanelBytes(format, num_inputs);
  const int64_t num_panels = (num_outputs + kPanelCols - 1) / kPanelCols;
  pool.Run(static_cast<int>(num_panels), [&](int /*thread*/, int panel) {
    PackStackedPanel(stacked, panel, format, data + panel * panel_bytes);
  });
  return std::make_unique<CpuPackedMatrix>(format, num_outputs, num_inputs, std::move(panels));
}

absl::StatusOr<std::unique_ptr<CpuPackedExperts>> Pack(ThreadPool& pool,
                                                       std::span<const ExpertSource> experts,
                                                       WeightFormat format) {
  const ExpertsShape shape = ShapeOf(experts);
  GATEHOUSE_ASSIGN_OR_RETURN(Buffer panels, AllocateZeroed(ExpertsBytes(format, shape)));
  char* data = panels.as<char>();
  auto packed = std::make_unique<CpuPackedExperts>(format, shape, std::move(panels));
  const int64_t num_gate_up = packed->num_gate_up_panels();
  const int64_t num_panels = num_gate_up + packed->num_down_panels();
  // One unit is one panel; where it lies is the packed object's own knowledge.
  const auto place = [&](const void* panel) {
    return data + (static_cast<const char*>(panel) -
                   static_cast<const char*>(packed->gate_up_panel(0, 0)));
  };
  for (int e = 0; shape.has_bias && e < shape.num_experts; ++e) {
    CopyBiases(experts[static_cast<size_t>(e)], reinterpret_cast<float*>(place(packed->biases(e))));
  }
  pool.Run(static_cast<int>(shape.num_experts * num_panels), [&](int /*thread*/, int unit) {
    const int64_t expert = unit / num_panels, panel = unit % num_panels;
    const ExpertSource& source = experts[static_cast<size_t>(expert)];
    if (panel < num_gate_up) {
      char* out = place(packed->gate_up_panel(expert, panel));
      PackRows(source.gate, panel * kHalfPanel, kHalfPanel, format, out, 0);
      PackRows(source.up, panel * kHalfPanel, kHalfPanel, format, out, kHalfPanel);
    } else {
      const int64_t down_panel = panel - num_gate_up;
      char* out = place(packed->down_panel(expert, down_panel));
      PackRows(source.down, down_panel * kPanelCols, kPanelCols, format, out, 0);
    }
  });
  return packed;
}

}  // namespace gatehouse::cpu
