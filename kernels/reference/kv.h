// Where the reference keeps the key and the value of a position: as f32, rounded to what the
// cache's type holds.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "kernels/backend.h"

namespace gatehouse {

enum class KeyOrValue { kKey, kValue };

// head_dim floats of one kv head at one position of a sequence. Where values are a part of the keys
// both are one row.
inline float* KvRow(const KvLayerView& kv, const SequenceSpan& sequence, int64_t position,
                    KeyOrValue which, int kv_head) {
  const KvShape& shape = kv.shape;
  const int64_t block_id = sequence.block_ids[position / shape.block_tokens];
  const int64_t token = position % shape.block_tokens;
  const bool second_plane = which == KeyOrValue::kValue && shape.value_prefix == 0;
  const int64_t plane = (block_id * 2 + second_plane) * shape.num_kv_heads;
  return static_cast<float*>(kv.data) +
         ((plane + kv_head) * shape.block_tokens + token) * shape.head_dim;
}

// What a vector reads back as from a cache of this type (kv_type.h).
inline void RoundToKvType(KvType type, std::span<const float> x, float* out) {
  double largest = 0;
  bool finite = true;
  for (const float value : x) {
    largest = std::max(largest, std::abs(double{value}));
    finite = finite && std::isfinite(value);
  }
  const auto scale = static_cast<float>(largest / 127);
  for (size_t i = 0; i < x.size(); ++i) {
    out[i] = x[i];
    if (type == KvType::kBF16) out[i] = BF16ToF32(F32ToBF16(x[i]));
    if (type != KvType::kInt8) continue;
    const float n = scale > 0 ? std::clamp(std::nearbyint(x[i] / scale), -127.0f, 127.0f) : 0.0f;
    out[i] = finite ? scale * n : std::numeric_limits<float>::quiet_NaN();
  }
}

}  // namespace gatehouse
