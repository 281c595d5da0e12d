// The choice of instruction set at run time.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/isa_kernels.h"

namespace gatehouse::cpu {

// Those that this build has and this machine can run, best first. Which the build has is a source
// file: isa_list_x86.cc or isa_list_generic.cc.
std::vector<const IsaKernels*> SupportedIsas();

// The best for an empty name. INVALID_ARGUMENT, with the list, for one that this machine has not.
absl::StatusOr<const IsaKernels*> FindIsa(std::string_view name);

}  // namespace gatehouse::cpu
