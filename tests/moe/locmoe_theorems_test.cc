// What the papers say of capacity, against the engine: theorem 1 of LocMoE (arXiv 2401.13920) and
// the success rates of theorem 5 of LocMoE+ (2406.00023), in the exact form of binomial sums.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "engine/moe/bounded_router.h"
#include "engine/moe/capacity.h"

namespace gatehouse {
namespace {

int64_t TheoryFloorAt(double effective_dim, int num_experts, double delta) {
  CapacityPolicy policy;
  policy.theory = {.effective_dim = effective_dim, .delta = delta};
  return ExpertFloor(policy, {}, kNoBound, /*num_tokens=*/1'000'000, num_experts).count;
}

TEST(LocMoeTheoremsTest, TheoryFloorIsTheExponentialFormRoundedUp) {
  // exp(delta^2 d / (2 - delta^2)) / n, by a calculator; at least one token.
  EXPECT_EQ(TheoryFloorAt(5120, 16, .03), 1);    // 0.6265
  EXPECT_EQ(TheoryFloorAt(5120, 16, .05), 38);   // 37.92
  EXPECT_EQ(TheoryFloorAt(5120, 16, .06), 640);  // 639.1
  EXPECT_EQ(TheoryFloorAt(4096, 8, .03), 1);     // 0.7902
  EXPECT_EQ(TheoryFloorAt(4096, 8, .05), 22);    // 21.05
  EXPECT_EQ(TheoryFloorAt(4096, 8, .07), 2924);  // 2923.2
  EXPECT_EQ(TheoryFloorAt(2048, 64, .05), 1);    // 0.203
  EXPECT_EQ(TheoryFloorAt(2048, 64, .08), 12);   // 11.2
  EXPECT_EQ(TheoryFloorAt(7168, 256, .03), 1);   // 0.0985
  EXPECT_EQ(TheoryFloorAt(7168, 256, .05), 31);  // 30.8
}

TEST(LocMoeTheoremsTest, EcrFloorGrowsWithTheLogarithmOfTheError) {
  const auto floor = [](double error) {
    CapacityPolicy policy;
    policy.ecr_error = error;
    return ExpertFloor(policy, {}, kNoBound, /*num_tokens=*/1000, /*num_experts=*/8).count;
  };
  EXPECT_EQ(floor(.09), 13);  // 16 / 3 ln(1 / error) = 12.84
  EXPECT_EQ(floor(.05), 16);  // 15.98
  EXPECT_EQ(floor(.01), 25);  // 24.56
}

// P(at most k of n), each with probability p.
double BinomialCdf(int k, int n, double p) {
  double sum = 0;
  for (int i = 0; i <= std::min(k, n); ++i) {
    sum += std::exp(std::lgamma(n + 1) - std::lgamma(i + 1) - std::lgamma(n - i + 1) +
                    i * std::log(p) + (n - i) * std::log1p(-p));
  }
  return sum;
}

// One token of a batch is made for an expert, which takes `capacity` of them.
struct Sample {
  int num_tokens = 0;       // s
  double own_expert = 0;    // p: the token chooses the expert
  double outscored_by = 0;  // q: another token's score there is higher
  int64_t capacity = 0;     // C
};
constexpr int kNumExperts = 8;

// Whether expert 0 computes the token in row `own`.
bool Reaches(const std::vector<int32_t>& choices, const std::vector<float>& scores,
             const RoutingPolicy& policy, int own) {
  const int num_rows = static_cast<int>(choices.size());
  const GateScores gate{.num_rows = num_rows,
                        .num_experts = kNumExperts,
                        .top_k = 1,
                        .num_ranked = 1,
                        .num_chosen = std::vector<int32_t>(num_rows, 1),
                        .ranked_ids = choices,
                        .gate = scores,
                        .affinity = scores,
                        .weight = scores,
                        .row_failed = std::vector<uint8_t>(num_rows)};
  std::vector<RoutedToken> tokens;
  for (int row = 0; row < num_rows; ++row) {
    tokens.push_back({.mode = TokenMode::kShared, .policy_idx = 0, .position = row});
  }
  const ExpertPlacement placement = LinearPlacement(kNumExperts, 1);
  const LayerPolicy rules{.policy = &policy, .placement = &placement};
  const RowLimits no_limits;
  const auto decision = RouteBounded({.scores = gate,
                                      .tokens = tokens,
                                      .policies = {&rules, 1},
                                      .placement = placement,
                                      .limits = no_limits});
  EXPECT_TRUE(decision.ok()) << decision.status();
  const PairDecision& pair = decision->pairs.at(decision->pair_begin[own]);
  return pair.chosen_expert == 0 && pair.fate == PairFate::kKept;
}

RoutingPolicy PolicyOf(const Sample& sample, PairOrder order) {
  RoutingPolicy policy;
  policy.capacity.capacity = sample.capacity;
  policy.order = order;
  policy.coverage = false;
  return policy;
}

// Tokens choose, and places go by arrival: the own token comes anywhere, others choose evenly.
double TokenChoiceRate(const Sample& sample, int rounds, std::mt19937& random) {
  std::uniform_real_distribution<double> uniform;
  int reached = 0;
  for (int round = 0; round < rounds; ++round) {
    std::vector<int32_t> choices;
    for (int row = 0; row < sample.num_tokens; ++row) choices.push_back(random() % kNumExperts);
    const auto own = static_cast<int>(random() % sample.num_tokens);
    choices[own] = uniform(random) < sample.own_expert ? 0 : 1;
    const std::vector<float> scores(sample.num_tokens, 0.5f);
    reached += Reaches(choices, scores, PolicyOf(sample, PairOrder::kArrival), own) ? 1 : 0;
  }
  return static_cast<double>(reached) / rounds;
}

// The expert chooses by score among all tokens.
double ExpertChoiceRate(const Sample& sample, int rounds, std::mt19937& random) {
  std::uniform_real_distribution<double> uniform;
  const std::vector<int32_t> choices(sample.num_tokens, 0);
  int reached = 0;
  for (int round = 0; round < rounds; ++round) {
    std::vector<float> scores;
    for (int row = 0; row < sample.num_tokens; ++row) {
      scores.push_back(uniform(random) < sample.outscored_by ? 0.75f : 0.25f);
    }
    const auto own = static_cast<int>(random() % sample.num_tokens);
    scores[own] = 0.5f;
    reached += Reaches(choices, scores, PolicyOf(sample, PairOrder::kScore), own) ? 1 : 0;
  }
  return static_cast<double>(reached) / rounds;
}

double ExpectedTokenChoiceRate(const Sample& sample) {
  double sum = 0;
  for (int place = 1; place <= sample.num_tokens; ++place) {
    sum += BinomialCdf(static_cast<int>(sample.capacity) - 1, place - 1, 1.0 / kNumExperts);
  }
  return sample.own_expert * sum / sample.num_tokens;
}

TEST(LocMoeTheoremsTest, PlacesByArrivalLoseWhatPlacesByScoreKeep) {
  constexpr int kRounds = 1500;
  constexpr double kFourSigma = 4 * 0.5 / 38.7;  // of a rate of kRounds, at most
  std::mt19937 random(17);
  const Sample trained{.num_tokens = 1024, .own_expert = .5, .outscored_by = .005, .capacity = 16};
  EXPECT_NEAR(ExpectedTokenChoiceRate(trained), .0625, 1e-3);
  EXPECT_NEAR(BinomialCdf(15, 1023, .005), .999915, 1e-5);
  EXPECT_NEAR(TokenChoiceRate(trained, kRounds, random), .0625, kFourSigma / 2);
  EXPECT_GT(ExpertChoiceRate(trained, kRounds, random), .997);

  const Sample untrained{.num_tokens = 512, .own_expert = .9, .outscored_by = .3, .capacity = 64};
  EXPECT_NEAR(ExpectedTokenChoiceRate(untrained), .8581, 1e-3);
  EXPECT_NEAR(TokenChoiceRate(untrained, kRounds, random), .8581, kFourSigma);
  EXPECT_LT(ExpertChoiceRate(untrained, kRounds, random), .003) << "many outscore it";

  const Sample between{.num_tokens = 256, .own_expert = .9, .outscored_by = .1, .capacity = 26};
  const double expected = BinomialCdf(25, 255, .1);
  EXPECT_GT(expected, .3);
  EXPECT_LT(expected, .7);
  EXPECT_NEAR(ExpertChoiceRate(between, kRounds, random), expected, kFourSigma);
}

}  // namespace
}  // namespace gatehouse
