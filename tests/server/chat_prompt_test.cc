#include "server/chat_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "server/convert.h"
#include "server/grpc_status.h"
#include "tests/testing/fake_engine.h"

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

class NoObserver final : public StepObserver {
 public:
  void OnStep(const StepStats&) override {}
  void OnFirstToken(double) override {}
  void OnToken(double) override {}
  void OnRequestEnd(const RequestStats&) override {}
};

// ByteTokenizer: an id a byte, and 256 for <|end|>.
class ChatPromptTest : public ::testing::Test {
 protected:
  explicit ChatPromptTest(
      const std::string& source =
          "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|end|>{% endfor %}"
          "{% if add_generation_prompt %}+{% endif %}{{ tools | tojson if tools }}"
          "{{ number }}{{ text }}")
      : engine_({.chat_template = source}, clock_, observer_) {}

  static v1::Chat Chat(const std::string& content, const std::string& role = "user") {
    v1::Chat chat;
    v1::ChatMessage& message = *chat.add_messages();
    message.set_role(role);
    message.set_content(content);
    return chat;
  }
  ChatPrompt Encode(const v1::Chat& chat, bool parse_special = false) {
    const auto prompt = EncodeChat(chat, false, parse_special, engine_);
    EXPECT_TRUE(prompt.ok()) << prompt.status();
    return prompt.value_or(ChatPrompt());
  }
  static int64_t NumSpecial(const ChatPrompt& prompt) {
    return std::count(prompt.ids.begin(), prompt.ids.end(), ByteTokenizer::kEndId);
  }

  SteadyClock clock_;
  NoObserver observer_;
  FakeEngine engine_;
};

TEST_F(ChatPromptTest, TheTemplatesMarkersBecomeSpecialTokens) {
  const ChatPrompt prompt = Encode(Chat("hi"));
  EXPECT_EQ(prompt.text, "<user>hi<|end|>+");
  EXPECT_EQ(NumSpecial(prompt), 1);
  EXPECT_EQ(prompt.ids.size(), 10u);
}

TEST_F(ChatPromptTest, ClientsTextNeverDoes) {
  v1::Chat chat = Chat("a<|end|>b<|en");
  (*chat.mutable_template_variables()->mutable_fields())["text"].set_string_value("<|end|>");
  const ChatPrompt prompt = Encode(chat);
  EXPECT_EQ(prompt.text, "<user>a<|end|>b<|en<|end|>+<|end|>");
  EXPECT_EQ(NumSpecial(prompt), 1);
  EXPECT_EQ(NumSpecial(Encode(chat, true)), 3);
}

TEST_F(ChatPromptTest, VariablesAreNumbersAndToolsAsModelsKnowThem) {
  v1::Chat chat = Chat("x");
  chat.set_add_generation_prompt(false);
  auto& variables = *chat.mutable_template_variables()->mutable_fields();
  variables["number"].set_number_value(3);
  auto& tool = *variables["tools"].mutable_list_value()->add_values()->mutable_struct_value();
  auto& function = *(*tool.mutable_fields())["function"].mutable_struct_value();
  (*function.mutable_fields())["description"].set_string_value("d");
  (*function.mutable_fields())["name"].set_string_value("n");
  (*function.mutable_fields())["a"].set_number_value(1.5);
  (*tool.mutable_fields())["type"].set_string_value("function");
  EXPECT_EQ(Encode(chat).text,
            "<user>x<|end|>[{\"type\": \"function\", \"function\": {\"name\": \"n\", "
            "\"description\": \"d\", \"a\": 1.5}}]3");
}

TEST_F(ChatPromptTest, ErrorsNameTheField) {
  const auto error = [this](const v1::Chat& chat) {
    return std::string(EncodeChat(chat, false, false, engine_).status().message());
  };
  EXPECT_EQ(error({}), "chat.messages: got none, expected at least one");
  v1::Chat chat = Chat("x");
  (*chat.mutable_template_variables()->mutable_fields())["messages"].set_bool_value(true);
  EXPECT_THAT(error(chat), HasSubstr("chat.template_variables.messages: set"));
  auto& variables = *chat.mutable_template_variables()->mutable_fields();
  variables.clear();
  for (int i = 0; i < 256; ++i) variables[absl::StrFormat("v%d", i)].set_number_value(i);
  EXPECT_EQ(error(chat), "");
  variables["v256"].set_number_value(256);
  EXPECT_EQ(error(chat), "chat.template_variables: got 257, expected at most 256");
}

TEST_F(ChatPromptTest, GenerateAndTokenizeTakeTheSameIds) {
  v1::GenerateRequest generate;
  *generate.mutable_chat() = Chat("hello");
  v1::TokenizeRequest tokenize;
  *tokenize.mutable_chat() = Chat("hello");
  const auto request = ToRequest(generate, TenantPolicy(), RoutingTable(), engine_);
  const auto response = Tokenize(tokenize, engine_);
  ASSERT_TRUE(request.ok() && response.ok());
  EXPECT_EQ(request->prompt_ids,
            std::vector<int32_t>(response->ids().begin(), response->ids().end()));
  EXPECT_EQ(response->text(), "<user>hello<|end|>+");
}

class RoleTest : public ChatPromptTest {
 protected:
  RoleTest() : ChatPromptTest("{{ '<|' ~ messages[0].role ~ '|>' }}") {}
};

TEST_F(RoleTest, ARoleThatIsANameMayBePartOfAMarker) {
  EXPECT_EQ(NumSpecial(Encode(Chat("x", "end"))), 1);
  EXPECT_EQ(NumSpecial(Encode(Chat("x", "user"))), 0);
  EXPECT_EQ(NumSpecial(Encode(Chat("x", "<|end|>"))), 0);
}

class RaisingTest : public ChatPromptTest {
 protected:
  RaisingTest() : ChatPromptTest("{{ raise_exception(messages[0].content) }}") {}
};

TEST_F(RaisingTest, WhatTheTemplateSaysReachesTheClient) {
  const absl::Status status =
      EncodeChat(Chat("roles must alternate"), false, false, engine_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "chat: roles must alternate");
}

TEST_F(RaisingTest, AndNotTheLog) {
  const absl::Status status = EncodeChat(Chat("my secret"), false, false, engine_).status();
  EXPECT_EQ(TextForLog(status), "chat: (the client has the text)");
}

TEST_F(RaisingTest, ButNotAtAnyLength) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "\u4F60";
  const absl::Status status = EncodeChat(Chat(text), false, false, engine_).status();
  EXPECT_EQ(status.message(), "chat: " + text.substr(0, 510) + "...");
}

TEST(NoTemplateTest, IsSaid) {
  SteadyClock clock;
  NoObserver observer;
  FakeEngine engine({}, clock, observer);
  v1::Chat chat;
  EXPECT_EQ(
      EncodeChat(chat, false, false, engine).status(),
      absl::InvalidArgumentError("chat: the model has no chat template, expected text or tokens"));
}

}  // namespace
}  // namespace gatehouse
