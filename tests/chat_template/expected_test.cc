// Every case of expected/*.json, which make_expected.py made with transformers and jinja2: the same
// text, or an error where they have one, with the text of raise_exception.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_format.h"
#include "engine/chat_template/chat_template.h"
#include "tests/chat_template/json_value.h"

namespace gatehouse {
namespace {

using nlohmann::ordered_json;

ordered_json ReadExpected(const std::string& name) {
  const std::string path =
      std::string(GATEHOUSE_SOURCE_DIR) + "/tests/chat_template/expected/" + name;
  std::ifstream file(path);
  ordered_json document = ordered_json::parse(file, nullptr, false);
  EXPECT_FALSE(document.is_discarded()) << path;
  return document;
}

std::string ReadTemplate(const std::string& name) {
  std::ifstream file(std::string(GATEHOUSE_SOURCE_DIR) + "/tests/chat_template/templates/" + name);
  EXPECT_TRUE(file.is_open()) << name;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

absl::StatusOr<std::string> RenderCase(const ordered_json& test) {
  auto made = ChatTemplate::Make({.place = "template",
                                  .source = test.at("template").get<std::string>(),
                                  .tool_use = "",
                                  .special_tokens = ToDict(test.at("special_tokens"))});
  if (!made.ok()) return made.status();
  ChatInput input{.messages = ToValue(test.at("messages")),
                  .add_generation_prompt = test.at("add_generation_prompt").get<bool>(),
                  .variables = ToDict(test.at("variables")),
                  .unix_seconds = test.value("unix_seconds", int64_t{0})};
  auto rendered = (*made)->Render(input);
  if (!rendered.ok()) return rendered.status();
  return rendered->text;
}

void ExpectEqualToPython(const std::string& file, size_t min_cases) {
  // strftime_now shows local time.
  setenv("TZ", "UTC", 1);
  tzset();
  const ordered_json document = ReadExpected(file);
  ASSERT_GE(document.at("cases").size(), min_cases);
  for (const ordered_json& each : document.at("cases")) {
    ordered_json test = document.at("shared");
    test.update(each);
    SCOPED_TRACE(test.at("name").get<std::string>());
    if (test.contains("chat")) {
      test["messages"] = test.at("chats").at(test.at("chat").get<std::string>());
      test["variables"] = test.at("kinds").at(test.at("kind").get<std::string>());
    }
    if (test.contains("file")) test["template"] = ReadTemplate(test.at("file").get<std::string>());
    const absl::StatusOr<std::string> text = RenderCase(test);
    if (test.contains("output")) {
      EXPECT_EQ(text.ok() ? *text : text.status().ToString(), test.at("output").get<std::string>());
    } else {
      EXPECT_FALSE(text.ok()) << *text;
      if (test.contains("raised")) {
        EXPECT_EQ(text.status().message(), test.at("raised").get<std::string>());
      }
    }
  }
}

TEST(ExpectedTest, TemplatesOfTheFamiliesRenderAsInTransformers) {
  ExpectEqualToPython("families.json", 100);
}

TEST(ExpectedTest, ExpressionsAreAsInJinja2) { ExpectEqualToPython("expressions.json", 400); }

}  // namespace
}  // namespace gatehouse
