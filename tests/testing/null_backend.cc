#include "tests/testing/null_backend.h"

#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

class NullMatrix final : public PackedMatrix {
 public:
  NullMatrix(int64_t num_outputs, int64_t num_inputs)
      : num_outputs_(num_outputs), num_inputs_(num_inputs) {}
  int64_t num_outputs() const override { return num_outputs_; }
  int64_t num_inputs() const override { return num_inputs_; }
  size_t num_bytes() const override { return 0; }

 private:
  const int64_t num_outputs_;
  const int64_t num_inputs_;
};

class NullExperts final : public PackedExperts {
 public:
  NullExperts(int num_experts, const WeightView& gate)
      : num_experts_(num_experts), hidden_size_(gate.num_cols), intermediate_size_(gate.num_rows) {}
  int num_experts() const override { return num_experts_; }
  int64_t hidden_size() const override { return hidden_size_; }
  int64_t intermediate_size() const override { return intermediate_size_; }
  size_t num_bytes() const override { return 0; }

 private:
  const int num_experts_;
  const int64_t hidden_size_;
  const int64_t intermediate_size_;
};

}  // namespace

NullBackend::NullBackend(NullBackendOptions options) : options_(std::move(options)) {
  GATEHOUSE_CHECK(!options_.script.empty()) << "a script of at least one token";
}

absl::StatusOr<Buffer> NullBackend::Allocate(size_t num_bytes) {
  constexpr size_t kAlignment = 64;
  const size_t rounded = (num_bytes / kAlignment + 1) * kAlignment;
  void* const data = std::aligned_alloc(kAlignment, rounded);
  if (data == nullptr) {
    return absl::ResourceExhaustedError(absl::StrFormat("%d bytes cannot be had", num_bytes));
  }
  std::memset(data, 0, num_bytes);
  return Buffer(data, num_bytes, [](void* memory, size_t) { std::free(memory); });
}

void NullBackend::CopyFromHost(void* destination, const void* source, size_t num_bytes) {
  if (num_bytes > 0) std::memcpy(destination, source, num_bytes);
}

// A byte a token: the engine's arithmetic wants a size, and nothing is stored.
size_t NullBackend::KvBlockBytes(const KvShape& shape) const {
  return static_cast<size_t>(shape.block_tokens);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> NullBackend::PackMatrix(
    std::span<const WeightView> stacked, WeightFormat) {
  int64_t num_outputs = 0;
  for (const WeightView& view : stacked) num_outputs += view.num_rows;
  return std::make_unique<NullMatrix>(num_outputs, stacked.front().num_cols);
}

absl::StatusOr<std::unique_ptr<PackedExperts>> NullBackend::PackExperts(
    std::span<const ExpertSource> experts, WeightFormat) {
  return std::make_unique<NullExperts>(static_cast<int>(experts.size()), experts.front().gate);
}

// Row r chooses the experts r, r + 1, ...: distinct, and all experts in turn.
void NullBackend::GateTopK(const GateTopKArgs& args) {
  for (int64_t row = 0; row < args.expert_ids.num_rows; ++row) {
    for (int64_t i = 0; i < args.expert_ids.num_cols; ++i) {
      args.expert_ids.row(row)[i] = static_cast<int32_t>((row + i) % args.logits.num_cols);
      args.weights.row(row)[i] = 1.0f / static_cast<float>(args.recipe.top_k);
      if (args.gate.data != nullptr) args.gate.row(row)[i] = args.weights.row(row)[i];
    }
    if (!args.mass.empty()) args.mass[row] = 1;
  }
}

void NullBackend::Sample(const SampleArgs& args) {
  for (size_t i = 0; i < args.rows.size(); ++i) {
    args.samples[i] = RowSample{};
    if (args.rows[i].forced_id >= 0) {
      args.samples[i].token_id = args.rows[i].forced_id;
      continue;
    }
    args.samples[i].token_id = options_.script[next_token_];
    next_token_ = (next_token_ + 1) % options_.script.size();
  }
}

// The pace does not drift: a step that came late is not followed by a longer one, unless it came
// later than a whole step.
absl::Status NullBackend::Finish() {
  if (options_.step_duration == Duration::zero()) return absl::OkStatus();
  const TimePoint now = std::chrono::steady_clock::now();
  if (now > next_finish_ + options_.step_duration) next_finish_ = now;
  std::this_thread::sleep_until(next_finish_);
  next_finish_ += options_.step_duration;
  return absl::OkStatus();
}

}  // namespace gatehouse
