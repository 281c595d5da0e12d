// Norms over rows, and what happens to q, k and v between their projection and attention. Rows are
// independent; they go to the threads by units of a few.
#include <algorithm>
#include <cmath>

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
  kernels.rotate(args.rope.row(position), args.rope.rotary_dim, head);
}

// One position's place in the cache.
struct CacheSlot {
  CacheSlot(const KvLayerView& kv, const SequenceSpan& sequence, int32_t position)
      : type(kv.shape.type),
        layout(kv.shape),
        block(static_cast<char*>(kv.data) +
              sequence.block_ids[position / kv.shape.block_tokens] * layout.block_bytes()),
        block_tokens(kv.shape.block_tokens),
        token(position % kv.shape.block_tokens) {}

  void StoreKey(int head, std::span<const float> key) const {
    StoreKvVector(type, key, block + layout.key_offset(head) + token * KvElementBytes(type),
                  block_tokens, block + layout.key_scale_offset(head) + token * 4);
  }
  void StoreValue(int head, std::span<const float> value) const {
    const int64_t row_bytes = layout.value_stride() * KvElementBytes(type);
    StoreKvVector(type, value, block + layout.value_offset(head) + token * row_bytes, 1,
                  block + layout.value_scale_offset(head) + token * 4);
  }

  KvType type;
  KvLayout layout;
  char* block;
  int64_t block_tokens, token;
};

// One row of a sequence.
void StoreRow(const RowKernels& kernels, const QkvToCacheArgs& args, const SequenceSpan& sequence,
              int32_t row) {
  const KvShape& shape = args.kv.shape;
  const int head_dim = shape.head_dim;
  const int32_t position = sequence.first_position + (row - sequence.first_row);
  float* head = args.qkv.row(row);
  for (int64_t i = 0; args.clip > 0 && i < args.qkv.num_cols; ++i) {
    head[i] = std::clamp(head[i], -args.clip, args.clip);
  }
  for (int h = 0; h < args.num_heads; ++h, head += head_dim) {
    NormAndRotate(kernels, args, args.q_norm, position, head);
  }
  const CacheSlot slot(args.kv, sequence, position);
  const auto dim = static_cast<size_t>(head_dim);
  const float* values = head + int64_t{shape.num_kv_heads} * head_dim;
  for (int h = 0; h < shape.num_kv_heads; ++h, head += head_dim, values += head_dim) {
    NormAndRotate(kernels, args, args.k_norm, position, head);
    slot.StoreKey(h, {head, dim});
    slot.StoreValue(h, {values, dim});
  }
}

// Likewise, of latent attention.
void StoreLatent(const RowKernels& kernels, const LatentToCacheArgs& args,
                 const SequenceSpan& sequence, int32_t row) {
  const KvShape& shape = args.kv.shape;
  const int rotary_dim = args.rope.rotary_dim;
  const int32_t position = sequence.first_position + (row - sequence.first_row);
  const float* cos_sin = args.rope.row(position);
  const int64_t q_dim = args.q.num_cols / args.num_heads;
  const float* q_end = args.q.row(row);
  float* absorbed_end = args.absorbed_q.row(row) + shape.value_prefix;
  for (int h = 0; h < args.num_heads; ++h, absorbed_end += shape.head_dim) {
    q_end += q_dim;
    std::copy_n(q_end - rotary_dim, rotary_dim, absorbed_end);
    kernels.rotate(cos_sin, rotary_dim, absorbed_end);
  }
  float* latent = args.latent.row(row);
  kernels.rms_norm(latent, args.norm, args.norm_eps, latent, shape.value_prefix);
  kernels.rotate(cos_sin, rotary_dim, latent + shape.value_prefix);
  CacheSlot(args.kv, sequence, position)
      .StoreValue(0, {latent, static_cast<size_t>(shape.head_dim)});
}

// Calls store(sequence, row) for every row of the step.
template <typename Store>
void ForEachSequenceRow(ThreadPool& pool, const BatchLayout& layout, const Store& store) {
  const std::span<const SequenceSpan> sequences = layout.sequences;
  ForEachRow(pool, static_cast<int64_t>(layout.positions.size()), [&](int64_t row) {
    const auto after = std::upper_bound(
        sequences.begin(), sequences.end(), row,
        [](int64_t row, const SequenceSpan& sequence) { return row < sequence.first_row; });
    store(*(after - 1), static_cast<int32_t>(row));
  });
}

}  // namespace

void RmsNorm(Machine machine, const RmsNormArgs& args) {
  CheckArgs(args);
  ForEachRow(machine.pool, args.x.num_rows, [&](int64_t r) {
    machine.isa.row.rms_norm(args.x.row(r), args.weight, args.eps, args.out.row(r),
                             args.x.num_cols);
  });
}

void RowNorms(Machine machine, const RowNormsArgs& args) {
  CheckArgs(args);
  ForEachRow(machine.pool, args.x.num_rows, [&](int64_t r) {
    args.out[r] = std::sqrt(machine.isa.row.sum_squares(args.x.row(r), args.x.num_cols));
  });
}

void QkvToCache(Machine machine, const BatchLayout& layout, const QkvToCacheArgs& args) {
  CheckArgs(args, layout);
  ForEachSequenceRow(machine.pool, layout, [&](const SequenceSpan& sequence, int32_t row) {
    StoreRow(machine.isa.row, args, sequence, row);
  });
}

void LatentToCache(Machine machine, const BatchLayout& layout, const LatentToCacheArgs& args) {
  CheckArgs(args, layout);
  ForEachSequenceRow(machine.pool, layout, [&](const SequenceSpan& sequence, int32_t row) {
    StoreLatent(machine.isa.row, args, sequence, row);
  });
}

}  // namespace gatehouse::cpu
