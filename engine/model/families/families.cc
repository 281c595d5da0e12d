#include "engine/model/families/families.h"

namespace gatehouse {

std::span<const Family> Families() {
  static constexpr Family kFamilies[] = {
      {"deepseek_v2", ReadDeepseekV2Config},
      {"deepseek_v3", ReadDeepseekV3Config},
      {"gatehouse_locmoe", ReadLocMoeConfig},
      {"gpt_oss", ReadGptOssConfig},
      {"granitemoe", ReadGraniteMoeConfig},
      {"mixtral", ReadMixtralConfig},
      {"olmoe", ReadOlmoeConfig},
      {"qwen2_moe", ReadQwen2MoeConfig},
      {"qwen3_moe", ReadQwen3MoeConfig},
  };
  return kFamilies;
}

}  // namespace gatehouse
