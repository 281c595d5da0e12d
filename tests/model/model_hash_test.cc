#include "engine/model/model_hash.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace gatehouse {
namespace {

// A matrix large enough to be sampled, a router and a norm.
struct Tensors {
  std::vector<float> matrix = std::vector<float>(64 * 100, 0.5f);
  std::vector<float> router = std::vector<float>(6 * 1000, 0.25f);
  std::vector<float> norm = std::vector<float>(100, 1.0f);

  TensorViews views() const {
    TensorViews views;
    views["a.matrix"] = {matrix.data(), DType::kF32, 64, 100, 100};
    views["b.router"] = {router.data(), DType::kF32, 6, 1000, 1000};
    views["c.norm"] = {norm.data(), DType::kF32, 1, 100, 100};
    return views;
  }
};

ModelConfig Config() {
  ModelConfig config;
  config.family = "qwen3_moe";
  config.moe.num_experts = 6;
  config.moe.gate.top_k = 2;
  config.is_moe_layer = {true, false};
  return config;
}

TEST(ModelHashTest, TellsModelsApartAndNotCopies) {
  const Tensors tensors, copy;
  const std::string hash = HashModel(Config(), tensors.views());
  EXPECT_EQ(hash.size(), 16u);
  EXPECT_EQ(HashModel(Config(), copy.views()), hash);
  std::set<std::string> hashes = {hash};
  const auto expect_new = [&](const ModelConfig& config, const TensorViews& views) {
    EXPECT_TRUE(hashes.insert(HashModel(config, views)).second);
  };
  for (const size_t i : {0, 2999, 5999}) {  // of a router every value
    Tensors other;
    other.router[i] = 0.2500001f;
    expect_new(Config(), other.views());
  }
  Tensors trained, ends, norm;
  for (float& value : trained.matrix) value += 0.001f;
  ends.matrix.back() = 1;
  norm.norm[57] = 2;
  for (const Tensors* other : {&trained, &ends, &norm}) expect_new(Config(), other->views());
  ModelConfig config = Config();
  config.moe.gate.top_k = 3;
  expect_new(config, tensors.views());
  config = Config();
  config.is_moe_layer = {false, true};
  expect_new(config, tensors.views());
  TensorViews renamed = tensors.views();
  renamed["d.norm"] = renamed["c.norm"];
  renamed.erase("c.norm");
  expect_new(Config(), renamed);
}

}  // namespace
}  // namespace gatehouse
