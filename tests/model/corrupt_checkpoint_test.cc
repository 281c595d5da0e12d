// Everything that is wrong with a model folder is found at load, and said in one line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
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
  ForEachTensor(config, [&](const std::string& name, const TensorShape&) {
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
  for (const nlohmann::json& config : TinyFamilyConfigs()) {
    TempDir dir;
    WriteCheckpoint(MakeTinyModel(config), dir.path());
    EXPECT_EQ(LoadAll(dir.path()), absl::OkStatus()) << config["model_type"];
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

// Whatever a header says, what is opened lies within the file. Seed 7.
TEST(CorruptCheckpointTest, RandomDamageIsRefusedOrHarmless) {
  const TensorsToWrite tensors = {{"a", {"F32", {3, 4}, std::string(48, '\x3f')}},
                                  {"b", {"BF16", {5}, std::string(10, '\x3f')}}};
  const std::string intact =
      SafetensorsFileOf(SafetensorsHeader(tensors).dump(), SafetensorsData(tensors));
  const size_t num_header_bytes = intact.size() - SafetensorsData(tensors).size();
  const std::string digits = "0123456789,[]{}\":-e.";
  std::mt19937 random(7);
  TempDir dir;
  int num_refused = 0;
  constexpr int kNumFiles = 500;
  for (int i = 0; i < kNumFiles; ++i) {
    std::string bytes = intact;
    for (uint32_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % num_header_bytes;
      bytes[at] = at >= 8 && random() % 4 != 0 ? digits[random() % digits.size()]
                                               : static_cast<char>(random());
    }
    WriteFile(dir.path() + "/model.safetensors", bytes);
    const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(dir.path());
    if (!checkpoint.ok()) {
      ++num_refused;
      EXPECT_THAT(std::string(checkpoint.status().message()), Not(HasSubstr("\n")));
      continue;
    }
    for (const std::string& name : checkpoint->Names()) {
      checkpoint->CheckFinite(name).IgnoreError();  // reads every byte of it
    }
  }
  EXPECT_GT(num_refused, kNumFiles / 2);
  EXPECT_LT(num_refused, kNumFiles);  // some damage is to names or metadata
}

}  // namespace
}  // namespace gatehouse
