// Reading JSON that a stranger wrote: parsed with limits, then field by field with type and range.
//
//   JsonFields fields(document, "config.json");
//   config.num_layers = fields.Int("num_hidden_layers", 24, {1, 1024});
//   if (!fields.status().ok()) return fields.status();   // the first problem, as one line
//
// Errors are FAILED_PRECONDITION "<file>: <field>: got <value>, expected <what>". Values only; one
// thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace gatehouse {

// Text of a file for a message of one line: what is not printable ASCII escaped, long text cut.
std::string Printable(std::string_view text);

// Refuses what is no JSON object, nests deeper than 32 or names a key twice in one object (of two
// values, different readers would believe different ones). `file` opens the message.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, const std::string& file);

// NOT_FOUND when there is no such file; FAILED_PRECONDITION when it is no regular file, cannot be
// read or has more than `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t max_bytes);
absl::StatusOr<nlohmann::json> ReadJsonObjectFile(const std::string& path, int64_t max_bytes);

struct IntRange {
  int64_t min;
  int64_t max;
};
struct NumberRange {
  double min;
  double max;
};

class JsonFields {
 public:
  // `object` outlives the fields.
  JsonFields(const nlohmann::json& object, std::string file);

  // The first problem found so far, by these fields or any Object of them.
  const absl::Status& status() const { return *status_; }

  // Refuses a key that is not listed: it may change the meaning of the others.
  void ExpectOnly(std::initializer_list<std::string_view> keys);

  // Refuses members that are objects themselves.
  void RefuseObjects(std::string_view expected);

  // In all of these null counts as absent only for Has, Optional*, the lists and Object; elsewhere
  // it is a wrong type. Without a fallback an absent key is a problem.
  bool Has(const char* key) const;
  bool IsNull(const char* key) const;  // there, and null
  bool HasNonEmptyObject(const char* key) const;
  int32_t Int(const char* key, std::optional<int32_t> fallback, IntRange range);
  double Number(const char* key, std::optional<double> fallback, NumberRange range);
  bool Bool(const char* key, std::optional<bool> fallback);
  std::string String(const char* key, const std::optional<std::string>& fallback);
  std::optional<int32_t> OptionalInt(const char* key, IntRange range);
  std::optional<double> OptionalNumber(const char* key, NumberRange range);
  std::optional<std::string> OptionalString(const char* key);
  std::vector<int32_t> IntList(const char* key, IntRange range);       // [..]; absent: empty
  std::vector<int32_t> IntOrIntList(const char* key, IntRange range);  // n or [..]; absent: empty
  std::vector<std::string> StringList(const char* key);                // [..]; absent: empty
  JsonFields Object(const char* key);                                  // absent: empty
  std::vector<JsonFields> Objects(const char* key);                    // [{..}]; absent: empty

  // For what has a form of its own. Null: absent.
  const nlohmann::json* Find(const char* key) const;

  // Notes "<file>: <field>: got <its value>, expected <what>".
  void Refuse(const char* key, std::string_view expected);
  // The same for a place within a field, "merges[4]"; `value` null: nothing.
  void RefuseAt(std::string_view path, const nlohmann::json* value, std::string_view expected);
  // "<file>: <field>", for a complaint that only a later step can make.
  std::string PlaceOf(std::string_view key) const { return prefix_ + std::string(key); }

 private:
  JsonFields(const nlohmann::json* object, std::string prefix,
             std::shared_ptr<absl::Status> status);
  int32_t ToInt(const char* key, const nlohmann::json& value, IntRange range);

  const nlohmann::json* object_;          // null: empty
  std::string prefix_;                    // "<file>: " or "<file>: rope_scaling."
  std::shared_ptr<absl::Status> status_;  // shared with the objects inside
};

}  // namespace gatehouse
