// Our formats beside llama.cpp's of the same width: the demo model and a golden checkpoint with
// each matrix rounded by either rule and kept in f32, so that nothing but the rules differs.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <random>

#include "engine/lab/eval_run.h"
#include "engine/model/checkpoint.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"
#include "kernels/quantise.h"
#include "tests/testing/checkpoint_builder.h"

namespace gatehouse {
namespace {

using Group = float[kQuantGroup];
using Rule = std::function<void(Group& values)>;

// Nearest even, for magnitudes below 65504.
float RoundToF16(float value) {
  if (std::fabs(value) < 0x1p-14f) return RoundToWhole(value * 0x1p24f) * 0x1p-24f;
  const auto bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0xfff + ((bits >> 13) & 1)) & ~uint32_t{0x1fff});
}

// ggml's quantize_row_q8_0_ref and dequantize_row_q8_0.
void RoundQ8(Group& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  const float d = largest / 127, inverse = d != 0 ? 1 / d : 0;
  for (float& value : values) value = std::round(value * inverse) * RoundToF16(d);
}

// Likewise q4_0.
void RoundQ4(Group& values) {
  float extreme = 0;
  for (const float value : values) {
    if (std::fabs(value) > std::fabs(extreme)) extreme = value;
  }
  const float d = extreme / -8, inverse = d != 0 ? 1 / d : 0;
  for (float& value : values) {
    const int code = std::min(15, static_cast<int>(value * inverse + 8.5f));
    value = static_cast<float>(code - 8) * RoundToF16(d);
  }
}

Rule OurRule(WeightFormat format) {
  return [format](Group& values) {
    const WeightGroup group = QuantiseWeights(format, values);
    for (int i = 0; i < kQuantGroup; ++i) {
      values[i] = WeightValue(format, group.scale, group.codes[i]);
    }
  };
}

// All that --weights and --dense-weights reach but the head, which is the embedding here.
bool IsRounded(const std::string& name) { return name.find("proj.weight") != std::string::npos; }

void WriteRounded(const std::string& model, const Rule& rule, const std::string& dir) {
  const Checkpoint checkpoint = *Checkpoint::Open(model);
  TensorsToWrite tensors;
  const TensorViews views = *FindTensors(checkpoint, *LoadModelConfig(model));
  for (const auto& [name, view] : views) {
    TensorToWrite tensor{.dtype = "F32", .shape = {view.num_rows, view.num_cols}};
    if (name.find("norm") != std::string::npos) tensor.shape = {view.num_cols};
    for (int64_t r = 0; r < view.num_rows; ++r) {
      for (int64_t begin = 0; begin < view.num_cols; begin += kQuantGroup) {
        Group values = {};
        const auto count = static_cast<int>(std::min<int64_t>(kQuantGroup, view.num_cols - begin));
        for (int i = 0; i < count; ++i) values[i] = view.at(r, begin + i);
        if (IsRounded(name)) rule(values);
        tensor.bytes.append(reinterpret_cast<const char*>(values), count * sizeof(float));
      }
    }
    tensors[name] = std::move(tensor);
  }
  for (const auto& file : std::filesystem::directory_iterator(model)) {
    if (file.path().extension() == ".json") std::filesystem::copy(file.path(), dir);
  }
  WriteFile(dir + "/model.safetensors",
            SafetensorsFileOf(SafetensorsHeader(tensors).dump(), SafetensorsData(tensors)));
}

struct Divergence {  // KL of the rounded model's distributions from the exact ones
  double int8, q8_0, int4, q4_0;
};

Divergence DivergenceOf(const std::string& model, const EvalTokens& tokens) {
  const EvaluatorOptions options{.model_dir = model, .window = tokens.window};
  const auto exact = *Evaluator::Create(options);
  const std::pair<const char*, Rule> rules[] = {{"int8", OurRule(WeightFormat::kInt8)},
                                                {"q8_0", RoundQ8},
                                                {"int4", OurRule(WeightFormat::kInt4)},
                                                {"q4_0", RoundQ4}};
  std::vector<std::unique_ptr<Evaluator>> narrow;
  std::vector<EvalCase> cases;
  for (const auto& [name, rule] : rules) {
    const TempDir dir;
    WriteRounded(model, rule, dir.path());
    narrow.push_back(*Evaluator::Create({.model_dir = dir.path(), .window = tokens.window}));
    cases.push_back({.name = name, .narrow = narrow.back().get()});
  }
  EvalRunOptions run{.max_windows = 8};
  run.exact_placement = LinearPlacement(exact->parts().model.moe.num_experts, 1);
  const auto results = *RunEval(*exact, tokens, cases, run, [](int64_t) {});
  for (const EvalResult& result : results) {
    std::cout << result.name << ": loss " << result.loss << ", KL " << result.kl << "\n";
  }
  return {results[1].kl, results[2].kl, results[3].kl, results[4].kl};
}

TEST(WeightQualityTest, IsThatOfTheFormatsOfLlamaCppOnTheDemoModel) {
  const auto tokens = ReadTokenFile(GATEHOUSE_SOURCE_DIR "/models/validation.u16", 256, 4096);
  const Divergence kl = DivergenceOf(GATEHOUSE_SOURCE_DIR "/models/demo", *tokens);
  EXPECT_GT(kl.q8_0, 0);
  // So small that single tokens whose experts changed decide: 1.3 here, 0.7 of 16 windows, 0.9
  // of 32.
  EXPECT_LT(kl.int8, 1.5 * kl.q8_0);
  EXPECT_LT(kl.int4, 1.1 * kl.q4_0);
}

TEST(WeightQualityTest, IsThatOfTheFormatsOfLlamaCppOnAGoldenCheckpoint) {
  constexpr int32_t kWindow = 100, kVocab = 517;
  EvalTokens tokens{.window = kWindow};
  std::mt19937 random(1);
  for (int i = 0; i < 8 * (kWindow + 1); ++i) {
    tokens.ids.push_back(static_cast<int32_t>(random() % kVocab));
  }
  const Divergence kl = DivergenceOf(GATEHOUSE_SOURCE_DIR "/tests/golden/plain_f32", tokens);
  EXPECT_GT(kl.q8_0, 0);
  EXPECT_LT(kl.int8, 1.1 * kl.q8_0);
  EXPECT_LT(kl.int4, 1.1 * kl.q4_0);
}

}  // namespace
}  // namespace gatehouse
