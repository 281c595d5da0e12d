// A thread for each rank of this process but the first, which is the caller's: unlike a pool's
// tasks, ranks wait for each other, so each must have a thread.
//
//   RankThreads threads(4);
//   threads.Run([&](int rank) { ... });  // returns when all four have
//
// Owned by the worker; one thread calls Run. Never fails.
#pragma once

#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "kernels/base/mutex.h"

namespace gatehouse {

class RankThreads {
 public:
  explicit RankThreads(int num_ranks);
  ~RankThreads();
  RankThreads(const RankThreads&) = delete;
  RankThreads& operator=(const RankThreads&) = delete;

  void Run(const std::function<void(int rank)>& body) GATEHOUSE_EXCLUDES(mutex_);

 private:
  void Work(int rank) GATEHOUSE_EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar changed_;
  const std::function<void(int rank)>* body_ GATEHOUSE_GUARDED_BY(mutex_) = nullptr;
  uint64_t num_runs_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
  int num_running_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace gatehouse
