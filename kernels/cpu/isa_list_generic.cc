#include "kernels/cpu/isa_list.h"

namespace gatehouse::cpu {

std::vector<const IsaKernels*> SupportedIsas() { return {&PortableKernels()}; }

}  // namespace gatehouse::cpu
