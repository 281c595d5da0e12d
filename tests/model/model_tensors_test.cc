#include "engine/model/model_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <numeric>

namespace gatehouse {
namespace {

using ::testing::Each;
using ::testing::StartsWith;

// Checkpoints that transformers wrote: awkward sizes, all three dtypes, one file and shards.
std::vector<std::string> GoldenFolders() {
  std::vector<std::string> folders;
  for (const auto& entry :
       std::filesystem::directory_iterator(GATEHOUSE_SOURCE_DIR "/tests/golden")) {
    if (entry.is_directory()) folders.push_back(entry.path().string());
  }
  return folders;
}

int64_t ParametersIn(const ModelConfig& config) {
  int64_t num_parameters = 0;
  ForEachTensor(config, [&](const std::string&, const TensorShape& shape) {
    num_parameters += std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  });
  return num_parameters;
}

TEST(FindTensorsTest, FindsEveryTensorThatTransformersWroteAndNoOther) {
  ASSERT_GE(GoldenFolders().size(), 8u);
  for (const std::string& folder : GoldenFolders()) {
    SCOPED_TRACE(folder);
    const absl::StatusOr<ModelConfig> config = LoadModelConfig(folder);
    ASSERT_TRUE(config.ok()) << config.status();
    const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(folder);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ(FindTensors(*checkpoint, *config).status(), absl::OkStatus());
    // One file has a layer behind the last, as published ones have for multi-token prediction.
    EXPECT_THAT(UnusedTensors(*checkpoint, *config),
                Each(StartsWith("model.layers." + std::to_string(config->num_layers) + ".")));
    EXPECT_EQ(CountParameters(*config).total(), ParametersIn(*config));
    for (const std::string& name : checkpoint->Names()) {
      EXPECT_EQ(checkpoint->CheckFinite(name), absl::OkStatus());
    }
  }
}

}  // namespace
}  // namespace gatehouse
