// Weights in the layout of packed_layout.h. Immutable after packing, owned by the model, read by
// any thread. The format is a value here and in the choice of kernel (panel_product.h): a new
// format adds a row to both and changes no shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/base/thread_pool.h"
#include "kernels/buffer.h"
#include "kernels/cpu/packed_layout.h"

namespace gatehouse::cpu {

class CpuPackedMatrix final : public PackedMatrix {
 public:
  CpuPackedMatrix(WeightFormat format, int64_t num_outputs, int64_t num_inputs, Buffer panels);

  int64_t num_outputs() const override { return num_outputs_; }
  int64_t num_inputs() const override { return num_inputs_; }
  size_t num_bytes() const override { return panels_.num_bytes(); }
  std::span<const std::byte> bytes() const override {
    return {panels_.as<const std::byte>(), panels_.num_bytes()};
  }

  WeightFormat format() const { return format_; }
  int64_t num_panels() const { return (num_outputs_ + kPanelCols - 1) / kPanelCols; }
  const void* panel(int64_t panel_idx) const {
    return panels_.as<const char>() + panel_idx * panel_bytes_;
  }

 private:
  const WeightFormat format_;
  const int64_t num_outputs_, num_inputs_;
  const int64_t panel_bytes_;
  const Buffer panels_;
};

// One allocation: expert after expert its gate+up panels, then expert after expert its down panels,
// then the biases of gate, up and down as f32, expert after expert.
class CpuPackedExperts final : public PackedExperts {
 public:
  CpuPackedExperts(WeightFormat format, const ExpertsShape& shape, Buffer panels);

  int num_experts() const override { return shape_.num_experts; }
  int64_t hidden_size() const override { return shape_.hidden_size; }
  int64_t intermediate_size() const override { return shape_.intermediate_size; }
  size_t num_bytes() const override { return panels_.num_bytes(); }
  std::span<const std::byte> bytes() const override {
    return {panels_.as<const std::byte>(), panels_.num_bytes()};
  }

  WeightFormat format() const { return format_; }
  int64_t num_gate_up_panels() const { return (intermediate_size() + 15) / 16; }  // of one expert
  int64_t num_down_panels() const { return (hidden_size() + kPanelCols - 1) / kPanelCols; }
  const void* gate_up_panel(int64_t expert, int64_t panel_idx) const {
    return panels_.as<const char>() +
           (expert * num_gate_up_panels() + panel_idx) * gate_up_panel_bytes_;
  }
  const void* down_panel(int64_t expert, int64_t panel_idx) const {
    return panels_.as<const char>() + num_experts() * num_gate_up_panels() * gate_up_panel_bytes_ +
           (expert * num_down_panels() + panel_idx) * down_panel_bytes_;
  }
  // gate [intermediate], up [intermediate], down [hidden]; null without biases.
  const float* biases(int64_t expert) const {
    if (!shape_.has_bias) return nullptr;
    return reinterpret_cast<const float*>(down_panel(num_experts(), 0)) +
           expert * (2 * intermediate_size() + hidden_size());
  }

 private:
  const WeightFormat format_;
  const ExpertsShape shape_;
  const int64_t gate_up_panel_bytes_, down_panel_bytes_;
  const Buffer panels_;
};

// Bytes of one panel, of a whole matrix, of the experts of one layer.
int64_t PanelBytes(WeightFormat format, int64_t num_inputs);
size_t MatrixBytes(WeightFormat format, int64_t num_outputs, int64_t num_inputs);
size_t ExpertsBytes(WeightFormat format, const ExpertsShape& shape);

// The sources are read once and need not be aligned. RESOURCE_EXHAUSTED when the memory cannot be
// had; shapes that do not fit together are faults of ours and abort.
absl::StatusOr<std::unique_ptr<CpuPackedMatrix>> Pack(ThreadPool& pool,
                                                      std::span<const WeightView> stacked,
                                                      WeightFormat format);
absl::StatusOr<std::unique_ptr<CpuPackedExperts>> Pack(ThreadPool& pool,
                                                       std::span<const ExpertSource> experts,
                                                       WeightFormat format);

}  // namespace gatehouse::cpu
