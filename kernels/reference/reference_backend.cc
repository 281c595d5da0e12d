#include "kernels/reference/reference_backend.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "kernels/op_checks.h"
#include "kernels/reference/packed.h"

namespace gatehouse {
namespace {

constexpr std::align_val_t kAlignment{64};

// What `format` leaves of a row.
void RoundRow(WeightFormat format, float* row, int64_t count) {
  if (format == WeightFormat::kBF16) {
    for (int64_t c = 0; c < count; ++c) row[c] = BF16ToF32(F32ToBF16(row[c]));
  }
  for (int64_t begin = 0; IsQuantised(format) && begin < count; begin += kQuantGroup) {
    const int64_t end = std::min(count, begin + kQuantGroup);
    float values[kQuantGroup] = {};
    std::copy(row + begin, row + end, values);
    const WeightGroup group = QuantiseWeights(format, values);
    for (int64_t c = begin; c < end; ++c) {
      row[c] = WeightValue(format, group.scale, group.codes[c - begin]);
    }
  }
}

ReferenceMatrix Stack(std::span<const WeightView> stacked, WeightFormat format) {
  ReferenceMatrix matrix;
  matrix.format = format;
  GATEHOUSE_CHECK(!stacked.empty());
  matrix.cols = stacked[0].num_cols;
  for (const WeightView& view : stacked) {
    GATEHOUSE_CHECK(view.num_cols == matrix.cols) << view.num_cols << " and " << matrix.cols;
    matrix.rows += view.num_rows;
    for (int64_t r = 0; r < view.num_rows; ++r) {
      for (int64_t c = 0; c < view.num_cols; ++c) {
        matrix.values.push_back(view.at(r, c));
      }
      RoundRow(format, &*(matrix.values.end() - view.num_cols), view.num_cols);
    }
  }
  return matrix;
}

std::vector<float> Vector(const WeightView& view) {
  std::vector<float> values;
  for (int64_t c = 0; view.data != nullptr && c < view.num_cols; ++c) {
    values.push_back(view.at(0, c));
  }
  return values;
}

}  // namespace

absl::StatusOr<Buffer> ReferenceBackend::Allocate(size_t num_bytes) {
  void* data = ::operator new(num_bytes, kAlignment);
  std::memset(data, 0, num_bytes);
  return Buffer(data, num_bytes, [](void* data, size_t) { ::operator delete(data, kAlignment); });
}

void ReferenceBackend::CopyFromHost(void* destination, const void* source, size_t num_bytes) {
  std::memcpy(destination, source, num_bytes);
}

size_t ReferenceBackend::KvBlockBytes(const KvShape& shape) const {
  return size_t{2} * shape.num_kv_heads * shape.block_tokens * shape.head_dim * sizeof(float);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> ReferenceBackend::PackMatrix(
    std::span<const WeightView> stacked, WeightFormat format) {
  return std::make_unique<ReferenceMatrix>(Stack(stacked, format));
}

absl::StatusOr<std::unique_ptr<PackedExperts>> ReferenceBackend::PackExperts(
    std::span<const ExpertSource> experts, WeightFormat format) {
  auto packed = std::make_unique<ReferenceExperts>();
  for (const ExpertSource& source : experts) {
    packed->experts.push_back({.gate = Stack({&source.gate, 1}, format),
                               .up = Stack({&source.up, 1}, format),
                               .down = Stack({&source.down, 1}, format),
                               .gate_bias = Vector(source.gate_bias),
                               .up_bias = Vector(source.up_bias),
                               .down_bias = Vector(source.down_bias)});
  }
  return packed;
}

size_t ReferenceBackend::PackedMatrixBytes(int64_t num_outputs, int64_t num_inputs,
                                           WeightFormat) const {
  return static_cast<size_t>(num_outputs * num_inputs) * sizeof(float);
}

size_t ReferenceBackend::PackedExpertsBytes(const ExpertsShape& shape, WeightFormat) const {
  const int64_t biases = shape.has_bias ? 2 * shape.intermediate_size + shape.hidden_size : 0;
  const int64_t expert = 3 * shape.hidden_size * shape.intermediate_size + biases;
  return static_cast<size_t>(shape.num_experts * expert) * sizeof(float);
}

void ReferenceBackend::BeginStep(const BatchLayout& layout) {
  CheckLayout(layout);
  layout_ = layout;
}

absl::Status ReferenceBackend::Finish() { return absl::OkStatus(); }

}  // namespace gatehouse
