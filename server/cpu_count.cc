#include "server/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace gatehouse {
namespace {

std::string ReadLine(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

int AffinityCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

}  // namespace

int QuotaCpus(const std::string& cpu_max) {
  std::istringstream fields(cpu_max);
  long long quota_us = 0, period_us = 0;
  if (!(fields >> quota_us >> period_us) || quota_us <= 0 || period_us <= 0) return 0;
  return static_cast<int>(std::clamp<long long>(quota_us / period_us, 1, 4096));
}

int UsableCpus() {
  int quota = QuotaCpus(ReadLine("/sys/fs/cgroup/cpu.max"));
  if (quota == 0) {  // version 1 holds the two numbers in two files
    quota = QuotaCpus(ReadLine("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") + " " +
                      ReadLine("/sys/fs/cgroup/cpu/cpu.cfs_period_us"));
  }
  const int affinity = std::max(1, AffinityCpus());
  return quota > 0 ? std::min(affinity, quota) : affinity;
}

}  // namespace gatehouse
