// A conversation on the client's side: what has been said, as requests. And chats in JSON. One
// thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "gatehouse/v1/inference.pb.h"

namespace gatehouse {

class ChatSession {
 public:
  // `request` holds the settings of every turn; its chat may begin with a system message.
  explicit ChatSession(v1::GenerateRequest request) : request_(std::move(request)) {}

  // The request that asks for the answer to `text`, until the next call.
  const v1::GenerateRequest& Ask(const std::string& text);
  // What came of it, whole or cut short. Without any the question is taken back, for templates
  // expect the roles in turn.
  void Answer(const std::string& text);

 private:
  v1::GenerateRequest request_;
};

// {"messages": [{"role": ..., "content": ...}], "template_variables": {...}, ...} as in the proto,
// or the list of messages alone. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<v1::Chat> ParseChat(std::string_view json);
// A JSON object.
absl::StatusOr<google::protobuf::Struct> ParseTemplateVariables(std::string_view json);

}  // namespace gatehouse
