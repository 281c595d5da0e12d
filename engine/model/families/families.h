// The model families this build serves. To add one: a file here that reads its config.json keys
// into a ModelConfig, and a line in families.cc.
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

ModelConfig ReadQwen3MoeConfig(JsonFields& fields);

}  // namespace gatehouse
