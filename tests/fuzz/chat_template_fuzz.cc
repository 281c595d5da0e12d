// A chat template up to the first NUL byte, then what a user says: what parses must render to UTF-8
// within its limits, or say in one line why not, and know which bytes are the user's.
#include <algorithm>

#include "engine/chat_template/chat_template.h"
#include "kernels/base/check.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

jinja::Value ClientText(std::string_view text) {
  return jinja::Value::MakeString(jinja::Text::FromClient(std::string(text)));
}

jinja::Value MessageOf(std::string_view role, std::string_view content) {
  jinja::Dict message;
  message.Set("role", ClientText(role));
  message.Set("content", ClientText(content));
  return *jinja::Value::MakeDict(std::move(message));
}

void CheckRendered(const RenderedChat& chat, const jinja::RenderLimits& limits) {
  GATEHOUSE_CHECK(chat.text.size() <= limits.max_output_bytes) << chat.text.size();
  GATEHOUSE_CHECK(FindInvalidUtf8(chat.text) == chat.text.size());
  size_t end = 0;
  for (const ByteRange& range : chat.client_ranges) {
    GATEHOUSE_CHECK(range.begin >= end && range.begin < range.end && range.end <= chat.text.size())
        << range.begin << " to " << range.end;
    end = range.end;
  }
}

void Run(std::string_view input) {
  // LoadChatTemplate and protobuf see to it.
  if (FindInvalidUtf8(input) != input.size()) return;
  const size_t end = std::min(input.find('\0'), input.size());
  const std::string_view content = end < input.size() ? input.substr(end + 1) : "Hello <|end|>";
  jinja::Dict special_tokens;
  special_tokens.Set("bos_token", jinja::Value::MakeString(std::string("<s>")));
  special_tokens.Set("eos_token", jinja::Value::MakeString(std::string("</s>")));
  const auto chat_template = ChatTemplate::Make({.place = "chat_template.jinja",
                                                 .source = std::string(input.substr(0, end)),
                                                 .special_tokens = std::move(special_tokens)});
  if (!chat_template.ok()) return;
  const jinja::RenderLimits limits{.max_steps = 200'000, .max_output_bytes = size_t{1} << 20};
  const auto messages =
      jinja::Value::MakeList({MessageOf("system", "Be brief."), MessageOf("user", content),
                              MessageOf("assistant", "ok"), MessageOf("user", content)});
  const auto rendered = (*chat_template)->Render({.messages = *messages}, limits);
  if (rendered.ok()) CheckRendered(*rendered, limits);
}

}  // namespace
}  // namespace gatehouse

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gatehouse::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
