// Losses against what transformers said of the same text, bounds that never bind, and bounds that
// do.
#include "engine/lab/eval_run.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/lab/eval_policy.h"
#include "engine/lab/model_facts.h"

namespace gatehouse {
namespace {

using nlohmann::json;

constexpr double kInf = std::numeric_limits<double>::infinity();

// Prompt and continuation of 40 ids, as windows.
struct GoldenText {
  explicit GoldenText(const std::string& name) {
    model_dir = GATEHOUSE_SOURCE_DIR "/tests/golden/" + name;
    std::ifstream file(model_dir + "/golden.json");
    const json golden = json::parse(file);
    const json& prompt = golden["prompts"][3];
    tokens.ids = prompt["prompt_ids"].get<std::vector<int32_t>>();
    for (const auto& token : prompt["tokens"]) tokens.ids.push_back(token.get<int32_t>());
    tokens.window = static_cast<int32_t>(tokens.ids.size()) - 1;
    double sum = 0;
    for (const auto& value : prompt["prompt_logprobs"]) sum += value.get<double>();
    for (const auto& value : prompt["logprobs"]) sum += value.get<double>();
    loss = -sum / tokens.window;
  }

  std::unique_ptr<Evaluator> MakeEvaluator() const {
    auto evaluator =
        Evaluator::Create({.model_dir = model_dir, .window = tokens.window, .batch_windows = 3});
    EXPECT_TRUE(evaluator.ok()) << evaluator.status();
    return *std::move(evaluator);
  }

  std::string model_dir;
  EvalTokens tokens;
  double loss = 0;  // by transformers
};

EvalCase CaseOf(const Evaluator& evaluator, const std::string& words, double factor) {
  auto policy = MakePinnedPolicy({.name = "p", .words = words}, PolicyModelOf(evaluator.parts()),
                                 {.factor = factor});
  EXPECT_TRUE(policy.ok()) << policy.status();
  return {.name = "p", .factor = factor, .policy = *std::move(policy)};
}

std::vector<EvalResult> Evaluate(Evaluator& evaluator, const EvalTokens& tokens,
                                 const std::vector<EvalCase>& cases, int64_t kl_bytes = 1 << 20) {
  EvalRunOptions options{.kl_bytes = kl_bytes};
  options.exact_placement = LinearPlacement(evaluator.parts().model.moe.num_experts, 1);
  auto results = RunEval(evaluator, tokens, cases, options, [](int64_t) {});
  EXPECT_TRUE(results.ok()) << results.status();
  return results.value_or(std::vector<EvalResult>{});
}

TEST(EvalRunTest, TheLossIsThatOfTransformers) {
  for (const char* name : {"plain_f32", "locmoe_grap_f32", "deepseek_v3_f32", "gpt_oss_f32"}) {
    const GoldenText text(name);
    const auto evaluator = text.MakeEvaluator();
    const std::vector<EvalResult> results = Evaluate(*evaluator, text.tokens, {});
    ASSERT_EQ(results.size(), 1u);
    EXPECT_NEAR(results[0].loss, text.loss, 1e-4) << name;
    EXPECT_EQ(results[0].num_tokens, text.tokens.window);
    EXPECT_EQ(results[0].totals.report.dropped, 0);
  }
}

// Three windows of one batch and two of another.
EvalTokens FiveTimes(const EvalTokens& once) {
  EvalTokens tokens{.window = once.window};
  for (int i = 0; i < 5; ++i) {
    tokens.ids.insert(tokens.ids.end(), once.ids.begin(), once.ids.end());
  }
  return tokens;
}

TEST(EvalRunTest, ExactWeightsCostNothingAndNarrowOnesALittle) {
  const GoldenText text("plain_f32");
  const auto evaluator = text.MakeEvaluator();
  std::vector<std::unique_ptr<Evaluator>> narrow;
  std::vector<EvalCase> cases;
  for (const WeightFormat format : kWeightFormats) {
    EvaluatorOptions options = evaluator->options();
    options.weights = format;
    narrow.push_back(*Evaluator::Create(options));
    cases.push_back({.name = "narrow", .narrow = narrow.back().get()});
  }
  const auto results = Evaluate(*evaluator, FiveTimes(text.tokens), cases);
  ASSERT_EQ(results.size(), 5u);
  EXPECT_EQ(results[1].loss, results[0].loss);  // f32
  EXPECT_NEAR(results[1].kl, 0, 1e-6);
  EXPECT_GT(results[2].kl, 1e-7);  // bf16
  EXPECT_GT(results[3].kl, results[2].kl);
  EXPECT_GT(results[4].kl, 10 * results[3].kl);  // 16 times as coarse
  EXPECT_LT(results[3].kl, 0.01);
}

TEST(EvalRunTest, BoundsThatNeverBindCostNothing) {
  const GoldenText text("locmoe_cosine_bf16");
  const auto evaluator = text.MakeEvaluator();
  const EvalTokens tokens = FiveTimes(text.tokens);
  std::vector<EvalCase> cases;
  for (const char* words :
       {"gamma F nbar_min 0", "gamma_dev F devices 2 nbar_min 0 affinity cosine",
        "gamma F mode block block 8"}) {
    cases.push_back(CaseOf(*evaluator, words, kInf));
  }
  for (const EvalResult& result : Evaluate(*evaluator, tokens, cases)) {
    EXPECT_EQ(result.loss_difference, 0);
    EXPECT_NEAR(result.kl, 0, 1e-6);
    EXPECT_NEAR(result.loss, text.loss, 1e-4);
    EXPECT_EQ(result.totals.report.kept, result.totals.report.assignments);
    EXPECT_EQ(result.totals.gate_mass_kept(), 1);
  }
}

TEST(EvalRunTest, BoundsThatBindShowInEveryNumber) {
  const GoldenText text("plain_f32");
  const auto evaluator = text.MakeEvaluator();
  const std::string words = "gamma F nbar_min 0 coverage off devices 2 zeta off";
  const std::vector<EvalResult> results =
      Evaluate(*evaluator, FiveTimes(text.tokens),
               {CaseOf(*evaluator, words, 0.5), CaseOf(*evaluator, words + " order random", 0.5)});
  ASSERT_EQ(results.size(), 3u);
  const RouteTotals& score = results[1].totals;
  EXPECT_GE(score.drop_share(), 0.45);  // half, but for places rounded up
  EXPECT_EQ(score.report.kept + score.report.rerouted + score.report.dropped,
            score.report.assignments);
  EXPECT_LT(score.mean_max_load(), 0.6);
  EXPECT_LT(score.step_time(), 0.7);
  EXPECT_GT(score.gate_mass_kept(), results[2].totals.gate_mass_kept());
  EXPECT_GT(results[1].kl, 0.01);
  EXPECT_NE(results[1].loss_difference, 0);
  EXPECT_GT(results[1].loss_difference_se, 0);
}

TEST(EvalRunTest, KlOfFewRowsIsAboutThatOfAll) {
  const GoldenText text("plain_f32");
  const auto evaluator = text.MakeEvaluator();
  const std::vector<EvalCase> cases = {CaseOf(*evaluator, "gamma F nbar_min 0", 0.5)};
  const auto all = Evaluate(*evaluator, FiveTimes(text.tokens), cases);
  const auto few = Evaluate(*evaluator, FiveTimes(text.tokens), cases, 40 * 517 * 4);
  EXPECT_EQ(all[1].num_kl_rows, 5 * text.tokens.window);
  EXPECT_LE(few[1].num_kl_rows, 2 * 40);
  EXPECT_GE(few[1].num_kl_rows, 40);
  EXPECT_NEAR(few[1].kl, all[1].kl, 0.5 * all[1].kl);
}

TEST(RouteMeterTest, TheSlowestDeviceSetsTheTime) {
  // e0 and e1 on device 0, e2 on device 1, which is twice as fast; of six pairs one was dropped.
  ExpertPlacement placement = LinearPlacement(3, 1);
  placement.num_devices = 2;
  placement.copy_devices = {0, 0, 1};
  placement.throughput = {1, 2};
  GateScores scores{.num_rows = 3, .num_experts = 3, .top_k = 2};
  RouteDecision decision;
  const auto add = [&](int expert, int device, PairFate fate) {
    decision.pairs.push_back({.chosen_expert = expert,
                              .expert = expert,
                              .device = device,
                              .gate = 0.5f,
                              .chosen_gate = 0.5f,
                              .fate = fate});
  };
  for (int i = 0; i < 3; ++i) add(0, 0, PairFate::kKept);
  add(2, 1, PairFate::kKept);
  add(2, 1, PairFate::kRerouted);
  add(1, -1, PairFate::kDropped);
  RouteMeter meter({&placement, 1});
  meter.OnLayer(1, scores, decision);
  const RouteTotals& totals = meter.totals();
  EXPECT_DOUBLE_EQ(totals.drop_share(), 1.0 / 6);
  EXPECT_DOUBLE_EQ(totals.gate_mass_kept(), 5.0 / 6);
  EXPECT_DOUBLE_EQ(totals.mean_max_load(), 3 / 2.0);         // 3 of 6 / 3
  EXPECT_DOUBLE_EQ(totals.mean_max_device_load(), 3 / 2.0);  // 3 rows at 1; balanced 6 at 3
  EXPECT_DOUBLE_EQ(totals.step_time(), 3 / 2.0);
  EXPECT_EQ(meter.loads()[1], (std::vector<int64_t>{3, 0, 2}));
}

}  // namespace
}  // namespace gatehouse
