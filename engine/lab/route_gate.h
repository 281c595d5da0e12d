// Rules R3 to R7 of docs/routing.md in plain loops, every recipe of them: what a case file's
// numbers mean before anything bounds them. Served models compute theirs by the back end's
// GateTopK.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/moe/gate_scores.h"

namespace gatehouse {

enum class RouteInput { kGiven, kLogits, kHidden };  // what a row's numbers are: P, z or x
enum class RouteScore { kGiven, kSoftmax, kSigmoid, kTopkSoftmax, kSparsemixer, kLocMoe };
enum class RouteAffinity { kGate, kShare, kCosine };

struct RouteGateRecipe {
  int num_experts = 0;
  int num_nulls = 0;  // AdaMoE: choices that are no pairs; they stand behind the experts
  int top_k = 0;
  RouteInput input = RouteInput::kGiven;
  RouteScore score = RouteScore::kGiven;
  bool select_by_cosine = false;
  RouteAffinity affinity = RouteAffinity::kGate;
  bool renormalise = false;
  float scale = 1;
  std::vector<float> choice_bias;  // [num_experts + num_nulls] or empty
  std::vector<float> logit_bias;   // the same
  int num_groups = 1;
  int num_open_groups = 1;
  bool group_by_two_largest = false;  // else by the largest
  float jitter = 0.01f;               // of sparsemixer
  // [num_experts + num_nulls] rows of one width; `grap`: grouped average pooling instead.
  std::vector<std::vector<float>> gate_rows;
  bool grap = false;

  int num_choices() const { return num_experts + num_nulls; }
};

struct RouteGateRow {
  std::span<const float> numbers;
  std::span<const float> cosines;  // [num_choices] or empty: from the hidden row
  bool padding = false;
};

// Scores with every expert ranked. INVALID_ARGUMENT for a recipe that cannot be.
absl::StatusOr<GateScores> ScoreRows(const RouteGateRecipe& recipe,
                                     std::span<const RouteGateRow> rows);

}  // namespace gatehouse
