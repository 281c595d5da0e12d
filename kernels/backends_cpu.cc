// The back ends of a build without accelerators.
#include <array>

#include "absl/strings/str_format.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"

namespace gatehouse {

std::span<const std::string_view> CompiledBackends() {
  static constexpr std::array<std::string_view, 1> kNames = {"cpu"};
  return kNames;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(std::string_view name,
                                                     const BackendOptions& options) {
  if (name == "cpu") return cpu::CpuBackend::Make(options);
  return absl::InvalidArgumentError(
      absl::StrFormat("unknown back end \"%s\"; this build has: cpu", name));
}

}  // namespace gatehouse
