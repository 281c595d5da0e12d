#include "engine/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <string>

#include "absl/strings/str_format.h"
#include "tests/testing/checkpoint_builder.h"

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;

// 10 MiB of weights, blocks of 1 MiB for 16 tokens, sequences of 64 tokens (4 blocks).
MemoryDemand Demand() {
  return {.expert_weight_bytes = 6 * kMiB,
          .dense_weight_bytes = 3 * kMiB,
          .workspace_bytes = kMiB,
          .kv_block_bytes = kMiB,
          .block_tokens = 16,
          .max_sequences = 8,
          .max_context = 64,
          .available_bytes = 1000 * kMiB};
}

TEST(PlanMemoryTest, GivesEverySequenceItsWholeContextWhereMemoryAllows) {
  const auto plan = PlanMemory(Demand());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_kv_blocks, 32);
  EXPECT_EQ(plan->kv_cache_bytes, 32 * kMiB);
  EXPECT_EQ(plan->total_bytes(), 42 * kMiB);
}

TEST(PlanMemoryTest, TakesAtMostHalfOfWhatTheWeightsLeave) {
  MemoryDemand demand = Demand();
  demand.available_bytes = 30 * kMiB;
  const auto plan = PlanMemory(demand);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_kv_blocks, 10);
}

TEST(PlanMemoryTest, TakesTheConfiguredCacheInWholeBlocks) {
  MemoryDemand demand = Demand();
  demand.kv_cache_bytes = 5 * kMiB + 17;
  const auto plan = PlanMemory(demand);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_kv_blocks, 5);
}

TEST(PlanMemoryTest, RefusesWeightsThatDoNotFitWithBothNumbers) {
  MemoryDemand demand = Demand();
  demand.available_bytes = 9 * kMiB;
  EXPECT_THAT(PlanMemory(demand).status().message(),
              HasSubstr("need 10.0 MiB, but 9.0 MiB are available"));
}

TEST(PlanMemoryTest, RefusesACacheTooSmallForOneSequence) {
  MemoryDemand demand = Demand();
  demand.kv_cache_bytes = 3 * kMiB;
  EXPECT_THAT(PlanMemory(demand).status().message(),
              HasSubstr("holds 48 tokens, but one sequence of max_context 64 needs 4.0 MiB"));
}

TEST(PlanMemoryTest, RefusesAConfiguredCacheThatDoesNotFit) {
  MemoryDemand demand = Demand();
  demand.kv_cache_bytes = 995 * kMiB;
  EXPECT_THAT(PlanMemory(demand).status().message(), HasSubstr("need 1005.0 MiB, but 1000.0 MiB"));
  demand.kv_cache_bytes = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(PlanMemory(demand).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(AvailableMemoryBytesTest, IsWhatThisProcessCouldTouch) {
  EXPECT_GT(AvailableMemoryBytes(), kMiB);
  EXPECT_LT(AvailableMemoryBytes(), int64_t{1} << 50);
}

// A tree of kernel files: 900 MiB of the machine are available.
class FakeKernelFiles {
 public:
  FakeKernelFiles() {
    Write("/proc/meminfo", "MemTotal: 2048000 kB\nMemFree: 1 kB\nMemAvailable: 921600 kB\n");
  }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(dir_.path() + path).parent_path());
    WriteFile(dir_.path() + path, text);
  }
  int64_t available_mib() const { return AvailableMemoryBytes(dir_.path()) / kMiB; }

 private:
  const TempDir dir_;
};

TEST(AvailableMemoryBytesTest, IsTheMachinesWithoutAControlGroup) {
  FakeKernelFiles files;
  EXPECT_EQ(files.available_mib(), 900);
  files.Write("/sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(files.available_mib(), 900);
}

TEST(AvailableMemoryBytesTest, PageCacheOfAControlGroupCountsAsFree) {
  FakeKernelFiles files;
  files.Write("/sys/fs/cgroup/memory.max", std::to_string(500 * kMiB));
  files.Write("/sys/fs/cgroup/memory.current", std::to_string(450 * kMiB));
  EXPECT_EQ(files.available_mib(), 50);
  files.Write("/sys/fs/cgroup/memory.stat",
              absl::StrFormat("anon %d\nactive_file %d\ninactive_file %d\nactive_anon 7\n",
                              90 * kMiB, 200 * kMiB, 140 * kMiB));
  EXPECT_EQ(files.available_mib(), 390);
  files.Write("/sys/fs/cgroup/memory.current", std::to_string(700 * kMiB));  // above a new limit
  EXPECT_EQ(files.available_mib(), 140);
}

TEST(AvailableMemoryBytesTest, ReadsTheGroupOfTheProcessAndThoseAroundIt) {
  FakeKernelFiles files;
  files.Write("/proc/self/cgroup", "1:name=systemd:/else\n0::/system.slice/gatehouse.service\n");
  const std::string slice = "/sys/fs/cgroup/system.slice/";
  files.Write(slice + "gatehouse.service/memory.max", std::to_string(600 * kMiB));
  files.Write(slice + "gatehouse.service/memory.current", std::to_string(100 * kMiB));
  EXPECT_EQ(files.available_mib(), 500);
  files.Write(slice + "memory.max", std::to_string(700 * kMiB));
  files.Write(slice + "memory.current", std::to_string(400 * kMiB));
  EXPECT_EQ(files.available_mib(), 300);
  files.Write("/sys/fs/cgroup/memory.max", "max\n");
  files.Write(slice + "memory.max", "max\n");
  files.Write(slice + "gatehouse.service/memory.max", "max\n");
  EXPECT_EQ(files.available_mib(), 900);
}

TEST(AvailableMemoryBytesTest, ReadsControlGroupsOfVersion1) {
  FakeKernelFiles files;
  const std::string group = "/sys/fs/cgroup/memory/memory.";
  files.Write(group + "limit_in_bytes", std::to_string(300 * kMiB));
  files.Write(group + "usage_in_bytes", std::to_string(250 * kMiB));
  files.Write(group + "stat",
              absl::StrFormat("active_file 1\ntotal_active_file %d\ntotal_inactive_file %d\n",
                              60 * kMiB, 40 * kMiB));
  EXPECT_EQ(files.available_mib(), 150);
  files.Write(group + "limit_in_bytes", "9223372036854771712");  // none
  EXPECT_EQ(files.available_mib(), 900);
}

}  // namespace
}  // namespace gatehouse
