#include "server/tenants.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxTenants = 1024;
constexpr size_t kMaxTokens = 4096;  // each is compared at each call: 4096 take some 40 us
constexpr size_t kMinTokenBytes = 16;
constexpr size_t kMaxTokenBytes = 512;
constexpr size_t kMaxNameBytes = 64;
constexpr std::string_view kDigestPrefix = "sha256:";

// Never the value: it may be a secret in the wrong place.
absl::Status Bad(const std::string& where, const std::string& expected) {
  return absl::InvalidArgumentError(absl::StrFormat("%s: expected %s", where, expected));
}

absl::StatusOr<std::string> ReadText(const YAML::Node& node, const std::string& where) {
  if (!node.IsScalar()) return Bad(where, "a single value");
  return node.Scalar();
}

absl::Status ReadWhole(const YAML::Node& node, const std::string& where, int64_t low, int64_t high,
                       int64_t& value) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, ReadText(node, where));
  if (!absl::SimpleAtoi(text, &value) || value < low || value > high) {
    return Bad(where, absl::StrFormat("a whole number from %d to %d", low, high));
  }
  return absl::OkStatus();
}

// `names` in the order of the enum.
template <typename Enum, size_t kCount>
absl::Status ReadEnum(const YAML::Node& node, const std::string& where,
                      const std::array<const char*, kCount>& names, Enum& value) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, ReadText(node, where));
  std::string all;
  for (size_t i = 0; i < kCount; ++i) {
    if (text == names[i]) {
      value = static_cast<Enum>(i);
      return absl::OkStatus();
    }
    all += (i == 0 ? "" : i + 1 < kCount ? ", " : " or ") + std::string(names[i]);
  }
  return Bad(where, all);
}

constexpr std::array<const char*, 3> kPriorityNames = {"low", "normal", "high"};

absl::Status ReadMode(const YAML::Node& node, const std::string& where, RoutingMode& mode) {
  constexpr std::array<const char*, kNumRoutingModes> kNames = {"exact", "isolated", "shared"};
  return ReadEnum(node, where, kNames, mode);
}

absl::Status ReadName(const YAML::Node& node, const std::string& where, std::string& name) {
  GATEHOUSE_ASSIGN_OR_RETURN(name, ReadText(node, where));
  const bool known = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
  if (name.empty() || name.size() > kMaxNameBytes || !known) {
    return Bad(where, absl::StrFormat("1 to %u of a-z 0-9 . _ -", kMaxNameBytes));
  }
  return absl::OkStatus();
}

struct TenantEntry {
  Tenant tenant;
  std::optional<RoutingMode> default_mode;
  RoutingMode loosest_mode = RoutingMode::kExact;  // looser ones must be granted
  std::vector<std::string> tokens;
};

absl::Status ReadKey(const std::string& key, const YAML::Node& value, const std::string& where,
                     TenantEntry& entry) {
  int64_t number = 0;
  if (key == "name") return ReadName(value, where, entry.tenant.name);
  if (key == "weight") {
    GATEHOUSE_RETURN_IF_ERROR(ReadWhole(value, where, 1, Tenant::kMaxWeight, number));
    entry.tenant.weight = static_cast<int32_t>(number);
  } else if (key == "max-priority") {
    return ReadEnum(value, where, kPriorityNames, entry.tenant.max_priority);
  } else if (key == "max-running-requests") {
    GATEHOUSE_RETURN_IF_ERROR(ReadWhole(value, where, 0, 65536, number));
    entry.tenant.max_running_requests = static_cast<int32_t>(number);
  } else if (key == "max-queued-tokens") {
    GATEHOUSE_RETURN_IF_ERROR(ReadWhole(value, where, 0, int64_t{1} << 40, number));
    entry.tenant.max_queued_tokens = number;
  } else if (key == "default-mode") {
    return ReadMode(value, where, entry.default_mode.emplace());
  } else if (key == "loosest-mode") {
    return ReadMode(value, where, entry.loosest_mode);
  } else if (key == "tokens") {
    if (!value.IsSequence()) return Bad(where, "a list");
    for (const YAML::Node& token : value) {
      GATEHOUSE_ASSIGN_OR_RETURN(std::string text, ReadText(token, where));
      entry.tokens.push_back(std::move(text));
    }
  } else {
    return Bad(where,
               "name, weight, max-priority, max-running-requests, max-queued-tokens, default-mode, "
               "loosest-mode or tokens");
  }
  return absl::OkStatus();
}

absl::StatusOr<TenantEntry> ReadEntry(const YAML::Node& node, const std::string& where) {
  if (!node.IsMap()) return Bad(where, "a map with name and tokens");
  TenantEntry entry;
  entry.tenant.name.clear();
  std::set<std::string> keys;
  for (const auto& member : node) {
    if (!member.first.IsScalar()) return Bad(where, "keys that are names");
    const std::string key = member.first.Scalar();
    const std::string path = absl::StrFormat("%s.%s", where, key.substr(0, kMaxNameBytes));
    if (!keys.insert(key).second) return Bad(path, "one such key");
    GATEHOUSE_RETURN_IF_ERROR(ReadKey(key, member.second, path, entry));
  }
  if (entry.tenant.name.empty()) return Bad(where + ".name", "to be there");
  if (entry.tokens.empty()) return Bad(where + ".tokens", "at least one");
  if (entry.default_mode > entry.loosest_mode) {
    return Bad(where + ".default-mode", "a mode that loosest-mode allows");
  }
  return entry;
}

// yaml-cpp throws; a file with a thousand levels of brackets, too.
absl::StatusOr<std::vector<TenantEntry>> ReadEntries(const std::string& yaml) {
  std::vector<TenantEntry> entries;
  try {
    const YAML::Node root = YAML::Load(yaml);
    if (!root.IsMap() || root.size() != 1 || !root["tenants"].IsSequence()) {
      return Bad("tenants file", "\"tenants:\" with a list and nothing else");
    }
    for (const YAML::Node& node : root["tenants"]) {
      const std::string where = absl::StrFormat("tenants[%u]", entries.size());
      if (entries.size() == kMaxTenants) {
        return Bad(where, absl::StrFormat("at most %u tenants", kMaxTenants));
      }
      GATEHOUSE_ASSIGN_OR_RETURN(TenantEntry entry, ReadEntry(node, where));
      for (const TenantEntry& other : entries) {
        if (other.tenant.name == entry.tenant.name) return Bad(where + ".name", "another name");
      }
      entries.push_back(std::move(entry));
    }
  } catch (const YAML::Exception& error) {
    // Its message may quote the text.
    return Bad(absl::StrFormat("tenants file, line %d", error.mark.line + 1), "YAML");
  }
  if (entries.empty()) return Bad("tenants", "at least one");
  return entries;
}

}  // namespace

TenantTable::TenantTable() { policies_.push_back(std::make_shared<const TenantPolicy>()); }

absl::Status TenantTable::AddToken(const std::string& text, size_t policy_idx) {
  const std::string where = absl::StrFormat(
      "token %u of tenant %s",
      std::count_if(tokens_.begin(), tokens_.end(),
                    [&](const Token& token) { return token.policy_idx == policy_idx; }) +
          1,
      policies_[policy_idx]->tenant->name);
  Token token{.policy_idx = policy_idx};
  if (absl::StartsWith(text, {kDigestPrefix.data(), kDigestPrefix.size()})) {
    const std::string hex = text.substr(kDigestPrefix.size());
    if (hex.size() != 2 * token.digest.size() ||
        hex.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
      return Bad(where, "sha256: and 64 hexadecimal digits");
    }
    const std::string bytes = absl::HexStringToBytes(hex);
    std::copy(bytes.begin(), bytes.end(), token.digest.begin());
  } else {
    const bool printable =
        std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
    if (text.size() < kMinTokenBytes || text.size() > kMaxTokenBytes || !printable) {
      return Bad(where, absl::StrFormat("%u to %u printable ASCII characters without spaces, or "
                                        "sha256: and 64 hexadecimal digits",
                                        kMinTokenBytes, kMaxTokenBytes));
    }
    SHA256(reinterpret_cast<const uint8_t*>(text.data()), text.size(), token.digest.data());
  }
  for (const Token& other : tokens_) {
    if (other.digest == token.digest) return Bad(where, "a token that is not there already");
  }
  if (tokens_.size() == kMaxTokens) {
    return Bad(where, absl::StrFormat("at most %u tokens in all", kMaxTokens));
  }
  tokens_.push_back(token);
  return absl::OkStatus();
}

absl::StatusOr<TenantTable> TenantTable::Parse(const std::string& yaml) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<TenantEntry> entries, ReadEntries(yaml));
  TenantTable table;
  table.policies_.clear();
  for (const TenantEntry& entry : entries) {
    table.policies_.push_back(std::make_shared<const TenantPolicy>(
        TenantPolicy{.tenant = std::make_shared<const Tenant>(entry.tenant),
                     .default_mode = entry.default_mode,
                     .loosest_mode = entry.loosest_mode}));
    for (const std::string& token : entry.tokens) {
      GATEHOUSE_RETURN_IF_ERROR(table.AddToken(token, table.policies_.size() - 1));
    }
  }
  return table;
}

absl::StatusOr<TenantTable> TenantTable::ParseTokens(const std::string& lines) {
  TenantTable table;
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = std::min(lines.find('\n', begin), lines.size());
    std::string line = lines.substr(begin, end - begin);
    begin = end + 1;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with('#')) continue;
    GATEHOUSE_RETURN_IF_ERROR(table.AddToken(line, 0));
  }
  if (!table.needs_token()) return Bad("token file", "a token a line, at least one");
  return table;
}

std::shared_ptr<const TenantPolicy> TenantTable::Find(std::string_view token) const {
  Digest digest{};
  SHA256(reinterpret_cast<const uint8_t*>(token.data()), token.size(), digest.data());
  size_t found = policies_.size();
  for (const Token& other : tokens_) {  // to the end, wherever it is
    if (CRYPTO_memcmp(other.digest.data(), digest.data(), digest.size()) == 0) {
      found = other.policy_idx;
    }
  }
  return found < policies_.size() ? policies_[found] : nullptr;
}

void Tenants::Set(TenantTable table) {
  auto shared = std::make_shared<const TenantTable>(std::move(table));
  const MutexLock lock(mutex_);
  table_.swap(shared);
}

absl::StatusOr<std::shared_ptr<const TenantPolicy>> Tenants::Authenticate(
    std::optional<std::string_view> authorization) const {
  std::shared_ptr<const TenantTable> table;
  {
    const MutexLock lock(mutex_);
    table = table_;
  }
  if (!table->needs_token()) return table->policies().front();
  if (!authorization) {
    return absl::UnauthenticatedError("no authorization metadata, expected \"Bearer TOKEN\"");
  }
  constexpr std::string_view kScheme = "bearer ";
  const bool is_bearer = authorization->size() > kScheme.size() &&
                         absl::EqualsIgnoreCase({authorization->data(), kScheme.size()},
                                                {kScheme.data(), kScheme.size()});
  std::shared_ptr<const TenantPolicy> policy;
  if (is_bearer) policy = table->Find(authorization->substr(kScheme.size()));
  if (policy == nullptr) {
    return absl::UnauthenticatedError(is_bearer ? "the bearer token is not known"
                                                : "expected authorization \"Bearer TOKEN\"");
  }
  return policy;
}

}  // namespace gatehouse
