#include "kernels/cpu/isa_list.h"

#include <string>

#include "absl/strings/str_format.h"

namespace gatehouse::cpu {

absl::StatusOr<const IsaKernels*> FindIsa(std::string_view name) {
  const std::vector<const IsaKernels*> isas = SupportedIsas();
  if (name.empty()) return isas.front();
  std::string names;
  for (const IsaKernels* isa : isas) {
    if (name == isa->name) return isa;
    names += (names.empty() ? "" : ", ") + std::string(isa->name);
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "unknown instruction set \"%s\"; this machine and build have: %s", name, names));
}

}  // namespace gatehouse::cpu
