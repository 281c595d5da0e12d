// One bounded mode's message (v1::BoundedRouting) while it becomes a policy: which policies there
// are, what stands for what is not set, and what is refused. routing_policy_convert.h converts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/moe/routing_policy.h"
#include "gatehouse/v1/admin.pb.h"

namespace gatehouse {

// What a policy is checked against.
struct RoutingFacts {
  const ModelDescription& model;
  int32_t block_tokens = 16;      // of the KV cache
  int32_t max_chunk_tokens = 16;  // prompt tokens that every step has room for
};

// Which modes a policy may be given to (docs/routing.md).
struct NamedPolicy {
  const char* name;
  bool shared;
  bool threshold;  // isolated, token by token
  bool block;      // isolated, block by block
};

// Borrows all that it names.
struct BoundedMessage {
  const RoutingFacts& facts;
  const std::string path;  // "isolated" or "shared"
  const bool is_shared;
  v1::BoundedRouting& fields;
  const NamedPolicy& policy;

  std::string Path(const std::string& field) const { return path + "." + field; }
  bool Is(std::string_view name) const { return name == policy.name; }
  bool in_blocks() const {
    return !is_shared && fields.isolation() != v1::BoundedRouting::THRESHOLD;
  }
  bool takes_calibrated_theory() const {
    return fields.has_theory() && !fields.theory().has_effective_dimension() &&
           !fields.theory().has_delta() && !fields.calibration_file().empty();
  }
};

// The policy that `fields` name, or INVALID_ARGUMENT with those that the mode may be given.
absl::StatusOr<const NamedPolicy*> FindPolicy(const std::string& path, bool is_shared,
                                              const v1::BoundedRouting& fields);

// Sets what is not set: first from the calibration file that the message names, then defaults.
// Returns the theory floor of each MoE layer if the message takes the calibration's, else nothing.
// FAILED_PRECONDITION for a calibration of another model.
absl::StatusOr<std::vector<TheoryFloor>> Complete(BoundedMessage& message);

// A complete message: INVALID_ARGUMENT for a number outside of its range and for a combination that
// would break what the mode promises; FAILED_PRECONDITION for shared mode without calibration.
absl::Status Check(const BoundedMessage& message);

}  // namespace gatehouse
