#include "engine/lab/route_gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr float kTiny = 1e-20f;

absl::Status Invalid(const std::string& what) { return absl::InvalidArgumentError(what); }

bool AllFinite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

std::vector<float> Softmax(std::span<const float> z) {
  const float largest = *std::max_element(z.begin(), z.end());
  std::vector<float> p(z.size());
  float sum = 0;
  for (size_t i = 0; i < z.size(); ++i) sum += p[i] = std::exp(z[i] - largest);
  for (float& value : p) value /= sum;
  return p;
}

float Dot(std::span<const float> a, std::span<const float> b) {
  float sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

absl::Status CheckLists(const RouteGateRecipe& recipe) {
  const auto n = static_cast<size_t>(recipe.num_choices());
  if (!recipe.choice_bias.empty() && recipe.choice_bias.size() != n) {
    return Invalid(
        absl::StrFormat("bias: got %d numbers, expected %d", recipe.choice_bias.size(), n));
  }
  if (!recipe.logit_bias.empty() && recipe.logit_bias.size() != n) {
    return Invalid(
        absl::StrFormat("gate_bias: got %d numbers, expected %d", recipe.logit_bias.size(), n));
  }
  if (!AllFinite(recipe.choice_bias) || !AllFinite(recipe.logit_bias)) {
    return Invalid("bias, gate_bias: expected finite numbers");
  }
  if (!std::isfinite(recipe.scale)) return Invalid("scale: expected a finite number");
  if (!(recipe.jitter >= 0) || !std::isfinite(recipe.jitter)) {
    return Invalid("jitter: expected a number from 0");
  }
  if (recipe.input != RouteInput::kHidden || recipe.grap) return absl::OkStatus();
  if (recipe.gate_rows.size() != n) {
    return Invalid(
        absl::StrFormat("gate_row: got %d rows, expected %d", recipe.gate_rows.size(), n));
  }
  for (const auto& row : recipe.gate_rows) {
    if (row.size() != recipe.gate_rows[0].size() || !AllFinite(row)) {
      return Invalid("gate_row: expected finite rows of one width");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckGroups(const RouteGateRecipe& recipe) {
  if (recipe.num_groups == 1 && recipe.num_open_groups == 1) return absl::OkStatus();
  if (recipe.num_groups < 1 || recipe.num_experts % recipe.num_groups != 0) {
    return Invalid(absl::StrFormat("groups: got %d, expected a divisor of %d experts",
                                   recipe.num_groups, recipe.num_experts));
  }
  if (recipe.num_open_groups < 1 || recipe.num_open_groups > recipe.num_groups) {
    return Invalid(absl::StrFormat("topk_group: got %d, expected 1 to %d groups",
                                   recipe.num_open_groups, recipe.num_groups));
  }
  const int group_size = recipe.num_experts / recipe.num_groups;
  if (recipe.num_nulls > 0) return Invalid("null: null experts stand in no group");
  if (recipe.group_by_two_largest && group_size < 2) {
    return Invalid("group_score top2: a group has one expert");
  }
  if (int64_t{recipe.num_open_groups} * group_size < recipe.top_k) {
    return Invalid(absl::StrFormat("top_k: got %d, the open groups have %d experts", recipe.top_k,
                                   recipe.num_open_groups * group_size));
  }
  return absl::OkStatus();
}

absl::Status CheckRecipe(const RouteGateRecipe& recipe) {
  if (recipe.num_experts < 1 || recipe.num_nulls < 0) return Invalid("experts: expected 1 or more");
  if (recipe.top_k < 1 || recipe.top_k > recipe.num_choices()) {
    return Invalid(absl::StrFormat("top_k: got %d, expected 1 to %d experts", recipe.top_k,
                                   recipe.num_choices()));
  }
  if (recipe.input == RouteInput::kGiven && recipe.score == RouteScore::kSparsemixer) {
    return Invalid("score sparsemixer: needs logits");
  }
  if (recipe.input != RouteInput::kGiven && recipe.score == RouteScore::kGiven) {
    return Invalid("score given: expected input given");
  }
  if (recipe.score == RouteScore::kSparsemixer && (recipe.top_k > 2 || recipe.num_nulls > 0)) {
    return Invalid("score sparsemixer: expected top_k 1 or 2 and no null experts");
  }
  if (recipe.score == RouteScore::kTopkSoftmax && !recipe.choice_bias.empty()) {
    return Invalid("bias: gate values over the chosen experts cannot sway the choice");
  }
  GATEHOUSE_RETURN_IF_ERROR(CheckLists(recipe));
  return CheckGroups(recipe);
}

// One row's way from numbers to a ranking.
class RowGate {
 public:
  RowGate(const RouteGateRecipe& recipe, const RouteGateRow& row) : recipe_(recipe), row_(row) {}

  absl::Status Check() const;
  bool wants_cosines() const {
    return recipe_.select_by_cosine || recipe_.affinity == RouteAffinity::kCosine;
  }
  bool Run();  // false: the row fails (R3)

  const std::vector<int32_t>& ranking() const { return ranking_; }
  int num_chosen() const { return num_chosen_; }
  float gate(int32_t expert) const { return gate_[expert]; }
  float affinity(int32_t expert) const;
  float weight(int32_t expert) const;

 private:
  std::vector<float> GrapLogits() const;
  void ComputeLogits();
  void ComputeCosines();
  void Rank();
  std::vector<float> SelectionValues() const;
  std::vector<uint8_t> OpenExperts(std::span<const float> selection) const;
  void RankSparsemixer();
  void ComputeChosenSum();

  const RouteGateRecipe& recipe_;
  const RouteGateRow& row_;
  std::vector<float> logits_;     // [num_choices]; empty where P is given
  std::vector<float> gate_;       // [num_choices] P
  std::vector<float> cosines_;    // [num_choices] or empty
  std::vector<int32_t> ranking_;  // true experts that have a rank, the chosen ones first
  int num_chosen_ = 0;
  float chosen_sum_ = 0;
};

absl::Status RowGate::Check() const {
  const auto n = static_cast<size_t>(recipe_.num_choices());
  if (wants_cosines() && row_.cosines.empty() && recipe_.input != RouteInput::kHidden) {
    return Invalid("cosine: needs hidden rows or the attribute cosine");
  }
  if (!row_.cosines.empty() && row_.cosines.size() != n) {
    return Invalid(absl::StrFormat("cosine: got %d, expected %d", row_.cosines.size(), n));
  }
  if (recipe_.input != RouteInput::kHidden) {
    if (row_.numbers.size() == n) return absl::OkStatus();
    return Invalid(absl::StrFormat("token: got %d numbers, expected %d", row_.numbers.size(), n));
  }
  if (recipe_.grap) {
    if (row_.numbers.size() % n == 0 && !row_.numbers.empty()) return absl::OkStatus();
    return Invalid(absl::StrFormat("token: got %d numbers, grap needs a multiple of %d",
                                   row_.numbers.size(), n));
  }
  if (row_.numbers.size() == recipe_.gate_rows[0].size()) return absl::OkStatus();
  return Invalid(absl::StrFormat("token: got %d numbers, the gate's rows have %d",
                                 row_.numbers.size(), recipe_.gate_rows[0].size()));
}

bool RowGate::Run() {
  if (!AllFinite(row_.numbers) || !AllFinite(row_.cosines)) return false;
  if (recipe_.input == RouteInput::kGiven) {
    gate_.assign(row_.numbers.begin(), row_.numbers.end());
  } else {
    ComputeLogits();
  }
  ComputeCosines();
  if (!AllFinite(logits_) || !AllFinite(cosines_)) return false;
  switch (recipe_.score) {
    case RouteScore::kSoftmax:
    case RouteScore::kLocMoe:
      if (!logits_.empty()) gate_ = Softmax(logits_);
      break;
    case RouteScore::kSigmoid:
      if (logits_.empty()) break;
      for (const float z : logits_) gate_.push_back(1 / (1 + std::exp(-z)));
      break;
    case RouteScore::kTopkSoftmax:  // known when the choice is
    case RouteScore::kSparsemixer:
    case RouteScore::kGiven:
      break;
  }
  if (recipe_.score == RouteScore::kSparsemixer) {
    RankSparsemixer();
  } else {
    Rank();
  }
  ComputeChosenSum();
  return true;
}

// Row i of the gate is n / d on the i-th of n equal parts of the hidden row (LocMoE's GrAP).
std::vector<float> RowGate::GrapLogits() const {
  const size_t n = recipe_.num_choices(), width = row_.numbers.size() / n;
  std::vector<float> means(n);
  for (size_t i = 0; i < n; ++i) {
    const auto part = row_.numbers.subspan(i * width, width);
    means[i] = std::accumulate(part.begin(), part.end(), 0.0f) / static_cast<float>(width);
  }
  return means;
}

void RowGate::ComputeLogits() {
  if (recipe_.input == RouteInput::kLogits) {
    logits_.assign(row_.numbers.begin(), row_.numbers.end());
  } else if (recipe_.grap) {
    logits_ = GrapLogits();
  } else {
    for (const auto& gate_row : recipe_.gate_rows) logits_.push_back(Dot(row_.numbers, gate_row));
  }
  for (size_t i = 0; i < recipe_.logit_bias.size(); ++i) logits_[i] += recipe_.logit_bias[i];
  if (recipe_.score == RouteScore::kLocMoe) {
    for (float& z : logits_) z = std::isnan(z) ? z : std::max(z, 0.0f);
  }
}

void RowGate::ComputeCosines() {
  if (!row_.cosines.empty()) {
    cosines_.assign(row_.cosines.begin(), row_.cosines.end());
    return;
  }
  if (recipe_.input != RouteInput::kHidden || !wants_cosines()) return;
  const float norm = std::sqrt(Dot(row_.numbers, row_.numbers)) + 1e-9f;
  if (!std::isfinite(norm)) {  // of finite numbers: no cosine, where dividing by it makes 0
    cosines_.assign(recipe_.num_choices(), NAN);
    return;
  }
  if (recipe_.grap) {
    const float n = static_cast<float>(recipe_.num_choices());
    const float row_norm = std::sqrt(n / static_cast<float>(row_.numbers.size()));
    for (const float mean : GrapLogits()) cosines_.push_back(mean / (norm * row_norm));
    return;
  }
  for (const auto& gate_row : recipe_.gate_rows) {
    const float row_norm = std::sqrt(Dot(gate_row, gate_row));
    const float dot = Dot(row_.numbers, gate_row);
    cosines_.push_back(row_norm == 0 && std::isfinite(dot) ? 0 : dot / (norm * row_norm));
  }
}

std::vector<float> RowGate::SelectionValues() const {
  if (recipe_.select_by_cosine) return cosines_;
  const bool by_logit = recipe_.choice_bias.empty() && recipe_.score != RouteScore::kSigmoid;
  if (by_logit && !logits_.empty()) return logits_;
  std::vector<float> selection = gate_;
  for (size_t i = 0; i < recipe_.choice_bias.size(); ++i) selection[i] += recipe_.choice_bias[i];
  return selection;
}

std::vector<uint8_t> RowGate::OpenExperts(std::span<const float> selection) const {
  std::vector<uint8_t> open(recipe_.num_choices(), 1);
  if (recipe_.num_groups == 1) return open;
  const int size = recipe_.num_experts / recipe_.num_groups;
  std::vector<float> scores(recipe_.num_groups);
  for (int g = 0; g < recipe_.num_groups; ++g) {
    std::vector<float> group(selection.begin() + g * size, selection.begin() + (g + 1) * size);
    std::sort(group.begin(), group.end(), std::greater<>());
    scores[g] = recipe_.group_by_two_largest ? group[0] + group[1] : group[0];
  }
  std::vector<int> order(recipe_.num_groups);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
  for (int place = recipe_.num_open_groups; place < recipe_.num_groups; ++place) {
    std::fill_n(open.begin() + order[place] * size, size, uint8_t{0});
  }
  return open;
}

void RowGate::Rank() {
  const std::vector<float> selection = SelectionValues();
  const std::vector<uint8_t> open = OpenExperts(selection);
  std::vector<int32_t> order;
  for (int32_t i = 0; i < recipe_.num_choices(); ++i) {
    if (open[i]) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return selection[a] > selection[b]; });
  if (recipe_.score == RouteScore::kTopkSoftmax && !logits_.empty()) {
    const float largest = logits_[order[0]];
    float sum = 0;
    for (int i = 0; i < recipe_.top_k; ++i) sum += std::exp(logits_[order[i]] - largest);
    const float log_sum = largest + std::log(sum);
    for (const float z : logits_) gate_.push_back(std::exp(z - log_sum));
  }
  for (int place = 0; place < static_cast<int>(order.size()); ++place) {
    if (order[place] >= recipe_.num_experts) continue;  // null: uses up a choice, makes no pair
    ranking_.push_back(order[place]);
    num_chosen_ += place < recipe_.top_k ? 1 : 0;
  }
}

// PhiMoE in its evaluation form: each of two rounds takes the largest logit, weighed by a softmax
// over those within a relative margin of it. The margin's divisor is |z| or the signed maximum.
void RowGate::RankSparsemixer() {
  const auto n = static_cast<int32_t>(logits_.size());
  std::vector<uint8_t> taken(n);
  gate_.assign(n, 0);
  for (int round = 0; round < std::min<int>(recipe_.top_k, n); ++round) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; ++i) {
      if (!taken[i] && (best < 0 || logits_[i] > logits_[best])) best = i;
    }
    const float largest = logits_[best];
    float sum = 0;
    for (int32_t i = 0; i < n; ++i) {
      const float divisor = std::max(std::abs(logits_[i]), largest);
      if (taken[i] || (largest - logits_[i]) / divisor > 2 * recipe_.jitter) continue;
      sum += std::exp(logits_[i] - largest);
    }
    gate_[best] = 1 / sum;
    taken[best] = 1;
    ranking_.push_back(best);
  }
  num_chosen_ = static_cast<int>(ranking_.size());
}

void RowGate::ComputeChosenSum() {
  for (int i = 0; i < num_chosen_; ++i) chosen_sum_ += gate_[ranking_[i]];
}

float RowGate::affinity(int32_t expert) const {
  switch (recipe_.affinity) {
    case RouteAffinity::kGate:
      return gate_[expert];
    case RouteAffinity::kShare:
      return gate_[expert] / (chosen_sum_ + kTiny);
    case RouteAffinity::kCosine:
      return cosines_[expert];
  }
  return 0;
}

float RowGate::weight(int32_t expert) const {
  if (recipe_.score == RouteScore::kSparsemixer) return gate_[expert];
  if (!recipe_.renormalise) return gate_[expert] * recipe_.scale;
  return chosen_sum_ == 0 ? 0 : gate_[expert] / (chosen_sum_ + kTiny) * recipe_.scale;
}

}  // namespace

absl::StatusOr<GateScores> ScoreRows(const RouteGateRecipe& recipe,
                                     std::span<const RouteGateRow> rows) {
  GATEHOUSE_RETURN_IF_ERROR(CheckRecipe(recipe));
  const auto num_rows = static_cast<int>(rows.size());
  const size_t num_ranks = size_t{rows.size()} * recipe.num_experts;
  GateScores scores{.num_rows = num_rows,
                    .num_experts = recipe.num_experts,
                    .top_k = recipe.top_k,
                    .num_ranked = recipe.num_experts,
                    .num_chosen = std::vector<int32_t>(num_rows),
                    .ranked_ids = std::vector<int32_t>(num_ranks, -1),
                    .gate = std::vector<float>(num_ranks),
                    .affinity = std::vector<float>(num_ranks),
                    .weight = std::vector<float>(num_ranks),
                    .row_failed = std::vector<uint8_t>(num_rows)};
  for (int r = 0; r < num_rows; ++r) {
    if (rows[r].padding) continue;
    RowGate gate(recipe, rows[r]);
    GATEHOUSE_RETURN_IF_ERROR(gate.Check());
    if (!gate.Run()) {
      scores.row_failed[r] = 1;
      continue;
    }
    scores.num_chosen[r] = gate.num_chosen();
    for (int rank = 0; rank < static_cast<int>(gate.ranking().size()); ++rank) {
      const int32_t expert = gate.ranking()[rank];
      const int64_t at = scores.At(r, rank);
      scores.ranked_ids[at] = expert;
      scores.gate[at] = gate.gate(expert);
      scores.affinity[at] = gate.affinity(expert);
      scores.weight[at] = gate.weight(expert);
    }
  }
  return scores;
}

}  // namespace gatehouse
