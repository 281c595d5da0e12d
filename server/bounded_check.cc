#include <array>
#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "server/bounded_message.h"
#include "server/field_check.h"

namespace gatehouse {
namespace {

using Bounded = v1::BoundedRouting;

constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxCount = int64_t{1} << 40;

// Order and domains of the other policies (docs/routing.md) are for the workbench alone.
constexpr std::array<NamedPolicy, 6> kPolicies = {{
    {"token_choice", true, true, false},
    {"locmoe_plus", true, false, true},
    {"locmoe", true, false, true},
    {"device_bound", true, false, false},
    {"switch", false, false, true},
    {"threshold", false, true, false},
}};

bool IsFor(bool shared, const NamedPolicy& policy) {
  return shared ? policy.shared : policy.threshold || policy.block;
}

std::string NamesFor(bool shared) {
  std::string names;
  for (const NamedPolicy& policy : kPolicies) {
    if (!IsFor(shared, policy)) continue;
    names += names.empty() ? policy.name : std::string(", ") + policy.name;
  }
  return names;
}

// A combination that would break what the mode promises.
absl::Status CheckMode(const BoundedMessage& message) {
  const Bounded& m = message.fields;
  if (message.is_shared && m.has_isolation()) {
    return InvalidField(message.Path("isolation"), "set, expected only of isolated");
  }
  if (message.is_shared) {
    if (message.Is("token_choice") || m.force() || !m.calibration_file().empty())
      return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: not set: shared mode needs a calibration of this model, or force: "
                        "true to go without knowing what it costs",
                        message.Path("calibration_file")));
  }
  const bool is_threshold = m.isolation() == Bounded::THRESHOLD;
  const bool known =
      is_threshold || m.isolation() == Bounded::BLOCK || m.isolation() == Bounded::BLOCK_CAUSAL;
  if (!known || !(is_threshold ? message.policy.threshold : message.policy.block)) {
    return InvalidField(
        message.Path("isolation"),
        absl::StrFormat("got %s, expected %s of policy %s", Bounded::Isolation_Name(m.isolation()),
                        message.policy.block ? "BLOCK or BLOCK_CAUSAL" : "THRESHOLD",
                        message.policy.name));
  }
  if (m.has_device_factor()) {
    return InvalidField(
        message.Path("device_factor"),
        "set: a device's load is other requests' too; isolated mode bounds experts");
  }
  if (message.in_blocks() && m.bound_decode()) {
    return InvalidField(message.Path("bound_decode"),
                        "true: one generated token is no block to compete in");
  }
  return absl::OkStatus();
}

// What one policy wants of its settings.
absl::Status CheckPolicy(const BoundedMessage& message) {
  const Bounded& m = message.fields;
  const ModelDescription& model = message.facts.model;
  if (m.coverage() && model.has_shared_expert) {
    return InvalidField(message.Path("coverage"),
                        "true, expected false: the shared expert covers every token");
  }
  if (message.Is("switch") && model.top_k != 1) {
    return InvalidField(
        message.Path("policy"),
        absl::StrFormat("switch routes to one expert, this model to %d", model.top_k));
  }
  if (message.Is("switch") && (m.reroute() != 0 || m.isolation() != Bounded::BLOCK))
    return InvalidField(message.path,
                        "policy switch drops: expected isolation BLOCK and reroute 0");
  if (message.Is("locmoe") && !m.has_capacity()) {
    return InvalidField(message.Path("capacity"),
                        "not set, expected the frozen capacity of policy locmoe");
  }
  if (message.Is("token_choice") &&
      (m.has_expert_factor() || m.has_capacity() || m.has_device_factor())) {
    return InvalidField(message.Path("policy"),
                        "token_choice bounds nothing: leave its bounds out");
  }
  if (!message.in_blocks()) return absl::OkStatus();
  if (!m.has_expert_factor() && !m.has_capacity()) {
    return InvalidField(message.Path("expert_factor"),
                        "not set, expected it or capacity: blocks have no other");
  }
  const int64_t block = m.block_tokens();
  if (block < 1 || block % message.facts.block_tokens != 0 ||
      block > message.facts.max_chunk_tokens) {
    return InvalidField(
        message.Path("block_tokens"),
        absl::StrFormat("got %d, expected a multiple of the KV block's %d tokens, at "
                        "most %d: --max-step-tokens less --max-sequences",
                        block, message.facts.block_tokens, message.facts.max_chunk_tokens));
  }
  return absl::OkStatus();
}

absl::Status CheckNumbers(const BoundedMessage& message) {
  const Bounded& m = message.fields;
  const NumberRange factor{0, kMaxFactor, true};
  if (m.has_expert_factor()) {
    GATEHOUSE_RETURN_IF_ERROR(CheckField(message.Path("expert_factor"), m.expert_factor(), factor));
  }
  if (m.has_device_factor()) {
    GATEHOUSE_RETURN_IF_ERROR(CheckField(message.Path("device_factor"), m.device_factor(), factor));
  }
  const auto check = [&message](const char* field, double value, const NumberRange& range) {
    return CheckField(message.Path(field), value, range);
  };
  GATEHOUSE_RETURN_IF_ERROR(check("zeta", m.zeta(), {0, kMaxFactor}));
  GATEHOUSE_RETURN_IF_ERROR(check("tile", static_cast<double>(m.tile()), {1, 1 << 20}));
  GATEHOUSE_RETURN_IF_ERROR(
      check("capacity", static_cast<double>(m.capacity()), {0, double{kMaxCount}}));
  GATEHOUSE_RETURN_IF_ERROR(
      check("min_tokens", static_cast<double>(m.min_tokens()), {0, double{kMaxCount}}));
  GATEHOUSE_RETURN_IF_ERROR(check("min_mean_load", m.min_mean_load(), {0}));
  if (m.has_ecr_error()) {
    GATEHOUSE_RETURN_IF_ERROR(check("ecr_error", m.ecr_error(), {0, 1, true}));
  }
  GATEHOUSE_RETURN_IF_ERROR(check("affinity_mass", m.affinity_mass(), {0, 1}));
  if (m.has_theory() && !message.takes_calibrated_theory()) {
    GATEHOUSE_RETURN_IF_ERROR(
        check("theory.effective_dimension", m.theory().effective_dimension(), factor));
    GATEHOUSE_RETURN_IF_ERROR(check("theory.delta", m.theory().delta(), {0, 1}));
  }
  const double num_experts = message.facts.model.num_experts;
  GATEHOUSE_RETURN_IF_ERROR(check("reroute", m.reroute(), {0, num_experts}));
  GATEHOUSE_RETURN_IF_ERROR(check("reroute_ratio", m.reroute_ratio(), {0}));
  GATEHOUSE_RETURN_IF_ERROR(check("max_renormalisation", m.max_renormalisation(), {1, kMaxFactor}));
  if (m.affinity() < Bounded::GATE || m.affinity() > Bounded::COSINE) {
    return InvalidField(
        message.Path("affinity"),
        absl::StrFormat("got %d, expected GATE, SHARE or COSINE", static_cast<int>(m.affinity())));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<const NamedPolicy*> FindPolicy(const std::string& path, bool is_shared,
                                              const v1::BoundedRouting& fields) {
  for (const NamedPolicy& policy : kPolicies) {
    if (fields.policy() == policy.name && IsFor(is_shared, policy)) return &policy;
  }
  return InvalidField(path + ".policy", absl::StrFormat("got \"%s\", expected one of %s",
                                                        fields.policy(), NamesFor(is_shared)));
}

absl::Status Check(const BoundedMessage& message) {
  GATEHOUSE_RETURN_IF_ERROR(CheckMode(message));
  GATEHOUSE_RETURN_IF_ERROR(CheckNumbers(message));
  return CheckPolicy(message);
}

}  // namespace gatehouse
