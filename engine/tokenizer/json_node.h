// One value of a JSON file together with its place, so that every complaint reads
//   FAILED_PRECONDITION "<file>: <json path>: <problem>, expected <what>"
// in one line. A view: the parsed document and the file name must outlive it. Any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gatehouse {

class JsonNode {
 public:
  JsonNode(const nlohmann::json* value, const std::string* file, std::string path)
      : value_(value), file_(file), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  // "<file>: <json path>", for a complaint that comes later.
  std::string place() const { return *file_ + ": " + path_; }
  absl::Status Error(std::string_view problem, std::string_view expected) const;

  absl::Status ExpectObject() const;
  absl::Status ExpectArray() const;
  // Refuses a key outside `names`: it may change the meaning of the others.
  absl::Status ExpectOnly(std::initializer_list<std::string_view> names) const;

  // Of an object: a field that is missing is an error for Field, and nullopt for Find, which takes
  // null as missing, too.
  absl::StatusOr<JsonNode> Field(const std::string& name) const;
  std::optional<JsonNode> Find(const std::string& name) const;
  // Of an array: index < value().size().
  JsonNode Element(size_t index) const;

  absl::StatusOr<std::string> String() const;
  absl::StatusOr<bool> Bool() const;
  absl::StatusOr<int32_t> Integer(int32_t low, int32_t high) const;

 private:
  const nlohmann::json* value_;
  const std::string* file_;
  std::string path_;  // "model.merges[3]", empty for the document
};

// The field `name` of an object, false when it is missing.
absl::StatusOr<bool> ReadFlag(const JsonNode& node, const std::string& name);

// Text of a file as it may stand in a message: quoted, escaped to ASCII, at most 80 characters.
std::string QuoteForMessage(std::string_view text);

}  // namespace gatehouse
