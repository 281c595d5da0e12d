// Bounded sequences in the scheduler: where chunks end, who competes with whom, what the cache may
// share. A device that makes of every row what its routing may depend on shows a broken promise as
// another token.
#include "engine/scheduler/row_routing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "engine/scheduler/scheduler.h"
#include "tests/scheduler/scheduler_harness.h"

namespace gatehouse {
namespace {

constexpr int32_t kBlockTokens = 4;  // of the cache
constexpr int32_t kBoundBlock = 8;   // of block mode

std::shared_ptr<const PinnedPolicy> PolicyOf(TokenMode mode, int64_t version = 1,
                                             bool bound_decode = false) {
  PinnedPolicy policy{.version = version, .mode = mode, .bound_decode = bound_decode};
  policy.placement.num_devices = 4;
  if (mode == TokenMode::kBlock || mode == TokenMode::kBlockCausal) {
    policy.policy.block_tokens = kBoundBlock;
  }
  return std::make_shared<const PinnedPolicy>(std::move(policy));
}

Request Bounded(Request request, const std::shared_ptr<const PinnedPolicy>& policy) {
  request.mode = policy->mode == TokenMode::kShared ? RoutingMode::kShared : RoutingMode::kIsolated;
  request.policy = policy;
  return request;
}

Request Of(const char* tenant, Request request) {
  request.tenant = std::make_shared<const Tenant>(Tenant{.name = tenant});
  return request;
}

uint64_t Mix(uint64_t hash, uint64_t value) {
  uint64_t z = hash + 0x9e3779b97f4a7c15u * (value + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  return z ^ (z >> 27);
}

// What a row of its own request alone is: of exact, threshold and block tokens. Block: by which
// positions of its block run in the same call.
uint64_t IsolatedValue(const RoutedToken& token, int64_t version, int32_t first, int32_t end) {
  if (token.mode == TokenMode::kExact) return 0;
  const uint64_t value = Mix(Mix(1, static_cast<uint64_t>(version)), static_cast<int>(token.mode));
  if (token.mode != TokenMode::kBlock) return value;
  return Mix(Mix(value, static_cast<uint64_t>(first)), static_cast<uint64_t>(end));
}

// Keys and values as hashes of tokens and routing. Shared tokens are touched by chance: then what
// they hold depends on the step.
class RoutedDevice {
 public:
  RoutedDevice(int32_t num_blocks, unsigned seed)
      : slots_(static_cast<size_t>(num_blocks) * kBlockTokens), chance_(seed) {}

  void Run(const StepPlan& plan) {
    touched_.assign(plan.num_rows(), 0);
    hashes_.assign(plan.num_rows(), 0);
    ++num_steps_;
    for (const SequenceSpan& span : plan.spans) RunSpan(plan, span);
    samples_.assign(plan.logit_rows.size(), {});
    for (size_t i = 0; i < samples_.size(); ++i) {
      samples_[i].token_id = TokenFor(hashes_[plan.logit_rows[i].row]);
    }
    failed_.assign(plan.num_rows(), 0);
  }
  StepOutcome outcome() const {
    return {.samples = samples_, .row_failed = failed_, .row_touched = touched_};
  }
  static int32_t TokenFor(uint64_t hash) { return static_cast<int32_t>(hash % kVocab); }

 private:
  void RunSpan(const StepPlan& plan, const SequenceSpan& span) {
    for (int32_t i = 0; i < span.num_rows; ++i) {
      const int32_t row = span.first_row + i, position = span.first_position + i;
      const RoutedToken token =
          plan.routed_tokens.empty() ? RoutedToken{} : plan.routed_tokens[row];
      uint64_t value = 0;
      if (token.mode == TokenMode::kShared) {
        touched_[row] = chance_() % 16 == 0;
        if (touched_[row] != 0) value = Mix(7, num_steps_);
      } else if (token.mode != TokenMode::kExact) {
        const int32_t first = position / kBoundBlock * kBoundBlock;
        int32_t end = row;
        while (end < span.first_row + span.num_rows && plan.routed_tokens[end].mode == token.mode &&
               plan.positions[end] < first + kBoundBlock) {
          ++end;
        }
        value = IsolatedValue(token, plan.policies[token.policy_idx]->version,
                              std::max(first, span.first_position), plan.positions[end - 1] + 1);
      }
      const uint64_t before = position == 0 ? 0 : SlotOf(span, position - 1);
      hashes_[row] = Mix(Mix(before, static_cast<uint64_t>(plan.token_ids[row])), value);
      SlotOf(span, position) = hashes_[row];
    }
  }
  uint64_t& SlotOf(const SequenceSpan& span, int32_t position) {
    return slots_[static_cast<size_t>(span.block_ids[position / kBlockTokens]) * kBlockTokens +
                  position % kBlockTokens];
  }

  std::vector<uint64_t> slots_, hashes_;
  std::vector<uint8_t> touched_, failed_;
  std::vector<RowSample> samples_;
  std::mt19937 chance_;
  uint64_t num_steps_ = 0;
};

// What an exact or isolated request must yield, whatever runs beside it.
std::vector<int32_t> ExpectedAlone(const Request& request) {
  std::vector<int32_t> tokens = request.prompt_ids, generated;
  const auto num_prompt = static_cast<int32_t>(tokens.size());
  uint64_t hash = 0;
  for (int32_t p = 0;; ++p) {
    RoutedToken token;
    int32_t first = 0, end = 0;
    const PinnedPolicy* policy = request.policy.get();
    if (policy != nullptr && (p < num_prompt || policy->bound_decode)) {
      token.mode = policy->mode;
      first = p / kBoundBlock * kBoundBlock;
      end = std::min(first + kBoundBlock, num_prompt);
    }
    hash = Mix(Mix(hash, static_cast<uint64_t>(tokens[p])),
               IsolatedValue(token, policy == nullptr ? 0 : policy->version, first, end));
    if (p + 1 < static_cast<int32_t>(tokens.size())) continue;
    tokens.push_back(RoutedDevice::TokenFor(hash));
    generated.push_back(tokens.back());
    if (static_cast<int32_t>(generated.size()) == request.stop.max_new_tokens) return generated;
  }
}

// Runs requests on the device and checks each plan.
class RoutedRun {
 public:
  RoutedRun(const SchedulerSetup& setup, unsigned seed)
      : setup_(setup), scheduler_(setup), device_(setup.num_blocks, seed) {}

  SequenceId Add(Request request) {
    const auto shared = std::make_shared<const Request>(std::move(request));
    requests_[next_id_] = shared;
    scheduler_.Add(next_id_, shared, At(0));
    return next_id_++;
  }
  bool Step() {
    const StepPlan& plan = scheduler_.Plan();
    if (plan.empty()) return false;
    EXPECT_LE(plan.num_rows(), setup_.options.max_step_tokens);
    CheckPlan(plan);
    num_preemptions_ += scheduler_.num_preemptions();
    num_cached_ += scheduler_.num_cached_prompt_tokens();
    device_.Run(plan);
    for (const SequenceUpdate& update : scheduler_.Commit(device_.outcome())) {
      EXPECT_EQ(update.status, absl::OkStatus());
      if (update.sample_idx < 0) continue;
      generated_[update.sequence].push_back(device_.outcome().samples[update.sample_idx].token_id);
    }
    EXPECT_EQ(scheduler_.CheckInvariants(), absl::OkStatus());
    return true;
  }
  void RunToTheEnd() {
    for (int step = 0; Step(); ++step) ASSERT_LT(step, 100000) << "no end in sight";
  }
  const std::vector<int32_t>& of(SequenceId id) { return generated_[id]; }
  int32_t num_preemptions() const { return num_preemptions_; }
  int64_t num_cached() const { return num_cached_; }

 private:
  void CheckPlan(const StepPlan& plan) {
    bool any = false;
    std::map<int32_t, std::set<std::pair<std::string, int64_t>>> groups_of_domain;
    std::map<int32_t, std::set<bool>> phases_of_domain;
    for (size_t i = 0; i < plan.spans.size(); ++i) {
      const Request& request = *requests_.at(plan.span_sequences[i]);
      const SequenceSpan& span = plan.spans[i];
      if (request.policy == nullptr) continue;
      any = true;
      CheckChunk(request, span);
      ASSERT_EQ(static_cast<int32_t>(plan.routed_tokens.size()), plan.num_rows());
      for (int32_t r = span.first_row; r < span.first_row + span.num_rows; ++r) {
        const RoutedToken& token = plan.routed_tokens[r];
        const bool is_prompt = plan.positions[r] < static_cast<int32_t>(request.prompt_ids.size());
        const bool bounded = is_prompt || request.policy->bound_decode;
        EXPECT_EQ(token.mode, bounded ? request.policy->mode : TokenMode::kExact);
        EXPECT_EQ(token.position, plan.positions[r]);
        EXPECT_EQ(token.request, static_cast<int64_t>(plan.span_sequences[i]));
        if (!bounded) continue;
        EXPECT_EQ(plan.policies[token.policy_idx], request.policy.get());
        if (token.mode != TokenMode::kShared) continue;
        const std::string tenant = request.tenant == nullptr ? "default" : request.tenant->name;
        groups_of_domain[token.domain].insert({tenant, request.policy->version});
        phases_of_domain[token.domain].insert(is_prompt);
      }
    }
    EXPECT_EQ(plan.routed_tokens.empty(), !any);
    for (const auto& [domain, groups] : groups_of_domain) EXPECT_EQ(groups.size(), 1u) << domain;
    int32_t last_decode = -1, first_prefill = std::numeric_limits<int32_t>::max();
    for (const auto& [domain, phases] : phases_of_domain) {
      EXPECT_EQ(phases.size(), 1u) << domain;
      if (*phases.begin()) first_prefill = std::min(first_prefill, domain);
      if (!*phases.begin()) last_decode = std::max(last_decode, domain);
    }
    EXPECT_LT(last_decode, first_prefill) << "decodes are decided first";
  }
  void CheckChunk(const Request& request, const SequenceSpan& span) {
    const auto num_prompt = static_cast<int32_t>(request.prompt_ids.size());
    const int32_t end = span.first_position + span.num_rows;
    int32_t quantum = 1;
    if (request.policy->mode == TokenMode::kBlock) quantum = kBoundBlock;
    if (request.policy->mode == TokenMode::kShared) {
      quantum = std::min(128, setup_.options.max_step_tokens - setup_.options.max_sequences);
    }
    EXPECT_TRUE(end >= num_prompt || end % quantum == 0) << "a chunk ends at " << end;
  }

  const SchedulerSetup setup_;
  Scheduler scheduler_;
  RoutedDevice device_;
  SequenceId next_id_ = 1;
  std::map<SequenceId, std::shared_ptr<const Request>> requests_;
  std::map<SequenceId, std::vector<int32_t>> generated_;
  int32_t num_preemptions_ = 0;
  int64_t num_cached_ = 0;
};

SchedulerSetup SmallServer(int32_t num_blocks, int32_t max_step_tokens = 64,
                           int32_t max_sequences = 6) {
  return {.options = {.max_sequences = max_sequences, .max_step_tokens = max_step_tokens},
          .num_blocks = num_blocks,
          .block_tokens = kBlockTokens,
          .routing_secret = {5, 6}};
}

TEST(RowRoutingTest, AnExactPlanCarriesNoRouting) {
  RoutedRun run(SmallServer(64), 1);
  const SequenceId id = run.Add(RequestOf(20, 3));
  run.RunToTheEnd();
  EXPECT_EQ(run.of(id), ExpectedAlone(RequestOf(20, 3)));
}

// Steps have room for 30 tokens: three blocks of 8. The last one is not full.
TEST(RowRoutingTest, ChunksOfBlockModeEndWhereBlocksEnd) {
  const auto policy = PolicyOf(TokenMode::kBlock);
  SchedulerSetup setup = SmallServer(64, 30);
  Scheduler scheduler(setup);
  const auto request = std::make_shared<const Request>(Bounded(RequestOf(61, 1), policy));
  scheduler.Add(1, request, At(0));
  RoutedDevice device(64, 1);
  std::vector<int32_t> rows;
  while (!scheduler.empty()) {
    const StepPlan& plan = scheduler.Plan();
    rows.push_back(plan.num_rows());
    device.Run(plan);
    scheduler.Commit(device.outcome());
  }
  EXPECT_EQ(rows, (std::vector<int32_t>{24, 24, 13}));
}

TEST(RowRoutingTest, TheFirstPromptGetsAWholeQuantumWhateverTheBudget) {
  const auto policy = PolicyOf(TokenMode::kShared);
  SchedulerSetup setup = SmallServer(256, 512);
  setup.options.max_step_ms = 1;
  Scheduler scheduler(setup);
  const auto add = [&](SequenceId id) {
    scheduler.Add(id, std::make_shared<const Request>(Bounded(RequestOf(200, 1, int(id)), policy)),
                  At(0));
  };
  add(1);
  add(2);
  RoutedDevice device(256, 1);
  const auto step = [&] {
    const StepPlan& plan = scheduler.Plan();
    std::vector<std::pair<SequenceId, int32_t>> spans;
    for (size_t i = 0; i < plan.spans.size(); ++i) {
      spans.emplace_back(plan.span_sequences[i], plan.spans[i].num_rows);
    }
    device.Run(plan);
    scheduler.Commit(device.outcome());
    return spans;
  };
  using Spans = std::vector<std::pair<SequenceId, int32_t>>;
  EXPECT_EQ(step(), (Spans{{1, 128}}));           // the budget is 64 at first; the second sits out
  EXPECT_EQ(step(), (Spans{{1, 72}, {2, 200}}));  // steps turned out to cost nothing
}

TEST(RowRoutingTest, KeysComeOfTheClientsIdOrThePromptAndThePosition) {
  const auto policy = PolicyOf(TokenMode::kShared);
  const auto token_of = [&](const char* id, bool has_client_id, int seed, SequenceId ticket,
                            int32_t position, HashKey secret) {
    Request request = Bounded(RequestOf(9, 1, seed), policy);
    request.id = id;
    request.has_client_id = has_client_id;
    Sequence sequence;
    sequence.id = ticket;
    sequence.request = std::make_shared<const Request>(request);
    sequence.num_prompt_tokens = 9;
    SetRouting({.block_tokens = 4, .max_chunk_tokens = 64, .secret = secret}, sequence);
    return TokenOf(sequence, position, {}, secret);
  };
  const RoutedToken token = token_of("a", true, 1, 1, 3, {5, 6});
  EXPECT_EQ(token_of("a", true, 2, 77, 3, {5, 6}).tie_key, token.tie_key);
  EXPECT_EQ(token_of("a", true, 2, 77, 3, {5, 6}).home_device, token.home_device);
  EXPECT_NE(token_of("a", true, 1, 1, 4, {5, 6}).tie_key, token.tie_key);
  EXPECT_NE(token_of("b", true, 1, 1, 3, {5, 6}).tie_key, token.tie_key);
  EXPECT_NE(token_of("a", true, 1, 1, 3, {5, 7}).tie_key, token.tie_key);
  // The server's ids count others' requests.
  const uint64_t of_prompt = token_of("8f-1", false, 1, 1, 3, {5, 6}).tie_key;
  EXPECT_EQ(token_of("8f-2", false, 1, 2, 3, {5, 6}).tie_key, of_prompt);
  EXPECT_NE(token_of("8f-1", false, 2, 1, 3, {5, 6}).tie_key, of_prompt);
  std::set<int32_t> devices;
  for (int i = 0; i < 64; ++i) {
    devices.insert(token_of("8f-1", false, i, 1, 3, {5, 6}).home_device);
  }
  EXPECT_EQ(devices, (std::set<int32_t>{0, 1, 2, 3}));
}

TEST(RowRoutingTest, IsolatedPromptsAreSharedWithinTheirVersionOnly) {
  RoutedRun run(SmallServer(256, 128), 1);
  const Request prompt = RequestOf(40, 1);
  const auto cached = [&](const Request& request) {
    const int64_t before = run.num_cached();
    run.Add(request);
    run.RunToTheEnd();
    return run.num_cached() - before;
  };
  EXPECT_EQ(cached(Bounded(prompt, PolicyOf(TokenMode::kThreshold, 1))), 0);
  EXPECT_EQ(cached(prompt), 0) << "isolated keys are not exact ones";
  EXPECT_EQ(cached(Bounded(prompt, PolicyOf(TokenMode::kThreshold, 2))), 0);
  EXPECT_EQ(cached(Bounded(prompt, PolicyOf(TokenMode::kThreshold, 1))), 36);
  EXPECT_EQ(cached(prompt), 36);
}

// 23 of 24 prompt tokens may come from the cache: two whole blocks of 8, not five of 4.
TEST(RowRoutingTest, BlockModeTakesWholeBlocksFromTheCache) {
  RoutedRun run(SmallServer(256, 128), 1);
  const auto policy = PolicyOf(TokenMode::kBlock);
  run.Add(Bounded(RequestOf(24, 1), policy));
  run.RunToTheEnd();
  run.Add(Bounded(RequestOf(24, 1), policy));
  run.RunToTheEnd();
  EXPECT_EQ(run.num_cached(), 16);
}

// A conversation goes on: the second prompt holds what the first one generated, exactly.
TEST(RowRoutingTest, WhatWasGeneratedIsNoPromptOfAnother) {
  RoutedRun run(SmallServer(256, 128), 1);
  const auto policy = PolicyOf(TokenMode::kThreshold);
  const Request first = Bounded(RequestOf(10, 20), policy);
  const SequenceId id = run.Add(first);
  run.RunToTheEnd();
  Request second = first;
  second.prompt_ids.insert(second.prompt_ids.end(), run.of(id).begin(), run.of(id).end());
  const SequenceId next = run.Add(second);
  run.RunToTheEnd();
  EXPECT_EQ(run.num_cached(), 8);
  EXPECT_EQ(run.of(next), ExpectedAlone(second));
}

// 20,000 requests in all: exact and isolated ones yield what they would alone, whatever shares the
// steps, however they are cut, preempted and cached; the checks of RoutedRun hold in every step.
TEST(RowRoutingTest, ExactAndIsolatedRequestsDependOnNothingBeside) {
  const std::vector<std::shared_ptr<const PinnedPolicy>> policies = {
      nullptr,
      PolicyOf(TokenMode::kThreshold, 1),
      PolicyOf(TokenMode::kThreshold, 2, /*bound_decode=*/true),
      PolicyOf(TokenMode::kBlock, 3),
      PolicyOf(TokenMode::kShared, 4),
      PolicyOf(TokenMode::kShared, 5, /*bound_decode=*/true)};
  std::mt19937 random(20261123);
  const auto upto = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  int32_t num_preemptions = 0;
  int64_t num_cached = 0;
  for (int round = 0; round < 1000; ++round) {
    const SchedulerSetup setup = SmallServer(16 + upto(30), 24 + upto(60), 2 + upto(6));
    RoutedRun run(setup, random());
    std::map<SequenceId, Request> requests;
    for (int i = 0; i < 20; ++i) {
      // Few beginnings, so that the cache has something to say.
      Request request = RequestOf(1 + upto(40), 1 + upto(12), 1 + upto(3));
      if (const auto& policy = policies[upto(6)]) request = Bounded(std::move(request), policy);
      request = Of(upto(2) == 0 ? "a" : "b", std::move(request));
      requests[run.Add(request)] = request;
      while (upto(3) != 0 && run.Step()) {
      }
    }
    run.RunToTheEnd();
    num_preemptions += run.num_preemptions();
    num_cached += run.num_cached();
    for (const auto& [id, request] : requests) {
      const std::vector<int32_t>& generated = run.of(id);
      if (request.mode == RoutingMode::kShared) {
        EXPECT_EQ(static_cast<int32_t>(generated.size()), request.stop.max_new_tokens);
      } else {
        ASSERT_EQ(generated, ExpectedAlone(request)) << "round " << round << ", request " << id;
      }
    }
  }
  EXPECT_GT(num_preemptions, 100);
  EXPECT_GT(num_cached, 10000);
}

}  // namespace
}  // namespace gatehouse
