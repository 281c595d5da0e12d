#include "engine/chat_template/chat_template.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "engine/chat_template/parser.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

absl::StatusOr<jinja::Body> Parse(const std::string& place, std::string_view source) {
  absl::StatusOr<jinja::Body> body = jinja::ParseTemplate(source);
  if (body.ok()) return body;
  return absl::FailedPreconditionError(
      absl::StrFormat("%s: %s", place, std::string(body.status().message())));
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Make(Sources sources) {
  std::unique_ptr<ChatTemplate> made(new ChatTemplate());
  GATEHOUSE_ASSIGN_OR_RETURN(made->body_, Parse(sources.place, sources.source));
  made->has_tool_use_ = !sources.tool_use.empty();
  if (made->has_tool_use_) {
    GATEHOUSE_ASSIGN_OR_RETURN(made->tool_use_body_,
                               Parse(sources.place + " (tool_use)", sources.tool_use));
  }
  made->special_tokens_ = std::move(sources.special_tokens);
  return std::unique_ptr<const ChatTemplate>(std::move(made));
}

absl::StatusOr<RenderedChat> ChatTemplate::Render(const ChatInput& input,
                                                  const jinja::RenderLimits& limits) const {
  // As transformers passes them: tools and documents are there, if only as none.
  jinja::Dict variables = special_tokens_;
  variables.Set("tools", jinja::Value::MakeNone());
  variables.Set("documents", jinja::Value::MakeNone());
  for (const auto& [name, value] : input.variables.entries()) variables.Set(name, value);
  variables.Set("messages", input.messages);
  variables.Set("add_generation_prompt", jinja::Value::MakeBool(input.add_generation_prompt));
  const bool has_tools = !variables.Find("tools")->is_none();
  jinja::Interpreter interpreter(limits, input.unix_seconds);
  GATEHOUSE_ASSIGN_OR_RETURN(
      jinja::Text text,
      interpreter.Run(has_tools && has_tool_use_ ? tool_use_body_ : body_, variables));
  return RenderedChat{.text = text.bytes(), .client_ranges = text.client_ranges()};
}

}  // namespace gatehouse
