// The memory plan counts what loading takes, tensor by tensor, in every family's layout and format.
#include "engine/model/layer_tensors.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>

#include "engine/model/weight_loader.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {
namespace {

// Adds up what it gives away.
class MeteredBackend final : public ReferenceBackend {
 public:
  int64_t num_bytes() const { return num_bytes_; }

  absl::StatusOr<Buffer> Allocate(size_t num_bytes) override {
    num_bytes_ += static_cast<int64_t>(num_bytes);
    return ReferenceBackend::Allocate(num_bytes);
  }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(std::span<const WeightView> stacked,
                                                           WeightFormat format) override {
    return Counted(ReferenceBackend::PackMatrix(stacked, format));
  }
  absl::StatusOr<std::unique_ptr<PackedExperts>> PackExperts(std::span<const ExpertSource> experts,
                                                             WeightFormat format) override {
    return Counted(ReferenceBackend::PackExperts(experts, format));
  }

 private:
  template <typename Packed>
  Packed Counted(Packed packed) {
    num_bytes_ += static_cast<int64_t>((*packed)->num_bytes());
    return packed;
  }
  int64_t num_bytes_ = 0;
};

TEST(MeasureWeightsTest, IsWhatLoadingTakesOfEveryGoldenModel) {
  constexpr int64_t kPositions = 3;
  int num_models = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(GATEHOUSE_SOURCE_DIR "/tests/golden")) {
    if (!entry.is_directory() || !std::filesystem::exists(entry.path() / "config.json")) continue;
    SCOPED_TRACE(entry.path());
    const ModelConfig config = *LoadModelConfig(entry.path());
    const auto checkpoint =
        std::make_shared<const Checkpoint>(*Checkpoint::Open(entry.path().string()));
    const ModelTensors tensors = GroupTensors(config, *FindTensors(*checkpoint, config));
    const WeightFormats formats;
    MeteredBackend backend;
    const WeightBytes measured = MeasureWeights(tensors, formats, backend);
    const auto loaded = LoadWeights({config, checkpoint, tensors, formats, kPositions}, backend);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const WeightView& table = tensors.embedding.view;  // mapped, not allocated
    const auto table_bytes =
        table.num_rows * table.num_cols * static_cast<int64_t>(DTypeBytes(table.dtype));
    const int64_t rope_bytes = kPositions * config.attention.rope.rotary_dim * 4;
    EXPECT_EQ(measured.experts + measured.dense, backend.num_bytes() + table_bytes - rope_bytes);
    ++num_models;
  }
  EXPECT_GE(num_models, 19);
}

}  // namespace
}  // namespace gatehouse
