#include "engine/lab/evaluator.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// Stands for the keyed hash of a deployment: any fixed function that scatters.
uint64_t TieKey(int64_t window, int64_t position) {
  uint64_t key = (static_cast<uint64_t>(window) << 32 | static_cast<uint64_t>(position)) +
                 0x9e3779b97f4a7c15ULL;
  key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9ULL;
  key = (key ^ (key >> 27)) * 0x94d049bb133111ebULL;
  return key ^ (key >> 31);
}

std::vector<RoutedToken> TokensOf(const std::vector<std::span<const int32_t>>& windows,
                                  const PinnedPolicy& policy) {
  std::vector<RoutedToken> tokens;
  for (size_t w = 0; w < windows.size(); ++w) {
    const auto window = static_cast<int64_t>(w);
    for (size_t p = 0; p < windows[w].size(); ++p) {
      const auto position = static_cast<int64_t>(p);
      tokens.push_back({.mode = policy.mode,
                        .policy_idx = 0,
                        .request = window,
                        .position = position,
                        .home_device = static_cast<int32_t>(window % policy.placement.num_devices),
                        .tie_key = TieKey(window, position)});
    }
  }
  return tokens;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Evaluator>> Evaluator::Create(const EvaluatorOptions& options) {
  GATEHOUSE_ASSIGN_OR_RETURN(Backends backends,
                             MakeBackends("cpu", {.num_threads = options.num_threads}, 1));
  EngineConfig config;
  config.model.model_dir = options.model_dir;
  config.model.expert_weights = config.model.dense_weights = options.weights;
  config.scheduler.max_sequences = options.batch_windows;
  config.scheduler.max_step_tokens = options.window * options.batch_windows;
  config.scheduler.max_context = options.window;
  GATEHOUSE_ASSIGN_OR_RETURN(LoadedParts parts, LoadParts(config, std::move(backends)));
  return std::unique_ptr<Evaluator>(new Evaluator(options, std::move(parts)));
}

absl::Status Evaluator::Forward(const std::vector<std::span<const int32_t>>& windows,
                                const PinnedPolicy* policy, RouteObserver* observer,
                                int num_observed_ranks) {
  const int32_t window_blocks =
      (options_.window + parts_.config.cache.block_tokens - 1) / parts_.config.cache.block_tokens;
  GATEHOUSE_CHECK(static_cast<int32_t>(windows.size()) <= options_.batch_windows) << windows.size();
  std::vector<int32_t> token_ids, positions, block_ids(windows.size() * window_blocks);
  std::iota(block_ids.begin(), block_ids.end(), 0);
  std::vector<SequenceSpan> sequences;
  for (size_t w = 0; w < windows.size(); ++w) {
    const auto num_rows = static_cast<int32_t>(windows[w].size());
    GATEHOUSE_CHECK(num_rows >= 1 && num_rows <= options_.window) << num_rows;
    sequences.push_back(
        {.first_row = static_cast<int32_t>(token_ids.size()),
         .num_rows = num_rows,
         .block_ids = std::span(block_ids).subspan(w * window_blocks, window_blocks)});
    token_ids.insert(token_ids.end(), windows[w].begin(), windows[w].end());
    for (int32_t p = 0; p < num_rows; ++p) positions.push_back(p);
  }
  const BatchLayout layout{.token_ids = token_ids, .positions = positions, .sequences = sequences};
  std::vector<RoutedToken> tokens;
  if (policy != nullptr) tokens = TokensOf(windows, *policy);
  const StepRouting routing{.tokens = tokens,
                            .policies = {&policy, policy != nullptr ? size_t{1} : size_t{0}},
                            .observer = observer,
                            .num_observed_ranks = num_observed_ranks};
  std::vector<uint8_t> row_failed(token_ids.size(), 0);
  const RankParts& rank = parts_.ranks[0];
  LocalDispatcher dispatcher(*rank.backend);
  dispatcher.BeginStep(static_cast<int>(token_ids.size()));
  rank.backend->BeginStep(layout);
  const auto routes = rank.transformer->Forward(
      {.layout = layout, .routing = routing, .cache = rank.cache, .row_failed = row_failed},
      dispatcher);
  GATEHOUSE_RETURN_IF_ERROR(rank.backend->Finish());
  GATEHOUSE_RETURN_IF_ERROR(routes.status());
  num_rows_ = static_cast<int32_t>(token_ids.size());
  const auto failed = std::find(row_failed.begin(), row_failed.end(), 1);
  if (failed == row_failed.end()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("row %d of the batch: a value is not finite", failed - row_failed.begin()));
}

void Evaluator::ForEachRow(const VisitLogits& visit) {
  const Transformer& transformer = *parts_.ranks[0].transformer;
  const auto slab = static_cast<int32_t>(transformer.shape().max_logit_rows);
  std::vector<int32_t> row_ids;
  for (int32_t first = 0; first < num_rows_; first += slab) {
    row_ids.resize(std::min(slab, num_rows_ - first));
    std::iota(row_ids.begin(), row_ids.end(), first);
    const MatrixView<const float> logits = transformer.Logits(row_ids);
    for (size_t i = 0; i < row_ids.size(); ++i) {
      visit(row_ids[i],
            {logits.row(static_cast<int64_t>(i)), static_cast<size_t>(logits.num_cols)});
    }
  }
}

}  // namespace gatehouse
