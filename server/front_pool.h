// Threads for work that is too long for gRPC's callback threads: tokenising long prompts. A bounded
// queue, first come first served. Owner: the server; any thread may call Run.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "kernels/base/mutex.h"

namespace gatehouse {

class FrontPool {
 public:
  // What may wait; what runs is not counted.
  struct Limits {
    size_t max_tasks = 0;
    size_t max_bytes = 0;
  };

  FrontPool(int num_threads, const Limits& limits);
  ~FrontPool();  // runs what waits, then joins
  FrontPool(const FrontPool&) = delete;
  FrontPool& operator=(const FrontPool&) = delete;

  // `num_bytes` is what the task holds while it waits. False, and `task` is not run, when it would
  // exceed a limit.
  bool Run(size_t num_bytes, std::function<void()> task);

 private:
  struct Waiting {
    size_t num_bytes = 0;
    std::function<void()> task;
  };

  void Work();

  const Limits limits_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Waiting> waiting_ GATEHOUSE_GUARDED_BY(mutex_);
  size_t waiting_bytes_ GATEHOUSE_GUARDED_BY(mutex_) = 0;  // at most limits_.max_bytes
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace gatehouse
