// A TokenSink that keeps what it is given and checks the order of it: started first, nothing after
// Close, Close once. The engine's thread pushes, a test's thread waits and reads; thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/request/token_sink.h"
#include "gtest/gtest.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

class RecordingSink final : public TokenSink {
 public:
  // Push answers false from the event of this number on.
  explicit RecordingSink(int64_t num_accepted_events = INT64_MAX)
      : num_accepted_events_(num_accepted_events) {}

  bool Push(SinkEvent event) override {
    MutexLock lock(mutex_);
    EXPECT_EQ(num_closes_, 0) << "an event after the end";
    EXPECT_EQ(events_.empty(), std::holds_alternative<StartedEvent>(event));
    events_.push_back(std::move(event));
    changed_.NotifyAll();
    return static_cast<int64_t>(events_.size()) <= num_accepted_events_;
  }

  void Close(absl::Status status) override {
    MutexLock lock(mutex_);
    EXPECT_EQ(++num_closes_, 1) << "closed twice";
    status_ = std::move(status);
    changed_.NotifyAll();
  }

  // Waits for Close; fails the test after a minute. UNKNOWN when it never came.
  absl::Status WaitForClose() { return WaitForEvents(SIZE_MAX); }
  // Waits until at least `count` events have come or the stream is closed.
  absl::Status WaitForEvents(size_t count) {
    MutexLock lock(mutex_);
    const auto limit = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (events_.size() < count && num_closes_ == 0) {
      if (std::chrono::steady_clock::now() >= limit) {
        ADD_FAILURE() << "waited a minute";
        return absl::UnknownError("waited a minute");
      }
      changed_.WaitFor(mutex_, std::chrono::seconds(1));
    }
    return status_;
  }

  int num_closes() const {
    MutexLock lock(mutex_);
    return num_closes_;
  }
  std::vector<SinkEvent> events() const {
    MutexLock lock(mutex_);
    return events_;
  }
  template <typename Event>
  std::vector<Event> EventsOf() const {
    std::vector<Event> found;
    for (const SinkEvent& event : events()) {
      if (const Event* of_kind = std::get_if<Event>(&event)) found.push_back(*of_kind);
    }
    return found;
  }
  std::vector<int32_t> token_ids() const {
    std::vector<int32_t> ids;
    for (const DeltaEvent& delta : EventsOf<DeltaEvent>()) {
      for (const TokenOutput& token : delta.tokens) ids.push_back(token.id);
    }
    return ids;
  }
  std::string text() const {
    std::string text;
    for (const DeltaEvent& delta : EventsOf<DeltaEvent>()) text += delta.text;
    return text;
  }

 private:
  const int64_t num_accepted_events_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<SinkEvent> events_ GATEHOUSE_GUARDED_BY(mutex_);
  int num_closes_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
  absl::Status status_ GATEHOUSE_GUARDED_BY(mutex_);
};

}  // namespace gatehouse
