#include "server/front_pool.h"

#include <utility>

namespace gatehouse {

FrontPool::FrontPool(int num_threads, int max_waiting) : max_waiting_(max_waiting) {
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Work(); });
}

FrontPool::~FrontPool() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

bool FrontPool::Run(std::function<void()> task) {
  {
    const MutexLock lock(mutex_);
    if (waiting_.size() >= static_cast<size_t>(max_waiting_)) return false;
    waiting_.push_back(std::move(task));
  }
  changed_.NotifyOne();
  return true;
}

void FrontPool::Work() {
  while (true) {
    std::function<void()> task;
    {
      const MutexLock lock(mutex_);
      while (waiting_.empty() && !stopping_) changed_.Wait(mutex_);
      if (waiting_.empty()) return;
      task = std::move(waiting_.front());
      waiting_.pop_front();
    }
    task();
  }
}

}  // namespace gatehouse
