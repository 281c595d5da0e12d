#include "client/chat_session.h"

#include <google/protobuf/util/json_util.h>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

absl::Status FromJson(const std::string& json, google::protobuf::Message* message) {
  const auto status = google::protobuf::util::JsonStringToMessage(json, message);
  if (status.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(std::string(status.message()));
}

}  // namespace

const v1::GenerateRequest& ChatSession::Ask(const std::string& text) {
  v1::ChatMessage& message = *request_.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content(text);
  return request_;
}

void ChatSession::Answer(const std::string& text) {
  if (text.empty()) {
    request_.mutable_chat()->mutable_messages()->RemoveLast();
    return;
  }
  v1::ChatMessage& message = *request_.mutable_chat()->add_messages();
  message.set_role("assistant");
  message.set_content(text);
}

absl::StatusOr<v1::Chat> ParseChat(std::string_view json) {
  const size_t first = json.find_first_not_of(" \t\r\n");
  const bool is_list = first != std::string_view::npos && json[first] == '[';
  v1::Chat chat;
  const absl::Status status =
      FromJson(is_list ? absl::StrFormat("{\"messages\": %s}", json) : std::string(json), &chat);
  if (!status.ok()) return status;
  return chat;
}

absl::StatusOr<google::protobuf::Struct> ParseTemplateVariables(std::string_view json) {
  google::protobuf::Struct variables;
  const absl::Status status = FromJson(std::string(json), &variables);
  if (!status.ok()) return status;
  return variables;
}

}  // namespace gatehouse
