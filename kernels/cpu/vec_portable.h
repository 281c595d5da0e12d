// Eight f32 lanes as an array: the interface and the bits of vec_avx2.h in plain C++, for
// isa_portable.cc alone. __builtin_fmaf is one instruction where the target has it and a correctly
// rounded library call where it has not (slow, and right).
#pragma once

#include <cstdint>
#include <cstring>

namespace gatehouse::cpu {
namespace {

struct PortableF32x8 {
  static constexpr int kLanes = 8;
  static constexpr int kBlockRows = 6;

  float v[8];

  static PortableF32x8 Zero() { return Broadcast(0); }
  static PortableF32x8 Broadcast(float x) { return {{x, x, x, x, x, x, x, x}}; }
  static PortableF32x8 Load(const float* p) {
    PortableF32x8 out;
    std::memcpy(out.v, p, sizeof out.v);
    return out;
  }
  static PortableF32x8 LoadFirst(const float* p, int count) {
    PortableF32x8 out = Zero();
    for (int i = 0; i < count; ++i) out.v[i] = p[i];
    return out;
  }
  static PortableF32x8 LoadBF16(const uint16_t* p) { return Widen(p, 1); }
  static PortableF32x8 LoadI8(const int8_t* p) {
    PortableF32x8 out;
    for (int i = 0; i < 8; ++i) out.v[i] = p[i];
    return out;
  }
  static PortableF32x8 LoadBF16First(const uint16_t* pairs) { return Widen(pairs, 2); }
  static PortableF32x8 LoadBF16Second(const uint16_t* pairs) { return Widen(pairs + 1, 2); }

  void Store(float* p) const { std::memcpy(p, v, sizeof v); }
  void StoreFirst(float* p, int count) const {
    for (int i = 0; i < count; ++i) p[i] = v[i];
  }

 private:
  static PortableF32x8 Widen(const uint16_t* p, int step) {
    uint32_t bits[8];
    for (int i = 0; i < 8; ++i) bits[i] = uint32_t{p[i * step]} << 16;
    PortableF32x8 out;
    std::memcpy(out.v, bits, sizeof out.v);
    return out;
  }
};

inline PortableF32x8 Add(PortableF32x8 a, PortableF32x8 b) {
  for (int i = 0; i < 8; ++i) a.v[i] += b.v[i];
  return a;
}
inline PortableF32x8 Sub(PortableF32x8 a, PortableF32x8 b) {
  for (int i = 0; i < 8; ++i) a.v[i] -= b.v[i];
  return a;
}
inline PortableF32x8 Mul(PortableF32x8 a, PortableF32x8 b) {
  for (int i = 0; i < 8; ++i) a.v[i] *= b.v[i];
  return a;
}
inline PortableF32x8 Div(PortableF32x8 a, PortableF32x8 b) {
  for (int i = 0; i < 8; ++i) a.v[i] /= b.v[i];
  return a;
}
inline PortableF32x8 Fma(PortableF32x8 a, PortableF32x8 b, PortableF32x8 c) {
  for (int i = 0; i < 8; ++i) c.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return c;
}
inline PortableF32x8 Max(PortableF32x8 a, PortableF32x8 b) {
  for (int i = 0; i < 8; ++i) b.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return b;
}
inline PortableF32x8 Min(PortableF32x8 a, PortableF32x8 b) {
  for (int i = 0; i < 8; ++i) b.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return b;
}

inline void AddProduct(PortableF32x8 a, PortableF32x8 b, PortableF32x8& sum) {
  sum = Fma(a, b, sum);
}

inline void Transpose(PortableF32x8 (&rows)[8]) {
  for (int i = 0; i < 8; ++i) {
    for (int j = 0; j < i; ++j) {
      const float above = rows[j].v[i];
      rows[j].v[i] = rows[i].v[j];
      rows[i].v[j] = above;
    }
  }
}

inline float ReduceAdd(PortableF32x8 x) {
  for (int i = 0; i < 4; ++i) x.v[i] += x.v[i + 4];
  return (x.v[0] + x.v[2]) + (x.v[1] + x.v[3]);
}
inline float ReduceMax(PortableF32x8 x) {
  for (int half = 4; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) x.v[i] = x.v[i] > x.v[i + half] ? x.v[i] : x.v[i + half];
  }
  return x.v[0];
}

inline PortableF32x8 Pow2OfMagic(PortableF32x8 x) {
  uint32_t bits[8];
  std::memcpy(bits, x.v, sizeof bits);
  for (int i = 0; i < 8; ++i) bits[i] = (bits[i] << 23) + 0x3f800000u;
  std::memcpy(x.v, bits, sizeof bits);
  return x;
}

}  // namespace
}  // namespace gatehouse::cpu
