#include "kernels/reference/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {
namespace {

void Renormalise(std::vector<Candidate>& candidates) {
  double total = 0;
  for (const Candidate& c : candidates) total += c.probability;
  for (Candidate& c : candidates) c.probability /= total;
}

// Keeps the shortest head whose mass reaches `mass`, at least one.
void KeepMass(std::vector<Candidate>& candidates, double mass) {
  double before = 0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || before < mass)) {
    before += candidates[kept++].probability;
  }
  candidates.resize(kept);
  Renormalise(candidates);
}

void KeepTypical(std::vector<Candidate>& candidates, double mass) {
  std::erase_if(candidates, [](const Candidate& c) { return c.probability == 0; });
  double entropy = 0;
  for (const Candidate& c : candidates) entropy -= c.probability * std::log(c.probability);
  const auto surprise = [&](const Candidate& c) {
    return std::abs(-std::log(c.probability) - entropy);
  };
  const std::vector<Candidate> by_probability = candidates;
  std::stable_sort(
      candidates.begin(), candidates.end(),
      [&](const Candidate& a, const Candidate& b) { return surprise(a) < surprise(b); });
  KeepMass(candidates, mass);
  std::vector<Candidate> in_order;
  for (const Candidate& c : by_probability) {
    if (std::any_of(candidates.begin(), candidates.end(),
                    [&](const Candidate& kept) { return kept.id == c.id; })) {
      in_order.push_back(c);
    }
  }
  candidates = in_order;
  Renormalise(candidates);
}

std::vector<int32_t> RankedIds(std::span<const float> logits) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  return ids;
}

int32_t Draw(const std::vector<Candidate>& candidates, double uniform) {
  double sum = 0;
  for (const Candidate& c : candidates) {
    sum += c.probability;
    if (uniform < sum) return c.id;
  }
  return candidates.back().id;
}

void ReportLogprobs(std::span<const float> logits, const RowSampling& row, RowSample& sample) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float z : logits) total += std::exp(z - largest);
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(logits[id] - largest - std::log(total));
  };
  for (const int32_t id : row.wanted_ids) sample.wanted.push_back(logprob(id));
  if (row.num_top_logprobs < 0) return;
  sample.logprob = logprob(sample.token_id);
  const std::vector<int32_t> ranked = RankedIds(logits);
  for (int i = 0; i < std::min<int>(row.num_top_logprobs, static_cast<int>(ranked.size())); ++i) {
    sample.top.push_back({.id = ranked[i], .logprob = logprob(ranked[i])});
  }
}

RowSample SampleRow(std::span<const float> logits, const RowSampling& row) {
  RowSample sample;
  if (!std::all_of(logits.begin(), logits.end(), [](float z) { return std::isfinite(z); })) {
    sample.failure = SampleFailure::kNotFinite;
    return sample;
  }
  if (row.forced_id >= 0) {
    sample.token_id = row.forced_id;
  } else if (row.temperature == 0) {
    const std::vector<float> adjusted = AdjustedLogits(logits, row);
    const auto best = std::max_element(adjusted.begin(), adjusted.end());
    if (std::isinf(*best)) sample.failure = SampleFailure::kAllForbidden;
    sample.token_id = static_cast<int32_t>(best - adjusted.begin());
  } else {
    const std::vector<Candidate> candidates = SamplingDistribution(logits, row);
    if (candidates.empty()) {
      sample.failure = SampleFailure::kAllForbidden;
    } else {
      sample.token_id = Draw(candidates, row.uniform);
    }
  }
  if (sample.failure == SampleFailure::kNone) ReportLogprobs(logits, row, sample);
  return sample;
}

}  // namespace

std::vector<float> AdjustedLogits(std::span<const float> logits, const RowSampling& row) {
  constexpr float kForbidden = -std::numeric_limits<float>::infinity();
  constexpr float kLargest = std::numeric_limits<float>::max();
  std::vector<float> adjusted(logits.begin(), logits.end());
  for (const int32_t id : row.repeated_ids) {
    float& z = adjusted[id];
    z = std::min(z > 0 ? z / row.repetition_penalty : z * row.repetition_penalty, kLargest);
  }
  for (const auto& [id, bias] : row.bias) adjusted[id] = std::min(adjusted[id] + bias, kLargest);
  if (!row.allowed_ids.empty()) {
    std::vector<bool> allowed(logits.size());
    for (const int32_t id : row.allowed_ids) allowed[id] = true;
    for (size_t i = 0; i < adjusted.size(); ++i) {
      if (!allowed[i]) adjusted[i] = kForbidden;
    }
  }
  return adjusted;
}

std::vector<Candidate> SamplingDistribution(std::span<const float> logits, const RowSampling& row) {
  const std::vector<float> adjusted = AdjustedLogits(logits, row);
  std::vector<Candidate> candidates;
  const double largest = *std::max_element(adjusted.begin(), adjusted.end());
  for (const int32_t id : RankedIds(adjusted)) {
    if (std::isinf(adjusted[id])) break;
    candidates.push_back(
        {.id = id, .probability = std::exp((adjusted[id] - largest) / row.temperature)});
  }
  if (candidates.empty()) return candidates;
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < candidates.size()) {
    candidates.resize(row.top_k);
  }
  Renormalise(candidates);
  if (row.top_p < 1) KeepMass(candidates, row.top_p);
  const double smallest = row.min_p * candidates[0].probability;
  std::erase_if(candidates, [&](const Candidate& c) { return c.probability < smallest; });
  Renormalise(candidates);
  if (row.typical_p < 1) KeepTypical(candidates, row.typical_p);
  return candidates;
}

void ReferenceBackend::Sample(const SampleArgs& args) {
  CheckArgs(args);
  for (int64_t r = 0; r < args.logits.num_rows; ++r) {
    args.samples[r] =
        SampleRow({args.logits.row(r), static_cast<size_t>(args.logits.num_cols)}, args.rows[r]);
  }
}

}  // namespace gatehouse
