#include "proto/message_yaml.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

constexpr int kMaxDepth = 16;
constexpr size_t kMaxJsonBytesPerByte = 8;  // ".1," becomes 20 bytes

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

// Aliases can make a small file stand for any number of nodes: no more than `max_bytes` of JSON.
absl::Status AppendJson(const YAML::Node& node, int depth, size_t max_bytes, std::string& json) {
  if (depth > kMaxDepth) return absl::InvalidArgumentError("nested too deeply");
  if (json.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("aliases unfold to more than %u bytes", max_bytes));
  }
  if (node.IsNull()) {
    json += "null";
  } else if (node.IsScalar()) {
    json += ScalarToJson(node);
  } else if (node.IsSequence()) {
    json += '[';
    for (size_t i = 0; i < node.size(); ++i) {
      if (i > 0) json += ',';
      if (absl::Status status = AppendJson(node[i], depth + 1, max_bytes, json); !status.ok())
        return status;
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
      if (absl::Status status = AppendJson(member.second, depth + 1, max_bytes, json);
          !status.ok()) {
        return status;
      }
    }
    json += '}';
  }
  return absl::OkStatus();
}

bool HasMaps(const YAML::Node& node) {
  if (node.IsMap()) return true;
  return node.IsSequence() &&
         std::any_of(node.begin(), node.end(), [](const YAML::Node& item) { return item.IsMap(); });
}

// `field` is what the node holds, null for the message itself; `type` its message, if it is one.
void Emit(const YAML::Node& node, const Descriptor* type, const FieldDescriptor* field,
          YAML::Emitter& yaml) {
  if (node.IsMap()) {
    yaml << YAML::BeginMap;
    for (const auto& member : node) {
      const std::string& name = member.first.Scalar();
      const FieldDescriptor* const its_field = type->FindFieldByName(name);
      yaml << YAML::Key << name << YAML::Value;
      Emit(member.second, its_field->message_type(), its_field, yaml);
    }
    yaml << YAML::EndMap;
  } else if (node.IsSequence()) {
    yaml << (HasMaps(node) ? YAML::Block : YAML::Flow) << YAML::BeginSeq;
    for (const YAML::Node& item : node) Emit(item, type, field, yaml);
    yaml << YAML::EndSeq;
  } else {
    const std::string& text = node.Scalar();
    // The emitter quotes what is no plain scalar, but not a text that reads as a number or truth.
    const bool is_text = field->cpp_type() == FieldDescriptor::CPPTYPE_STRING;
    if (is_text && ScalarToJson(YAML::Node(text)) != Quoted(text)) yaml << YAML::DoubleQuoted;
    yaml << text;
  }
}

}  // namespace

absl::Status MessageFromYaml(const std::string& yaml, google::protobuf::Message& message) {
  std::string json;
  try {  // yaml-cpp throws
    const YAML::Node root = YAML::Load(yaml);
    if (!root.IsMap()) return absl::InvalidArgumentError("not a map of fields");
    const size_t max_bytes = kMaxJsonBytesPerByte * yaml.size() + 1024;
    if (absl::Status status = AppendJson(root, 0, max_bytes, json); !status.ok()) return status;
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
  YAML::Emitter emitter;
  Emit(YAML::Load(json), message.GetDescriptor(), nullptr, emitter);  // JSON is YAML
  return std::string(emitter.c_str()) + "\n";
}

}  // namespace gatehouse
