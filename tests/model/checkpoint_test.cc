#include "engine/model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "tests/testing/checkpoint_builder.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string BytesOf(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

Checkpoint OpenOrDie(const std::string& dir) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(dir);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

// A file of the given header text and data alone.
Checkpoint OpenFile(const TempDir& dir, std::string_view header, std::string_view data) {
  WriteFile(dir.path() + "/model.safetensors", SafetensorsFileOf(header, data));
  return OpenOrDie(dir.path());
}

TEST(CheckpointTest, GivesEveryValueOfEveryDTypeAtAnyAlignment) {
  // One byte in front, so that every other tensor is misaligned.
  const std::string header = R"({"odd": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
    "f32": {"dtype": "F32", "shape": [2, 2], "data_offsets": [1, 17]},
    "bf16": {"dtype": "BF16", "shape": [3], "data_offsets": [17, 23]},
    "f16": {"dtype": "F16", "shape": [1, 2], "data_offsets": [23, 27]}})";
  const std::string data = "x" + BytesOf({1, -2.5f, 3e-20f, 4e20f}) +
                           std::string("\x80\x3f\x00\xc0\x49\x40", 6) +
                           std::string("\x00\x3c\x01\x00", 4);
  TempDir dir;
  const Checkpoint checkpoint = OpenFile(dir, header, data);
  const absl::StatusOr<WeightView> f32 = checkpoint.Tensor("f32", {2, 2});
  ASSERT_TRUE(f32.ok()) << f32.status();
  EXPECT_EQ(f32->at(0, 1), -2.5f);
  EXPECT_EQ(f32->at(1, 0), 3e-20f);
  EXPECT_EQ(f32->at(1, 1), 4e20f);
  const absl::StatusOr<WeightView> bf16 = checkpoint.Tensor("bf16", {3});
  ASSERT_TRUE(bf16.ok()) << bf16.status();
  EXPECT_EQ(bf16->num_rows, 1);
  EXPECT_EQ(bf16->at(0, 0), 1);
  EXPECT_EQ(bf16->at(0, 1), -2);
  EXPECT_EQ(bf16->at(0, 2), 3.140625f);
  const absl::StatusOr<WeightView> f16 = checkpoint.Tensor("f16", {1, 2});
  ASSERT_TRUE(f16.ok()) << f16.status();
  EXPECT_EQ(f16->at(0, 0), 1);
  EXPECT_EQ(f16->at(0, 1), 0x1p-24f);  // the smallest subnormal
  EXPECT_THAT(checkpoint.Names(), ElementsAre("bf16", "f16", "f32", "odd"));
  for (const char* name : {"f32", "bf16", "f16"}) {
    EXPECT_EQ(checkpoint.CheckFinite(name), absl::OkStatus());
  }
}

TEST(CheckpointTest, AcceptsPaddingScalarsEmptyTensorsAndAnyOrder) {
  const std::string header = R"({"z": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
    "empty": {"dtype": "F64", "shape": [0, 3], "data_offsets": [4, 4]},
    "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})" +
                             std::string(5, ' ');
  TempDir dir;
  const Checkpoint checkpoint = OpenFile(dir, header, BytesOf({1, 2}));
  EXPECT_EQ(checkpoint.Tensor("a", {1})->at(0, 0), 2);
  EXPECT_TRUE(checkpoint.Has("empty"));
  EXPECT_FALSE(checkpoint.Has("b"));
}

TEST(CheckpointTest, AFileWithoutTensorsIsAFile) {
  TempDir dir;
  EXPECT_THAT(OpenFile(dir, "{}", "").Names(), ElementsAre());
}

TEST(CheckpointTest, SaysWhereATensorIsOrShouldBe) {
  TempDir dir;
  WriteCheckpoint(MakeTinyQwen3Moe({.num_shards = 3}), dir.path());
  const Checkpoint checkpoint = OpenOrDie(dir.path());
  EXPECT_EQ(checkpoint.FileOf("lm_head.weight"), dir.path() + "/model-00001-of-00003.safetensors");
  EXPECT_THAT(std::string(checkpoint.Tensor("no such", {4}).status().message()),
              dir.path() + "/model.safetensors.index.json: no such: missing, expected [4]");
}

TEST(CheckpointTest, ShardsHoldTheSameAsOneFile) {
  TempDir one, four;
  WriteCheckpoint(MakeTinyQwen3Moe({}), one.path());
  WriteCheckpoint(MakeTinyQwen3Moe({.num_shards = 4}), four.path());
  const Checkpoint single = OpenOrDie(one.path()), sharded = OpenOrDie(four.path());
  EXPECT_EQ(single.Names(), sharded.Names());
  const absl::StatusOr<WeightView> a = single.Tensor("lm_head.weight", {300, 32});
  const absl::StatusOr<WeightView> b = sharded.Tensor("lm_head.weight", {300, 32});
  ASSERT_TRUE(a.ok() && b.ok());
  for (int r = 0; r < 300; ++r) {
    for (int c = 0; c < 32; ++c) ASSERT_EQ(a->at(r, c), b->at(r, c));
  }
}

TEST(CheckpointTest, FollowsLinksAsDownloadCachesMakeThem) {
  TempDir blobs, snapshot;
  WriteCheckpoint(MakeTinyQwen3Moe({}), blobs.path());
  std::filesystem::create_symlink(blobs.path() + "/model.safetensors",
                                  snapshot.path() + "/model.safetensors");
  EXPECT_TRUE(OpenOrDie(snapshot.path()).Has("lm_head.weight"));
}

TEST(CheckpointTest, ViewsOutliveDroppedPagesAndMoves) {
  TempDir dir;
  WriteCheckpoint(MakeTinyQwen3Moe({}), dir.path());
  Checkpoint opened = OpenOrDie(dir.path());
  const WeightView view = *opened.Tensor("model.norm.weight", {32});
  const float before = view.at(0, 31);
  const Checkpoint moved = std::move(opened);
  moved.DropPages();
  EXPECT_EQ(view.at(0, 31), before);
  EXPECT_EQ(moved.Tensor("model.norm.weight", {32})->data, view.data);
}

// Longer than one block of the scan, and no multiple of its words.
constexpr int64_t kNumValues = 40003;

TEST(FindNonFiniteTest, FindsTheFirstOneWhereverItIs) {
  const float largest = std::numeric_limits<float>::max();
  std::vector<float> values(kNumValues, largest);
  for (size_t i = 0; i < values.size(); i += 3) values[i] = -largest;
  const WeightView view{values.data(), DType::kF32, 1, kNumValues};
  EXPECT_EQ(FindNonFinite(view), -1);
  for (const int64_t at :
       {int64_t{40002}, int64_t{32768}, int64_t{16384}, int64_t{16383}, int64_t{1}, int64_t{0}}) {
    values[at] = at % 2 == 0 ? std::numeric_limits<float>::quiet_NaN()
                             : -std::numeric_limits<float>::infinity();
    EXPECT_EQ(FindNonFinite(view), at);
  }
}

// Every bit pattern of the two short types, alone at either end.
TEST(FindNonFiniteTest, AgreesWithIsfiniteOnEveryShortValue) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    std::vector<uint16_t> values(7, 0x3c00);
    for (int bits = 0; bits < 0x10000; ++bits) {
      values[0] = values[6] = static_cast<uint16_t>(bits);
      const WeightView view{values.data(), dtype, 1, 7};
      const bool finite = std::isfinite(view.at(0, 0));
      ASSERT_EQ(FindNonFinite(view), finite ? -1 : 0) << bits;
      const WeightView tail{values.data() + 1, dtype, 1, 6};
      ASSERT_EQ(FindNonFinite(tail), finite ? -1 : 5) << bits;
    }
  }
}

}  // namespace
}  // namespace gatehouse
