#include "client/chat_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

std::string Told(const v1::GenerateRequest& request) {
  std::string told;
  for (const v1::ChatMessage& message : request.chat().messages()) {
    told += message.role() + ":" + message.content() + " ";
  }
  return told;
}

TEST(ChatSessionTest, EachTurnTellsAllThatWasSaid) {
  v1::GenerateRequest settings;
  settings.mutable_sampling()->set_temperature(0);
  v1::ChatMessage& system = *settings.mutable_chat()->add_messages();
  system.set_role("system");
  system.set_content("be");
  ChatSession session(settings);
  EXPECT_EQ(Told(session.Ask("one")), "system:be user:one ");
  session.Answer("1");
  const v1::GenerateRequest& second = session.Ask("two");
  EXPECT_EQ(Told(second), "system:be user:one assistant:1 user:two ");
  EXPECT_TRUE(second.sampling().has_temperature());
}

TEST(ChatSessionTest, AQuestionWithoutAnAnswerIsTakenBack) {
  ChatSession session{v1::GenerateRequest()};
  session.Ask("lost");
  session.Answer("");
  EXPECT_EQ(Told(session.Ask("again")), "user:again ");
}

TEST(ParseChatTest, ReadsTheMessageOrTheListAlone) {
  const auto whole = ParseChat(R"({"messages": [{"role": "user", "content": "ü"}],
                                   "add_generation_prompt": false,
                                   "template_variables": {"a": [1, true]}})");
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->messages(0).content(), "ü");
  EXPECT_TRUE(whole->has_add_generation_prompt());
  EXPECT_EQ(whole->template_variables().fields().at("a").list_value().values_size(), 2);
  const auto list = ParseChat(" [{\"role\": \"user\", \"content\": \"x\"}]");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->messages_size(), 1);
}

TEST(ParseChatTest, SaysWhatIsWrong) {
  EXPECT_THAT(std::string(ParseChat(R"({"message": []})").status().message()),
              HasSubstr("message"));
  EXPECT_FALSE(ParseChat("").ok());
  EXPECT_FALSE(ParseTemplateVariables("[1]").ok());
}

}  // namespace
}  // namespace gatehouse
