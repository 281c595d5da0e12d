#include <cpuid.h>

#include "kernels/cpu/isa_list.h"

namespace gatehouse::cpu {
namespace {

// The __builtin functions ask the processor and the operating system (which must save the wide
// registers).
bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// g++ 12 has no __builtin_cpu_supports("avxvnni").
bool HasAvxVnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return HasAvx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}

bool HasAvx512Vnni() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

IsaKernels WithQuant(IsaKernels kernels, const char* name, const QuantKernels& quant) {
  kernels.name = name;
  kernels.quant = quant;
  return kernels;
}

const IsaKernels& Avx512Kernels() {
  static const IsaKernels kKernels =
      WithQuant(Avx512FloatKernels(), "avx512", Avx512QuantKernels());
  return kKernels;
}

const IsaKernels& AvxVnniKernels() {
  static const IsaKernels kKernels = WithQuant(Avx2Kernels(), "avxvnni", AvxVnniQuantKernels());
  return kKernels;
}

}  // namespace

std::vector<const IsaKernels*> SupportedIsas() {
  std::vector<const IsaKernels*> isas;
  if (HasAvx512Vnni()) isas.push_back(&Avx512Kernels());
  if (HasAvxVnni()) isas.push_back(&AvxVnniKernels());
  if (HasAvx2()) isas.push_back(&Avx2Kernels());
  isas.push_back(&PortableKernels());
  return isas;
}

}  // namespace gatehouse::cpu
