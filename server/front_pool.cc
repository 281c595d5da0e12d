#include "server/front_pool.h"

#include <utility>

namespace gatehouse {

FrontPool::FrontPool(int num_threads, const Limits& limits) : limits_(limits) {
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

bool FrontPool::Run(size_t num_bytes, std::function<void()> task) {
  {
    const MutexLock lock(mutex_);
    if (waiting_.size() >= limits_.max_tasks) return false;
    if (num_bytes > limits_.max_bytes - waiting_bytes_) return false;
    waiting_.push_back({num_bytes, std::move(task)});
    waiting_bytes_ += num_bytes;
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
      task = std::move(waiting_.front().task);
      waiting_bytes_ -= waiting_.front().num_bytes;
      waiting_.pop_front();
    }
    task();
  }
}

}  // namespace gatehouse
