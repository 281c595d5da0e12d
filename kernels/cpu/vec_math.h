// Functions over a lane type V (Avx2F32x8, PortableF32x8) that need no instruction of their own.
// Included, after the header of V, by the files isa_*.cc only. Our own exp, because libm's differs
// from host to host.
#pragma once

namespace gatehouse::cpu {
namespace {

// e^x within 2 ulp for -87 <= x <= 88; clamped to that range outside (never 0, never infinite); NaN
// stays NaN. 2^n * p(r) with x = n ln 2 + r.
template <typename V>
inline V Exp(V x) {
  x = Min(V::Broadcast(88.0f), Max(V::Broadcast(-87.0f), x));
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the mantissa.
  const V magic = V::Broadcast(12582912.0f);
  const V biased = Fma(x, V::Broadcast(1.44269504f), magic);
  const V n = Sub(biased, magic);
  // ln 2 in two parts: n times the first is exact.
  V r = Fma(n, V::Broadcast(-0.693359375f), x);
  r = Fma(n, V::Broadcast(2.12194440e-4f), r);
  V p = V::Broadcast(1.0f / 720);
  p = Fma(p, r, V::Broadcast(1.0f / 120));
  p = Fma(p, r, V::Broadcast(1.0f / 24));
  p = Fma(p, r, V::Broadcast(1.0f / 6));
  p = Fma(p, r, V::Broadcast(0.5f));
  p = Fma(p, r, V::Broadcast(1.0f));
  p = Fma(p, r, V::Broadcast(1.0f));
  return Mul(p, Pow2OfMagic(biased));
}

// x / (1 + e^-x)
template <typename V>
inline V Silu(V x) {
  return Div(x, Add(V::Broadcast(1.0f), Exp(Sub(V::Zero(), x))));
}

}  // namespace
}  // namespace gatehouse::cpu
