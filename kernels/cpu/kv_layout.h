// Inside a block of the CPU cache. Keys lie transposed, so that one load takes a channel of eight
// neighbouring keys and scores need no sum across lanes; values lie as rows. Where values are a
// part of the keys, there are rows only, and attention turns them on the way.
//
//   block   [kv head 0] [kv head 1] ...
//   head    keys, values, scales of keys, scales of values (scales with int8 only)
//   keys    [head_dim][block_tokens]; none if values are a part of the keys
//   values  [block_tokens][head_dim rounded up to 8]
//   scales  [block_tokens] f32
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"

namespace gatehouse::cpu {

class KvLayout {
 public:
  explicit KvLayout(const KvShape& shape)
      : value_stride_((shape.head_dim + 7) / 8 * 8),
        key_bytes_(shape.value_prefix > 0
                       ? 0
                       : int64_t{shape.head_dim} * shape.block_tokens * KvElementBytes(shape.type)),
        value_bytes_(value_stride_ * shape.block_tokens * KvElementBytes(shape.type)),
        scale_bytes_(shape.type == KvType::kInt8
                         ? shape.block_tokens * static_cast<int64_t>(sizeof(float))
                         : 0),
        head_bytes_(key_bytes_ + value_bytes_ + scale_bytes_ * (key_bytes_ > 0 ? 2 : 1)),
        block_bytes_(head_bytes_ * shape.num_kv_heads) {}

  int64_t block_bytes() const { return block_bytes_; }
  int64_t value_stride() const { return value_stride_; }  // elements from one token to the next
  // Bytes from the start of a block.
  int64_t key_offset(int kv_head) const { return kv_head * head_bytes_; }
  int64_t value_offset(int kv_head) const { return key_offset(kv_head) + key_bytes_; }
  int64_t value_scale_offset(int kv_head) const {
    return (kv_head + 1) * head_bytes_ - scale_bytes_;
  }
  int64_t key_scale_offset(int kv_head) const { return value_offset(kv_head) + value_bytes_; }

 private:
  int64_t value_stride_, key_bytes_, value_bytes_, scale_bytes_, head_bytes_, block_bytes_;
};

// Rounds x to `type` and writes it as elements `stride` apart from `out` on; int8 its scale too.
void StoreKvVector(KvType type, std::span<const float> x, char* out, int64_t stride, char* scale);

}  // namespace gatehouse::cpu
