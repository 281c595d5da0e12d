// Threads for work that is too long for gRPC's callback threads: tokenising long prompts. A bounded
// queue, first come first served. Owner: the server; any thread may call Run.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "kernels/base/mutex.h"

namespace gatehouse {

class FrontPool {
 public:
  FrontPool(int num_threads, int max_waiting);
  ~FrontPool();  // runs what waits, then joins
  FrontPool(const FrontPool&) = delete;
  FrontPool& operator=(const FrontPool&) = delete;

  // False, and `task` is not run, when max_waiting tasks wait already.
  bool Run(std::function<void()> task);

 private:
  void Work();

  const int max_waiting_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> waiting_ GATEHOUSE_GUARDED_BY(mutex_);
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace gatehouse
