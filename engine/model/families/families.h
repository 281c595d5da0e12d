// The model families this build serves. To add one: a file here that reads its config.json keys
// into a ModelConfig with the readers of common.h, and a line in families.cc. Omitted keys take the
// defaults of the family's configuration class in transformers.
#pragma once

#include <span>
#include <string_view>

#include "engine/json/json_fields.h"
#include "engine/model/model_config.h"

namespace gatehouse {

struct Family {
  std::string_view model_type;
  // Errors stick in the fields; the result then means nothing.
  ModelConfig (*read_config)(JsonFields& fields);
};
std::span<const Family> Families();

ModelConfig ReadDeepseekV2Config(JsonFields& fields);
ModelConfig ReadDeepseekV3Config(JsonFields& fields);
ModelConfig ReadGptOssConfig(JsonFields& fields);
ModelConfig ReadGraniteMoeConfig(JsonFields& fields);
ModelConfig ReadLocMoeConfig(JsonFields& fields);
ModelConfig ReadMixtralConfig(JsonFields& fields);
ModelConfig ReadOlmoeConfig(JsonFields& fields);
ModelConfig ReadQwen2MoeConfig(JsonFields& fields);
ModelConfig ReadQwen3MoeConfig(JsonFields& fields);

}  // namespace gatehouse
