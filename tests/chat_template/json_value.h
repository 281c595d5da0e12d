// JSON of tests as values of a template; strings are the client's.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/chat_template/value.h"

namespace gatehouse {

inline jinja::Value ToValue(const nlohmann::ordered_json& json);

inline jinja::Dict ToDict(const nlohmann::ordered_json& json) {
  jinja::Dict dict;
  for (const auto& [name, value] : json.items()) dict.Set(name, ToValue(value));
  return dict;
}

inline jinja::Value ToValue(const nlohmann::ordered_json& json) {
  using jinja::Value;
  if (json.is_null()) return Value::MakeNone();
  if (json.is_boolean()) return Value::MakeBool(json.get<bool>());
  if (json.is_number_integer()) return Value::MakeInteger(json.get<int64_t>());
  if (json.is_number()) return Value::MakeFloat(json.get<double>());
  if (json.is_string()) return Value::MakeString(jinja::Text::FromClient(json.get<std::string>()));
  if (json.is_object()) return *Value::MakeDict(ToDict(json));
  std::vector<Value> items;
  for (const auto& item : json) items.push_back(ToValue(item));
  return *Value::MakeList(std::move(items));
}

}  // namespace gatehouse
