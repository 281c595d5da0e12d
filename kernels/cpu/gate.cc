// The choice of experts. A row is some hundred logits: few rows are not worth a second thread.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kRowsPerUnit = 32;

// Of one thread.
struct GateScratch {
  explicit GateScratch(const GateTopKArgs& args)
      : p(args.logits.num_cols),
        selection(args.logits.num_cols),
        group_scores(args.recipe.num_groups),
        open_groups(args.recipe.num_open_groups) {}
  std::vector<float> p;          // [num_experts]; of kSoftmaxOfChosen [top_k], by slot
  std::vector<float> selection;  // [num_experts]
  std::vector<float> group_scores;
  std::vector<int32_t> open_groups;
};

// The k largest values, in order. Offered by ascending id, an equal later value never passes an
// earlier one (rule R6).
class Ranking {
 public:
  Ranking(const float* values, int32_t* ids, int k) : values_(values), ids_(ids), k_(k) {}

  void Offer(int64_t begin, int64_t end) {
    for (int64_t id = begin; id < end; ++id) {
      if (num_ranked_ == k_ && !(values_[id] > values_[ids_[k_ - 1]])) continue;
      int slot = num_ranked_ < k_ ? num_ranked_++ : k_ - 1;
      for (; slot > 0 && values_[id] > values_[ids_[slot - 1]]; --slot) ids_[slot] = ids_[slot - 1];
      ids_[slot] = static_cast<int32_t>(id);
    }
  }

 private:
  const float* values_;
  int32_t* ids_;
  int k_;
  int num_ranked_ = 0;
};

float ScoreGroup(GroupScore how, const float* values, int64_t size) {
  float largest = values[0], second = -INFINITY;
  for (int64_t i = 1; i < size; ++i) {
    second = std::max(second, std::min(largest, values[i]));
    largest = std::max(largest, values[i]);
  }
  return how == GroupScore::kLargest ? largest : largest + second;
}

void Rank(const GateRecipe& recipe, const float* selection, int64_t num_experts,
          GateScratch& scratch, int32_t* expert_ids) {
  Ranking ranking(selection, expert_ids, recipe.top_k);
  if (recipe.num_groups == 1) return ranking.Offer(0, num_experts);
  const int64_t size = num_experts / recipe.num_groups;
  for (int g = 0; g < recipe.num_groups; ++g) {
    scratch.group_scores[g] = ScoreGroup(recipe.group_score, selection + g * size, size);
  }
  std::vector<int32_t>& open = scratch.open_groups;
  Ranking(scratch.group_scores.data(), open.data(), recipe.num_open_groups)
      .Offer(0, recipe.num_groups);
  std::sort(open.begin(), open.end());  // so that experts are offered by ascending id
  for (const int32_t g : open) ranking.Offer(g * size, (g + 1) * size);
}

void ChooseExperts(const RowKernels& kernels, const GateTopKArgs& args, int64_t row,
                   GateScratch& scratch) {
  const GateRecipe& recipe = args.recipe;
  const float* logits = args.logits.row(row);
  const int64_t num_experts = args.logits.num_cols;
  int32_t* expert_ids = args.expert_ids.row(row);
  float* weights = args.weights.row(row);
  float* p = scratch.p.data();
  const bool is_sigmoid = recipe.score == GateScore::kSigmoid;
  if (!(is_sigmoid ? kernels.sigmoid : kernels.softmax)(logits, p, num_experts)) {
    args.row_failed[row] = 1;
    for (int slot = 0; slot < recipe.top_k; ++slot) {
      expert_ids[slot] = slot;
      weights[slot] = 0;
    }
    return;
  }
  const float* selection = is_sigmoid ? p : logits;
  if (args.choice_bias != nullptr) {
    for (int64_t e = 0; e < num_experts; ++e) scratch.selection[e] = p[e] + args.choice_bias[e];
    selection = scratch.selection.data();
  }
  Rank(recipe, selection, num_experts, scratch, expert_ids);
  for (int slot = 0; slot < recipe.top_k; ++slot) {
    const float* from = recipe.score == GateScore::kSoftmaxOfChosen ? logits : p;
    weights[slot] = from[expert_ids[slot]];
  }
  if (recipe.score == GateScore::kSoftmaxOfChosen) kernels.softmax(weights, weights, recipe.top_k);
  float sum = 0;
  for (int slot = 0; slot < recipe.top_k; ++slot) sum += weights[slot];
  const float divisor = recipe.renormalise ? sum + 1e-20f : 1.0f;
  for (int slot = 0; slot < recipe.top_k; ++slot) {
    weights[slot] = weights[slot] / divisor * recipe.scale;
  }
}

}  // namespace

void GateTopK(Machine machine, const GateTopKArgs& args) {
  CheckArgs(args);
  const int64_t num_rows = args.logits.num_rows;
  std::vector<GateScratch> scratch(machine.pool.num_threads(), GateScratch(args));
  const int64_t num_units = (num_rows + kRowsPerUnit - 1) / kRowsPerUnit;
  machine.pool.Run(static_cast<int>(num_units), [&](int thread, int unit) {
    const int64_t end = std::min(num_rows, (unit + 1) * kRowsPerUnit);
    for (int64_t r = unit * kRowsPerUnit; r < end; ++r) {
      ChooseExperts(machine.isa.row, args, r, scratch[thread]);
    }
  });
}

}  // namespace gatehouse::cpu
