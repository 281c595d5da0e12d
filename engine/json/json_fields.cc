#include "engine/json/json_fields.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxPrintedBytes = 120;

// Runs before the document is built: what it refuses never takes memory.
class LimitChecker final : public nlohmann::json_sax<json> {
 public:
  const std::string& problem() const { return problem_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return Enter(); }
  bool start_array(size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    problem_ = absl::StrFormat("key \"%s\" stands twice, expected distinct keys", Printable(name));
    return false;
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    problem_ = absl::StrFormat("bad JSON at byte %d, expected a JSON object", position);
    return false;
  }

 private:
  bool Enter() {
    keys_.emplace_back();
    if (keys_.size() <= kMaxDepth) return true;
    problem_ =
        absl::StrFormat("JSON nests deeper than %d levels, expected a flat document", kMaxDepth);
    return false;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::unordered_set<std::string>> keys_;  // of every open object (and array, unused)
  std::string problem_;
};

std::string PrintedValue(const json* value) {
  if (value == nullptr) return "nothing";
  return Printable(value->dump(-1, ' ', true, json::error_handler_t::replace));
}

}  // namespace

std::string Printable(std::string_view text) {
  const bool cut = text.size() > kMaxPrintedBytes;
  const std::string_view shown = text.substr(0, kMaxPrintedBytes);
  std::string printable;
  for (const char c : shown) {
    if (c >= 0x20 && c < 0x7f) {
      printable.push_back(c);
    } else {
      printable += absl::StrFormat("\\x%02x", static_cast<unsigned char>(c));
    }
  }
  return cut ? printable + "..." : printable;
}

absl::StatusOr<json> ParseJsonObject(std::string_view text, const std::string& file) {
  LimitChecker checker;
  if (!json::sax_parse(text.begin(), text.end(), &checker)) {
    return absl::FailedPreconditionError(absl::StrFormat("%s: %s", file, checker.problem()));
  }
  json document = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: got a JSON %s, expected an object", file, document.type_name()));
  }
  return document;
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t max_bytes) {
  std::error_code error;
  const std::filesystem::file_status file_status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(file_status)) {
    return absl::NotFoundError(absl::StrFormat("%s: no such file", path));
  }
  if (!std::filesystem::is_regular_file(file_status)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: not a regular file, expected one", path));
  }
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  const int64_t num_bytes = stream ? static_cast<int64_t>(stream.tellg()) : -1;
  if (num_bytes < 0) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: cannot be opened, expected a readable file", path));
  }
  if (num_bytes > max_bytes) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: got %d bytes, expected at most %d", path, num_bytes, max_bytes));
  }
  std::string text(num_bytes, '\0');
  stream.seekg(0);
  if (!stream.read(text.data(), num_bytes)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: cannot be read, expected %d bytes", path, num_bytes));
  }
  return text;
}

absl::StatusOr<json> ReadJsonObjectFile(const std::string& path, int64_t max_bytes) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, max_bytes));
  return ParseJsonObject(text, path);
}

JsonFields::JsonFields(const json& object, std::string file)
    : JsonFields(&object, std::move(file) + ": ", std::make_shared<absl::Status>()) {}

JsonFields::JsonFields(const json* object, std::string prefix, std::shared_ptr<absl::Status> status)
    : object_(object), prefix_(std::move(prefix)), status_(std::move(status)) {}

const json* JsonFields::Find(const char* key) const {
  if (object_ == nullptr) return nullptr;
  const auto it = object_->find(key);
  return it == object_->end() ? nullptr : &*it;
}

void JsonFields::RefuseAt(std::string_view path, const json* value, std::string_view expected) {
  if (!status_->ok()) return;
  *status_ = absl::FailedPreconditionError(
      absl::StrFormat("%s%s: got %s, expected %s", prefix_, path, PrintedValue(value), expected));
}

void JsonFields::Refuse(const char* key, std::string_view expected) {
  RefuseAt(key, Find(key), expected);
}

void JsonFields::ExpectOnly(std::initializer_list<std::string_view> keys) {
  if (object_ == nullptr) return;
  for (const auto& [key, value] : object_->items()) {
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    std::string known;
    for (const std::string_view each : keys)
      known += (known.empty() ? "" : ", ") + std::string(each);
    RefuseAt(Printable(key), &value, "no other keys than " + known);
  }
}

void JsonFields::RefuseObjects(std::string_view expected) {
  if (object_ == nullptr) return;
  for (const auto& [key, value] : object_->items()) {
    if (value.is_object()) RefuseAt(Printable(key), &value, expected);
  }
}

bool JsonFields::Has(const char* key) const {
  const json* value = Find(key);
  return value != nullptr && !value->is_null();
}

bool JsonFields::IsNull(const char* key) const {
  const json* value = Find(key);
  return value != nullptr && value->is_null();
}

bool JsonFields::HasNonEmptyObject(const char* key) const {
  // Not an object: true, so that Object(key) reports it.
  return Has(key) && !(Find(key)->is_object() && Find(key)->empty());
}

int32_t JsonFields::ToInt(const char* key, const json& value, IntRange range) {
  // A number beyond int64 is unsigned or float in the document, never wrapped.
  const bool fits =
      value.is_number_integer() &&
      (!value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)) &&
      value.get<int64_t>() >= range.min && value.get<int64_t>() <= range.max;
  if (!fits) {
    RefuseAt(key, &value, absl::StrFormat("an integer from %d to %d", range.min, range.max));
    return static_cast<int32_t>(range.min);
  }
  return static_cast<int32_t>(value.get<int64_t>());
}

int32_t JsonFields::Int(const char* key, std::optional<int32_t> fallback, IntRange range) {
  const json* value = Find(key);
  if (value != nullptr) return ToInt(key, *value, range);
  if (!fallback.has_value()) {
    RefuseAt(key, nullptr, absl::StrFormat("an integer from %d to %d", range.min, range.max));
  }
  return fallback.value_or(static_cast<int32_t>(range.min));
}

std::optional<int32_t> JsonFields::OptionalInt(const char* key, IntRange range) {
  if (!Has(key)) return std::nullopt;
  return ToInt(key, *Find(key), range);
}

double JsonFields::Number(const char* key, std::optional<double> fallback, NumberRange range) {
  const json* value = Find(key);
  if (value == nullptr && fallback.has_value()) return *fallback;
  const bool fits = value != nullptr && value->is_number() && value->get<double>() >= range.min &&
                    value->get<double>() <= range.max;
  if (fits) return value->get<double>();
  RefuseAt(key, value, absl::StrFormat("a number from %g to %g", range.min, range.max));
  return range.min;
}

std::optional<double> JsonFields::OptionalNumber(const char* key, NumberRange range) {
  if (!Has(key)) return std::nullopt;
  return Number(key, std::nullopt, range);
}

bool JsonFields::Bool(const char* key, std::optional<bool> fallback) {
  const json* value = Find(key);
  if (value != nullptr && value->is_boolean()) return value->get<bool>();
  if (value != nullptr || !fallback.has_value()) RefuseAt(key, value, "true or false");
  return fallback.value_or(false);
}

std::string JsonFields::String(const char* key, const std::optional<std::string>& fallback) {
  const json* value = Find(key);
  if (value != nullptr && value->is_string()) return value->get<std::string>();
  if (value != nullptr || !fallback.has_value()) RefuseAt(key, value, "a string");
  return fallback.value_or("");
}

std::optional<std::string> JsonFields::OptionalString(const char* key) {
  if (!Has(key)) return std::nullopt;
  return String(key, std::nullopt);
}

std::vector<int32_t> JsonFields::IntList(const char* key, IntRange range) {
  std::vector<int32_t> values;
  if (!Has(key)) return values;
  const json& list = *Find(key);
  if (!list.is_array()) {
    RefuseAt(key, &list, absl::StrFormat("a list of integers from %d to %d", range.min, range.max));
    return values;
  }
  for (const json& value : list) values.push_back(ToInt(key, value, range));
  return values;
}

std::vector<int32_t> JsonFields::IntOrIntList(const char* key, IntRange range) {
  if (!Has(key)) return {};
  if (!Find(key)->is_array()) return {ToInt(key, *Find(key), range)};
  return IntList(key, range);
}

std::vector<std::string> JsonFields::StringList(const char* key) {
  std::vector<std::string> values;
  if (!Has(key)) return values;
  const json& list = *Find(key);
  const bool fits = list.is_array() && std::all_of(list.begin(), list.end(),
                                                   [](const json& v) { return v.is_string(); });
  if (!fits) {
    Refuse(key, "a list of strings");
    return values;
  }
  for (const json& value : list) values.push_back(value.get<std::string>());
  return values;
}

JsonFields JsonFields::Object(const char* key) {
  const json* value = Has(key) ? Find(key) : nullptr;
  if (value != nullptr && !value->is_object()) {
    Refuse(key, "an object");
    value = nullptr;
  }
  return JsonFields(value, prefix_ + key + ".", status_);
}

std::vector<JsonFields> JsonFields::Objects(const char* key) {
  std::vector<JsonFields> objects;
  if (!Has(key)) return objects;
  const json& list = *Find(key);
  if (!list.is_array()) {
    Refuse(key, "a list of objects");
    return objects;
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = absl::StrFormat("%s[%d]", key, i);
    if (!list[i].is_object()) {
      RefuseAt(path, &list[i], "an object");
      break;
    }
    objects.push_back(JsonFields(&list[i], prefix_ + path + ".", status_));
  }
  return objects;
}

}  // namespace gatehouse
