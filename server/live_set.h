// The reactors that gRPC has not let go of: each is held here until its OnDone. Any thread.
//
//   LiveSet<GenerateCall> calls;
//   calls.Add(call);             // before gRPC is given the pointer
//   calls.Remove(call.get());    // in OnDone: may destroy it
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

template <typename T>
class LiveSet {
 public:
  void Add(std::shared_ptr<T> member) GATEHOUSE_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    const T* key = member.get();
    members_.emplace(key, std::move(member));
  }

  // Adds unless there are `limit` members: false, and the set is as it was.
  bool AddIfFewer(size_t limit, std::shared_ptr<T> member) GATEHOUSE_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    if (members_.size() >= limit) return false;
    const T* key = member.get();
    members_.emplace(key, std::move(member));
    return true;
  }

  // `member` is in the set.
  void Remove(const T* member) GATEHOUSE_EXCLUDES(mutex_) {
    std::shared_ptr<T> removed;  // dies after the lock is free
    const MutexLock lock(mutex_);
    const auto found = members_.find(member);
    removed = std::move(found->second);
    members_.erase(found);
    removed_.NotifyAll();
  }

  size_t size() const GATEHOUSE_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return members_.size();
  }

  std::vector<std::shared_ptr<T>> All() const GATEHOUSE_EXCLUDES(mutex_) {
    std::vector<std::shared_ptr<T>> all;
    const MutexLock lock(mutex_);
    all.reserve(members_.size());
    for (const auto& [key, member] : members_) all.push_back(member);
    return all;
  }

  // False when some are left after `timeout`.
  bool WaitUntilEmpty(Duration timeout) GATEHOUSE_EXCLUDES(mutex_) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    const MutexLock lock(mutex_);
    while (!members_.empty()) {
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= Duration::zero()) return false;
      removed_.WaitFor(mutex_, left);
    }
    return true;
  }

 private:
  mutable Mutex mutex_;
  CondVar removed_;
  std::map<const T*, std::shared_ptr<T>> members_ GATEHOUSE_GUARDED_BY(mutex_);
};

}  // namespace gatehouse
