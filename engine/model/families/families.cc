#include "engine/model/families/families.h"

namespace gatehouse {

std::span<const Family> Families() {
  static constexpr Family kFamilies[] = {
      {"qwen3_moe", ReadQwen3MoeConfig},
  };
  return kFamilies;
}

}  // namespace gatehouse
