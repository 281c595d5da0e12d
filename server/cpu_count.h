// How many CPUs this process may keep busy.
#pragma once

#include <string>

namespace gatehouse {

// The CPUs of its affinity mask, or what the control group's quota allows if that is less: a
// container with 2 of 64 CPUs must not start 64 spinning threads. At least 1.
int UsableCpus();

// "200000 100000" (cgroup v2 cpu.max) is 2, "150000 100000" is 1, "max 100000" and anything else 0:
// no limit.
int QuotaCpus(const std::string& cpu_max);

}  // namespace gatehouse
