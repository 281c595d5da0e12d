// A model's chat template: messages to the text that the model was trained on, equal to
// apply_chat_template of Hugging Face transformers 5. Immutable after loading; any thread.
//
//   auto chat_template = LoadChatTemplate(model_dir);     // null when the model has none
//   auto rendered = (*chat_template)->Render({.messages = ..., .unix_seconds = ...});
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat_template/ast.h"
#include "engine/chat_template/interpreter.h"
#include "engine/chat_template/value.h"
#include "engine/tokenizer/tokenizer.h"

namespace gatehouse {

struct ChatInput {
  jinja::Value messages;  // a list of dictionaries
  bool add_generation_prompt = true;
  // Further variables; they win over those of the model (bos_token, ...). Not `messages` and not
  // `add_generation_prompt`.
  jinja::Dict variables;
  int64_t unix_seconds = 0;  // what strftime_now shows, in local time
};

struct RenderedChat {
  std::string text;  // UTF-8
  // What came from `messages` and `variables` and must not become a special token; see text.h.
  std::vector<ByteRange> client_ranges;
};

class ChatTemplate {
 public:
  // `tool_use` stands in for `source` when there are tools; empty: none. FAILED_PRECONDITION
  // "<place>: line <n>: <problem>, expected <what>".
  struct Sources {
    std::string place;  // the file, for messages
    std::string source;
    std::string tool_use;
    jinja::Dict special_tokens;  // bos_token, ...
  };
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Make(Sources sources);

  // INVALID_ARGUMENT: what the template says with raise_exception, or "line <n>: <problem>" for
  // messages that it cannot take or that reach a limit.
  absl::StatusOr<RenderedChat> Render(const ChatInput& input,
                                      const jinja::RenderLimits& limits = {}) const;

 private:
  ChatTemplate() = default;

  jinja::Body body_;
  jinja::Body tool_use_body_;
  bool has_tool_use_ = false;
  jinja::Dict special_tokens_;
};

// Reads chat_template.jinja, else `chat_template` of tokenizer_config.json (a text, or a list of
// named ones), else chat_template.json; with additional_chat_templates/tool_use.jinja. Null when
// there is none of them. FAILED_PRECONDITION "<file>: <problem>, expected <what>" for one that
// cannot be followed: a prompt that is almost right makes a model that is almost right, so the
// operator should know before the first user does.
absl::StatusOr<std::unique_ptr<const ChatTemplate>> LoadChatTemplate(const std::string& model_dir);

}  // namespace gatehouse
