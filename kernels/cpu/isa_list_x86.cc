#include "kernels/cpu/isa_list.h"

namespace gatehouse::cpu {

std::vector<const IsaKernels*> SupportedIsas() {
  std::vector<const IsaKernels*> isas;
  // Asks the processor and the operating system (which must save the wide registers).
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    isas.push_back(&Avx2Kernels());
  }
  isas.push_back(&PortableKernels());
  return isas;
}

}  // namespace gatehouse::cpu
