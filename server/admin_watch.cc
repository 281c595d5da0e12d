#include "server/admin_watch.h"

#include <utility>

#include "absl/strings/str_format.h"

namespace gatehouse {

void AdminWatch::Tick(TimePoint now) {
  {
    const MutexLock lock(mutex_);
    if (ended_ || writing_ || now < due_) return;
    due_ = now + interval_;
    writing_ = true;
  }
  Write();  // End waits for it
}

void AdminWatch::Written(bool ok) {
  absl::Status end;
  {
    const MutexLock lock(mutex_);
    writing_ = false;
    if (!ok && !std::exchange(ended_, true)) {
      end_ = absl::CancelledError("the connection to the client is gone");
    }
    if (!ended_) return;
    end = end_;
  }
  FinishWith(end);
}

void AdminWatch::End(const absl::Status& status) {
  {
    const MutexLock lock(mutex_);
    if (std::exchange(ended_, true)) return;
    end_ = status;
    if (writing_) return;  // Written finishes
  }
  FinishWith(status);
}

// Under the lock that EndAll takes: a stream is refused, or among those that EndAll ends.
absl::Status AdminWatches::AddIfRoom(const std::shared_ptr<AdminWatch>& watch) {
  const MutexLock lock(mutex_);
  if (!end_.ok()) return end_;
  if (watches_.AddIfFewer(max_watches_, watch)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrFormat("%u streams watch already, the limit", max_watches_));
}

void AdminWatches::Tick(TimePoint now) {
  for (const std::shared_ptr<AdminWatch>& watch : watches_.All()) watch->Tick(now);
}

void AdminWatches::EndAll(const absl::Status& status) {
  {
    const MutexLock lock(mutex_);
    end_ = status;
  }
  for (const std::shared_ptr<AdminWatch>& watch : watches_.All()) watch->End(status);
}

}  // namespace gatehouse
