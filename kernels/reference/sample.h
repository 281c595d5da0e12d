// The distribution a token is drawn from, as data: what tests of any back end compare draws with.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace gatehouse {

struct Candidate {
  int32_t id = 0;
  double probability = 0;
};

// Logits after penalty and bias; -infinity where a token is forbidden. [vocab]
std::vector<float> AdjustedLogits(std::span<const float> logits, const RowSampling& row);

// What is left of the vocabulary for row.temperature > 0, most likely first, ties to the lower id;
// probabilities sum to 1. Empty if every token is forbidden. The filters stand in the order of
// Hugging Face's generate(), each on the renormalised rest of the one before:
//   temperature  divides the adjusted logits
//   top_k        the first k
//   top_p        the shortest head whose mass reaches top_p
//   min_p        those with at least min_p times the largest probability
//   typical_p    by |-log p - entropy| ascending, the shortest head whose mass reaches typical_p
std::vector<Candidate> SamplingDistribution(std::span<const float> logits, const RowSampling& row);

}  // namespace gatehouse
