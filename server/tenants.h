// Who may call: bearer tokens and the tenants that they belong to. Tokens are kept as SHA-256
// digests only and compared in constant time. docs/operations.md shows the files.
//
//   absl::StatusOr<TenantTable> table = TenantTable::Parse(text_of_the_tenants_file);
//   Tenants tenants(*std::move(table));
//   auto policy = tenants.Authenticate("Bearer 0123456789abcdef");   // any thread
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request/routing_mode.h"
#include "engine/request/tenant.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

struct TenantPolicy {
  std::shared_ptr<const Tenant> tenant = std::make_shared<const Tenant>();  // the engine's part
  std::optional<RoutingMode> default_mode;  // absent: the server's, as far as loosest_mode allows
  RoutingMode loosest_mode = RoutingMode::kShared;
};

// A value: made from a file, then only read.
class TenantTable {
 public:
  // No tokens: whoever calls is the tenant "default".
  TenantTable();
  // YAML of --tenants. INVALID_ARGUMENT with the tenant, the key, and what was expected.
  static absl::StatusOr<TenantTable> Parse(const std::string& yaml);
  // Lines of --auth-token-file: a token or its digest each, all of the tenant "default".
  static absl::StatusOr<TenantTable> ParseTokens(const std::string& lines);

  bool needs_token() const { return !tokens_.empty(); }
  // Null when no tenant has the token. Takes the same time for every token of one length.
  std::shared_ptr<const TenantPolicy> Find(std::string_view token) const;
  const std::vector<std::shared_ptr<const TenantPolicy>>& policies() const { return policies_; }

 private:
  using Digest = std::array<uint8_t, 32>;
  struct Token {
    Digest digest{};
    size_t policy_idx = 0;
  };

  absl::Status AddToken(const std::string& text, size_t policy_idx);

  std::vector<std::shared_ptr<const TenantPolicy>> policies_;
  std::vector<Token> tokens_;
};

// The table in force. Thread-safe.
class Tenants {
 public:
  explicit Tenants(TenantTable table = {}) { Set(std::move(table)); }

  void Set(TenantTable table) GATEHOUSE_EXCLUDES(mutex_);
  // `authorization` is the metadata of that name. UNAUTHENTICATED when it is not "Bearer TOKEN"
  // with a token that a tenant has; what it holds is never repeated.
  absl::StatusOr<std::shared_ptr<const TenantPolicy>> Authenticate(
      std::optional<std::string_view> authorization) const GATEHOUSE_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const TenantTable> table_ GATEHOUSE_GUARDED_BY(mutex_);
};

}  // namespace gatehouse
