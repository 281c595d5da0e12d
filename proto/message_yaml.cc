#include "proto/message_yaml.h"

#include <google/protobuf/util/json_util.h>
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

constexpr int kMaxDepth = 16;

std::string Quoted(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (byte < 0x20) {
      json += absl::StrFormat("\\u%04x", byte);
    } else {
      json += c;
    }
  }
  return json + "\"";
}

// What was in quotes is text; the rest is what it looks like. JSON has no infinity: protobuf reads
// it, and NaN, as text.
std::string ScalarToJson(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  bool truth = false;
  double number = 0;
  if (node.Tag() == "!") return Quoted(text);
  if (YAML::convert<bool>::decode(node, truth)) return truth ? "true" : "false";
  if (!YAML::convert<double>::decode(node, number)) return Quoted(text);
  if (std::isnan(number)) return "\"NaN\"";
  if (std::isinf(number)) return number > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  int64_t whole = 0;
  if (absl::SimpleAtoi(text, &whole)) return std::to_string(whole);
  return absl::StrFormat("%.17g", number);
}

absl::Status AppendJson(const YAML::Node& node, int depth, std::string& json) {
  if (depth > kMaxDepth) return absl::InvalidArgumentError("nested too deeply");
  if (node.IsNull()) {
    json += "null";
  } else if (node.IsScalar()) {
    json += ScalarToJson(node);
  } else if (node.IsSequence()) {
    json += '[';
    for (size_t i = 0; i < node.size(); ++i) {
      if (i > 0) json += ',';
      if (absl::Status status = AppendJson(node[i], depth + 1, json); !status.ok()) return status;
    }
    json += ']';
  } else {
    json += '{';
    std::set<std::string> names;
    for (const auto& member : node) {
      const std::string name = member.first.IsScalar() ? member.first.Scalar() : "";
      if (!names.insert(name).second) {
        return absl::InvalidArgumentError(absl::StrFormat("%s: given twice", name));
      }
      if (names.size() > 1) json += ',';
      json += Quoted(name) + ':';
      if (absl::Status status = AppendJson(member.second, depth + 1, json); !status.ok()) {
        return status;
      }
    }
    json += '}';
  }
  return absl::OkStatus();
}

void SetBlockStyle(YAML::Node node) {
  bool has_parts = node.IsMap();
  for (const auto& part : node) {
    if (node.IsMap()) {
      SetBlockStyle(part.second);
    } else {
      SetBlockStyle(part);
      has_parts = has_parts || part.IsMap();
    }
  }
  node.SetStyle(has_parts ? YAML::EmitterStyle::Block : YAML::EmitterStyle::Flow);
}

}  // namespace

absl::Status MessageFromYaml(const std::string& yaml, google::protobuf::Message& message) {
  std::string json;
  try {  // yaml-cpp throws
    const YAML::Node root = YAML::Load(yaml);
    if (!root.IsMap()) return absl::InvalidArgumentError("not a map of fields");
    if (absl::Status status = AppendJson(root, 0, json); !status.ok()) return status;
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrFormat("line %d: %s", error.mark.line + 1, error.msg));
  }
  google::protobuf::util::JsonParseOptions options;
  options.case_insensitive_enum_parsing = true;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &message, options);
  if (status.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s", std::string(status.message().data(), status.message().size())));
}

std::string MessageToYaml(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) return "";
  YAML::Node root = YAML::Load(json);  // JSON is YAML
  SetBlockStyle(root);
  YAML::Emitter emitter;
  emitter << root;
  return std::string(emitter.c_str()) + "\n";
}

}  // namespace gatehouse
