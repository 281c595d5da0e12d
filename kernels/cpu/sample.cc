// The choice of the next token. A unit is a row. What the filters mean, and their order, is written
// in kernels/reference/sample.h; here each of them is a head of the ranking, found without sorting
// the vocabulary, but for typical_p, which sorts what the others left.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/token_ranking.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

// What one thread works in; sized for the largest row, so that no unit allocates.
struct Scratch {
  std::unique_ptr<float[]> logits;        // [vocab], adjusted
  std::unique_ptr<RankedToken[]> ranked;  // [vocab]
  std::unique_ptr<int32_t[]> top_ids;     // [vocab]
};

// The logits that take part: all of a row's, or those of some ids.
struct Choice {
  std::span<const float> logits;
  const int32_t* ids = nullptr;  // null: logits[i] is token i's

  int32_t id(int64_t idx) const { return ids == nullptr ? static_cast<int32_t>(idx) : ids[idx]; }
};

Choice AdjustLogits(std::span<const float> logits, const RowSampling& row, Scratch& scratch) {
  if (row.repeated_ids.empty() && row.bias.empty() && row.allowed_ids.empty()) return {logits};
  constexpr float kLargest = std::numeric_limits<float>::max();  // nothing wins by overflow
  float* adjusted = scratch.logits.get();
  std::copy(logits.begin(), logits.end(), adjusted);
  for (const int32_t id : row.repeated_ids) {
    float& z = adjusted[id];
    z = std::min(z > 0 ? z / row.repetition_penalty : z * row.repetition_penalty, kLargest);
  }
  for (const auto& [id, bias] : row.bias) adjusted[id] = std::min(adjusted[id] + bias, kLargest);
  if (row.allowed_ids.empty()) return {{adjusted, logits.size()}};

  const int32_t* ids = row.allowed_ids.data();
  const size_t num_ids = row.allowed_ids.size();
  // In place: ids ascend, so ids[i] >= i.
  for (size_t i = 0; i < num_ids; ++i) adjusted[i] = adjusted[ids[i]];
  return {{adjusted, num_ids}, ids};
}

// The mass that `share` of a head amounts to: at least one unit, at most all.
uint64_t MassOf(double share, uint64_t mass) {
  const double wanted = std::ceil(share * static_cast<double>(mass));
  return wanted >= static_cast<double>(mass) ? mass
                                             : std::max<uint64_t>(1, static_cast<uint64_t>(wanted));
}

// The unit of mass that the draw falls on, from the top.
uint64_t DrawnMass(double uniform, uint64_t mass) {
  return std::min(mass, static_cast<uint64_t>(uniform * static_cast<double>(mass)) + 1);
}

// Locally typical tokens: surprise is log(total) + s, so its distance from the entropy, the mean
// surprise, is that of s from the mean of s.
int32_t DrawTypical(std::span<RankedToken> tokens, const RowSampling& row) {
  uint64_t mass = 0;
  double weighted = 0;
  for (const RankedToken& token : tokens) {
    mass += token.mass;
    weighted += static_cast<double>(token.mass) * token.distance;
  }
  const double mean = weighted / static_cast<double>(mass);
  std::sort(tokens.begin(), tokens.end(), [&](const RankedToken& a, const RankedToken& b) {
    const double x = std::abs(a.distance - mean), y = std::abs(b.distance - mean);
    if (x != y) return x < y;
    return a.logit != b.logit ? a.logit > b.logit : a.idx < b.idx;
  });
  uint64_t kept_mass = 0;
  size_t num_kept = 0;
  const uint64_t wanted = MassOf(row.typical_p, mass);
  while (num_kept < tokens.size() && kept_mass < wanted) kept_mass += tokens[num_kept++].mass;
  const std::span<RankedToken> kept = tokens.first(num_kept);
  std::sort(kept.begin(), kept.end(), [](const RankedToken& a, const RankedToken& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.idx < b.idx;
  });
  uint64_t left = DrawnMass(row.uniform, kept_mass);
  size_t i = 0;
  while (kept[i].mass < left) left -= kept[i++].mass;
  return kept[i].idx;
}

// An index into the choice's logits, of which the largest is finite.
int32_t Draw(const SampleKernels& kernels, const Choice& choice, const RowSampling& row,
             RankedToken* scratch) {
  TokenRanking ranking(kernels, choice.logits, row.temperature, scratch);
  TokenRanking::Head head = row.top_k > 0 ? ranking.FirstTokens(row.top_k) : ranking.All();
  if (row.top_p < 1) head = ranking.FirstMass(MassOf(row.top_p, head.mass));
  if (row.min_p > 0) {
    const TokenRanking::Head near = ranking.Within(-std::log(row.min_p));
    if (near.count < head.count) head = near;
  }
  if (row.typical_p < 1) return DrawTypical(ranking.Tokens(head), row);
  return ranking.FirstMass(DrawnMass(row.uniform, head.mass)).last_idx;
}

// False if every token is forbidden.
bool ChooseToken(const SampleKernels& kernels, std::span<const float> logits,
                 const RowSampling& row, Scratch& scratch, int32_t& token_id) {
  const Choice choice = AdjustLogits(logits, row, scratch);
  int32_t best = 0;
  const int64_t count = static_cast<int64_t>(choice.logits.size());
  if (kernels.top(choice.logits.data(), count, 1, &best) == 0) return false;
  token_id =
      choice.id(row.temperature == 0 ? best : Draw(kernels, choice, row, scratch.ranked.get()));
  return true;
}

// Log softmax of the logits as they came. `sample` has the room.
void ReportLogprobs(const SampleKernels& kernels, std::span<const float> logits, float largest,
                    int32_t* top_ids, const RowSampling& row, RowSample& sample) {
  const int64_t vocab = static_cast<int64_t>(logits.size());
  const double log_sum = std::log(kernels.exp_sum(logits.data(), vocab, largest));
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(double{logits[id]} - largest - log_sum);
  };
  for (size_t i = 0; i < row.wanted_ids.size(); ++i) sample.wanted[i] = logprob(row.wanted_ids[i]);
  if (row.num_top_logprobs < 0) return;
  sample.logprob = logprob(sample.token_id);
  const int count = static_cast<int>(std::min<int64_t>(row.num_top_logprobs, vocab));
  const int num_found = kernels.top(logits.data(), vocab, count, top_ids);
  for (int i = 0; i < num_found; ++i) {
    sample.top.push_back({.id = top_ids[i], .logprob = logprob(top_ids[i])});
  }
}

void SampleRow(const SampleKernels& kernels, std::span<const float> logits, const RowSampling& row,
               Scratch& scratch, RowSample& sample) {
  const LogitRange range = kernels.range(logits.data(), static_cast<int64_t>(logits.size()));
  if (!range.finite) {
    sample.failure = SampleFailure::kNotFinite;
    return;
  }
  if (row.forced_id >= 0) {
    sample.token_id = row.forced_id;
  } else if (!ChooseToken(kernels, logits, row, scratch, sample.token_id)) {
    sample.failure = SampleFailure::kAllForbidden;
    return;
  }
  if (row.num_top_logprobs >= 0 || !row.wanted_ids.empty()) {
    ReportLogprobs(kernels, logits, range.largest, scratch.top_ids.get(), row, sample);
  }
}

std::vector<Scratch> MakeScratch(int num_threads, const SampleArgs& args) {
  const int64_t vocab = args.logits.num_cols;
  std::vector<Scratch> scratch(num_threads);
  for (Scratch& s : scratch) {
    s.logits = std::make_unique_for_overwrite<float[]>(vocab);
    s.ranked = std::make_unique_for_overwrite<RankedToken[]>(vocab);
    s.top_ids = std::make_unique_for_overwrite<int32_t[]>(vocab);
  }
  return scratch;
}

}  // namespace

void Sample(Machine machine, const SampleArgs& args) {
  CheckArgs(args);
  const int64_t vocab = args.logits.num_cols;
  std::vector<Scratch> scratch = MakeScratch(machine.pool.num_threads(), args);
  for (size_t r = 0; r < args.rows.size(); ++r) {
    args.samples[r] = RowSample{};
    const int64_t num_top = std::max(args.rows[r].num_top_logprobs, 0);
    args.samples[r].top.reserve(std::min(num_top, vocab));
    args.samples[r].wanted.resize(args.rows[r].wanted_ids.size());
  }
  machine.pool.Run(static_cast<int>(args.rows.size()), [&](int thread, int r) {
    SampleRow(machine.isa.sample, {args.logits.row(r), static_cast<size_t>(vocab)}, args.rows[r],
              scratch[thread], args.samples[r]);
  });
}

}  // namespace gatehouse::cpu
