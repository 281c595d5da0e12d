// What a template or a chat may cost, where its text came from, and how load errors read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/chat_template/chat_template.h"

namespace gatehouse {
namespace {

using jinja::Text;
using jinja::Value;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<RenderedChat> Render(const std::string& source, const std::string& content = "text",
                                    const jinja::RenderLimits& limits = {}) {
  auto made =
      ChatTemplate::Make({.place = "file", .source = source, .tool_use = "", .special_tokens = {}});
  if (!made.ok()) return made.status();
  jinja::Dict message;
  message.Set("role", Value::MakeString("user"));
  message.Set("content", Value::MakeString(Text::FromClient(content)));
  ChatInput input;
  input.messages = *Value::MakeList({*Value::MakeDict(message)});
  return (*made)->Render(input, limits);
}

std::string ErrorOf(const std::string& source) {
  return std::string(Render(source).status().message());
}

// The client's text in brackets.
std::string Origins(const std::string& expression, const std::string& content = "ab cd") {
  const auto rendered = Render("{% set c = messages[0].content %}" + expression, content);
  if (!rendered.ok()) return rendered.status().ToString();
  std::string marked = rendered->text;
  for (auto range = rendered->client_ranges.rbegin(); range != rendered->client_ranges.rend();
       ++range) {
    marked.insert(range->end, "]").insert(range->begin, "[");
  }
  return marked;
}

TEST(OriginTest, PlacesAreKeptWhereCharactersAre) {
  EXPECT_EQ(Origins("<{{ c }}>"), "<[ab cd]>");
  EXPECT_EQ(Origins("{{ '<' + c + '>' ~ c }}"), "<[ab cd]>[ab cd]");
  EXPECT_EQ(Origins("{{ '  x' ~ c ~ '  ' | trim }}"), "  x[ab cd]");
  EXPECT_EQ(Origins("{{ ('  <' ~ c ~ '> ').strip() }}"), "<[ab cd]>");
  EXPECT_EQ(Origins("{{ ('<' ~ c ~ '>')[:4] }}"), "<[ab ]");
  EXPECT_EQ(Origins("{{ ('<' ~ c ~ '>')[::-1] }}"), ">[dc ba]<");
  EXPECT_EQ(Origins("{{ c.split(' ') | join('|') }}"), "[ab]|[cd]");
  EXPECT_EQ(Origins("{{ ('<' ~ c) | replace('b', '-') }}"), "<[a]-[ cd]");
  EXPECT_EQ(Origins("{{ '<x>' | replace('x', c) }}"), "<[ab cd]>");
  EXPECT_EQ(Origins("{{ '<%s>' % c }}{{ '{}!'.format(c) }}"), "<[ab cd]>[ab cd]!");
  EXPECT_EQ(Origins("{% set b %}<{{ c }}>{% endset %}{{ b }}"), "<[ab cd]>");
  EXPECT_EQ(Origins("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(c) }}"), "<[ab cd]>");
  EXPECT_EQ(Origins("{{ (c ~ '\\n-') | indent(2) }}"), "[ab cd]\n  -");
  EXPECT_EQ(Origins("{{ {'k': c} | tojson }}"), "{\"k\": [\"ab cd\"]}");
  EXPECT_EQ(Origins("{{ [c] }}"), "[['ab cd']]");
}

TEST(OriginTest, ChangedTextIsTheClientsIfAnyOfItWas) {
  EXPECT_EQ(Origins("{{ ('<' ~ c) | upper }}"), "[<AB CD]");
  EXPECT_EQ(Origins("{{ '<' | upper }}{{ c | capitalize }}"), "<[Ab cd]");
  EXPECT_EQ(Origins("{{ ('&' ~ c) | escape }}"), "[&amp;ab cd]");
}

TEST(OriginTest, ComparisonsSeeTextAlone) {
  EXPECT_EQ(Origins("{{ c == 'ab cd' }}{{ 'b' in c }}{{ {'ab cd': 1}[c] }}"), "TrueTrue1");
}

TEST(LimitsTest, AnEndlessTemplateEndsWithItsSteps) {
  EXPECT_EQ(
      ErrorOf("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
      "line 1: the template takes more than 5000000 steps");
  EXPECT_THAT(ErrorOf("{% set x = 'aaaaaaaaaaaaaaaa' * 1000000000 %}"), HasSubstr("steps"));
  EXPECT_THAT(ErrorOf("{% set x = [0, 1] * 1000000000 %}"), HasSubstr("steps"));
  EXPECT_THAT(ErrorOf("{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}"
                      "{% set n.x = n.x ~ n.x %}{% endfor %}"),
              HasSubstr("steps"));
}

// The loops would take hours if only their turns counted.
TEST(LimitsTest, WhatTouchesALongTextIsCountedByItsLength) {
  const std::string content(size_t{4} << 20, 'a');
  const auto error_of = [&](const std::string& expression) {
    return std::string(Render("{% set c = messages[0].content %}{% set d = c ~ '' %}"
                              "{% for i in range(100000) %}{% if " +
                                  expression + " %}{% endif %}{% endfor %}",
                              content)
                           .status()
                           .message());
  };
  const std::string too_many = "line 1: the template takes more than 5000000 steps";
  EXPECT_EQ(error_of("c[i]"), too_many);
  EXPECT_EQ(error_of("c == d"), too_many);
  EXPECT_EQ(error_of("[c] == [d]"), too_many);
  EXPECT_EQ(error_of("{'k': c} == {'k': d}"), too_many);
  EXPECT_EQ(error_of("'b' in c"), too_many);
  EXPECT_EQ(error_of("c in [d]"), too_many);
  EXPECT_EQ(error_of("c is eq(d)"), too_many);
  EXPECT_EQ(error_of("c is upper"), too_many);
  EXPECT_EQ(error_of("[d].count(c)"), too_many);
  EXPECT_EQ(error_of("c is string"), "");
}

TEST(LimitsTest, ATextIsSoughtInAnotherInOnePass) {
  const std::string half(size_t{1} << 20, 'a');
  EXPECT_EQ(Render("{{ (messages[0].content ~ 'b') in (messages[0].content * 2) }}", half)->text,
            "False");
}

TEST(LimitsTest, IndentedJsonIsCountedAsItIsWritten) {
  std::vector<Value> numbers(200'000, Value::MakeInteger(1));
  Value nested = *Value::MakeList(std::move(numbers));
  for (int i = 0; i < 90; ++i) nested = *Value::MakeList({nested});
  ChatInput input;
  input.messages = nested;
  const auto render = [&](const std::string& source) {
    const auto made = ChatTemplate::Make({.place = "file", .source = source});
    return std::string((*made)->Render(input).status().message());
  };
  EXPECT_EQ(render("{% set j = messages | tojson %}"), "");
  EXPECT_EQ(render("{% set j = messages | tojson(indent=4) %}"),
            "line 1: the template writes more than 16777216 bytes");
  EXPECT_EQ(render("{% set j = messages | tojson(indent=1000) %}"),
            "line 1: the template writes more than 16777216 bytes");
}

// A linear search of names would take minutes.
TEST(LimitsTest, ManyVariablesCostNoMoreThanTheirNumber) {
  ChatInput input;
  input.messages = *Value::MakeList({});
  for (int i = 0; i < 200'000; ++i) {
    input.variables.Set(absl::StrFormat("v%06d", i), Value::MakeInteger(i));
  }
  const auto made = ChatTemplate::Make(
      {.place = "file",
       .source = "{% for i in range(100000) %}{% if v199999 == i %}{% endif %}{% endfor %}"
                 "{% set v000000 = 'set' %}{{ v000000 }} {{ v199999 }} {{ none_such }}"});
  const auto rendered = (*made)->Render(input);
  ASSERT_TRUE(rendered.ok()) << rendered.status();
  EXPECT_EQ(rendered->text, "set 199999 ");
}

TEST(LimitsTest, OutputIsBounded) {
  jinja::RenderLimits limits;
  limits.max_output_bytes = 10;
  EXPECT_TRUE(Render("{{ '0123456789' }}", "", limits).ok());
  EXPECT_EQ(Render("{{ '0123456789' }}\n0", "", limits).status().message(),
            "line 1: the template writes more than 10 bytes");
}

TEST(LimitsTest, RecursionIsBounded) {
  EXPECT_THAT(ErrorOf("{% macro f() %}{{ f() }}{% endmacro %}\n{{ f() }}"),
              HasSubstr("the template calls itself or nests deeper than 400"));
  EXPECT_THAT(ErrorOf(std::string(5000, '(') + "{{"), HasSubstr("expected"));
  EXPECT_THAT(ErrorOf("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}"),
              HasSubstr("less deeply"));
  EXPECT_THAT(ErrorOf("{{ " + std::string(5000, '-') + "1 }}"), HasSubstr("less deeply"));
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) sum += " + 1";
  EXPECT_THAT(ErrorOf(sum + " }}"), HasSubstr("nested too deeply, expected at most 200 levels"));
  std::string blocks;
  for (int i = 0; i < 5000; ++i) blocks += "{% if 1 %}";
  EXPECT_THAT(ErrorOf(blocks), HasSubstr("blocks nested less deeply"));
}

TEST(LimitsTest, DeepAndCircularValuesAreRefusedOrFreed) {
  EXPECT_THAT(ErrorOf("{% set n = namespace(x=[]) %}{% for i in range(9999) %}"
                      "{% set n.x = [n.x] %}{% endfor %}"),
              HasSubstr("values are nested deeper than 100"));
  // Leaks show under AddressSanitizer; so would a destructor that recurses along the chain.
  EXPECT_TRUE(Render("{% set n = namespace() %}{% set n.me = n %}{% set n.all = [n, [n]] %}").ok());
  EXPECT_TRUE(Render("{% set n = namespace() %}{% for i in range(50000) %}"
                     "{% set n.x = namespace(x=n.x) %}{% endfor %}")
                  .ok());
  EXPECT_TRUE(
      Render("{% macro f() %}{{ f }}{% endmacro %}{% set g = f %}{% set h = [f, g] %}").ok());
}

TEST(ErrorTest, TellsTheLineAndWhatWasExpected) {
  EXPECT_EQ(
      ErrorOf("a\n\n{% if x %}\nb"),
      "file: line 4: unexpected the end of the template, expected '{% elif %}' or '{% else %}' "
      "or '{% endif %}'");
  EXPECT_EQ(ErrorOf("a\n{% frobnicate %}"),
            "file: line 2: unexpected 'frobnicate', expected a tag of chat templates");
  EXPECT_EQ(ErrorOf("{{ x | nofilter }}"),
            "file: line 1: unexpected 'nofilter', expected the name of a filter");
  EXPECT_EQ(ErrorOf("{% call f() %}{% endcall %}"),
            "file: line 1: unexpected 'call', expected a tag of chat templates");
  EXPECT_EQ(ErrorOf("\n{{ messages.x.y }}"), "line 2: 'list object' has no attribute 'x'");
  EXPECT_EQ(Render("{{ raise_exception('no ' ~ 'way') }}").status(),
            absl::InvalidArgumentError("no way"));
}

class LoadChatTemplateTest : public ::testing::Test {
 protected:
  LoadChatTemplateTest() {
    std::string name = (std::filesystem::temp_directory_path() / "gatehouse-XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  ~LoadChatTemplateTest() override {
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
  }
  void Write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(dir_ + "/" + name).parent_path());
    std::ofstream(dir_ + "/" + name, std::ios::binary) << text;
  }
  std::string Rendered(bool with_tools = false) {
    const auto loaded = LoadChatTemplate(dir_);
    if (!loaded.ok()) return std::string(loaded.status().message());
    if (*loaded == nullptr) return "none";
    ChatInput input;
    input.messages = *Value::MakeList({});
    if (with_tools) input.variables.Set("tools", *Value::MakeList({}));
    const auto rendered = (*loaded)->Render(input);
    return rendered.ok() ? rendered->text : rendered.status().ToString();
  }

  std::string dir_;
};

TEST_F(LoadChatTemplateTest, AModelMayHaveNone) {
  EXPECT_EQ(Rendered(), "none");
  Write("tokenizer_config.json", R"({"chat_template": null, "bos_token": "<s>"})");
  EXPECT_EQ(Rendered(), "none");
}

TEST_F(LoadChatTemplateTest, AFileOfItsOwnWinsOverTheConfiguration) {
  Write("chat_template.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(Rendered(), "processor");
  Write("tokenizer_config.json",
        R"({"chat_template": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}",
            "bos_token": {"content": "<b>", "special": true}, "eos_token": "<e>"})");
  Write("special_tokens_map.json", R"({"eos_token": "<other>", "pad_token": {"content": "<p>"}})");
  EXPECT_EQ(Rendered(), "<b>|<e>|<p>");
  Write("chat_template.jinja", "own {{ bos_token }}\n");
  EXPECT_EQ(Rendered(), "own <b>");
}

TEST_F(LoadChatTemplateTest, NamedTemplatesAreChosenByTools) {
  Write("tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "d"},
                              {"name": "tool_use", "template": "t"}]})");
  EXPECT_EQ(Rendered(), "d");
  EXPECT_EQ(Rendered(true), "t");
}

TEST_F(LoadChatTemplateTest, BrokenOnesAreRefusedByFileAndLine) {
  Write("tokenizer_config.json", R"({"chat_template": "a\n{% if %}"})");
  EXPECT_EQ(Rendered(), dir_ +
                            "/tokenizer_config.json: chat_template: line 2: unexpected '%}', "
                            "expected an expression");
  Write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_THAT(Rendered(), HasSubstr("is number, expected a text or a list of named templates"));
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "other", "template": "a"}]})");
  EXPECT_THAT(Rendered(), HasSubstr("no template of the name \"default\", expected one"));
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})");
  EXPECT_THAT(Rendered(), HasSubstr("chat_template[0]: has no text \"template\", expected one"));
  Write("tokenizer_config.json", R"({"chat_template": "x", "bos_token": 7})");
  EXPECT_THAT(Rendered(), HasSubstr("bos_token: has no text \"content\", expected one"));
  Write("tokenizer_config.json", "{");
  EXPECT_THAT(Rendered(), HasSubstr("tokenizer_config.json"));
  Write("tokenizer_config.json", "{}");
  Write("chat_template.jinja", "a\xff");
  EXPECT_EQ(Rendered(), dir_ + "/chat_template.jinja: is not UTF-8 at byte 1, expected UTF-8");
}

}  // namespace
}  // namespace gatehouse
