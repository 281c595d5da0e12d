#include "kernels/cpu/kv_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace gatehouse::cpu {
namespace {

void StoreInt8(std::span<const float> x, char* out, int64_t stride, char* scale_out) {
  float largest = 0;
  bool finite = true;
  for (const float value : x) {
    largest = std::max(largest, std::abs(value));
    finite = finite && std::isfinite(value);
  }
  const float scale = finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
  std::memcpy(scale_out, &scale, sizeof scale);
  for (size_t i = 0; i < x.size(); ++i) {
    // A largest magnitude near the smallest f32 has a scale of 0, or one so coarse that the
    // quotient passes 127.
    const float n = scale > 0 ? std::clamp(std::nearbyint(x[i] / scale), -127.0f, 127.0f) : 0.0f;
    out[static_cast<int64_t>(i) * stride] = static_cast<char>(static_cast<int8_t>(n));
  }
}

}  // namespace

void StoreKvVector(KvType type, std::span<const float> x, char* out, int64_t stride, char* scale) {
  switch (type) {
    case KvType::kF32:
      for (size_t i = 0; i < x.size(); ++i, out += stride * 4) std::memcpy(out, &x[i], 4);
      return;
    case KvType::kBF16:
      for (size_t i = 0; i < x.size(); ++i, out += stride * 2) {
        const uint16_t bits = F32ToBF16(x[i]);
        std::memcpy(out, &bits, sizeof bits);
      }
      return;
    case KvType::kInt8:
      return StoreInt8(x, out, stride, scale);
  }
}

}  // namespace gatehouse::cpu
