// Inside a block of the CPU cache. Keys lie transposed, so that one load takes a channel of eight
// neighbouring keys and scores need no sum across lanes; values lie as rows.
//
//   block   [kv head 0: keys, values] [kv head 1: keys, values] ...
//   keys    [head_dim][block_tokens]
//   values  [block_tokens][head_dim rounded up to 8]
#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace gatehouse::cpu {

class KvLayout {
 public:
  explicit KvLayout(const KvShape& shape)
      : key_floats_(int64_t{shape.head_dim} * shape.block_tokens),
        value_stride_((shape.head_dim + 7) / 8 * 8),
        head_floats_(key_floats_ + value_stride_ * shape.block_tokens),
        block_floats_(head_floats_ * shape.num_kv_heads) {}

  int64_t block_floats() const { return block_floats_; }
  int64_t key_offset(int kv_head) const { return kv_head * head_floats_; }
  int64_t value_offset(int kv_head) const { return kv_head * head_floats_ + key_floats_; }
  int64_t value_stride() const { return value_stride_; }  // from one token to the next

 private:
  int64_t key_floats_, value_stride_, head_floats_, block_floats_;
};

}  // namespace gatehouse::cpu
