#include "server/worker_convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

// Numbers of every kind, the unusual ones among them.
class Random {
 public:
  explicit Random(int seed) : bits_(seed) {}

  int Below(int end) { return static_cast<int>(bits_() % end); }
  bool Coin() { return Below(2) == 0; }
  float Float() {
    constexpr float kOdd[] = {-0.0f, 1e-42f, -std::numeric_limits<float>::infinity(), 3e38f};
    return Coin() ? kOdd[Below(4)] : std::ldexp(static_cast<float>(bits_()) - 2e9f, -Below(60));
  }
  double Double() { return std::ldexp(static_cast<double>(bits_()), -Below(900)); }
  int64_t Long() { return static_cast<int64_t>(bits_() << 32 | bits_()) * (Coin() ? 1 : -1); }
  std::vector<int32_t> Ids(int most, int end) {
    std::vector<int32_t> ids(Below(most + 1));
    for (int32_t& id : ids) id = Below(end);
    return ids;
  }
  template <typename T>
  std::optional<T> Maybe(T value) {
    return Coin() ? std::optional<T>(value) : std::nullopt;
  }

 private:
  std::mt19937 bits_;
};

constexpr StepLimits kLimits = {.num_ranks = 3,
                                .rank = 1,
                                .vocab_size = 500,
                                .max_rows = 400,
                                .max_context = 640,
                                .block_tokens = 16,
                                .num_kv_blocks = 77};

ExpertPlacement PlacementOf(Random& random) {
  ExpertPlacement placement{.num_devices = 5, .copy_begin = {0}};
  for (int d = 0; d < 5; ++d) placement.throughput.push_back(random.Double());
  for (int e = 0; e < 6; ++e) {
    for (int d = 0; d < 5; ++d) {
      if (d == e % 5 || random.Coin()) placement.copy_devices.push_back(d);
    }
    placement.copy_begin.push_back(placement.num_copies());
  }
  return placement;
}

RoutingPolicy PolicyOf(Random& random) {
  RoutingPolicy policy;
  policy.capacity = {.capacity = random.Maybe(random.Long()),
                     .factor = random.Maybe(random.Double()),
                     .zeta = random.Maybe(random.Double()),
                     .tile = random.Long(),
                     .min_tokens = random.Long(),
                     .min_mean_load = random.Double(),
                     .device_factor = random.Maybe(random.Double()),
                     .ecr_error = random.Maybe(random.Double()),
                     .affinity_mass = random.Maybe(random.Double()),
                     .theory = random.Maybe(TheoryFloor{random.Double(), random.Double()}),
                     .eager = random.Coin(),
                     .rank_local = random.Coin()};
  policy.block_tokens = random.Long();
  policy.order = static_cast<PairOrder>(random.Below(4));
  policy.tier = static_cast<PairTier>(random.Below(3));
  policy.reroute = random.Below(9);
  policy.reroute_ratio = random.Double();
  policy.coverage = random.Coin();
  policy.renormalise_after_drop = random.Coin();
  policy.max_renormalisation = random.Float();
  policy.expert_choice = random.Maybe(random.Double());
  return policy;
}

PinnedPolicy PinnedOf(Random& random) {
  PinnedPolicy policy{.version = random.Long(),
                      .name = "p" + std::to_string(random.Below(1000)),
                      .mode = static_cast<TokenMode>(random.Below(kNumTokenModes)),
                      .policy = PolicyOf(random),
                      .affinity = static_cast<Affinity>(random.Below(3)),
                      .placement = PlacementOf(random),
                      .bound_decode = random.Coin()};
  for (int l = random.Below(4); l > 0; --l) {
    policy.layer_policies.push_back(PolicyOf(random));
    policy.layer_exempt.push_back(static_cast<uint8_t>(random.Below(2)));
    policy.thresholds.push_back({random.Float(), random.Float()});
  }
  return policy;
}

void ExpectSame(const TheoryFloor& a, const TheoryFloor& b) {
  EXPECT_EQ(a.effective_dim, b.effective_dim);
  EXPECT_EQ(a.delta, b.delta);
}

void ExpectSame(const RoutingPolicy& a, const RoutingPolicy& b) {
  EXPECT_EQ(a.capacity.capacity, b.capacity.capacity);
  EXPECT_EQ(a.capacity.factor, b.capacity.factor);
  EXPECT_EQ(a.capacity.zeta, b.capacity.zeta);
  EXPECT_EQ(a.capacity.tile, b.capacity.tile);
  EXPECT_EQ(a.capacity.min_tokens, b.capacity.min_tokens);
  EXPECT_EQ(a.capacity.min_mean_load, b.capacity.min_mean_load);
  EXPECT_EQ(a.capacity.device_factor, b.capacity.device_factor);
  EXPECT_EQ(a.capacity.ecr_error, b.capacity.ecr_error);
  EXPECT_EQ(a.capacity.affinity_mass, b.capacity.affinity_mass);
  ASSERT_EQ(a.capacity.theory.has_value(), b.capacity.theory.has_value());
  if (a.capacity.theory) ExpectSame(*a.capacity.theory, *b.capacity.theory);
  EXPECT_EQ(a.capacity.eager, b.capacity.eager);
  EXPECT_EQ(a.capacity.rank_local, b.capacity.rank_local);
  EXPECT_EQ(a.block_tokens, b.block_tokens);
  EXPECT_EQ(a.order, b.order);
  EXPECT_EQ(a.tier, b.tier);
  EXPECT_EQ(a.reroute, b.reroute);
  EXPECT_EQ(a.reroute_ratio, b.reroute_ratio);
  EXPECT_EQ(a.coverage, b.coverage);
  EXPECT_EQ(a.renormalise_after_drop, b.renormalise_after_drop);
  EXPECT_EQ(a.max_renormalisation, b.max_renormalisation);
  EXPECT_EQ(a.expert_choice, b.expert_choice);
}

void ExpectSame(const PinnedPolicy& a, const PinnedPolicy& b) {
  EXPECT_EQ(a.version, b.version);
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.mode, b.mode);
  ExpectSame(a.policy, b.policy);
  EXPECT_EQ(a.affinity, b.affinity);
  EXPECT_EQ(a.placement.num_devices, b.placement.num_devices);
  EXPECT_EQ(a.placement.copy_begin, b.placement.copy_begin);
  EXPECT_EQ(a.placement.copy_devices, b.placement.copy_devices);
  EXPECT_EQ(a.placement.throughput, b.placement.throughput);
  ASSERT_EQ(a.layer_policies.size(), b.layer_policies.size());
  for (size_t l = 0; l < a.layer_policies.size(); ++l) {
    ExpectSame(a.layer_policies[l], b.layer_policies[l]);
  }
  EXPECT_EQ(a.layer_exempt, b.layer_exempt);
  EXPECT_EQ(a.thresholds, b.thresholds);
  EXPECT_EQ(a.bound_decode, b.bound_decode);
}

// A step of three ranks and what it points to.
struct SentStep {
  explicit SentStep(int seed);
  RankStep step() const {
    return {.rows = &rows,
            .routing = {.tokens = tokens, .policies = pointers, .num_observed_ranks = 11},
            .slice = &slice,
            .sampling = sampling};
  }

  StepRows rows;
  RankSlice slice;
  std::vector<std::vector<int32_t>> lists;
  std::vector<std::vector<std::pair<int32_t, float>>> biases;
  std::vector<PinnedPolicy> policies;
  std::vector<const PinnedPolicy*> pointers;
  std::vector<RoutedToken> tokens;
  std::vector<RowSampling> sampling;
};

SentStep::SentStep(int seed) {
  Random random(seed);
  lists.reserve(1000);
  biases.reserve(1000);
  const auto ids = [&](int end) -> std::span<const int32_t> {
    return lists.emplace_back(random.Ids(6, end));
  };
  std::vector<int32_t> row_ranks;
  for (int i = random.Below(300); i > 0; --i) row_ranks.push_back(random.Below(3));
  rows = RowsByRank(row_ranks, 3);
  const auto num_own = static_cast<int32_t>(rows.rows_of(1).size());
  for (int32_t row = 0; row < num_own;) {
    const int32_t count = 1 + random.Below(num_own - row);
    const int32_t first = random.Below(640 - count);
    std::vector<int32_t>& blocks = lists.emplace_back();
    for (int b = 0; b * 16 < first + count; ++b) blocks.push_back(random.Below(77));
    slice.spans.push_back(
        {.first_row = row, .num_rows = count, .first_position = first, .block_ids = blocks});
    for (int32_t i = 0; i < count; ++i) slice.positions.push_back(first + i);
    row += count;
  }
  for (int32_t row = 0; row < num_own; ++row) {
    slice.token_ids.push_back(random.Below(500));
    if (random.Coin()) continue;
    slice.logit_rows.push_back(row);
    std::vector<std::pair<int32_t, float>>& bias = biases.emplace_back();
    for (const int32_t id : random.Ids(4, 500)) bias.emplace_back(id, random.Float());
    sampling.push_back({.temperature = random.Float(),
                        .top_k = random.Below(100),
                        .top_p = random.Float(),
                        .min_p = random.Float(),
                        .typical_p = random.Float(),
                        .uniform = random.Double(),
                        .repeated_ids = ids(500),
                        .repetition_penalty = random.Float(),
                        .bias = bias,
                        .allowed_ids = ids(500),
                        .forced_id = random.Below(400) - 1,
                        .num_top_logprobs = random.Below(20) - 1,
                        .wanted_ids = ids(500)});
  }
  for (int p = random.Below(4); p > 0; --p) policies.push_back(PinnedOf(random));
  for (const PinnedPolicy& policy : policies) pointers.push_back(&policy);
  if (random.Coin()) return;
  for (size_t i = 0; i < row_ranks.size(); ++i) {
    tokens.push_back({.mode = static_cast<TokenMode>(random.Below(kNumTokenModes)),
                      .padding = random.Coin(),
                      .policy_idx = random.Below(static_cast<int>(policies.size()) + 1) - 1,
                      .request = random.Long(),
                      .position = random.Long(),
                      .domain = random.Below(1000),
                      .home_device = random.Below(1000),
                      .rank = random.Below(3),
                      .tie_key = static_cast<uint64_t>(random.Long())});
  }
}

std::unique_ptr<const SentStep> AStepWithSomeOfEverything() {
  for (int seed = 0;; ++seed) {
    auto step = std::make_unique<const SentStep>(seed);
    if (!step->sampling.empty() && !step->tokens.empty()) return step;
  }
}

std::vector<int32_t> List(std::span<const int32_t> ids) { return {ids.begin(), ids.end()}; }

void ExpectSame(const RowSampling& a, const RowSampling& b) {
  EXPECT_EQ(a.temperature, b.temperature);
  EXPECT_EQ(a.top_k, b.top_k);
  EXPECT_EQ(a.top_p, b.top_p);
  EXPECT_EQ(a.min_p, b.min_p);
  EXPECT_EQ(a.typical_p, b.typical_p);
  EXPECT_EQ(a.uniform, b.uniform);
  EXPECT_EQ(List(a.repeated_ids), List(b.repeated_ids));
  EXPECT_EQ(a.repetition_penalty, b.repetition_penalty);
  EXPECT_TRUE(std::equal(a.bias.begin(), a.bias.end(), b.bias.begin(), b.bias.end()));
  EXPECT_EQ(List(a.allowed_ids), List(b.allowed_ids));
  EXPECT_EQ(a.forced_id, b.forced_id);
  EXPECT_EQ(a.num_top_logprobs, b.num_top_logprobs);
  EXPECT_EQ(List(a.wanted_ids), List(b.wanted_ids));
}

void ExpectSame(const RoutedToken& a, const RoutedToken& b) {
  EXPECT_EQ(a.mode, b.mode);
  EXPECT_EQ(a.padding, b.padding);
  EXPECT_EQ(a.policy_idx, b.policy_idx);
  EXPECT_EQ(a.request, b.request);
  EXPECT_EQ(a.position, b.position);
  EXPECT_EQ(a.domain, b.domain);
  EXPECT_EQ(a.home_device, b.home_device);
  EXPECT_EQ(a.rank, b.rank);
  EXPECT_EQ(a.tie_key, b.tie_key);
}

void ExpectSame(const SentStep& sent, const ReceivedStep& got) {
  EXPECT_EQ(got.rows.row_ranks, sent.rows.row_ranks);
  EXPECT_EQ(got.rows.rank_rows, sent.rows.rank_rows);
  EXPECT_EQ(got.rows.rank_begin, sent.rows.rank_begin);
  EXPECT_EQ(got.slice.token_ids, sent.slice.token_ids);
  EXPECT_EQ(got.slice.positions, sent.slice.positions);
  ASSERT_EQ(got.slice.spans.size(), sent.slice.spans.size());
  for (size_t s = 0; s < sent.slice.spans.size(); ++s) {
    EXPECT_EQ(got.slice.spans[s].first_row, sent.slice.spans[s].first_row);
    EXPECT_EQ(got.slice.spans[s].num_rows, sent.slice.spans[s].num_rows);
    EXPECT_EQ(got.slice.spans[s].first_position, sent.slice.spans[s].first_position);
    EXPECT_EQ(List(got.slice.spans[s].block_ids), List(sent.slice.spans[s].block_ids));
  }
  EXPECT_EQ(got.slice.logit_rows, sent.slice.logit_rows);
  EXPECT_EQ(got.slice.logit_ids.size(), sent.slice.logit_rows.size());
  ASSERT_EQ(got.sampling.size(), sent.sampling.size());
  for (size_t i = 0; i < sent.sampling.size(); ++i) ExpectSame(sent.sampling[i], got.sampling[i]);
  ASSERT_EQ(got.tokens.size(), sent.tokens.size());
  for (size_t i = 0; i < sent.tokens.size(); ++i) ExpectSame(sent.tokens[i], got.tokens[i]);
  ASSERT_EQ(got.policies.size(), sent.policies.size());
  for (size_t i = 0; i < sent.policies.size(); ++i) ExpectSame(sent.policies[i], *got.policies[i]);
  EXPECT_FALSE(got.observed);
  EXPECT_EQ(got.num_observed_ranks, 11);
}

v1::RankStep OverTheWire(const v1::RankStep& message) {
  v1::RankStep received;
  EXPECT_TRUE(received.ParseFromString(message.SerializeAsString()));
  return received;
}

TEST(WorkerConvertTest, EveryFieldOfAStepSurvivesTheWire) {
  PolicyNumbers numbers;
  KnownPolicies known;
  for (int seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    const SentStep sent(seed);
    v1::RankStep message = ToProto(sent.step());
    numbers.AddTo(sent.pointers, message);
    message = OverTheWire(message);
    ReceivedStep got;
    ASSERT_TRUE(Read(message, kLimits, known, got).ok()) << Read(message, kLimits, known, got);
    ExpectSame(sent, got);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(WorkerConvertTest, APolicyGoesOnceAndAnotherAtItsPlaceGoesAgain) {
  Random random(1);
  PolicyNumbers numbers;
  KnownPolicies known;
  PinnedPolicy policy = PinnedOf(random);
  const std::vector<const PinnedPolicy*> policies = {&policy};
  for (const int num_new : {1, 0, 0}) {
    v1::RankStep message;
    numbers.AddTo(policies, message);
    EXPECT_EQ(message.new_policies_size(), num_new);
    ExpectSame(policy, *known.Read(message)->front());
  }
  for (int i = 0; i < 200; ++i) {
    policy = PinnedOf(random);  // in the same memory
    v1::RankStep message;
    numbers.AddTo(policies, message);
    EXPECT_EQ(message.new_policies_size(), 1);
    EXPECT_LT(message.policy_ids(0), 64) << "old ones are forgotten";
    ExpectSame(policy, *known.Read(message)->front());
  }
  v1::RankStep message;
  message.add_policy_ids(1000);
  EXPECT_THAT(std::string(known.Read(message).status().message()), HasSubstr("policy 1000"));
}

TEST(WorkerConvertTest, WhatAStepMayNotNameIsRefused) {
  const std::unique_ptr<const SentStep> found = AStepWithSomeOfEverything();
  const SentStep& sent = *found;
  v1::RankStep right = ToProto(sent.step());
  PolicyNumbers().AddTo(sent.pointers, right);
  const auto refused = [&](auto&& change) {
    v1::RankStep message = right;
    change(message);
    KnownPolicies known;
    ReceivedStep got;
    return absl::IsInternal(Read(message, kLimits, known, got));
  };
  EXPECT_FALSE(refused([](v1::RankStep&) {}));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.set_row_ranks(0, 3); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.add_row_ranks(1); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.set_token_ids(0, 500); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.set_positions(0, -1); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.add_positions(1); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_spans(0)->set_first_row(1); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_spans(0)->set_first_position(640); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_spans(0)->set_block_ids(0, 77); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_spans(0)->clear_block_ids(); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_spans()->RemoveLast(); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.set_logit_rows(0, m.token_ids_size()); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_sampling()->RemoveLast(); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_sampling(0)->add_wanted_ids(500); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_sampling(0)->add_bias(1); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_tokens(0)->set_policy_idx(4); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_tokens(0)->set_mode(kNumTokenModes); }));
  EXPECT_TRUE(refused([](v1::RankStep& m) { m.mutable_tokens()->RemoveLast(); }));
}

TEST(WorkerConvertTest, EveryFieldOfAResultSurvivesTheWire) {
  Random random(9);
  RankResult sent{.row_failed = {0, 1, 0, 0, 1}};
  for (int i = 0; i < 3; ++i) {
    sent.samples.push_back({.token_id = random.Below(500),
                            .logprob = random.Float(),
                            .top = {{random.Below(500), random.Float()}, {7, random.Float()}},
                            .wanted = {random.Float(), random.Float()},
                            .failure = static_cast<SampleFailure>(i)});
    sent.exchanges.calls.push_back(
        {.phase = static_cast<ExchangePhase>(i),
         .spent = {random.Double(), random.Double(), random.Long(), random.Long()}});
  }
  sent.exchanges.num_computed = random.Long();
  v1::RankStepResult message;
  ASSERT_TRUE(message.ParseFromString(ToProto(12, sent).SerializeAsString()));
  EXPECT_EQ(message.step(), 12);
  const absl::StatusOr<RankResult> got = FromProto(message, 5, 3);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->row_failed, sent.row_failed);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(got->samples[i].token_id, sent.samples[i].token_id);
    EXPECT_EQ(got->samples[i].logprob, sent.samples[i].logprob);
    ASSERT_EQ(got->samples[i].top.size(), 2u);
    for (int t = 0; t < 2; ++t) {
      EXPECT_EQ(got->samples[i].top[t].id, sent.samples[i].top[t].id);
      EXPECT_EQ(got->samples[i].top[t].logprob, sent.samples[i].top[t].logprob);
    }
    EXPECT_EQ(got->samples[i].wanted, sent.samples[i].wanted);
    EXPECT_EQ(got->samples[i].failure, sent.samples[i].failure);
    EXPECT_EQ(got->exchanges.calls[i].phase, sent.exchanges.calls[i].phase);
    EXPECT_EQ(got->exchanges.calls[i].spent.wait_seconds,
              sent.exchanges.calls[i].spent.wait_seconds);
    EXPECT_EQ(got->exchanges.calls[i].spent.move_seconds,
              sent.exchanges.calls[i].spent.move_seconds);
    EXPECT_EQ(got->exchanges.calls[i].spent.bytes_sent, sent.exchanges.calls[i].spent.bytes_sent);
    EXPECT_EQ(got->exchanges.calls[i].spent.bytes_received,
              sent.exchanges.calls[i].spent.bytes_received);
  }
  EXPECT_EQ(got->exchanges.num_computed, sent.exchanges.num_computed);
  EXPECT_TRUE(absl::IsInternal(FromProto(message, 4, 3).status()));
  EXPECT_TRUE(absl::IsInternal(FromProto(message, 5, 2).status()));

  const absl::Status lost = absl::UnavailableError("rank 2 lost in epoch 5");
  EXPECT_EQ(FromProto(ToProto(3, lost), 5, 3).status(), lost);
}

TEST(WorkerConvertTest, SettingsSurviveTheWire) {
  const RankSettings sent{.num_ranks = 4,
                          .model_hash = "0123456789abcdef",
                          .expert_weight_format = "int4",
                          .dense_weight_format = "f32+bf16",
                          .kv_type = KvType::kInt8,
                          .block_tokens = 16,
                          .kv_block_bytes = int64_t{1} << 33,
                          .num_kv_blocks = 12345,
                          .max_sequences = 6,
                          .max_step_tokens = 7,
                          .max_context = 8};
  v1::RankWelcome message = ToProto(sent, 3);
  EXPECT_EQ(message.rank(), 3);
  const absl::StatusOr<RankSettings> got = FromProto(message);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->num_ranks, sent.num_ranks);
  EXPECT_EQ(got->model_hash, sent.model_hash);
  EXPECT_EQ(got->expert_weight_format, sent.expert_weight_format);
  EXPECT_EQ(got->dense_weight_format, sent.dense_weight_format);
  EXPECT_EQ(got->kv_type, sent.kv_type);
  EXPECT_EQ(got->block_tokens, sent.block_tokens);
  EXPECT_EQ(got->kv_block_bytes, sent.kv_block_bytes);
  EXPECT_EQ(got->num_kv_blocks, sent.num_kv_blocks);
  EXPECT_EQ(got->max_sequences, sent.max_sequences);
  EXPECT_EQ(got->max_step_tokens, sent.max_step_tokens);
  EXPECT_EQ(got->max_context, sent.max_context);
  message.set_kv_type("f16");
  EXPECT_TRUE(absl::IsInternal(FromProto(message).status()));
}

TEST(WorkerConvertTest, APlacementThatDoesNotFitTogetherIsRefused) {
  Random random(2);
  v1::ExpertsOnDevices message = ToProto(PlacementOf(random));
  EXPECT_TRUE(FromProto(message).ok());
  message.set_copy_devices(0, 5);
  EXPECT_TRUE(absl::IsInternal(FromProto(message).status()));
  message = ToProto(PlacementOf(random));
  message.set_copy_begin(2, message.copy_begin(1));
  EXPECT_TRUE(absl::IsInternal(FromProto(message).status()));
}

}  // namespace
}  // namespace gatehouse
