#include "client/cli_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ParseOutcome Parse(std::vector<const char*> words, CliOptions& options) {
  words.insert(words.begin(), "gatehouse");
  return ParseCliOptions(static_cast<int>(words.size()), words.data(), options);
}

CliOptions ParsedOk(const std::vector<const char*>& words) {
  CliOptions options;
  const ParseOutcome outcome = Parse(words, options);
  EXPECT_TRUE(outcome.run) << outcome.output;
  return options;
}

std::string UsageError(const std::vector<const char*>& words) {
  CliOptions options;
  const ParseOutcome outcome = Parse(words, options);
  EXPECT_FALSE(outcome.run);
  EXPECT_EQ(outcome.exit_code, 2);
  return outcome.output;
}

TEST(ParseCliOptionsTest, LeavesUnsetWhatWasNotSaid) {
  const CliOptions options = ParsedOk({"generate", "Hello"});
  EXPECT_EQ(options.command, CliCommand::kGenerate);
  EXPECT_EQ(options.prompt.text, "Hello");
  const v1::GenerateRequest& request = options.generate;
  EXPECT_FALSE(request.has_add_special_tokens());
  EXPECT_FALSE(request.sampling().has_temperature());
  EXPECT_FALSE(request.sampling().has_seed());
  EXPECT_FALSE(request.stop().has_max_new_tokens());
  EXPECT_FALSE(request.output().has_top_logprobs());
  EXPECT_FALSE(request.has_routing());
}

TEST(ParseCliOptionsTest, ChatsBeginWithWhatIsSaid) {
  const CliOptions chat = ParsedOk({"chat", "--system", "Be brief.", "--temperature", "0",
                                    "--template-variables", "{\"enable_thinking\": false}"});
  EXPECT_EQ(chat.command, CliCommand::kChat);
  ASSERT_EQ(chat.generate.chat().messages_size(), 1);
  EXPECT_EQ(chat.generate.chat().messages(0).role(), "system");
  EXPECT_TRUE(chat.generate.chat().template_variables().fields().contains("enable_thinking"));
  EXPECT_TRUE(ParsedOk({"generate", "hi", "--chat"}).generate.has_chat());
  EXPECT_FALSE(ParsedOk({"generate", "hi"}).generate.has_chat());
  EXPECT_EQ(ParsedOk({"tokenize", "--chat", "file.json"}).chat_file, "file.json");
  EXPECT_THAT(UsageError({"chat", "--template-variables", "[1]"}),
              HasSubstr("--template-variables"));
  EXPECT_THAT(UsageError({"generate", "--tokens", "1", "--chat"}), HasSubstr("--tokens"));
}

TEST(ParseCliOptionsTest, ZeroIsNotUnset) {
  const CliOptions options =
      ParsedOk({"generate", "x", "--temperature", "0", "--top-k=0", "--top-logprobs", "0"});
  EXPECT_TRUE(options.generate.sampling().has_temperature());
  EXPECT_EQ(options.generate.sampling().temperature(), 0);
  EXPECT_TRUE(options.generate.sampling().has_top_k());
  EXPECT_TRUE(options.generate.output().has_top_logprobs());
}

TEST(ParseCliOptionsTest, FillsEverySamplingField) {
  const v1::Sampling s = ParsedOk({"generate",
                                   "x",
                                   "--temperature",
                                   "0.5",
                                   "--top-k",
                                   "5",
                                   "--top-p",
                                   "0.9",
                                   "--min-p",
                                   "0.1",
                                   "--typical-p",
                                   "0.8",
                                   "--frequency-penalty",
                                   "-1.5",
                                   "--presence-penalty",
                                   "0.25",
                                   "--repetition-penalty",
                                   "1.1",
                                   "--seed",
                                   "18446744073709551615",
                                   "-n",
                                   "3",
                                   "--logit-bias",
                                   "7=-2.5",
                                   "--logit-bias",
                                   "9=1",
                                   "--allowed-token-id",
                                   "3",
                                   "--allowed-token-id",
                                   "4",
                                   "--bad-word",
                                   "[damn]"})
                             .generate.sampling();
  EXPECT_FLOAT_EQ(s.temperature(), 0.5f);
  EXPECT_EQ(s.top_k(), 5);
  EXPECT_FLOAT_EQ(s.top_p(), 0.9f);
  EXPECT_FLOAT_EQ(s.min_p(), 0.1f);
  EXPECT_FLOAT_EQ(s.typical_p(), 0.8f);
  EXPECT_FLOAT_EQ(s.frequency_penalty(), -1.5f);
  EXPECT_FLOAT_EQ(s.presence_penalty(), 0.25f);
  EXPECT_FLOAT_EQ(s.repetition_penalty(), 1.1f);
  EXPECT_EQ(s.seed(), 18446744073709551615u);
  EXPECT_EQ(s.n(), 3);
  EXPECT_FLOAT_EQ(s.logit_bias().at(7), -2.5f);
  EXPECT_FLOAT_EQ(s.logit_bias().at(9), 1);
  EXPECT_THAT(s.allowed_token_ids(), ElementsAre(3, 4));
  EXPECT_THAT(s.bad_words(), ElementsAre("[damn]"));  // the flag parser has ideas about brackets
}

TEST(ParseCliOptionsTest, FillsStopOutputAndRequestFields) {
  const v1::GenerateRequest r = ParsedOk({"generate",
                                          "x",
                                          "--max-new-tokens",
                                          "8",
                                          "--min-new-tokens",
                                          "2",
                                          "--stop",
                                          "\n\n",
                                          "--stop",
                                          ".",
                                          "--stop-token-id",
                                          "11",
                                          "--ignore-eos",
                                          "--include-stop",
                                          "--top-logprobs",
                                          "5",
                                          "--prompt-logprobs",
                                          "0",
                                          "--token-ids",
                                          "--routed-experts",
                                          "--moe-report",
                                          "--request-id",
                                          "r1",
                                          "--cache-salt",
                                          "s",
                                          "--routing",
                                          "exact",
                                          "--priority",
                                          "high",
                                          "--model",
                                          "demo",
                                          "--add-special-tokens",
                                          "false"})
                                    .generate;
  EXPECT_EQ(r.stop().max_new_tokens(), 8);
  EXPECT_EQ(r.stop().min_new_tokens(), 2);
  EXPECT_THAT(r.stop().strings(), ElementsAre("\n\n", "."));
  EXPECT_THAT(r.stop().token_ids(), ElementsAre(11));
  EXPECT_TRUE(r.stop().ignore_eos());
  EXPECT_TRUE(r.stop().include_stop());
  EXPECT_EQ(r.output().top_logprobs(), 5);
  EXPECT_TRUE(r.output().has_prompt_logprobs());
  EXPECT_TRUE(r.output().token_ids());
  EXPECT_TRUE(r.output().routed_experts());
  EXPECT_TRUE(r.output().moe_report());
  EXPECT_EQ(r.request_id(), "r1");
  EXPECT_EQ(r.cache_salt(), "s");
  EXPECT_EQ(r.routing().mode(), v1::Routing::EXACT);
  EXPECT_EQ(r.priority(), v1::GenerateRequest::HIGH);
  EXPECT_EQ(r.model(), "demo");
  EXPECT_TRUE(r.has_add_special_tokens());
  EXPECT_FALSE(r.add_special_tokens());
}

TEST(ParseCliOptionsTest, PromptsThatLookLikeSomethingElseStayPrompts) {
  EXPECT_EQ(ParsedOk({"generate", "info"}).command, CliCommand::kGenerate);
  EXPECT_EQ(ParsedOk({"generate", "info"}).prompt.text, "info");
  EXPECT_EQ(ParsedOk({"generate", "[a, b]"}).prompt.text, "[a, b]");
  EXPECT_EQ(ParsedOk({"generate", "- a list"}).prompt.text, "- a list");
  EXPECT_EQ(ParsedOk({"generate", "--", "--seed"}).prompt.text, "--seed");
  EXPECT_TRUE(ParsedOk({"generate", ""}).prompt.has_text);
}

TEST(ParseCliOptionsTest, PromptComesFromArgumentFileInputOrIds) {
  EXPECT_EQ(ParsedOk({"generate", "-f", "p.txt"}).prompt.file, "p.txt");
  EXPECT_FALSE(ParsedOk({"generate"}).prompt.has_text);
  EXPECT_EQ(ParsedOk({"generate", "-"}).prompt.file, "-");
  EXPECT_THAT(ParsedOk({"generate", "--tokens", "5, 7 9"}).generate.tokens().ids(),
              ElementsAre(5, 7, 9));
  EXPECT_THAT(UsageError({"generate", "x", "--file", "p.txt"}), HasSubstr("excludes"));
  EXPECT_THAT(UsageError({"generate", "x", "--tokens", "1"}), HasSubstr("excludes"));
  EXPECT_THAT(UsageError({"generate", "--tokens", " , "}), HasSubstr("no ids"));
}

TEST(ParseCliOptionsTest, CommonFlagsStandBeforeOrBehindTheCommand) {
  const CliOptions before = ParsedOk({"--target", "h:1", "--json", "info"});
  const CliOptions behind = ParsedOk({"info", "--target", "h:1", "--json", "--timeout", "1.5"});
  EXPECT_EQ(before.connection.target, "h:1");
  EXPECT_EQ(behind.connection.target, "h:1");
  EXPECT_TRUE(before.json);
  EXPECT_TRUE(behind.json);
  EXPECT_EQ(behind.timeout().count(), 1500);
}

TEST(ParseCliOptionsTest, TargetComesFromTheEnvironmentUnlessAFlagSaysOtherwise) {
  setenv("GATEHOUSE_TARGET", "env:2", 1);
  const CliOptions from_environment = ParsedOk({"health"});
  const CliOptions from_flag = ParsedOk({"health", "--target", "flag:3"});
  unsetenv("GATEHOUSE_TARGET");
  EXPECT_EQ(from_environment.connection.target, "env:2");
  EXPECT_EQ(from_flag.connection.target, "flag:3");
  EXPECT_EQ(ParsedOk({"health"}).connection.target, "127.0.0.1:50051");
}

TEST(ParseCliOptionsTest, OperatorsCommandsHaveATargetOfTheirOwn) {
  setenv("GATEHOUSE_TARGET", "env:2", 1);
  EXPECT_EQ(ParsedOk({"top"}).connection.target, "127.0.0.1:50052");
  setenv("GATEHOUSE_ADMIN_TARGET", "env:3", 1);
  EXPECT_EQ(ParsedOk({"admin", "status"}).connection.target, "env:3");
  EXPECT_EQ(ParsedOk({"admin", "status", "--target", "flag:4"}).connection.target, "flag:4");
  EXPECT_EQ(ParsedOk({"info"}).connection.target, "env:2");
  unsetenv("GATEHOUSE_TARGET");
  unsetenv("GATEHOUSE_ADMIN_TARGET");
}

TEST(ParseCliOptionsTest, OperatorsFlagsBecomeFieldsOfTheirRequests) {
  const CliOptions top =
      ParsedOk({"top", "--interval", "0.5", "--count", "3", "--layer", "1", "--layer", "7"});
  EXPECT_EQ(top.command, CliCommand::kTop);
  EXPECT_EQ(top.admin.interval().count(), 500);
  EXPECT_EQ(top.admin.max_updates, 3);
  EXPECT_THAT(top.admin.experts.layers(), ElementsAre(1, 7));
  const CliOptions requests = ParsedOk({"admin", "requests", "--tenant", "t", "--max", "5"});
  EXPECT_EQ(requests.command, CliCommand::kAdminRequests);
  EXPECT_EQ(requests.admin.requests.tenant(), "t");
  EXPECT_EQ(requests.admin.requests.max_requests(), 5);
  EXPECT_FALSE(ParsedOk({"admin", "requests"}).admin.requests.has_max_requests());
  const CliOptions cancel = ParsedOk({"admin", "cancel", "r1", "--tenant", "t"});
  EXPECT_EQ(cancel.admin.cancel.request_id(), "r1");
  EXPECT_EQ(cancel.admin.cancel.tenant(), "t");
  EXPECT_FALSE(ParsedOk({"admin", "drain"}).admin.drain.has_seconds());
  EXPECT_EQ(ParsedOk({"admin", "drain", "--seconds", "0"}).admin.drain.seconds(), 0);
  EXPECT_TRUE(ParsedOk({"admin", "drain", "--seconds", "0"}).admin.drain.has_seconds());
  EXPECT_EQ(ParsedOk({"admin", "log-level", "warning"}).admin.log_level.level(),
            v1::SetLogLevelRequest::WARNING);
  EXPECT_THAT(UsageError({"admin", "log-level", "loud"}), HasSubstr("loud"));
  EXPECT_THAT(UsageError({"admin", "cancel"}), HasSubstr("id"));
  EXPECT_THAT(UsageError({"top", "--interval", "0"}), HasSubstr("interval"));
}

TEST(ParseCliOptionsTest, HelpIsACommandToo) {
  for (const std::vector<const char*>& words :
       {std::vector<const char*>{"gatehouse", "help", "admin", "drain"},
        {"gatehouse", "admin", "drain", "--help"}}) {
    CliOptions options;
    const ParseOutcome outcome =
        ParseCliOptions(static_cast<int>(words.size()), words.data(), options);
    EXPECT_FALSE(outcome.run);
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_THAT(outcome.output, HasSubstr("--seconds"));
  }
}

TEST(ToClientOptionsTest, TheTokenComesFromAFileOrTheEnvironment) {
  const std::string path = ::testing::TempDir() + "/gatehouse_token";
  std::ofstream(path) << "  from-file\n";
  setenv("GATEHOUSE_TOKEN", "from-environment", 1);
  EXPECT_EQ(ToClientOptions({.token_file = path})->auth_token, "from-file");
  EXPECT_EQ(ToClientOptions({})->auth_token, "from-environment");
  setenv("GATEHOUSE_TOKEN", "two words", 1);
  EXPECT_THAT(std::string(ToClientOptions({}).status().message()), HasSubstr("GATEHOUSE_TOKEN"));
  unsetenv("GATEHOUSE_TOKEN");
  EXPECT_EQ(ToClientOptions({})->auth_token, "");
  std::ofstream(path) << "\n";
  EXPECT_THAT(std::string(ToClientOptions({.token_file = path}).status().message()),
              HasSubstr("is empty"));
  EXPECT_THAT(std::string(ToClientOptions({.tls_ca_file = path}).status().message()),
              HasSubstr("--tls-ca"));
  std::remove(path.c_str());
}

TEST(ParseCliOptionsTest, ATimeoutOfLessThanAMillisecondIsOne) {
  EXPECT_EQ(ParsedOk({"info", "--timeout", "0.0000001"}).timeout().count(), 1);
  EXPECT_EQ(ParsedOk({"info", "--timeout", "0"}).timeout().count(), 0);
}

TEST(ToClientOptionsTest, RetriesComeBehindTheFirstTry) {
  EXPECT_EQ(ToClientOptions(ParsedOk({"info"}).connection)->retry.max_tries, 4);
  EXPECT_EQ(ToClientOptions(ParsedOk({"info", "--retries", "0"}).connection)->retry.max_tries, 1);
}

TEST(ParseCliOptionsTest, NamesTheUnknownWordAndTheNearestKnown) {
  EXPECT_THAT(UsageError({"generate", "x", "--temprature", "1"}),
              HasSubstr("unknown flag --temprature: did you mean --temperature?"));
  EXPECT_THAT(UsageError({"generate", "x", "--taget=h:1"}), HasSubstr("did you mean --target?"));
  EXPECT_THAT(UsageError({"genrate", "x"}), HasSubstr("did you mean generate?"));
  EXPECT_THAT(UsageError({"generate", "two", "words"}), HasSubstr("'words'"));
  EXPECT_THAT(UsageError({}), HasSubstr("which command? One of: "));
  EXPECT_THAT(UsageError({"admin"}), HasSubstr("which command? One of: status, watch"));
  EXPECT_THAT(
      UsageError({"admin", "statsu"}),
      HasSubstr("unknown command statsu: did you mean status?\nTry 'gatehouse admin --help'"));
  EXPECT_THAT(UsageError({"admin", "watch", "--intervall", "1"}),
              HasSubstr("did you mean --interval?\nTry 'gatehouse admin watch --help'"));
}

TEST(ParseCliOptionsTest, RefusesValuesOfTheWrongKind) {
  EXPECT_THAT(UsageError({"generate", "x", "--top-k", "many"}), HasSubstr("--top-k"));
  EXPECT_THAT(UsageError({"generate", "x", "--logit-bias", "5:2"}), HasSubstr("ID=VALUE"));
  EXPECT_THAT(UsageError({"generate", "x", "--routing", "loose"}), HasSubstr("--mode"));
  EXPECT_THAT(UsageError({"generate", "x", "--seed", "-1"}), HasSubstr("--seed"));
  EXPECT_THAT(UsageError({"info", "--timeout", "-3"}), HasSubstr("--timeout"));
  EXPECT_THAT(UsageError({"detokenize", "1", "x"}), HasSubstr("'x' is not a token id"));
}

TEST(ParseCliOptionsTest, RefusesArgumentsThatAreNotUtf8) {
  EXPECT_EQ(UsageError({"generate", "x", "--stop", "caf\xE9"}),
            "gatehouse: argument 4 is not UTF-8 at byte 3\n");
  EXPECT_EQ(ParsedOk({"generate", "x", "--stop", "caf\xC3\xA9"}).generate.stop().strings(0),
            "caf\xC3\xA9");
}

TEST(ParseCliOptionsTest, HelpAndVersionAreNotErrors) {
  CliOptions options;
  const ParseOutcome help = Parse({"generate", "--help"}, options);
  EXPECT_FALSE(help.run);
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, HasSubstr("--max-new-tokens"));
  EXPECT_THAT(Parse({"--version"}, options).output, HasSubstr("gatehouse 0."));
}

TEST(ParseTokenIdsTest, TakesCommasSpacesAndBracketsAndNothingElse) {
  EXPECT_THAT(*ParseTokenIds("[1, 2,3]\n4"), ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(ParseTokenIds("")->empty());
  EXPECT_FALSE(ParseTokenIds("1 -2").ok());
  EXPECT_FALSE(ParseTokenIds("2147483648").ok());
}

}  // namespace
}  // namespace gatehouse
