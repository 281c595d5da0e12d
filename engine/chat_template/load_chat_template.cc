// Where a model folder keeps its chat template and its special tokens.
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_format.h"
#include "engine/chat_template/chat_template.h"
#include "engine/json/json_fields.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

// The longest published templates have some 30 KiB.
constexpr int64_t kMaxTemplateBytes = int64_t{1} << 20;
// tokenizer_config.json lists the added tokens: some hundred KiB.
constexpr int64_t kMaxConfigBytes = int64_t{64} << 20;

absl::Status Problem(const std::string& place, std::string_view problem) {
  return absl::FailedPreconditionError(absl::StrFormat("%s: %s", place, problem));
}

// Nothing when there is no such file.
template <typename T>
absl::StatusOr<std::optional<T>> IfFound(absl::StatusOr<T> read) {
  if (read.ok()) return std::optional<T>(*std::move(read));
  if (absl::IsNotFound(read.status())) return std::optional<T>();
  return read.status();
}

struct JsonFile {
  std::string path;
  std::optional<nlohmann::json> document;

  // Null counts as missing, as in transformers.
  const nlohmann::json* Find(const std::string& key) const {
    if (!document.has_value()) return nullptr;
    const auto found = document->find(key);
    return found == document->end() || found->is_null() ? nullptr : &*found;
  }
};

absl::StatusOr<JsonFile> ReadJson(std::string path) {
  GATEHOUSE_ASSIGN_OR_RETURN(std::optional<nlohmann::json> document,
                             IfFound(ReadJsonObjectFile(path, kMaxConfigBytes)));
  return JsonFile{.path = std::move(path), .document = std::move(document)};
}

absl::StatusOr<std::string> TextField(const nlohmann::json& object, const char* key,
                                      const std::string& place) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || found == object.end() || !found->is_string()) {
    return Problem(place, absl::StrFormat("has no text \"%s\", expected one", key));
  }
  return found->get<std::string>();
}

// `chat_template`: a text, or [{"name": ..., "template": ...}, ...].
absl::Status ReadTemplateField(const JsonFile& file, ChatTemplate::Sources* sources) {
  const nlohmann::json* const field = file.Find("chat_template");
  if (field == nullptr) return absl::OkStatus();
  sources->place = file.path + ": chat_template";
  if (field->is_string()) {
    sources->source = field->get<std::string>();
    return absl::OkStatus();
  }
  if (!field->is_array()) {
    return Problem(
        sources->place,
        absl::StrFormat("is %s, expected a text or a list of named templates", field->type_name()));
  }
  bool has_default = false;
  for (size_t i = 0; i < field->size(); ++i) {
    const std::string place = absl::StrFormat("%s[%d]", sources->place, i);
    GATEHOUSE_ASSIGN_OR_RETURN(const std::string name, TextField((*field)[i], "name", place));
    GATEHOUSE_ASSIGN_OR_RETURN(std::string source, TextField((*field)[i], "template", place));
    has_default = has_default || name == "default";
    if (name == "default") {
      sources->source = std::move(source);
    } else if (name == "tool_use") {
      sources->tool_use = std::move(source);
    }
  }
  if (has_default) return absl::OkStatus();
  return Problem(sources->place, "has no template of the name \"default\", expected one");
}

// A text, or an added token {"content": ...}.
absl::Status ReadSpecialToken(const JsonFile& file, const char* name, jinja::Dict* tokens) {
  const nlohmann::json* const field = file.Find(name);
  if (field == nullptr || tokens->Find(name) != nullptr) return absl::OkStatus();
  const std::string place = absl::StrFormat("%s: %s", file.path, name);
  std::string text;
  if (field->is_string()) {
    text = field->get<std::string>();
  } else {
    GATEHOUSE_ASSIGN_OR_RETURN(text, TextField(*field, "content", place));
  }
  tokens->Set(name, jinja::Value::MakeString(std::move(text)));
  return absl::OkStatus();
}

absl::Status CheckSource(const std::string& place, const std::string& source) {
  if (source.size() > static_cast<size_t>(kMaxTemplateBytes)) {
    return Problem(place, absl::StrFormat("has %d bytes, expected at most %d", source.size(),
                                          kMaxTemplateBytes));
  }
  const size_t offset = FindInvalidUtf8(source);
  if (offset == source.size()) return absl::OkStatus();
  return Problem(place, absl::StrFormat("is not UTF-8 at byte %d, expected UTF-8", offset));
}

// In the order of transformers: a file of its own before the entry of the configuration.
absl::StatusOr<ChatTemplate::Sources> FindSources(const std::string& model_dir,
                                                  const JsonFile& config) {
  ChatTemplate::Sources sources;
  const std::string path = model_dir + "/chat_template.jinja";
  GATEHOUSE_ASSIGN_OR_RETURN(std::optional<std::string> own,
                             IfFound(ReadTextFile(path, kMaxTemplateBytes)));
  if (own.has_value()) {
    sources.place = path;
    sources.source = *std::move(own);
    GATEHOUSE_ASSIGN_OR_RETURN(
        std::optional<std::string> tool_use,
        IfFound(ReadTextFile(model_dir + "/additional_chat_templates/tool_use.jinja",
                             kMaxTemplateBytes)));
    sources.tool_use = std::move(tool_use).value_or("");
    return sources;
  }
  GATEHOUSE_RETURN_IF_ERROR(ReadTemplateField(config, &sources));
  if (!sources.place.empty()) return sources;
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonFile processor, ReadJson(model_dir + "/chat_template.json"));
  GATEHOUSE_RETURN_IF_ERROR(ReadTemplateField(processor, &sources));
  return sources;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ChatTemplate>> LoadChatTemplate(const std::string& model_dir) {
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonFile config, ReadJson(model_dir + "/tokenizer_config.json"));
  GATEHOUSE_ASSIGN_OR_RETURN(ChatTemplate::Sources sources, FindSources(model_dir, config));
  if (sources.place.empty()) return std::unique_ptr<const ChatTemplate>();
  GATEHOUSE_RETURN_IF_ERROR(CheckSource(sources.place, sources.source));
  GATEHOUSE_RETURN_IF_ERROR(CheckSource(sources.place + " (tool_use)", sources.tool_use));
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonFile map, ReadJson(model_dir + "/special_tokens_map.json"));
  for (const char* name : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                           "cls_token", "mask_token"}) {
    GATEHOUSE_RETURN_IF_ERROR(ReadSpecialToken(config, name, &sources.special_tokens));
    GATEHOUSE_RETURN_IF_ERROR(ReadSpecialToken(map, name, &sources.special_tokens));
  }
  return ChatTemplate::Make(std::move(sources));
}

}  // namespace gatehouse
