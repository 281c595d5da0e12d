#include "server/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

namespace gatehouse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Variables = std::map<std::string, std::string>;

absl::StatusOr<CommandLine> Parse(std::vector<std::string> arguments, Variables variables = {}) {
  return ParseCommandLine(arguments, [=](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

std::string ErrorOf(const absl::StatusOr<CommandLine>& result) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
  return std::string(result.status().message());
}

TEST(ServerConfigTest, DefaultsAreTheProtocols) {
  const auto result = Parse({"--model", "m"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->print);
  EXPECT_EQ(result->config.listen, "127.0.0.1:50051");
  EXPECT_EQ(result->config.metrics_listen, "127.0.0.1:9464");
  EXPECT_EQ(result->config.engine.scheduler.max_step_ms, 250);
  EXPECT_FALSE(result->config.engine.model.expert_weights.has_value());
}

TEST(ServerConfigTest, FlagsWinOverVariablesAndVariablesOverTheFile) {
  const std::string file =
      WriteFile("order.yaml", "model: m\nmax-sequences: 1\nmax-step-tokens: 1\nthreads: 1\n");
  const auto result = Parse({"--config", file, "--max-sequences", "3"},
                            {{"GATEHOUSE_MAX_SEQUENCES", "2"}, {"GATEHOUSE_MAX_STEP_TOKENS", "2"}});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->config.engine.scheduler.max_sequences, 3);
  EXPECT_EQ(result->config.engine.scheduler.max_step_tokens, 2);
  EXPECT_EQ(result->config.backend.num_threads, 1);
  EXPECT_EQ(result->config.engine.model.model_dir, "m");
}

TEST(ServerConfigTest, ReadsEveryKindOfValue) {
  const auto result =
      Parse({"--model=m", "--weights=bf16", "--dense-weights=f32", "--kv-cache-bytes=3MiB",
             "--max-step-ms=1.5", "--log-format=json", "--metrics-level=0", "--insecure",
             "--kv-type=int8", "--check", "--listen=[::]:0"},
            {{"GATEHOUSE_ISA", "portable"}});
  ASSERT_TRUE(result.ok()) << result.status();
  const ServerConfig& config = result->config;
  EXPECT_EQ(config.engine.model.expert_weights, WeightFormat::kBF16);
  EXPECT_EQ(config.engine.model.dense_weights, WeightFormat::kF32);
  EXPECT_EQ(config.engine.cache.kv_cache_bytes, 3 << 20);
  EXPECT_EQ(config.engine.cache.kv_type, KvType::kInt8);
  EXPECT_EQ(config.engine.scheduler.max_step_ms, 1.5);
  EXPECT_EQ(config.log_format, LogFormat::kJson);
  EXPECT_EQ(config.metrics_level, 0);
  EXPECT_TRUE(config.insecure);
  EXPECT_TRUE(config.check);
  EXPECT_EQ(config.backend.isa, "portable");
}

TEST(ServerConfigTest, PrintedConfigurationGivesTheSameConfigurationAgain) {
  const auto first =
      Parse({"--print-config", "--model", "a: #b", "--max-sequences=5", "--weights=bf16"},
            {{"GATEHOUSE_DRAIN_SECONDS", "7.5"}});
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(first->print);
  EXPECT_THAT(first->text, AllOf(HasSubstr("max-sequences: 5  # flag\n"),
                                 HasSubstr("drain-seconds: 7.5  # environment\n"),
                                 HasSubstr("threads: 0  # default\n")));
  const auto second = Parse({"--print-config", "--config", WriteFile("again.yaml", first->text)});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->config.engine.model.model_dir, "a: #b");
  EXPECT_EQ(second->config.engine.model.expert_weights, WeightFormat::kBF16);
  EXPECT_EQ(second->config.drain_seconds, 7.5);
  EXPECT_EQ(second->config.engine.scheduler.max_sequences, 5);
}

TEST(ServerConfigTest, RefusesWithThePlaceTheValueAndWhatWasExpected) {
  EXPECT_THAT(ErrorOf(Parse({})), HasSubstr("--model is missing"));
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--max-sequences=0"})),
              HasSubstr("--max-sequences: got \"0\", expected a whole number from 1 to 65536"));
  EXPECT_THAT(ErrorOf(Parse({"--model=m"}, {{"GATEHOUSE_THREADS", "two"}})),
              HasSubstr("GATEHOUSE_THREADS: got \"two\", expected a whole number"));
  EXPECT_THAT(ErrorOf(Parse({"--config", WriteFile("bad.yaml", "model: m\nweights: int3\n")})),
              AllOf(HasSubstr("bad.yaml: weights: got \"int3\""), HasSubstr("bf16, int8 or int4")));
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--kv-type=f16"})),
              HasSubstr("--kv-type: got \"f16\", expected f32, bf16 or int8"));
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--kv-cache-bytes=99999999999GiB"})),
              HasSubstr("--kv-cache-bytes"));
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--drain-seconds=nan"})), HasSubstr("--drain-seconds"));
  for (const char* const fraction : {"-0.1", "1.1", "nan", "some", ""}) {
    EXPECT_THAT(ErrorOf(Parse({"--model=m", "--shadow-exact-fraction", fraction})),
                HasSubstr("expected a number from 0 to 1"));
  }
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--listen=50051"})), HasSubstr("host:port"));
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--listen=127.0.0.1:70000"})), HasSubstr("host:port"));
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--no-such-flag"})), HasSubstr("--no-such-flag"));
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--tls-cert=c"})), HasSubstr("--tls-key"));
}

TEST(ServerConfigTest, RefusesFilesItWouldMisread) {
  EXPECT_THAT(ErrorOf(Parse({"--config", "/no/such/file.yaml"})), HasSubstr("/no/such/file.yaml"));
  EXPECT_THAT(ErrorOf(Parse({"--config", WriteFile("typo.yaml", "modle: m\n")})),
              HasSubstr("unknown key \"modle\""));
  EXPECT_THAT(ErrorOf(Parse({"--config", WriteFile("list.yaml", "[a, b]\n")})),
              HasSubstr("not a map"));
  EXPECT_THAT(ErrorOf(Parse({"--config", WriteFile("nested.yaml", "model: {a: b}\n")})),
              HasSubstr("not a single value"));
  EXPECT_THAT(ErrorOf(Parse({"--config", WriteFile("syntax.yaml", "model: [\n")})),
              HasSubstr("syntax.yaml"));
}

TEST(ServerConfigTest, OffLoopbackNeedsTlsOrInsecure) {
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--listen=0.0.0.0:50051"})), HasSubstr("--insecure"));
  EXPECT_THAT(ErrorOf(Parse({"--model=m", "--listen=127.evil.example:1"})),
              HasSubstr("--insecure"));
  EXPECT_TRUE(Parse({"--model=m", "--listen=0.0.0.0:50051", "--insecure"}).ok());
  EXPECT_TRUE(Parse({"--model=m", "--listen=0.0.0.0:1", "--tls-cert=c", "--tls-key=k"}).ok());
  for (const std::string host : {"127.0.0.1", "127.1.2.3", "[::1]", "localhost"}) {
    EXPECT_TRUE(Parse({"--model=m", "--listen=" + host + ":0"}).ok()) << host;
  }
}

TEST(ServerConfigTest, RanksOfADeploymentAreAskedForByFlagsThatFitTogether) {
  const auto error = [](std::vector<std::string> flags) {
    flags.insert(flags.begin(), "--model=m");
    return ErrorOf(Parse(flags));
  };
  EXPECT_TRUE(Parse({"--model=m", "--workers=3"}).ok());
  EXPECT_TRUE(Parse({"--model=m", "--role=worker", "--join=127.0.0.1:1"}).ok());
  EXPECT_THAT(error({"--workers=3", "--ranks=2"}), HasSubstr("--ranks 2: each process"));
  EXPECT_THAT(error({"--role=worker"}), HasSubstr("--join is missing"));
  EXPECT_THAT(error({"--join=127.0.0.1:1"}), HasSubstr("give --role worker"));
  EXPECT_THAT(error({"--role=worker", "--join=127.0.0.1:1", "--workers=1"}),
              HasSubstr("--workers is the server's"));
  EXPECT_THAT(error({"--role=worker", "--join=127.0.0.1:1", "--deployment-ca=c"}),
              HasSubstr("--deployment-ca needs --tls-cert"));
  const std::vector<std::string> network[] = {{"--workers=1", "--worker-listen=10.0.0.1:1"},
                                              {"--role=worker", "--join=10.0.0.1:1"}};
  for (std::vector<std::string> flags : network) {
    EXPECT_THAT(error(flags), HasSubstr("give --worker-address"));
    flags.push_back("--worker-address=10.0.0.2");
    EXPECT_THAT(error(flags), HasSubstr("or --deployment-token-file, or --insecure"));
    for (const std::vector<std::string>& known :
         {std::vector<std::string>{"--insecure"},
          {"--deployment-token-file=t"},
          {"--deployment-ca=c", "--tls-cert=c", "--tls-key=k"}}) {
      std::vector<std::string> all = flags;
      all.insert(all.end(), known.begin(), known.end());
      all.push_back("--model=m");
      EXPECT_TRUE(Parse(all).ok()) << Parse(all).status();
    }
  }
}

TEST(ServerConfigTest, HelpNamesEveryFlagWithItsDefaultAndTheExitCodes) {
  const auto help = Parse({"--help"});
  ASSERT_TRUE(help.ok()) << help.status();
  EXPECT_TRUE(help->print);
  for (const std::string flag : {"--model",
                                 "--weights",
                                 "--dense-weights",
                                 "--kv-type",
                                 "--listen",
                                 "--metrics-listen",
                                 "--metrics-level",
                                 "--backend",
                                 "--threads",
                                 "--max-sequences",
                                 "--max-step-tokens",
                                 "--max-step-ms",
                                 "--kv-cache-bytes",
                                 "--max-queued-requests",
                                 "--max-queued-tokens",
                                 "--max-context",
                                 "--drain-seconds",
                                 "--log-format",
                                 "--ready-file",
                                 "--role",
                                 "--workers",
                                 "--worker-listen",
                                 "--join",
                                 "--worker-address",
                                 "--deployment-token-file",
                                 "--deployment-ca",
                                 "--insecure",
                                 "--check",
                                 "--config",
                                 "--print-config",
                                 "--version",
                                 "[127.0.0.1:50051]",
                                 "Exit codes"}) {
    EXPECT_THAT(help->text, HasSubstr(flag));
  }
  EXPECT_THAT(Parse({"--version"})->text, ::testing::MatchesRegex("gatehouse-server [0-9.]+\n"));
}

}  // namespace
}  // namespace gatehouse
