// What a full expert may do to a request. A value.
#pragma once

namespace gatehouse {

// From strict to loose: who may have one may have those before it.
enum class RoutingMode {
  kExact,     // nothing
  kIsolated,  // bounds count over this request alone
  kShared,    // bounds count over the requests of its tenant in the step
};
inline constexpr int kNumRoutingModes = 3;

constexpr const char* RoutingModeName(RoutingMode mode) {
  constexpr const char* kNames[] = {"exact", "isolated", "shared"};
  return kNames[static_cast<int>(mode)];
}

}  // namespace gatehouse
