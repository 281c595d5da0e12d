#include "server/chat_prompt.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "server/field_check.h"
#include "server/grpc_status.h"

namespace gatehouse {
namespace {

using google::protobuf::Struct;

constexpr size_t kMaxTemplateVariables = 256;

// What a template says may repeat a message whole, and errors go into trailers.
std::string CutForError(std::string text) {
  constexpr size_t kMaxBytes = 512;
  if (text.size() <= kMaxBytes) return text;
  size_t end = kMaxBytes;
  while ((text[end] & 0xC0) == 0x80) --end;  // not within a character
  return text.substr(0, end) + "...";
}

bool IsName(const std::string& role) {
  return !role.empty() && std::all_of(role.begin(), role.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

// A Struct has no order, and Python's dictionaries, of which models saw JSON, have one. Tools are
// written in this order everywhere; other keys follow by name, so that a prompt is always the same.
size_t KeyRank(const std::string& key) {
  static constexpr std::array<std::string_view, 8> kFirst = {
      "type", "function", "name", "description", "enum", "parameters", "properties", "required"};
  return static_cast<size_t>(std::find(kFirst.begin(), kFirst.end(), key) - kFirst.begin());
}

absl::StatusOr<jinja::Value> ToValue(const google::protobuf::Value& value);

absl::StatusOr<jinja::Dict> ToDict(const Struct& fields) {
  std::vector<std::string> keys;
  for (const auto& [key, field] : fields.fields()) keys.push_back(key);
  std::sort(keys.begin(), keys.end(), [](const std::string& a, const std::string& b) {
    return std::pair(KeyRank(a), std::string_view(a)) < std::pair(KeyRank(b), std::string_view(b));
  });
  jinja::Dict dict;
  for (const std::string& key : keys) {
    GATEHOUSE_ASSIGN_OR_RETURN(jinja::Value value, ToValue(fields.fields().at(key)));
    dict.Set(jinja::Value::MakeString(jinja::Text::FromClient(key)), std::move(value));
  }
  return dict;
}

absl::StatusOr<jinja::Value> ToValue(const google::protobuf::Value& value) {
  using jinja::Value;
  switch (value.kind_case()) {
    case google::protobuf::Value::kBoolValue:
      return Value::MakeBool(value.bool_value());
    case google::protobuf::Value::kStringValue:
      return Value::MakeString(jinja::Text::FromClient(value.string_value()));
    case google::protobuf::Value::kNumberValue: {
      // A Struct knows no integers, and templates print 3 and 3.0 differently.
      const double number = value.number_value();
      constexpr double kMaxExact = 9007199254740992.0;  // 2^53
      if (number == std::floor(number) && std::abs(number) <= kMaxExact) {
        return Value::MakeInteger(static_cast<int64_t>(number));
      }
      return Value::MakeFloat(number);
    }
    case google::protobuf::Value::kStructValue: {
      GATEHOUSE_ASSIGN_OR_RETURN(jinja::Dict dict, ToDict(value.struct_value()));
      return Value::MakeDict(std::move(dict));
    }
    case google::protobuf::Value::kListValue: {
      std::vector<Value> items;
      for (const google::protobuf::Value& each : value.list_value().values()) {
        GATEHOUSE_ASSIGN_OR_RETURN(Value item, ToValue(each));
        items.push_back(std::move(item));
      }
      return Value::MakeList(std::move(items));
    }
    default:
      return Value::MakeNone();
  }
}

absl::StatusOr<jinja::Value> ToMessages(const v1::Chat& chat) {
  using jinja::Text;
  using jinja::Value;
  std::vector<Value> messages;
  for (const v1::ChatMessage& message : chat.messages()) {
    jinja::Dict dict;
    dict.Set("role", Value::MakeString(IsName(message.role()) ? Text(message.role())
                                                              : Text::FromClient(message.role())));
    dict.Set("content", Value::MakeString(Text::FromClient(message.content())));
    GATEHOUSE_ASSIGN_OR_RETURN(Value value, Value::MakeDict(std::move(dict)));
    messages.push_back(std::move(value));
  }
  return Value::MakeList(std::move(messages));
}

absl::StatusOr<ChatInput> ToChatInput(const v1::Chat& chat) {
  if (chat.messages().empty())
    return InvalidField("chat.messages", "got none, expected at least one");
  for (const char* name : {"messages", "add_generation_prompt"}) {
    if (chat.template_variables().fields().contains(name)) {
      return InvalidField(absl::StrFormat("chat.template_variables.%s", name),
                          "set, expected the field of chat to be used");
    }
  }
  const size_t num_variables = chat.template_variables().fields().size();
  if (num_variables > kMaxTemplateVariables) {
    return InvalidField(
        "chat.template_variables",
        absl::StrFormat("got %d, expected at most %d", num_variables, kMaxTemplateVariables));
  }
  absl::StatusOr<jinja::Dict> variables = ToDict(chat.template_variables());
  if (!variables.ok()) {
    return InvalidField("chat.template_variables", std::string(variables.status().message()));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(jinja::Value messages, ToMessages(chat));
  return ChatInput{
      .messages = std::move(messages),
      .add_generation_prompt = !chat.has_add_generation_prompt() || chat.add_generation_prompt(),
      .variables = *std::move(variables),
      .unix_seconds = std::chrono::duration_cast<std::chrono::seconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count()};
}

}  // namespace

absl::StatusOr<ChatPrompt> EncodeChat(const v1::Chat& chat, bool add_special_tokens,
                                      bool parse_special, const Engine& engine) {
  if (engine.chat_template() == nullptr) {
    return InvalidField("chat", "the model has no chat template, expected text or tokens");
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const ChatInput input, ToChatInput(chat));
  absl::StatusOr<RenderedChat> rendered = engine.chat_template()->Render(input);
  if (!rendered.ok()) {
    return WithClientText(
        InvalidField("chat", CutForError(std::string(rendered.status().message()))));
  }
  EncodeOptions options{.add_special_tokens = add_special_tokens, .parse_special = true};
  if (!parse_special) options.plain_ranges = rendered->client_ranges;
  absl::StatusOr<std::vector<int32_t>> ids = engine.tokenizer().Encode(rendered->text, options);
  if (!ids.ok()) return InvalidField("chat", std::string(ids.status().message()));
  return ChatPrompt{.text = std::move(rendered->text), .ids = *std::move(ids)};
}

}  // namespace gatehouse
