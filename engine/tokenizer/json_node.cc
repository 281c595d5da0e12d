#include "engine/tokenizer/json_node.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

std::string Describe(const nlohmann::json& value) {
  switch (value.type()) {
    case nlohmann::json::value_t::string:
      return absl::StrFormat("is the string %s",
                             QuoteForMessage(value.get_ref<const std::string&>()));
    case nlohmann::json::value_t::number_integer:
    case nlohmann::json::value_t::number_unsigned:
    case nlohmann::json::value_t::number_float:
    case nlohmann::json::value_t::boolean:
      return absl::StrFormat("is %s", value.dump());
    case nlohmann::json::value_t::null:
      return "is null";
    default:
      return absl::StrFormat("is an %s", value.type_name());
  }
}

}  // namespace

std::string QuoteForMessage(std::string_view text) {
  constexpr size_t kMaxBytes = 40;
  const bool cut = text.size() > kMaxBytes;
  const std::string escaped =
      absl::CHexEscape(absl::string_view(text.data(), std::min(text.size(), kMaxBytes)));
  return absl::StrFormat("\"%s\"%s", escaped, cut ? "..." : "");
}

absl::StatusOr<bool> ReadFlag(const JsonNode& node, const std::string& name) {
  const std::optional<JsonNode> field = node.Find(name);
  if (!field.has_value()) return false;
  return field->Bool();
}

absl::Status JsonNode::Error(std::string_view problem, std::string_view expected) const {
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s: %s%s%s, expected %s", *file_, path_, path_.empty() ? "" : ": ", problem, expected));
}

absl::Status JsonNode::ExpectObject() const {
  return value_->is_object() ? absl::OkStatus() : Error(Describe(*value_), "an object");
}

absl::Status JsonNode::ExpectArray() const {
  return value_->is_array() ? absl::OkStatus() : Error(Describe(*value_), "an array");
}

absl::Status JsonNode::ExpectOnly(std::initializer_list<std::string_view> names) const {
  GATEHOUSE_RETURN_IF_ERROR(ExpectObject());
  for (const auto& [name, unused] : value_->items()) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    std::string known;
    for (std::string_view each : names) known += (known.empty() ? "" : ", ") + std::string(each);
    return Error(absl::StrFormat("has the unknown key %s", QuoteForMessage(name)),
                 absl::StrFormat("only %s", known));
  }
  return absl::OkStatus();
}

absl::StatusOr<JsonNode> JsonNode::Field(const std::string& name) const {
  GATEHOUSE_RETURN_IF_ERROR(ExpectObject());
  const auto found = value_->find(name);
  if (found == value_->end()) {
    return Error(absl::StrFormat("has no \"%s\"", name), "that key");
  }
  return JsonNode(&*found, file_, path_.empty() ? name : path_ + "." + name);
}

std::optional<JsonNode> JsonNode::Find(const std::string& name) const {
  if (!value_->is_object()) return std::nullopt;
  const auto found = value_->find(name);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  return JsonNode(&*found, file_, path_.empty() ? name : path_ + "." + name);
}

JsonNode JsonNode::Element(size_t index) const {
  return JsonNode(&(*value_)[index], file_, absl::StrFormat("%s[%d]", path_, index));
}

absl::StatusOr<std::string> JsonNode::String() const {
  if (!value_->is_string()) return Error(Describe(*value_), "a string");
  return value_->get_ref<const std::string&>();
}

absl::StatusOr<bool> JsonNode::Bool() const {
  if (!value_->is_boolean()) return Error(Describe(*value_), "true or false");
  return value_->get<bool>();
}

absl::StatusOr<int32_t> JsonNode::Integer(int32_t low, int32_t high) const {
  const std::string expected = absl::StrFormat("an integer from %d to %d", low, high);
  if (!value_->is_number_integer()) return Error(Describe(*value_), expected);
  // Numbers above INT64_MAX are kept unsigned by the parser; get<int64_t> would wrap.
  if (value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(high)) {
    return Error(Describe(*value_), expected);
  }
  const int64_t number = value_->get<int64_t>();
  if (number < low || number > high) return Error(Describe(*value_), expected);
  return static_cast<int32_t>(number);
}

}  // namespace gatehouse
