// Norms over rows, and what happens to q, k and v between their projection and attention. Rows are
// independent; they go to the threads by units of a few.
#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kRowsPerUnit = 8;  // some 4 us of work

template <typename Row>
void ForEachRow(ThreadPool& pool, int64_t num_rows, const Row& row) {
  const int64_t num_units = (num_rows + kRowsPerUnit - 1) / kRowsPerUnit;
  pool.Run(static_cast<int>(num_units), [&](int /*thread*/, int unit) {
    const int64_t end = std::min(num_rows, (unit + 1) * kRowsPerUnit);
    for (int64_t r = unit * kRowsPerUnit; r < end; ++r) row(r);
  });
}

void NormAndRotate(const RowKernels& kernels, const QkvToCacheArgs& args, const float* norm,
                   int32_t position, float* head) {
  const int head_dim = args.kv.shape.head_dim;
  if (norm != nullptr) kernels.rms_norm(head, norm, args.norm_eps, head, head_dim);
  kernels.rotate(args.rope.cos_sin + int64_t{position} * args.rope.rotary_dim, args.rope.rotary_dim,
                 head);
}

// One row of a sequence.
void StoreRow(const RowKernels& kernels, const QkvToCacheArgs& args, const SequenceSpan& sequence,
              int32_t row) {
  const KvShape& shape = args.kv.shape;
  const int head_dim = shape.head_dim;
  const int32_t position = sequence.first_position + (row - sequence.first_row);
  float* head = args.qkv.row(row);
  for (int h = 0; h < args.num_heads; ++h, head += head_dim) {
    NormAndRotate(kernels, args, args.q_norm, position, head);
  }
  const KvLayout layout(shape);
  const int64_t block_id = sequence.block_ids[position / shape.block_tokens];
  const int token = position % shape.block_tokens;
  float* block = static_cast<float*>(args.kv.data) + block_id * layout.block_floats();
  const float* values = head + int64_t{shape.num_kv_heads} * head_dim;
  for (int h = 0; h < shape.num_kv_heads; ++h, head += head_dim, values += head_dim) {
    NormAndRotate(kernels, args, args.k_norm, position, head);
    float* key_column = block + layout.key_offset(h) + token;
    for (int d = 0; d < head_dim; ++d) key_column[int64_t{d} * shape.block_tokens] = head[d];
    std::copy_n(values, head_dim, block + layout.value_offset(h) + token * layout.value_stride());
  }
}

}  // namespace

void RmsNorm(Machine machine, const RmsNormArgs& args) {
  CheckArgs(args);
  ForEachRow(machine.pool, args.x.num_rows, [&](int64_t r) {
    machine.isa.row.rms_norm(args.x.row(r), args.weight, args.eps, args.out.row(r),
                             args.x.num_cols);
  });
}

void QkvToCache(Machine machine, const BatchLayout& layout, const QkvToCacheArgs& args) {
  CheckArgs(args, layout);
  const auto sequence_of = [&](int64_t row) -> const SequenceSpan& {
    const auto after = std::upper_bound(
        layout.sequences.begin(), layout.sequences.end(), row,
        [](int64_t row, const SequenceSpan& sequence) { return row < sequence.first_row; });
    return *(after - 1);
  };
  ForEachRow(machine.pool, args.qkv.num_rows, [&](int64_t r) {
    StoreRow(machine.isa.row, args, sequence_of(r), static_cast<int32_t>(r));
  });
}

}  // namespace gatehouse::cpu
