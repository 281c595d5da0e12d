#include "engine/lab/weight_error.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"

namespace gatehouse {
namespace {

TEST(RelativeErrorTest, IsThatOfTheFormatOnNormalWeights) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(64 * 1000);
  for (float& value : values) value = normal(random);
  const WeightView view{values.data(), DType::kF32, 64, 1000};
  EXPECT_EQ(RelativeError(WeightFormat::kF32, view), 0);
  EXPECT_NEAR(RelativeError(WeightFormat::kBF16, view), 0.00167, 0.0001);
  EXPECT_NEAR(RelativeError(WeightFormat::kInt8, view), 0.00547, 0.0002);
  EXPECT_NEAR(RelativeError(WeightFormat::kInt4, view), 0.0861, 0.002);
  // A group is 32 inputs of one output, so a matrix on its side has another error.
  EXPECT_NE(RelativeError(WeightFormat::kInt4, view.Transposed()),
            RelativeError(WeightFormat::kInt4, view));
  const std::vector<float> zeros(64, 0.0f);
  EXPECT_EQ(RelativeError(WeightFormat::kInt4, {zeros.data(), DType::kF32, 2, 32}), 0);
}

TEST(RoundedMatricesTest, NamesEveryMatrixOnceAndNeverTheRouter) {
  for (const char* name : {"gpt_oss_f32", "deepseek_v3_f32", "qwen2_moe_f32"}) {
    const std::string dir = std::string(GATEHOUSE_SOURCE_DIR "/tests/golden/") + name;
    const ModelConfig config = *LoadModelConfig(dir);
    const Checkpoint checkpoint = *Checkpoint::Open(dir);
    const TensorViews views = *FindTensors(checkpoint, config);
    const ModelTensors tensors = GroupTensors(config, views);
    std::set<std::string> names;
    const std::vector<NamedMatrix> matrices = RoundedMatrices(tensors);
    for (const NamedMatrix& matrix : matrices) {
      const bool is_fused = matrix.name.find("gate_up") != std::string::npos;
      EXPECT_TRUE(names.insert(matrix.name).second || is_fused) << matrix.name;
      EXPECT_EQ(matrix.name.find("router"), std::string::npos) << matrix.name;
      EXPECT_EQ(matrix.name.find("mlp.gate."), std::string::npos) << matrix.name;
    }
    size_t expected = 1;  // the head
    for (const LayerTensors& layer : tensors.layers) {
      expected += layer.is_latent() && layer.latent.q_down.name.empty() ? 3 : 4;
      expected += 3 * (layer.experts.size() + (layer.has_shared() ? 1 : 0));
    }
    EXPECT_EQ(matrices.size(), expected) << name;
  }
}

}  // namespace
}  // namespace gatehouse
