// The choice of experts. A row is some hundred logits: few rows are not worth a second thread.
#include <algorithm>
#include <cmath>
#include <span>
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

  int num_ranked() const { return num_ranked_; }

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

// Returns how many of num_ranked there are.
int Rank(const GateTopKArgs& args, const float* selection, GateScratch& scratch,
         int32_t* expert_ids) {
  const GateRecipe& recipe = args.recipe;
  const int64_t num_experts = args.logits.num_cols;
  Ranking ranking(selection, expert_ids, static_cast<int>(args.expert_ids.num_cols));
  if (recipe.num_groups == 1) {
    ranking.Offer(0, num_experts);
    return ranking.num_ranked();
  }
  const int64_t size = num_experts / recipe.num_groups;
  for (int g = 0; g < recipe.num_groups; ++g) {
    scratch.group_scores[g] = ScoreGroup(recipe.group_score, selection + g * size, size);
  }
  std::vector<int32_t>& open = scratch.open_groups;
  Ranking(scratch.group_scores.data(), open.data(), recipe.num_open_groups)
      .Offer(0, recipe.num_groups);
  std::sort(open.begin(), open.end());  // so that experts are offered by ascending id
  for (const int32_t g : open) ranking.Offer(g * size, (g + 1) * size);
  return ranking.num_ranked();
}

// R4: of an expert that was not chosen, P is relative to those that were. In double, by the same
// libm on every instruction set.
void SoftmaxBeyondChosen(const float* logits, int top_k, std::span<const int32_t> ranking,
                         float* p) {
  const double largest = logits[ranking[0]];
  double sum = 0;
  for (int i = 0; i < top_k; ++i) sum += std::exp(logits[ranking[i]] - largest);
  for (size_t i = top_k; i < ranking.size(); ++i) {
    p[i] = static_cast<float>(std::exp(logits[ranking[i]] - largest) / sum);
  }
}

void FailRow(const GateTopKArgs& args, int64_t row) {
  args.row_failed[row] = 1;
  for (int i = 0; i < args.expert_ids.num_cols; ++i) {
    args.expert_ids.row(row)[i] = i < args.recipe.top_k ? i : -1;
    args.weights.row(row)[i] = 0;
    if (args.gate.data != nullptr) args.gate.row(row)[i] = 0;
  }
  if (!args.mass.empty()) args.mass[row] = 0;
}

void ChooseExperts(const RowKernels& kernels, const GateTopKArgs& args, int64_t row,
                   GateScratch& scratch) {
  const GateRecipe& recipe = args.recipe;
  const float* logits = args.logits.row(row);
  const int64_t num_experts = args.logits.num_cols;
  const int num_wanted = static_cast<int>(args.expert_ids.num_cols);
  int32_t* expert_ids = args.expert_ids.row(row);
  float* weights = args.weights.row(row);
  float* gate = args.gate.data == nullptr ? weights : args.gate.row(row);
  float* p = scratch.p.data();
  const bool is_sigmoid = recipe.score == GateScore::kSigmoid;
  const float* scaled = logits;
  if (recipe.logit_scale != 1) {
    for (int64_t e = 0; e < num_experts; ++e) p[e] = recipe.logit_scale * logits[e];
    scaled = p;
  }
  if (!(is_sigmoid ? kernels.sigmoid : kernels.softmax)(scaled, p, num_experts)) {
    return FailRow(args, row);
  }
  const float* selection = is_sigmoid ? p : logits;
  if (args.choice_bias != nullptr) {
    for (int64_t e = 0; e < num_experts; ++e) scratch.selection[e] = p[e] + args.choice_bias[e];
    selection = scratch.selection.data();
  }
  const int num_ranked = Rank(args, selection, scratch, expert_ids);
  for (int i = 0; i < num_ranked; ++i) {
    const float* from = recipe.score == GateScore::kSoftmaxOfChosen ? logits : p;
    gate[i] = from[expert_ids[i]];
  }
  if (recipe.score == GateScore::kSoftmaxOfChosen) {
    kernels.softmax(gate, gate, recipe.top_k);
    if (num_ranked > recipe.top_k) {
      SoftmaxBeyondChosen(logits, recipe.top_k, {expert_ids, static_cast<size_t>(num_ranked)},
                          gate);
    }
  }
  float sum = 0;
  for (int slot = 0; slot < recipe.top_k; ++slot) sum += gate[slot];
  if (!args.mass.empty()) args.mass[row] = sum;
  const float divisor = recipe.renormalise ? sum + 1e-20f : 1.0f;
  for (int i = 0; i < num_ranked; ++i) weights[i] = gate[i] / divisor * recipe.scale;
  for (int i = num_ranked; i < num_wanted; ++i) {  // no open expert is left
    expert_ids[i] = -1;
    gate[i] = weights[i] = 0;
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
