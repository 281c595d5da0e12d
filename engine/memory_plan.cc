#include "engine/memory_plan.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// The number in a file that holds nothing else; absent for "max" and for no such file.
std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

int64_t MemAvailable(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  std::string key;
  int64_t kib = 0;
  for (std::string line; file >> key >> kib; std::getline(file, line)) {
    if (key == "MemAvailable:") return kib * 1024;
  }
  return std::numeric_limits<int64_t>::max();
}

// Where one version of control groups keeps what.
struct CgroupVersion {
  const char* mount;
  const char* controllers;  // of its line in /proc/self/cgroup: "0:CONTROLLERS:/path"
  const char* limit;
  const char* usage;
  const char* active_file;  // keys in memory.stat
  const char* inactive_file;
};
constexpr CgroupVersion kCgroupVersions[] = {
    {"/sys/fs/cgroup", "", "memory.max", "memory.current", "active_file", "inactive_file"},
    {"/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "total_active_file", "total_inactive_file"}};

// What the group's usage holds of files: the kernel gives it back before it says no.
int64_t PageCacheBytes(const std::string& folder, const CgroupVersion& version) {
  std::ifstream file(folder + "/memory.stat");
  std::string key;
  int64_t value = 0, num_bytes = 0;
  while (file >> key >> value) {
    if (key == version.active_file || key == version.inactive_file) num_bytes += value;
  }
  return num_bytes;
}

// Of one group alone.
int64_t GroupAvailable(const std::string& folder, const CgroupVersion& version) {
  const std::optional<int64_t> limit = ReadNumber(folder + "/" + version.limit);
  if (!limit) return std::numeric_limits<int64_t>::max();
  const int64_t used =
      ReadNumber(folder + "/" + version.usage).value_or(0) - PageCacheBytes(folder, version);
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, used));
}

// The group of this process below the mount: "/system.slice/x.service"; "" for the root, which is
// what a container with a name space of its own sees.
std::string OwnGroup(const std::string& root, const CgroupVersion& version) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controllers == version.controllers) return line.substr(second + 1);
  }
  return "";
}

// A group may have no more than each of those that it lies in.
int64_t CgroupAvailable(const std::string& root) {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const CgroupVersion& version : kCgroupVersions) {
    const std::string mount = root + version.mount;
    std::string group = mount + OwnGroup(root, version);
    while (true) {
      least = std::min(least, GroupAvailable(group, version));
      if (group.size() <= mount.size()) break;
      group.resize(std::max(group.rfind('/'), mount.size()));
    }
  }
  return least;
}

}  // namespace

std::string MemoryPlan::ToString() const {
  return absl::StrFormat(
      "expert weights %10.1f MiB\n"
      "dense weights  %10.1f MiB\n"
      "workspace      %10.1f MiB\n"
      "KV cache       %10.1f MiB  (%d blocks of %.1f KiB%s)\n"
      "total          %10.1f MiB  of %.1f MiB available\n",
      MiB(expert_weight_bytes), MiB(dense_weight_bytes), MiB(workspace_bytes), MiB(kv_cache_bytes),
      num_kv_blocks, MiB(kv_block_bytes) * 1024,
      num_ranks == 1 ? "" : absl::StrFormat(" on each of %d ranks", num_ranks), MiB(total_bytes()),
      MiB(available_bytes));
}

absl::StatusOr<MemoryPlan> PlanMemory(const MemoryDemand& demand) {
  MemoryPlan plan{.expert_weight_bytes = demand.expert_weight_bytes,
                  .dense_weight_bytes = demand.dense_weight_bytes,
                  .workspace_bytes = demand.workspace_bytes,
                  .num_ranks = demand.num_ranks,
                  .kv_block_bytes = demand.kv_block_bytes,
                  .available_bytes = demand.available_bytes};
  const int64_t fixed = plan.total_bytes();
  if (fixed > plan.available_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("weights and workspace need %.1f MiB, but %.1f MiB are available",
                        MiB(fixed), MiB(plan.available_bytes)));
  }
  const auto blocks_for = [&](int64_t num_tokens) {
    return (num_tokens + demand.block_tokens - 1) / demand.block_tokens;
  };
  const int64_t least = blocks_for(demand.max_context);
  if (demand.kv_cache_bytes > 0) {
    plan.num_kv_blocks = demand.kv_cache_bytes / demand.kv_block_bytes / demand.num_ranks;
  } else {
    const int64_t num_sequences =
        (demand.max_sequences + demand.num_ranks - 1) / demand.num_ranks;  // of each rank
    const int64_t wanted = num_sequences * least;
    const int64_t half =
        (plan.available_bytes - fixed) / 2 / demand.kv_block_bytes / demand.num_ranks;
    plan.num_kv_blocks = std::min(wanted, half);
  }
  plan.num_kv_blocks =
      std::min<int64_t>(plan.num_kv_blocks, std::numeric_limits<int32_t>::max());  // block ids
  plan.kv_cache_bytes = plan.num_kv_blocks * plan.kv_block_bytes * plan.num_ranks;
  if (plan.num_kv_blocks < least) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "a KV cache of %.1f MiB holds %d tokens, but one sequence of max_context "
        "%d needs %.1f MiB: "
        "lower --max-context or raise --kv-cache-bytes",
        MiB(plan.kv_cache_bytes / plan.num_ranks), plan.num_kv_blocks * demand.block_tokens,
        demand.max_context, MiB(least * plan.kv_block_bytes)));
  }
  if (plan.kv_cache_bytes > plan.available_bytes - fixed) {  // the sum may be beyond 2^63
    return absl::ResourceExhaustedError(absl::StrFormat(
        "weights and workspace of %.1f MiB and a KV cache of %.1f MiB need %.1f MiB, but %.1f MiB "
        "are available",
        MiB(fixed), MiB(plan.kv_cache_bytes), MiB(fixed) + MiB(plan.kv_cache_bytes),
        MiB(plan.available_bytes)));
  }
  return plan;
}

int64_t AvailableMemoryBytes(const std::string& root) {
  return std::min(MemAvailable(root), CgroupAvailable(root));
}

}  // namespace gatehouse
