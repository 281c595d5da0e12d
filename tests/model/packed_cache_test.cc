#include "engine/model/packed_cache.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <thread>

#include "kernels/base/checksum.h"
#include "kernels/weight_format.h"
#include "tests/testing/checkpoint_builder.h"

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kOutputs = 40, kInputs = 70, kIntermediate = 24;

// A model of one matrix and one layer of experts, packed through a cache as the loader does.
class PackedCacheTest : public ::testing::Test {
 protected:
  PackedCacheTest() {
    std::filesystem::create_directory(models_.path() + "/tiny");
    SetWeights(1);
  }

  void SetWeights(uint32_t seed) {
    weights_.resize(kOutputs * kInputs + 5 * kIntermediate * kInputs);
    for (float& weight : weights_) {
      seed = seed * 1664525 + 1013904223;
      weight = static_cast<float>(seed >> 8) / (1 << 24) - 0.5f;
    }
    WriteFile(ModelFile(), std::string(reinterpret_cast<const char*>(weights_.data()),
                                       weights_.size() * sizeof(float)));
  }
  std::string ModelFile() const { return models_.path() + "/tiny/model.safetensors"; }
  std::string CacheDir() const { return models_.path() + "/caches"; }
  std::string CacheFile(const std::string& formats = "int8.int8") const {
    return CacheDir() + "/tiny." + formats + ".cpu-panels-1.packed";
  }

  struct Loaded {
    std::string bytes;  // of all that was packed or read
    PackedCacheReport report;
  };
  Loaded Load(WeightFormat format = WeightFormat::kInt8) const {
    return Load(format, CacheDir(), [] {});
  }
  template <typename Between>
  Loaded Load(WeightFormat format, const std::string& dir, const Between& between) const {
    const std::unique_ptr<Backend> backend = *MakeBackend("cpu", {.num_threads = 2});
    const std::string name(WeightFormatName(format));
    PackedCache cache = PackedCache::Open({.dir = dir,
                                           .model_name = "tiny",
                                           .model_files = {ModelFile()},
                                           .expert_format = name,
                                           .dense_format = name},
                                          *backend);
    std::unique_ptr<PackedMatrix> matrix = *cache.Matrix(kOutputs, kInputs, format);
    if (matrix == nullptr) matrix = *backend->PackMatrix({{View(0, kOutputs, kInputs)}}, format);
    cache.Add(matrix->bytes());
    const ExpertsShape shape{
        .num_experts = 1, .hidden_size = kInputs, .intermediate_size = kIntermediate};
    std::unique_ptr<PackedExperts> experts = *cache.Experts(shape, format);
    if (experts == nullptr) {
      const int64_t begin = kOutputs * kInputs, each = kIntermediate * kInputs;
      const ExpertSource source{.gate = View(begin, kIntermediate, kInputs),
                                .up = View(begin + each, kIntermediate, kInputs),
                                .down = View(begin + 2 * each, kInputs, kIntermediate)};
      experts = *backend->PackExperts({&source, 1}, format);
    }
    cache.Add(experts->bytes());
    between();
    Loaded loaded{.report = cache.Finish()};
    for (const std::span<const std::byte> bytes : {matrix->bytes(), experts->bytes()}) {
      loaded.bytes.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
    return loaded;
  }
  WeightView View(int64_t begin, int64_t num_rows, int64_t num_cols) const {
    return {.data = weights_.data() + begin, .num_rows = num_rows, .num_cols = num_cols};
  }

  // That the file as it lies is not used, that what is loaded is right nevertheless, and that the
  // next start reads again.
  void ExpectRebuilt(const std::string& right_bytes, const std::string& reason) {
    const Loaded rebuilt = Load();
    EXPECT_EQ(rebuilt.bytes, right_bytes) << reason;
    EXPECT_THAT(rebuilt.report.not_read, HasSubstr(reason));
    EXPECT_EQ(rebuilt.report.not_saved, "");
    const Loaded read = Load();
    EXPECT_EQ(read.report.not_read, "");
    EXPECT_EQ(read.bytes, right_bytes);
  }
  // With the length and the checksum that belong to it.
  void ReplaceInHeader(const std::string& was, const std::string& is) {
    std::string file = ReadFile(CacheFile());
    uint64_t length = 0;
    std::memcpy(&length, file.data() + 8, 8);
    std::string header = file.substr(24, length);
    ASSERT_NE(header.find(was), std::string::npos) << header;
    header.replace(header.find(was), was.size(), is);
    ASSERT_EQ(header.size(), length);
    const uint64_t checksum = Checksum(std::as_bytes(std::span(header)));
    std::memcpy(file.data() + 16, &checksum, 8);
    file.replace(24, length, header);
    WriteFile(CacheFile(), file);
  }

  TempDir models_;
  std::vector<float> weights_;
};

TEST_F(PackedCacheTest, TheSecondStartReadsWhatTheFirstPacked) {
  for (const WeightFormat format : kWeightFormats) {
    const Loaded first = Load(format), second = Load(format);
    EXPECT_EQ(first.report.not_read, "there is none yet");
    EXPECT_EQ(first.report.not_saved, "");
    EXPECT_EQ(second.report.not_read, "") << WeightFormatName(format);
    EXPECT_EQ(first.bytes, second.bytes);
    EXPECT_TRUE(std::filesystem::exists(second.report.file)) << second.report.file;
  }
  EXPECT_EQ(ReadFile(CacheFile("bf16.bf16")).substr(0, 8), "GHPACKED");
}

TEST_F(PackedCacheTest, AFlippedByteIsFoundWhereverItLies) {
  const std::string right = Load().bytes;
  const std::string file = ReadFile(CacheFile());
  // 24 bytes and the header; the sections begin at 4,096 and, behind 6,528 bytes, 12,288.
  struct Flip {
    size_t at;
    const char* reason;
  };
  for (const Flip& flip :
       {Flip{0, "no file of packed weights"}, Flip{8, "header is damaged"},
        Flip{15, "header is damaged"}, Flip{16, "header is damaged"}, Flip{24, "header is damaged"},
        Flip{200, "header is damaged"}, Flip{4096, "section 0 (matrix of 40 x 70 in int8)"},
        Flip{10000, "section 0"}, Flip{12288, "section 1 (set of 1 experts of 24 x 70 in int8)"},
        Flip{15000, "section 1"}}) {
    std::string damaged = file;
    damaged[flip.at] = static_cast<char>(damaged[flip.at] ^ 0x10);
    WriteFile(CacheFile(), damaged);
    ExpectRebuilt(right, flip.reason);
  }
}

TEST_F(PackedCacheTest, ATruncatedFileIsRebuilt) {
  const std::string right = Load().bytes;
  const std::string file = ReadFile(CacheFile());
  for (const size_t length : {size_t{0}, size_t{23}, size_t{24}, size_t{100}, size_t{4096},
                              size_t{9000}, file.size() - 1}) {
    WriteFile(CacheFile(), file.substr(0, length));
    ExpectRebuilt(right, "truncated");
  }
}

TEST_F(PackedCacheTest, AChangedCheckpointIsNeverServedFromItsOldCache) {
  const std::string before = Load().bytes;
  SetWeights(2);  // of the same size, within the same second
  const Loaded after = Load();
  EXPECT_EQ(after.report.not_read, "model.safetensors has changed");
  EXPECT_NE(after.bytes, before);
  EXPECT_EQ(Load().bytes, after.bytes);
}

TEST_F(PackedCacheTest, ACopiedCheckpointIsTheSame) {
  Load();
  std::filesystem::copy(ModelFile(), ModelFile() + "2");
  std::filesystem::rename(ModelFile() + "2", ModelFile());
  EXPECT_EQ(Load().report.not_read, "");
}

TEST_F(PackedCacheTest, OtherVersionsLayoutsFormatsAndContentsAreRebuilt) {
  const std::string right = Load().bytes;
  const auto expect_rebuilt = [&](const char* was, const char* is, const char* reason) {
    ReplaceInHeader(was, is);
    ExpectRebuilt(right, reason);
  };
  expect_rebuilt("\"version\":1", "\"version\":0", "version 0, not 1");
  expect_rebuilt("cpu-panels-1", "cpu-panels-0", "layout cpu-panels-0");
  expect_rebuilt("\"expert_format\":\"int8\"", "\"expert_format\":\"int4\"", "int4 experts");
  expect_rebuilt("matrix of 40", "matrix of 41", "section 0 is a matrix of 41 x 70");
  expect_rebuilt("\"bytes\":6528", "\"bytes\":6529", "section 0 is");
  expect_rebuilt("\"bytes\":6528", "\"bytes\":-528", "bytes: got -528");
  expect_rebuilt("\"bytes\":6528", "\"bytes\":9e99", "bytes: got");
  expect_rebuilt("\"bytes\":6528", "\"bytes\":9e14", "truncated");
  expect_rebuilt("\"sections\"", "\"Sections\"", "it has 0 sections only");
  expect_rebuilt("\"sections\"", "\"sections'", "header");
  WriteFile(CacheFile(), "something else, of more than 24 bytes");
  ExpectRebuilt(right, "no file of packed weights");
}

TEST_F(PackedCacheTest, AFolderThatCannotBeWrittenIsNoReasonNotToLoad) {
  const std::string right = Load().bytes;
  for (const std::string& dir : {ModelFile() + "/below", models_.path() + "/no/such"}) {
    const Loaded loaded = Load(WeightFormat::kInt8, dir, [] {});
    EXPECT_EQ(loaded.bytes, right);
    EXPECT_NE(loaded.report.not_read, "");
    EXPECT_THAT(loaded.report.not_saved, HasSubstr("it cannot be written"));
  }
}

TEST_F(PackedCacheTest, WhatAnotherProcessWritesIsLeftToIt) {
  std::filesystem::create_directory(CacheDir());
  const std::string unfinished = CacheFile() + ".unfinished";
  const int other = open(unfinished.c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  ASSERT_EQ(write(other, "half", 4), 4);
  EXPECT_EQ(Load().report.not_saved, "another process writes it");
  EXPECT_EQ(ReadFile(unfinished), "half");
  close(other);  // it died: what it left is written over
  EXPECT_EQ(Load().report.not_saved, "");
  EXPECT_FALSE(std::filesystem::exists(unfinished));
  EXPECT_EQ(Load().report.not_read, "");
}

TEST_F(PackedCacheTest, StartsAtTheSameTimeDoNotHarmOneAnother) {
  const std::string right = Load().bytes;
  std::vector<std::thread> servers;
  for (int i = 0; i < 4; ++i) {
    servers.emplace_back([&] {
      for (int round = 0; round < 8; ++round) {
        EXPECT_EQ(Load().bytes, right);
        if (round % 4 == 3) std::filesystem::remove(CacheFile());
      }
    });
  }
  for (std::thread& server : servers) server.join();
  Load();
  EXPECT_EQ(Load().report.not_read, "");
}

TEST_F(PackedCacheTest, ACheckpointThatChangesWhileItIsPackedIsNotKept) {
  const Loaded loaded = Load(WeightFormat::kInt8, CacheDir(), [this] { SetWeights(3); });
  EXPECT_EQ(loaded.report.not_saved, "model.safetensors has changed");
  EXPECT_FALSE(std::filesystem::exists(CacheFile()));
}

}  // namespace
}  // namespace gatehouse
