#include "engine/comm/rank_threads.h"

namespace gatehouse {

RankThreads::RankThreads(int num_ranks) {
  for (int r = 1; r < num_ranks; ++r) threads_.emplace_back([this, r] { Work(r); });
}

RankThreads::~RankThreads() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void RankThreads::Run(const std::function<void(int rank)>& body) {
  {
    const MutexLock lock(mutex_);
    body_ = &body;
    num_running_ = static_cast<int>(threads_.size());
    ++num_runs_;
    changed_.NotifyAll();
  }
  body(0);
  const MutexLock lock(mutex_);
  while (num_running_ > 0) changed_.Wait(mutex_);
}

void RankThreads::Work(int rank) {
  uint64_t num_done = 0;
  for (;;) {
    const std::function<void(int rank)>* body = nullptr;
    {
      const MutexLock lock(mutex_);
      while (!stopping_ && num_runs_ == num_done) changed_.Wait(mutex_);
      if (stopping_) return;
      body = body_;
      ++num_done;
    }
    (*body)(rank);
    const MutexLock lock(mutex_);
    if (--num_running_ == 0) changed_.NotifyAll();
  }
}

}  // namespace gatehouse
