// How the KV cache holds a key or a value. Like a weight format, a type says which values there
// may be and how a row is rounded to them; the layout belongs to each back end. Attention reads
// what was stored, of this step's rows too.
//
//   f32   as computed
//   bf16  nearest even
//   int8  scale * n, -127 <= n <= 127, with one f32 scale for a token's key and one for its value
//         in each head: the largest magnitude over 127; n = x / scale to the nearest, even on ties.
//         A vector that is not finite reads back as NaN throughout.
#pragma once

#include <cstdint>
#include <string_view>

namespace gatehouse {

enum class KvType : uint8_t { kF32, kBF16, kInt8 };

constexpr std::string_view KvTypeName(KvType type) {
  return type == KvType::kF32 ? "f32" : type == KvType::kBF16 ? "bf16" : "int8";
}
constexpr int64_t KvElementBytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kBF16 ? 2 : 1;
}

}  // namespace gatehouse
