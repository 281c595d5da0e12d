#include "engine/lab/eval_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// log of the sum of e^z, in double: a mean of thousands must show differences of 1e-5.
double LogSumExp(std::span<const float> z) {
  const float largest = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (const float value : z) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

// Exact routing's log-probabilities of some rows of a batch, evenly spread.
class ExactRows {
 public:
  ExactRows(int64_t num_rows, int64_t vocab, int64_t max_bytes) : vocab_(vocab) {
    const int64_t most = std::max<int64_t>(1, max_bytes / (vocab * int64_t{sizeof(float)}));
    step_ = (num_rows + most - 1) / most;
  }

  bool Holds(int64_t row) const { return row % step_ == 0; }
  void Add(std::span<const float> logits, double log_sum) {
    for (const float z : logits) values_.push_back(static_cast<float>(z - log_sum));
  }
  double KlOf(int64_t row, std::span<const float> logits, double log_sum) const {
    const float* exact = values_.data() + row / step_ * vocab_;
    double kl = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      kl += double{std::exp(exact[i])} * (exact[i] - (logits[i] - log_sum));
    }
    return kl;
  }

 private:
  int64_t vocab_;
  int64_t step_ = 1;
  std::vector<float> values_;  // [rows held, vocab]
};

struct Sums {
  std::vector<double> batch_losses;  // means
  double loss = 0;
  double kl = 0;
  int64_t num_tokens = 0;
  int64_t num_kl_rows = 0;
  RouteTotals totals;
  double seconds = 0;
};

using Clock = std::chrono::steady_clock;

class EvalRun {
 public:
  EvalRun(Evaluator& evaluator, const EvalTokens& tokens, const EvalRunOptions& options)
      : evaluator_(evaluator), tokens_(tokens), options_(options) {}

  absl::Status Batch(int64_t first, int64_t count, const std::vector<EvalCase>& cases,
                     std::vector<Sums>& sums) {
    windows_.clear();
    targets_.clear();
    for (int64_t w = first; w < first + count; ++w) {
      windows_.push_back(tokens_.inputs(w));
      targets_.insert(targets_.end(), tokens_.targets(w).begin(), tokens_.targets(w).end());
    }
    const int64_t vocab = evaluator_.parts().model.vocab_size;
    ExactRows exact(static_cast<int64_t>(targets_.size()), vocab, options_.kl_bytes);
    GATEHOUSE_RETURN_IF_ERROR(Pass({.exact = true}, exact, sums[0]));
    for (size_t i = 0; i < cases.size(); ++i) {
      if (cases[i].exact) continue;
      GATEHOUSE_RETURN_IF_ERROR(Pass(cases[i], exact, sums[i + 1]));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Pass(const EvalCase& eval_case, ExactRows& exact, Sums& sums) {
    const bool has_policy = !eval_case.exact && eval_case.narrow == nullptr;
    Evaluator& evaluator = eval_case.narrow != nullptr ? *eval_case.narrow : evaluator_;
    const Clock::time_point start = Clock::now();
    RouteMeter meter(
        {has_policy ? &eval_case.policy.placement : &options_.exact_placement, size_t{1}});
    GATEHOUSE_RETURN_IF_ERROR(
        evaluator.Forward(windows_, has_policy ? &eval_case.policy : nullptr, &meter, 0));
    sums.seconds += std::chrono::duration<double>(Clock::now() - start).count();
    double loss = 0;
    evaluator.ForEachRow([&](int32_t row, std::span<const float> logits) {
      const double log_sum = LogSumExp(logits);
      loss += log_sum - logits[targets_[row]];
      if (!exact.Holds(row)) return;
      ++sums.num_kl_rows;
      if (eval_case.exact) {
        exact.Add(logits, log_sum);
      } else {
        sums.kl += exact.KlOf(row, logits, log_sum);
      }
    });
    sums.loss += loss;
    sums.num_tokens += static_cast<int64_t>(targets_.size());
    sums.batch_losses.push_back(loss / static_cast<double>(targets_.size()));
    sums.totals.Add(meter.totals());
    return absl::OkStatus();
  }

  Evaluator& evaluator_;
  const EvalTokens& tokens_;
  const EvalRunOptions& options_;
  std::vector<std::span<const int32_t>> windows_;
  std::vector<int32_t> targets_;  // [rows of the batch]
};

double StandardError(const Sums& sums, const Sums& exact) {
  const auto n = static_cast<double>(sums.batch_losses.size());
  if (n < 2) return 0;
  double mean = 0, squares = 0;
  for (size_t b = 0; b < sums.batch_losses.size(); ++b) {
    mean += (sums.batch_losses[b] - exact.batch_losses[b]) / n;
  }
  for (size_t b = 0; b < sums.batch_losses.size(); ++b) {
    squares += std::pow(sums.batch_losses[b] - exact.batch_losses[b] - mean, 2);
  }
  return std::sqrt(squares / (n - 1) / n);
}

EvalResult ResultOf(const std::string& name, double factor, const Sums& sums, const Sums& exact) {
  const auto num_tokens = static_cast<double>(sums.num_tokens);
  return {.name = name,
          .factor = factor,
          .num_tokens = sums.num_tokens,
          .loss = sums.loss / num_tokens,
          .loss_difference = (sums.loss - exact.loss) / num_tokens,
          .loss_difference_se = StandardError(sums, exact),
          .kl = sums.kl / static_cast<double>(std::max<int64_t>(sums.num_kl_rows, 1)),
          .num_kl_rows = sums.num_kl_rows,
          .totals = sums.totals,
          .seconds = sums.seconds};
}

}  // namespace

absl::StatusOr<std::vector<EvalResult>> RunEval(Evaluator& evaluator, const EvalTokens& tokens,
                                                const std::vector<EvalCase>& cases,
                                                const EvalRunOptions& options,
                                                const std::function<void(int64_t)>& progress) {
  int64_t num_windows = tokens.num_windows();
  if (options.max_windows > 0) num_windows = std::min(num_windows, options.max_windows);
  if (num_windows == 0) return absl::InvalidArgumentError("expected one window of tokens or more");
  EvalRun run(evaluator, tokens, options);
  std::vector<Sums> sums(cases.size() + 1);
  const int64_t batch = evaluator.options().batch_windows;
  for (int64_t first = 0; first < num_windows; first += batch) {
    const int64_t count = std::min(batch, num_windows - first);
    GATEHOUSE_RETURN_IF_ERROR(run.Batch(first, count, cases, sums));
    progress(first + count);
  }
  std::vector<EvalResult> results = {ResultOf("exact", INFINITY, sums[0], sums[0])};
  for (size_t i = 0; i < cases.size(); ++i) {
    const Sums& own = cases[i].exact ? sums[0] : sums[i + 1];
    results.push_back(ResultOf(cases[i].name, cases[i].factor, own, sums[0]));
  }
  return results;
}

double BytesPerToken(const EvalTokens& tokens, int64_t num_windows, const Tokenizer& tokenizer) {
  int64_t num_bytes = 0, num_tokens = 0;
  for (int64_t w = 0; w < num_windows; ++w) {
    for (const int32_t id : tokens.targets(w)) {
      num_bytes += static_cast<int64_t>(tokenizer.TokenBytes(id).size());
      ++num_tokens;
    }
  }
  return static_cast<double>(num_bytes) / static_cast<double>(std::max<int64_t>(num_tokens, 1));
}

}  // namespace gatehouse
