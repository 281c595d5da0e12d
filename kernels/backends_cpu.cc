// The back ends of a build without accelerators.
#include <algorithm>
#include <array>

#include "absl/strings/str_format.h"
#include "kernels/backend.h"
#include "kernels/base/status_macros.h"
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

absl::StatusOr<Backends> MakeBackends(std::string_view name, const BackendOptions& options,
                                      int num_ranks) {
  Backends backends;
  for (int r = 0; r < num_ranks; ++r) {
    const int num_threads =
        options.num_threads * (r + 1) / num_ranks - options.num_threads * r / num_ranks;
    GATEHOUSE_ASSIGN_OR_RETURN(
        std::unique_ptr<Backend> backend,
        MakeBackend(name, {.num_threads = std::max(num_threads, 1), .isa = options.isa}));
    backends.push_back(std::move(backend));
  }
  return backends;
}

}  // namespace gatehouse
