#include "engine/moe/bounded_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "engine/moe/capacity.h"
#include "tests/moe/random_step.h"

namespace gatehouse {
namespace {

constexpr int kRounds = 20000;

// (row, chosen expert) -> what became of the pair, without its index.
using Outcome = std::tuple<PairFate, int32_t, int32_t, float>;
std::map<std::pair<int64_t, int32_t>, Outcome> OutcomesOf(const RouteDecision& decision,
                                                          const std::vector<int64_t>& row_names) {
  std::map<std::pair<int64_t, int32_t>, Outcome> outcomes;
  for (const PairDecision& p : decision.pairs) {
    outcomes[{row_names[p.row], p.chosen_expert}] = {p.fate, p.expert, p.device, p.weight};
  }
  return outcomes;
}

// The step with its rows in another order or fewer of them.
RandomStep TakeRows(const RandomStep& from, const std::vector<int>& rows) {
  RandomStep taken = from;
  const int n = from.scores.num_ranked;
  taken.scores.num_rows = static_cast<int>(rows.size());
  for (auto* column : {&taken.scores.gate, &taken.scores.affinity, &taken.scores.weight}) {
    column->clear();
  }
  taken.scores.ranked_ids.clear();
  taken.scores.num_chosen.clear();
  taken.scores.row_failed.clear();
  taken.tokens.clear();
  for (const int row : rows) {
    const int64_t at = from.scores.At(row, 0);
    const auto append = [&](auto& to, const auto& column) {
      to.insert(to.end(), column.begin() + at, column.begin() + at + n);
    };
    append(taken.scores.ranked_ids, from.scores.ranked_ids);
    append(taken.scores.gate, from.scores.gate);
    append(taken.scores.affinity, from.scores.affinity);
    append(taken.scores.weight, from.scores.weight);
    taken.scores.num_chosen.push_back(from.scores.num_chosen[row]);
    taken.scores.row_failed.push_back(from.scores.row_failed[row]);
    taken.tokens.push_back(from.tokens[row]);
  }
  return taken;
}

std::vector<int64_t> Names(const std::vector<int>& rows) { return {rows.begin(), rows.end()}; }

std::vector<int> AllRows(const RandomStep& step) {
  std::vector<int> rows(step.scores.num_rows);
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

TEST(RouteBoundedTest, LosesNoPairAndComputesNoneTwice) {
  std::mt19937 random(1);
  for (int round = 0; round < kRounds; ++round) {
    const RandomStep step = MakeStep(random, static_cast<TokenMode>(random() % 5));
    const RouteDecision decision = step.Decide();
    const RouteReport report = Summarise(decision);
    ASSERT_EQ(report.assignments, int64_t{step.scores.num_rows} * step.scores.top_k);
    ASSERT_EQ(report.kept + report.rerouted + report.dropped, report.assignments);
    std::set<std::pair<int32_t, int32_t>> computed;
    for (const PairDecision& p : decision.pairs) {
      if (p.fate == PairFate::kDropped) {
        ASSERT_EQ(p.device, -1);
        ASSERT_EQ(p.weight, 0);
        continue;
      }
      ASSERT_TRUE(computed.insert({p.row, p.expert}).second) << "round " << round;
      ASSERT_GE(p.device, 0);
      ASSERT_EQ(p.fate == PairFate::kKept, p.expert == p.chosen_expert);
    }
  }
}

TEST(RouteBoundedTest, ExceedsABoundByOverridesOnly) {
  std::mt19937 random(2);
  for (int round = 0; round < kRounds; ++round) {
    const RandomStep step = MakeStep(random, TokenMode::kShared);
    const RouteDecision decision = step.Decide();
    if (decision.bounds.empty()) continue;
    const DomainBounds& bounds = decision.bounds[0];
    std::vector<int64_t> loads(step.scores.num_experts), devices(step.placement.num_devices);
    for (const PairDecision& p : decision.pairs) {
      if (p.fate == PairFate::kDropped) continue;
      ++loads[p.expert];
      ++devices[p.device];
    }
    const auto excess = [](const std::vector<int64_t>& load, const std::vector<int64_t>& places) {
      int64_t sum = 0;
      for (size_t i = 0; i < load.size(); ++i) sum += std::max<int64_t>(0, load[i] - places[i]);
      return sum;
    };
    const auto overrides = static_cast<int64_t>(decision.overrides.size());
    ASSERT_LE(excess(loads, bounds.expert_places), overrides) << "round " << round;
    ASSERT_LE(excess(devices, bounds.device_budgets), overrides) << "round " << round;
  }
}

TEST(RouteBoundedTest, WithoutBoundsIsPlainTopKBitForBit) {
  std::mt19937 random(3);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, static_cast<TokenMode>(random() % 5));
    step.policy.capacity = {};
    step.thresholds.assign(step.scores.num_experts, -INFINITY);
    const RouteDecision decision = step.Decide();
    ASSERT_TRUE(Summarise(decision).exact());
    for (const PairDecision& p : decision.pairs) {
      const int64_t at = step.scores.At(p.row, p.slot);
      ASSERT_EQ(p.expert, step.scores.ranked_ids[at]);
      ASSERT_EQ(p.weight, step.scores.weight[at]);
    }
  }
}

TEST(RouteBoundedTest, OrderOfRowsDecidesNothing) {
  std::mt19937 random(4);
  for (int round = 0; round < kRounds; ++round) {
    const RandomStep step = MakeStep(random, static_cast<TokenMode>(random() % 5));
    std::vector<int> shuffled = AllRows(step);
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    ASSERT_EQ(OutcomesOf(TakeRows(step, shuffled).Decide(), Names(shuffled)),
              OutcomesOf(step.Decide(), Names(AllRows(step))))
        << "round " << round;
  }
}

TEST(RouteBoundedTest, KeepsMoreOfAnExpertTheMorePlacesItHas) {
  std::mt19937 random(5);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, TokenMode::kShared);
    step.policy.reroute = 0;
    step.policy.coverage = false;
    step.policy.capacity = {.capacity = static_cast<int64_t>(random() % 4)};
    const RouteDecision tight = step.Decide();
    step.policy.capacity.capacity = *step.policy.capacity.capacity + 1;
    const RouteDecision loose = step.Decide();
    for (size_t i = 0; i < tight.pairs.size(); ++i) {
      if (tight.pairs[i].fate != PairFate::kKept) continue;
      ASSERT_EQ(loose.pairs[i].fate, PairFate::kKept) << "round " << round;
    }
  }
}

TEST(RouteBoundedTest, ScoreOrderKeepsTheMostGateMass) {
  std::mt19937 random(6);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, TokenMode::kShared);
    step.policy.reroute = 0;
    step.policy.coverage = false;
    step.policy.capacity = {.capacity = static_cast<int64_t>(random() % 4)};
    const double best = Summarise(step.Decide()).gate_mass_kept;
    for (const PairOrder order : {PairOrder::kArrival, PairOrder::kReverse, PairOrder::kRandom}) {
      step.policy.order = order;
      ASSERT_LE(Summarise(step.Decide()).gate_mass_kept, best) << "round " << round;
    }
  }
}

std::vector<int64_t> LoadsOf(const RouteDecision& decision, int num_experts) {
  std::vector<int64_t> loads(num_experts);
  for (const PairDecision& p : decision.pairs) {
    if (p.fate != PairFate::kDropped) ++loads[p.expert];
  }
  return loads;
}

TEST(RouteBoundedTest, RerouteFillsNoFullExpertAndKeepsNoLessMassThanDropping) {
  std::mt19937 random(11);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, TokenMode::kShared);
    step.policy.coverage = false;
    const RouteDecision with = step.Decide();
    step.policy.reroute = 0;
    const RouteDecision without = step.Decide();
    ASSERT_GE(Summarise(with).gate_mass_kept, Summarise(without).gate_mass_kept);
    if (with.bounds.empty()) continue;
    const std::vector<int64_t>& places = with.bounds[0].expert_places;
    const std::vector<int64_t> after = LoadsOf(with, step.scores.num_experts);
    const std::vector<int64_t> before = LoadsOf(without, step.scores.num_experts);
    for (size_t e = 0; e < after.size(); ++e) {
      if (before[e] < places[e]) continue;
      ASSERT_EQ(after[e], before[e]) << "round " << round << ", expert " << e;
    }
  }
}

TEST(RouteBoundedTest, RerouteTakesNoPlaceOfAKeptPair) {
  std::mt19937 random(7);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, TokenMode::kShared);
    step.policy.coverage = false;
    const RouteDecision with = step.Decide();
    step.policy.reroute_ratio = INFINITY;
    const RouteDecision hopeless = step.Decide();
    step.policy.reroute = 0;
    const RouteDecision without = step.Decide();
    for (size_t i = 0; i < with.pairs.size(); ++i) {
      ASSERT_EQ(hopeless.pairs[i].fate, without.pairs[i].fate);
      ASSERT_EQ(with.pairs[i].fate == PairFate::kKept, without.pairs[i].fate == PairFate::kKept)
          << "round " << round;
    }
  }
}

TEST(RouteBoundedTest, WithoutATokenOthersKeepWhatTheyHad) {
  std::mt19937 random(8);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, TokenMode::kShared);
    if (step.scores.num_rows == 0) continue;
    step.policy.reroute = 0;
    step.policy.coverage = false;
    step.policy.renormalise_after_drop = false;
    step.policy.capacity = {.capacity = static_cast<int64_t>(random() % 4)};
    const auto all = OutcomesOf(step.Decide(), Names(AllRows(step)));
    std::vector<int> rest = AllRows(step);
    const int removed = rest[random() % rest.size()];
    rest.erase(rest.begin() + removed);
    std::set<int32_t> freed;  // experts the removed token had chosen
    for (const auto& [pair, outcome] : all) {
      if (pair.first == removed) freed.insert(pair.second);
    }
    for (const auto& [pair, outcome] : OutcomesOf(TakeRows(step, rest).Decide(), Names(rest))) {
      const bool kept_before = std::get<0>(all.at(pair)) == PairFate::kKept;
      const bool kept = std::get<0>(outcome) == PairFate::kKept;
      ASSERT_TRUE(kept || !kept_before) << "round " << round;
      if (!freed.contains(pair.second)) {
        ASSERT_EQ(kept, kept_before) << "round " << round;
      }
    }
  }
}

// Experts, fates and weights; copies may differ, they decide nothing.
TEST(RouteBoundedTest, ExactAndIsolatedRequestsDoNotSeeTheirCompany) {
  std::mt19937 random(9);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, static_cast<TokenMode>(random() % 4));
    for (RoutedToken& token : step.tokens) {
      if (token.request != 0) token.mode = static_cast<TokenMode>(random() % 5);
    }
    std::vector<int> own;
    for (const int row : AllRows(step)) {
      if (step.tokens[row].request == 0) own.push_back(row);
    }
    const auto alone = OutcomesOf(TakeRows(step, own).Decide(), Names(own));
    const auto among = OutcomesOf(step.Decide(), Names(AllRows(step)));
    for (const auto& [pair, outcome] : alone) {
      const auto& [fate, expert, device, weight] = outcome;
      const auto& [fate2, expert2, device2, weight2] = among.at(pair);
      ASSERT_EQ(std::tie(fate, expert, weight), std::tie(fate2, expert2, weight2))
          << "round " << round;
    }
  }
}

TEST(RouteBoundedTest, ThresholdAndCausalBlocksLookAtNoLaterPosition) {
  std::mt19937 random(10);
  for (int round = 0; round < kRounds; ++round) {
    const TokenMode mode = random() % 2 == 0 ? TokenMode::kThreshold : TokenMode::kBlockCausal;
    const RandomStep step = MakeStep(random, mode);
    const auto cut = static_cast<int64_t>(random() % 5);
    std::vector<int> prefix;
    for (const int row : AllRows(step)) {
      if (step.tokens[row].position < cut) prefix.push_back(row);
    }
    const auto whole = OutcomesOf(step.Decide(), Names(AllRows(step)));
    for (const auto& [pair, outcome] : OutcomesOf(TakeRows(step, prefix).Decide(), Names(prefix))) {
      ASSERT_EQ(std::get<0>(outcome), std::get<0>(whole.at(pair))) << "round " << round;
      ASSERT_EQ(std::get<1>(outcome), std::get<1>(whole.at(pair))) << "round " << round;
      ASSERT_EQ(std::get<3>(outcome), std::get<3>(whole.at(pair))) << "round " << round;
    }
  }
}

TEST(RouteBoundedTest, CoverageLeavesNoTokenWithoutAnExpert) {
  std::mt19937 random(11);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, static_cast<TokenMode>(random() % 5));
    step.policy.coverage = true;
    ASSERT_TRUE(step.Decide().bare_rows.empty()) << "round " << round;
  }
}

TEST(RouteBoundedTest, AFailedRowTakesItsRequestWithItAndNoOther) {
  std::mt19937 random(12);
  RandomStep step = MakeStep(random, TokenMode::kShared);
  while (step.scores.num_rows < 6) AppendRow(step, random), step.tokens.push_back({});
  for (int row = 0; row < step.scores.num_rows; ++row) step.tokens[row].request = row % 2;
  step.scores.row_failed[2] = 1;
  const RouteDecision decision = step.Decide();
  for (const int32_t row : decision.failed_rows) EXPECT_EQ(row % 2, 0);
  for (const PairDecision& p : decision.pairs) EXPECT_EQ(p.row % 2, 1);
}

// Two halves of the rows in domains and requests of their own, the second under another policy and
// placement: each is decided as if it were alone.
TEST(RouteBoundedTest, PoliciesOfOneStepDoNotMeet) {
  std::mt19937 random(14);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep first = MakeStep(random, static_cast<TokenMode>(random() % 5));
    RandomStep second = MakeStep(random, static_cast<TokenMode>(random() % 5));
    if (second.scores.num_experts != first.scores.num_experts) continue;
    second.scores.top_k = first.scores.top_k;
    std::vector<int> first_rows, second_rows;
    RandomStep both = first;
    for (auto& chosen : second.scores.num_chosen) chosen = first.scores.top_k;
    for (RoutedToken& token : second.tokens) {
      token.domain = 1;
      token.request += 3;
    }
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(both.scores.ranked_ids, second.scores.ranked_ids);
    append(both.scores.gate, second.scores.gate);
    append(both.scores.affinity, second.scores.affinity);
    append(both.scores.weight, second.scores.weight);
    append(both.scores.num_chosen, second.scores.num_chosen);
    append(both.scores.row_failed, second.scores.row_failed);
    append(both.tokens, second.tokens);
    both.scores.num_rows += second.scores.num_rows;
    for (size_t row = first.tokens.size(); row < both.tokens.size(); ++row) {
      both.tokens[row].policy_idx = 1;
      second_rows.push_back(static_cast<int>(row));
    }
    const LayerPolicy rules[] = {{&first.policy, &first.placement, first.thresholds},
                                 {&second.policy, &second.placement, second.thresholds}};
    const auto decided = RouteBounded({.scores = both.scores,
                                       .tokens = both.tokens,
                                       .policies = rules,
                                       .placement = first.placement,
                                       .limits = {}});
    ASSERT_TRUE(decided.ok()) << decided.status();
    auto alone = OutcomesOf(first.Decide(), Names(AllRows(first)));
    alone.merge(OutcomesOf(second.Decide(), Names(second_rows)));
    ASSERT_EQ(OutcomesOf(*decided, Names(AllRows(both))), alone) << "round " << round;
  }
}

// Copies of an expert share its places, and only a device's budget or a reroute asks where they
// are.
TEST(RouteBoundedTest, HowManyCopiesThereAreDecidesNothingWithoutDeviceBounds) {
  std::mt19937 random(16);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, static_cast<TokenMode>(random() % 5));
    step.policy.capacity.device_factor.reset();
    if (!step.tokens.empty() && step.tokens[0].mode == TokenMode::kShared) step.policy.reroute = 0;
    const RouteDecision one = step.Decide();
    step.placement.copy_begin = {0};
    step.placement.copy_devices.clear();
    for (int e = 0; e < step.scores.num_experts; ++e) {
      const int first = random() % step.placement.num_devices;
      for (int d = first; d < step.placement.num_devices; ++d) {
        if (d == first || random() % 2 == 0) step.placement.copy_devices.push_back(d);
      }
      step.placement.copy_begin.push_back(step.placement.num_copies());
    }
    const RouteDecision many = step.Decide();
    ASSERT_EQ(one.pairs.size(), many.pairs.size());
    for (size_t i = 0; i < one.pairs.size(); ++i) {
      ASSERT_EQ(one.pairs[i].fate, many.pairs[i].fate) << "round " << round;
      ASSERT_EQ(one.pairs[i].expert, many.pairs[i].expert) << "round " << round;
      ASSERT_EQ(one.pairs[i].weight, many.pairs[i].weight) << "round " << round;
      if (many.pairs[i].fate == PairFate::kDropped) continue;
      const auto devices = step.placement.devices_of(many.pairs[i].expert);
      ASSERT_THAT(devices, testing::Contains(many.pairs[i].device)) << "round " << round;
    }
  }
}

// All rows alike: nothing but the keys tells who stays.
TEST(RouteBoundedTest, AmongEqualTokensTheSmallestKeysStay) {
  std::mt19937 random(17);
  for (int round = 0; round < kRounds; ++round) {
    RandomStep step = MakeStep(random, TokenMode::kShared);
    if (step.scores.num_rows == 0) continue;
    step = TakeRows(step, std::vector<int>(step.scores.num_rows, 0));
    for (RoutedToken& token : step.tokens) token.tie_key = random();
    const int64_t capacity = random() % 14;
    step.policy.capacity = {.capacity = capacity};
    step.policy.reroute = 0;
    step.policy.coverage = false;
    std::vector<uint64_t> keys;
    for (const RoutedToken& token : step.tokens) keys.push_back(token.tie_key);
    std::sort(keys.begin(), keys.end());
    for (const PairDecision& p : step.Decide().pairs) {
      const auto place = std::lower_bound(keys.begin(), keys.end(), step.tokens[p.row].tie_key);
      ASSERT_EQ(p.fate == PairFate::kKept, place - keys.begin() < capacity) << "round " << round;
    }
  }
}

TEST(RouteBoundedTest, RefusesADomainUnderTwoPoliciesAndAPolicyThatIsNotThere) {
  std::mt19937 random(15);
  RandomStep step = MakeStep(random, TokenMode::kShared);
  while (step.scores.num_rows < 2) {
    AppendRow(step, random);
    step.tokens.push_back({.mode = TokenMode::kShared, .policy_idx = 0});
  }
  const LayerPolicy rules{.policy = &step.policy, .placement = &step.placement};
  const LayerPolicy twice[] = {rules, rules};
  const auto decide = [&] {
    return RouteBounded({.scores = step.scores,
                         .tokens = step.tokens,
                         .policies = twice,
                         .placement = step.placement,
                         .limits = step.limits});
  };
  EXPECT_TRUE(decide().ok());
  step.tokens[1].policy_idx = 1;
  EXPECT_EQ(decide().status().code(), absl::StatusCode::kInvalidArgument);
  step.tokens[1].domain = 1;
  EXPECT_TRUE(decide().ok());
  step.tokens[1].policy_idx = 2;
  EXPECT_THAT(std::string(decide().status().message()), testing::HasSubstr("policy: got 2"));
  step.tokens[1].policy_idx = -1;
  EXPECT_FALSE(decide().ok());
  step.tokens[1].mode = TokenMode::kExact;
  EXPECT_TRUE(decide().ok());
}

TEST(CapacityTest, RoundsUpButForTheErrorOfAProduct) {
  EXPECT_EQ(CeilNear(1.1 * 10), 11);
  EXPECT_EQ(CeilNear(11.00001), 12);
  EXPECT_EQ(CeilNear(0), 0);
  EXPECT_EQ(CeilNear(1e300), kNoBound);
}

TEST(CapacityTest, NamesWhatPlacesComeFrom) {
  using enum BoundCause;
  const auto places = [](bool eager, Places ceiling, Places floor, int64_t rows) {
    const Places made = ExpertPlaces({.eager = eager}, ceiling, floor, rows);
    return std::pair(made.count, made.cause);
  };
  const Places none, ceiling{5, kZeta}, floor{2, kMass};
  EXPECT_EQ(places(true, none, floor, kNoBound), std::pair(kNoBound, kNone));
  EXPECT_EQ(places(false, ceiling, floor, kNoBound), std::pair(int64_t{5}, kZeta));
  EXPECT_EQ(places(true, ceiling, floor, kNoBound), std::pair(int64_t{2}, kMass));
  EXPECT_EQ(places(true, ceiling, {7, kMass}, kNoBound), std::pair(int64_t{5}, kZeta));
  EXPECT_EQ(places(true, ceiling, {0, kMass}, kNoBound), std::pair(int64_t{1}, kMass));
  EXPECT_EQ(places(true, {0, kFixed}, {0, kMass}, kNoBound), std::pair(int64_t{0}, kFixed));
  EXPECT_EQ(places(false, ceiling, floor, 5), std::pair(int64_t{5}, kZeta));
  EXPECT_EQ(places(false, ceiling, floor, 3), std::pair(int64_t{3}, kMemory));
  EXPECT_EQ(places(false, none, floor, 3), std::pair(int64_t{3}, kMemory));
}

TEST(CapacityTest, RankCeilingsExceedTheWholeByLessThanOneEach) {
  std::mt19937 random(13);
  for (int round = 0; round < kRounds; ++round) {
    const int n = 1 + random() % 64, k = 1 + random() % 8, ranks = 1 + random() % 8;
    const CapacityPolicy policy{.factor = 0.5 + (random() % 100) * 0.02, .min_mean_load = 0};
    int64_t sum = 0, all = 0;
    for (int r = 0; r < ranks; ++r) {
      const int64_t pairs = static_cast<int64_t>(random() % 300) * k;
      all += pairs;
      sum += ExpertCeiling(policy, {.num_pairs = pairs, .switch_pairs = pairs}, n).count;
    }
    ASSERT_LE(static_cast<double>(sum), *policy.factor * static_cast<double>(all) / n + ranks);
  }
}

TEST(CapacityTest, TheoryFloorStaysWithinTheCeilingAndTheTokens) {
  const auto floor = [](double delta, int64_t ceiling) {
    CapacityPolicy policy;
    policy.theory = {.effective_dim = 5120, .delta = delta};
    return ExpertFloor(policy, {}, ceiling, /*num_tokens=*/100000, /*num_experts=*/16).count;
  };
  EXPECT_EQ(floor(0.06, 1000), 640);
  EXPECT_EQ(floor(0.06, 100), 100);
  EXPECT_EQ(floor(1, kNoBound), 100000);
}

}  // namespace
}  // namespace gatehouse
