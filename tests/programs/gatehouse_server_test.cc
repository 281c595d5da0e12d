// The program gatehouse-server from outside: exit codes and what stands on standard error.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>

#include "tests/testing/corrupt_checkpoints.h"

namespace gatehouse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct ProgramRun {
  int exit_code = -1;  // 128 + signal for a crash, as a shell says it
  std::string output;  // standard output and error
};

ProgramRun RunServer(const std::string& arguments) {
  const std::string command = "'" GATEHOUSE_SERVER_PROGRAM "' " + arguments + " 2>&1 </dev/null";
  ProgramRun run;
  FILE* pipe = popen(command.c_str(), "r");
  std::array<char, 4096> buffer;
  for (size_t count; (count = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    run.output.append(buffer.data(), count);
  }
  const int status = pclose(pipe);
  run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return run;
}

ProgramRun Check(const std::string& model_dir) {
  return RunServer("--check --threads 1 --model '" + model_dir + "'");
}

void ExpectRefused(const ProgramRun& run, const std::string& file, const std::string& fragment) {
  EXPECT_EQ(run.exit_code, 3) << run.output;
  EXPECT_THAT(run.output, AllOf(StartsWith("gatehouse-server: " + file + ": "), HasSubstr(fragment),
                                HasSubstr("expected")));
  EXPECT_EQ(run.output.find('\n'), run.output.size() - 1) << "one line: " << run.output;
}

TEST(GatehouseServerTest, ChecksASoundModelAndPrintsItsMemoryPlan) {
  TempDir dir;
  WriteCheckpoint(MakeTinyQwen3Moe({}), dir.path());
  const ProgramRun run = Check(dir.path());
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_THAT(run.output, AllOf(HasSubstr("expert weights"), HasSubstr("KV cache")));
}

TEST(GatehouseServerTest, EveryCorruptModelEndsWith3AndOneLine) {
  for (const CorruptCheckpoint& corrupt : CorruptCheckpoints()) {
    SCOPED_TRACE(corrupt.kind + ": " + corrupt.name);
    TempDir dir;
    WriteCorruptCheckpoint(corrupt, dir.path());
    const std::string file = corrupt.file.empty() ? dir.path() : dir.path() + "/" + corrupt.file;
    ExpectRefused(Check(dir.path()), file, corrupt.fragment);
  }
}

struct CorruptTokenizer {
  const char* name;
  const char* fragment;
  std::function<void(nlohmann::json&)> spoil;
};

// All of them stand in tests/tokenizer; here those that the server could get wrong on its own.
const CorruptTokenizer kCorruptTokenizers[] = {
    {"another model", "model.type", [](nlohmann::json& t) { t["model"]["type"] = "Unigram"; }},
    {"vocabulary of no numbers", "model.vocab", [](nlohmann::json& t) { t["model"]["vocab"] = 7; }},
    {"unknown merge", "model.merges",
     [](nlohmann::json& t) { t["model"]["merges"] = {"nothing known"}; }},
    {"decoder missing", "decoder", [](nlohmann::json& t) { t["decoder"] = nullptr; }},
    {"id beyond the model's table", "highest token id",
     [](nlohmann::json& t) { t["model"]["vocab"]["!!!!"] = 300; }},
};

TEST(GatehouseServerTest, EveryCorruptTokenizerEndsWith3AndOneLine) {
  for (const CorruptTokenizer& corrupt : kCorruptTokenizers) {
    SCOPED_TRACE(corrupt.name);
    CheckpointToWrite checkpoint = MakeTinyQwen3Moe({});
    corrupt.spoil(checkpoint.tokenizer);
    TempDir dir;
    WriteCheckpoint(checkpoint, dir.path());
    ExpectRefused(Check(dir.path()), dir.path() + "/tokenizer.json", corrupt.fragment);
  }
}

TEST(GatehouseServerTest, AModelThatCannotFitEndsWith3AndBothNumbers) {
  TempDir dir;
  WriteCheckpoint(MakeTinyQwen3Moe({}), dir.path());
  const ProgramRun run = RunServer("--check --kv-cache-bytes 1024 --model '" + dir.path() + "'");
  EXPECT_EQ(run.exit_code, 3) << run.output;
  EXPECT_THAT(run.output, AllOf(HasSubstr("one sequence of max_context 128 needs"),
                                HasSubstr("--kv-cache-bytes")));
}

TEST(GatehouseServerTest, AContextBeyondTheModelsEndsWith2) {
  TempDir dir;
  WriteCheckpoint(MakeTinyQwen3Moe({}), dir.path());
  const ProgramRun run = RunServer("--check --max-context 129 --model '" + dir.path() + "'");
  EXPECT_EQ(run.exit_code, 2) << run.output;
  EXPECT_THAT(run.output, HasSubstr("got 129, the model has 128"));
}

}  // namespace
}  // namespace gatehouse
