#include "server/front_pool.h"

#include <utility>

#include "absl/strings/str_format.h"

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

absl::Status FrontPool::Run(const std::string& tenant, size_t num_bytes,
                            std::function<void()> task) {
  {
    const MutexLock lock(mutex_);
    if (!MayWait(tenant, num_bytes)) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "%u long texts of %u bytes wait to be tokenised and one of %u would join them, limits %u "
          "and %u",
          num_waiting_, waiting_bytes_, num_bytes, limits_.max_tasks, limits_.max_bytes));
    }
    Waiting& waiting = waiting_[tenant];
    if (waiting.tasks.empty()) turns_.push_back(tenant);
    waiting.tasks.push_back({num_bytes, std::move(task)});
    waiting.num_bytes += num_bytes;
    ++num_waiting_;
    waiting_bytes_ += num_bytes;
  }
  changed_.NotifyOne();
  return absl::OkStatus();
}

bool FrontPool::MayWait(const std::string& tenant, size_t num_bytes) const {
  const auto found = waiting_.find(tenant);
  const bool is_new = found == waiting_.end();
  const size_t num_tenants = waiting_.size() + (is_new ? 1 : 0);
  const size_t own_tasks = is_new ? 0 : found->second.tasks.size();
  const size_t own_bytes = is_new ? 0 : found->second.num_bytes;
  const auto fits = [num_tenants](size_t more, size_t own, size_t all, size_t limit) {
    const auto is_within = [more](size_t held, size_t most) {
      return held <= most && more <= most - held;
    };
    return is_within(all, limit) || is_within(own, limit / num_tenants);
  };
  return fits(1, own_tasks, num_waiting_, limits_.max_tasks) &&
         fits(num_bytes, own_bytes, waiting_bytes_, limits_.max_bytes);
}

FrontPool::Task FrontPool::TakeNext() {
  const auto tenant = waiting_.find(turns_.front());
  turns_.pop_front();
  Waiting& waiting = tenant->second;
  Task task = std::move(waiting.tasks.front());
  waiting.tasks.pop_front();
  waiting.num_bytes -= task.num_bytes;
  --num_waiting_;
  waiting_bytes_ -= task.num_bytes;
  if (waiting.tasks.empty()) {
    waiting_.erase(tenant);
  } else {
    turns_.push_back(tenant->first);
  }
  return task;
}

void FrontPool::Work() {
  while (true) {
    Task task;
    {
      const MutexLock lock(mutex_);
      while (turns_.empty() && !stopping_) changed_.Wait(mutex_);
      if (turns_.empty()) return;
      task = TakeNext();
    }
    task.run();
  }
}

}  // namespace gatehouse
