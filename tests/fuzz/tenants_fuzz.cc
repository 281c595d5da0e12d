// The tenants file, the file of tokens and the header that carries one: first byte which file.
#include <string>

#include "kernels/base/check.h"
#include "server/tenants.h"

namespace gatehouse {
namespace {

void CheckTable(const absl::StatusOr<TenantTable>& table, const std::string& text) {
  if (!table.ok()) {
    GATEHOUSE_CHECK(table.status().message().size() < 1024) << table.status().message().size();
    return;
  }
  GATEHOUSE_CHECK(!table->policies().empty());
  for (const auto& policy : table->policies()) {
    GATEHOUSE_CHECK(policy->default_mode <= policy->loosest_mode);
    GATEHOUSE_CHECK(policy->tenant->weight >= 1 && policy->tenant->weight <= Tenant::kMaxWeight);
    GATEHOUSE_CHECK(policy->tenant->max_queued_tokens >= 0);
  }
  const Tenants tenants(*table);
  for (const std::string& header : {"Bearer " + text, text, std::string()}) {
    const auto policy = tenants.Authenticate(header);
    // A whole file is nobody's token, whichever stand in it.
    GATEHOUSE_CHECK(!table->needs_token() || !policy.ok() || text.size() <= 512);
  }
}

}  // namespace
}  // namespace gatehouse

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gatehouse;
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  CheckTable(data[0] % 2 == 0 ? TenantTable::Parse(text) : TenantTable::ParseTokens(text), text);
  return 0;
}
