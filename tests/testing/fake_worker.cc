#include "tests/testing/fake_worker.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr uint64_t kEmptyHash = 0x9e3779b97f4a7c15u;

// SplitMix64's finaliser over the sum.
uint64_t Extend(uint64_t hash, uint64_t value) {
  uint64_t z = hash + 0x9e3779b97f4a7c15u * (value + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t HashOf(std::span<const int32_t> tokens) {
  uint64_t hash = kEmptyHash;
  for (const int32_t token : tokens) hash = Extend(hash, static_cast<uint64_t>(token));
  return hash;
}

RowSample ChooseByHash(uint64_t hash, int32_t vocab_size, const RowSampling& sampling) {
  if (sampling.temperature > 0) hash = Extend(hash, std::bit_cast<uint64_t>(sampling.uniform));
  RowSample sample;
  std::set<int32_t> banned;
  for (const auto& [id, bias] : sampling.bias) {
    if (std::isinf(bias)) banned.insert(id);
  }
  const bool all_banned = banned.size() >= static_cast<size_t>(vocab_size);
  if (all_banned) sample.failure = SampleFailure::kAllForbidden;
  sample.token_id = static_cast<int32_t>(hash % static_cast<uint64_t>(vocab_size));
  while (!all_banned && banned.count(sample.token_id) > 0) {
    sample.token_id = (sample.token_id + 1) % vocab_size;
  }
  if (sampling.forced_id >= 0) sample.token_id = sampling.forced_id;
  const auto logprob_of = [&](int32_t id) {
    const auto vocab = static_cast<uint64_t>(vocab_size);
    const uint64_t rank = (static_cast<uint64_t>(id) + vocab - hash % vocab) % vocab;
    return -static_cast<float>(std::log(2.0) * static_cast<double>(rank + 1));
  };
  for (const int32_t id : sampling.wanted_ids) sample.wanted.push_back(logprob_of(id));
  if (sampling.num_top_logprobs < 0) return sample;
  sample.logprob = -static_cast<float>((hash ^ static_cast<uint64_t>(sample.token_id)) % 1000) / 64;
  for (int i = 0; i < sampling.num_top_logprobs; ++i) {
    const auto id = static_cast<int32_t>((hash + i) % vocab_size);
    sample.top.push_back({id, logprob_of(id)});
  }
  return sample;
}

}  // namespace

FakeWorker::FakeWorker(FakeWorkerOptions options)
    : options_(std::move(options)),
      cache_(static_cast<size_t>(options_.num_ranks) * options_.num_blocks * options_.block_tokens),
      placements_(options_.num_moe_layers,
                  LinearPlacement(options_.num_experts, options_.num_ranks)),
      membership_(AllRanks(options_.num_ranks)),
      up_(membership_.members) {}

absl::StatusOr<Regrouped> FakeWorker::Regroup() {
  const Membership before = std::exchange(
      membership_,
      {.epoch = membership_.epoch + 1, .num_ranks = options_.num_ranks, .members = up_});
  const auto num_slots = static_cast<int64_t>(options_.num_blocks) * options_.block_tokens;
  Regrouped regrouped{.membership = membership_};
  for (int r = 0; r < options_.num_ranks; ++r) {
    if (before.has(r) == membership_.has(r)) continue;
    regrouped.emptied.push_back(r);
    std::fill_n(cache_.begin() + r * num_slots, num_slots, Slot{});
  }
  return regrouped;
}

absl::StatusOr<StepResult> FakeWorker::Run(const StepPlan& plan,
                                           std::span<const RowSampling> sampling) {
  GATEHOUSE_CHECK(sampling.size() == plan.logit_rows.size());
  const int64_t step = num_steps_++;
  if (options_.ranks_up) up_ = options_.ranks_up(step);
  for (const int r : membership_.members) {
    if (std::find(up_.begin(), up_.end(), r) == up_.end()) {
      return absl::UnavailableError(
          absl::StrFormat("rank %d lost in epoch %d", r, membership_.epoch));
    }
  }
  for (const int32_t r : plan.span_ranks) GATEHOUSE_CHECK(membership_.has(r)) << "rank " << r;
  if (options_.before_step) GATEHOUSE_RETURN_IF_ERROR(options_.before_step(step, plan));
  if (options_.step_duration > Duration::zero()) {
    std::this_thread::sleep_for(options_.step_duration);
  }
  StepResult result;
  std::vector<uint64_t> row_hashes;
  GATEHOUSE_CHECK(plan.span_ranks.size() == plan.spans.size());
  for (size_t s = 0; s < plan.spans.size(); ++s) {
    const SequenceSpan& span = plan.spans[s];
    const int32_t rank = plan.span_ranks[s];
    for (int32_t i = 0; i < span.num_rows; ++i) {
      const int32_t position = span.first_position + i;
      const int32_t token_id = plan.token_ids[span.first_row + i];
      GATEHOUSE_CHECK(plan.positions[span.first_row + i] == position);
      uint64_t before = kEmptyHash;
      if (position > 0) {
        const Slot& previous = SlotOf(span, rank, position - 1);
        GATEHOUSE_CHECK(previous.position == position - 1)
            << "the cache holds position " << previous.position << " for " << position - 1;
        before = previous.hash;
      }
      SlotOf(span, rank, position) = {Extend(before, static_cast<uint64_t>(token_id)), position};
      row_hashes.push_back(SlotOf(span, rank, position).hash);
      result.row_failed.push_back(options_.row_fails && options_.row_fails(token_id, position));
    }
  }
  for (size_t i = 0; i < sampling.size(); ++i) {
    const int32_t row = plan.logit_rows[i].row;
    const bool is_bounded =
        !plan.routed_tokens.empty() && plan.routed_tokens[row].mode != TokenMode::kExact;
    result.samples.push_back(
        ChooseByHash(row_hashes[row] + (is_bounded ? options_.bounded_shift : 0),
                     options_.vocab_size, sampling[i]));
  }
  AddRoutes(row_hashes, result);
  return result;
}

RowSample FakeWorker::Choose(std::span<const int32_t> tokens, int32_t vocab_size,
                             const RowSampling& sampling) {
  return ChooseByHash(HashOf(tokens), vocab_size, sampling);
}

int32_t FakeWorker::FirstExpert(std::span<const int32_t> tokens, int num_experts) {
  return static_cast<int32_t>(HashOf(tokens) % static_cast<uint64_t>(num_experts));
}

FakeWorker::Slot& FakeWorker::SlotOf(const SequenceSpan& span, int32_t rank, int32_t position) {
  const auto block_idx = static_cast<size_t>(position / options_.block_tokens);
  GATEHOUSE_CHECK(block_idx < span.block_ids.size()) << "no block for position " << position;
  const int32_t block_id = span.block_ids[block_idx];
  GATEHOUSE_CHECK(block_id >= 0 && block_id < options_.num_blocks) << "block " << block_id;
  GATEHOUSE_CHECK(rank >= 0 && rank < options_.num_ranks) << "rank " << rank;
  const size_t block = static_cast<size_t>(rank) * options_.num_blocks + block_id;
  return cache_[block * options_.block_tokens + position % options_.block_tokens];
}

void FakeWorker::AddRoutes(std::span<const uint64_t> row_hashes, StepResult& result) const {
  for (int layer = 0; layer < options_.num_moe_layers; ++layer) {
    RoutePlan route;
    route.num_rows = static_cast<int>(row_hashes.size());
    route.num_experts = options_.num_experts;
    route.top_k = options_.top_k;
    std::vector<std::vector<int32_t>> rows_of_expert(options_.num_experts);
    route.token_begin.push_back(0);
    for (int row = 0; row < route.num_rows; ++row) {
      const auto first = static_cast<int>(row_hashes[row] % options_.num_experts);
      for (int slot = 0; slot < options_.top_k; ++slot) {
        const int expert = (first + layer + slot) % options_.num_experts;
        route.slot_experts.push_back(expert);
        route.slot_weights.push_back(1.0f / static_cast<float>(options_.top_k));
        rows_of_expert[expert].push_back(row);
      }
      route.token_begin.push_back((row + 1) * options_.top_k);
      route.row_mass.push_back(1);
    }
    route.expert_begin.push_back(0);
    for (const std::vector<int32_t>& rows : rows_of_expert) {
      route.row_ids.insert(route.row_ids.end(), rows.begin(), rows.end());
      route.expert_begin.push_back(static_cast<int32_t>(route.row_ids.size()));
    }
    result.routes.push_back(std::move(route));
  }
}

}  // namespace gatehouse
