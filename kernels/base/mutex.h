// std::mutex with the attributes that clang's -Wthread-safety checks, after leveldb's
// port_stdcxx.h. Why not absl::Mutex: the packaged Abseil is not instrumented, so ThreadSanitizer
// reports correct code (ADR 0003).
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define GATEHOUSE_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define GATEHOUSE_THREAD_ATTRIBUTE(x)
#endif
#define GATEHOUSE_GUARDED_BY(x) GATEHOUSE_THREAD_ATTRIBUTE(guarded_by(x))
#define GATEHOUSE_REQUIRES(...) GATEHOUSE_THREAD_ATTRIBUTE(exclusive_locks_required(__VA_ARGS__))
#define GATEHOUSE_EXCLUDES(...) GATEHOUSE_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))

namespace gatehouse {

class CondVar;

class GATEHOUSE_THREAD_ATTRIBUTE(lockable) Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void Lock() GATEHOUSE_THREAD_ATTRIBUTE(exclusive_lock_function()) { mutex_.lock(); }
  void Unlock() GATEHOUSE_THREAD_ATTRIBUTE(unlock_function()) { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class GATEHOUSE_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) GATEHOUSE_THREAD_ATTRIBUTE(exclusive_lock_function(mutex))
      : mutex_(mutex) {
    mutex_.Lock();
  }
  ~MutexLock() GATEHOUSE_THREAD_ATTRIBUTE(unlock_function()) { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits may wake without reason: always wait in a loop over the condition.
class CondVar {
 public:
  void Wait(Mutex& mutex) GATEHOUSE_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // Returns false when `timeout` passed without a notification.
  bool WaitFor(Mutex& mutex, std::chrono::nanoseconds timeout) GATEHOUSE_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool notified = condition_.wait_for(lock, timeout) == std::cv_status::no_timeout;
    lock.release();
    return notified;
  }
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace gatehouse
