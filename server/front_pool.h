// Threads for work that is too long for gRPC's callback threads: tokenising long prompts. Tenants
// take turns, a task each; a tenant's own tasks are first come first served. Owner: the server; any
// thread may call Run.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

class FrontPool {
 public:
  // What may wait; what runs is not counted. A pool that others have filled is open to a tenant
  // that has less than its equal part of it, so that no flood keeps others out.
  struct Limits {
    size_t max_tasks = 0;
    size_t max_bytes = 0;
  };

  FrontPool(int num_threads, const Limits& limits);
  ~FrontPool();  // runs what waits, then joins
  FrontPool(const FrontPool&) = delete;
  FrontPool& operator=(const FrontPool&) = delete;

  // `num_bytes` is what the task holds while it waits. RESOURCE_EXHAUSTED with the numbers, and
  // `task` is not run, when it would exceed a limit.
  absl::Status Run(const std::string& tenant, size_t num_bytes, std::function<void()> task);

 private:
  struct Task {
    size_t num_bytes = 0;
    std::function<void()> run;
  };
  struct Waiting {
    std::deque<Task> tasks;
    size_t num_bytes = 0;
  };

  bool MayWait(const std::string& tenant, size_t num_bytes) const GATEHOUSE_REQUIRES(mutex_);
  Task TakeNext() GATEHOUSE_REQUIRES(mutex_);
  void Work();

  const Limits limits_;
  Mutex mutex_;
  CondVar changed_;
  std::map<std::string, Waiting> waiting_ GATEHOUSE_GUARDED_BY(mutex_);  // by tenant; none is empty
  std::deque<std::string> turns_ GATEHOUSE_GUARDED_BY(mutex_);  // its tenants, the next one first
  size_t num_waiting_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
  size_t waiting_bytes_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace gatehouse
