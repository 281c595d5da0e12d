// Everything that is wrong with a model folder is found at load, and said in one line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "engine/model/checkpoint.h"
#include "engine/model/generation_config.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"
#include "kernels/base/status_macros.h"
#include "tests/testing/corrupt_checkpoints.h"

namespace gatehouse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// What a loader does, in its order.
absl::Status LoadAll(const std::string& dir) {
  GATEHOUSE_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(dir));
  GATEHOUSE_RETURN_IF_ERROR(LoadGenerationConfig(dir, config).status());
  GATEHOUSE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(dir));
  GATEHOUSE_RETURN_IF_ERROR(FindTensors(checkpoint, config).status());
  absl::Status status;
  ForEachTensor(config, [&](const std::string& name, TensorShape) {
    if (status.ok()) status = checkpoint.CheckFinite(name);
  });
  return status;
}

TEST(CorruptCheckpointTest, TheFoldersLoadBeforeTheyAreSpoilt) {
  for (const int num_shards : {1, 2}) {
    TempDir dir;
    WriteCheckpoint(MakeTinyQwen3Moe({.num_shards = num_shards}), dir.path());
    EXPECT_EQ(LoadAll(dir.path()), absl::OkStatus());
  }
}

TEST(CorruptCheckpointTest, EachIsRefusedInOneLineThatNamesFileAndProblem) {
  std::map<std::string, std::set<std::string>> names_of_kind;
  int num_cases = 0;
  for (const CorruptCheckpoint& corrupt : CorruptCheckpoints()) {
    SCOPED_TRACE(corrupt.kind + ": " + corrupt.name);
    TempDir dir;
    WriteCorruptCheckpoint(corrupt, dir.path());
    const absl::Status status = LoadAll(dir.path());
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    const std::string message(status.message());
    const std::string path = corrupt.file.empty() ? dir.path() : dir.path() + "/" + corrupt.file;
    EXPECT_EQ(message.substr(0, path.size() + 2), path + ": ");
    EXPECT_THAT(message,
                AllOf(HasSubstr(corrupt.fragment), HasSubstr("expected"), Not(HasSubstr("\n"))));
    EXPECT_LT(message.size(), 500u);
    EXPECT_TRUE(names_of_kind[corrupt.kind].insert(corrupt.name).second);
    ++num_cases;
  }
  EXPECT_GE(num_cases, 40);
  EXPECT_GE(names_of_kind.size(), 8u);
}

}  // namespace
}  // namespace gatehouse
