#include "client/load_plan.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <set>

namespace gatehouse {
namespace {

v1::ModelInfo SmallModel() {
  v1::ModelInfo model;
  model.set_vocab_size(10);
  model.add_eos_token_ids(0);
  model.add_eos_token_ids(7);
  return model;
}

TEST(SeededRandomTest, IsSplitMix64) {
  SeededRandom random(1234567);  // the published test vector
  EXPECT_EQ(random.Next(), 6457827717110365317u);
  EXPECT_EQ(random.Next(), 3203168211198807973u);
}

TEST(PoissonArrivalsTest, GapsHaveTheMeanAndTheSpreadOfTheRate) {
  PoissonArrivals arrivals(50, 3);
  constexpr int kNumGaps = 20'000;
  double last = 0;
  double sum_of_squares = 0;
  for (int i = 0; i < kNumGaps; ++i) {
    const double next = arrivals.NextSeconds();
    ASSERT_GE(next, last);
    sum_of_squares += (next - last) * (next - last);
    last = next;
  }
  // Five standard errors: 1/sqrt(n) for the mean, sqrt(20/n)/2 for the mean square (2/rate^2).
  EXPECT_NEAR(last / kNumGaps * 50, 1, 0.036);
  EXPECT_NEAR(sum_of_squares / kNumGaps * 50 * 50, 2, 0.16);
}

TEST(PoissonArrivalsTest, TheSeedDecides) {
  PoissonArrivals a(10, 1);
  PoissonArrivals b(10, 1);
  PoissonArrivals c(10, 2);
  const double first = a.NextSeconds();
  EXPECT_EQ(first, b.NextSeconds());
  EXPECT_NE(first, c.NextSeconds());
}

TEST(RequestPlanTest, RandomPromptsAreReproducibleAndHoldNoEndOfText) {
  LoadOptions options{.num_prompt_tokens = 500, .max_new_tokens = 9, .ignore_eos = true};
  const auto plan = RequestPlan::Create(options, SmallModel());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const v1::GenerateRequest request = plan->Request(3);
  EXPECT_EQ(request.SerializeAsString(), plan->Request(3).SerializeAsString());
  EXPECT_NE(request.tokens().SerializeAsString(), plan->Request(4).tokens().SerializeAsString());
  EXPECT_NE(request.sampling().seed(), plan->Request(4).sampling().seed());
  EXPECT_EQ(request.tokens().ids_size(), 500);
  EXPECT_EQ(std::set<int>(request.tokens().ids().begin(), request.tokens().ids().end()),
            (std::set<int>{1, 2, 3, 4, 5, 6, 8, 9}));
  EXPECT_EQ(request.stop().max_new_tokens(), 9);
  EXPECT_TRUE(request.stop().ignore_eos());
  EXPECT_FALSE(request.sampling().has_temperature());
}

TEST(RequestPlanTest, FileLinesAreTakenInTurn) {
  const std::string path = testing::TempDir() + "load_plan_test_prompts.txt";
  std::ofstream(path) << "one\n\ntwo\n";
  LoadOptions options{.prompt_file = path, .temperature = 0};
  const auto plan = RequestPlan::Create(options, SmallModel());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->Request(0).text(), "one");
  EXPECT_EQ(plan->Request(1).text(), "two");
  EXPECT_EQ(plan->Request(2).text(), "one");
  EXPECT_TRUE(plan->Request(0).sampling().has_temperature());
  std::remove(path.c_str());
}

TEST(RequestPlanTest, RefusesWhatCannotBeSent) {
  const std::string path = testing::TempDir() + "load_plan_test_bad.txt";
  const LoadOptions from_file{.prompt_file = path};
  std::ofstream(path) << "\n\n";
  EXPECT_FALSE(RequestPlan::Create(from_file, SmallModel()).ok());
  std::ofstream(path) << "caf\xE9\n";
  EXPECT_FALSE(RequestPlan::Create(from_file, SmallModel()).ok());
  std::remove(path.c_str());
  EXPECT_FALSE(RequestPlan::Create(from_file, SmallModel()).ok());
  EXPECT_FALSE(RequestPlan::Create({}, v1::ModelInfo()).ok());
  v1::ModelInfo absurd;
  absurd.set_vocab_size(2'000'000'000);
  EXPECT_FALSE(RequestPlan::Create({}, absurd).ok());
}

}  // namespace
}  // namespace gatehouse
