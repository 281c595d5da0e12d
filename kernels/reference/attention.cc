#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/op_checks.h"
#include "kernels/reference/kv.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {
namespace {

// out = sum over the positions j seen of softmax_j(scale q.k_j) v_j, for one head of one row.
void AttendOneHead(const AttentionArgs& args, const SequenceSpan& sequence, int row, int head) {
  const int head_dim = args.kv.shape.head_dim;
  const int kv_head = head / (args.num_heads / args.kv.shape.num_kv_heads);
  const int32_t position = sequence.first_position + (row - sequence.first_row);
  const float* q = args.q.row(row) + int64_t{head} * head_dim;
  const int32_t first = args.window == 0 ? 0 : std::max(0, position - args.window + 1);
  std::vector<double> scores(position + 1);
  for (int32_t j = first; j <= position; ++j) {
    const float* key = KvRow(args.kv, sequence, j, KeyOrValue::kKey, kv_head);
    for (int d = 0; d < head_dim; ++d) scores[j] += double{q[d]} * key[d];
    scores[j] *= args.scale;
  }
  double largest = *std::max_element(scores.begin() + first, scores.end());
  if (args.sinks != nullptr) largest = std::max<double>(largest, args.sinks[head]);
  double total = args.sinks == nullptr ? 0 : std::exp(args.sinks[head] - largest);
  const int value_dim = args.kv.shape.value_dim();
  std::vector<double> sums(value_dim);
  for (int32_t j = first; j <= position; ++j) {
    const float* value = KvRow(args.kv, sequence, j, KeyOrValue::kValue, kv_head);
    const double weight = std::exp(scores[j] - largest);
    total += weight;
    for (int d = 0; d < value_dim; ++d) sums[d] += weight * value[d];
  }
  float* out = args.out.row(row) + int64_t{head} * value_dim;
  for (int d = 0; d < value_dim; ++d) out[d] = static_cast<float>(sums[d] / total);
}

}  // namespace

void ReferenceBackend::Attention(const AttentionArgs& args) {
  CheckArgs(args, layout_);
  for (const SequenceSpan& sequence : layout_.sequences) {
    for (int r = sequence.first_row; r < sequence.first_row + sequence.num_rows; ++r) {
      for (int h = 0; h < args.num_heads; ++h) AttendOneHead(args, sequence, r, h);
    }
  }
}

}  // namespace gatehouse
