// What one stream still has to send: a bounded queue between the engine loop, which pushes and
// never waits, and whoever writes to the client. Knows no gRPC, so that ThreadSanitizer can judge
// it.
//
//   open --Close--> closed --(all written)--> finished        the normal end
//   open or closed --(too much unread)--> lost --> finished   what waits is dropped
//   open or closed --Abandon--> lost --> finished             the client is gone
//
// At most one write is in flight; deltas of one output that wait meanwhile become one. kFinish is
// given exactly once, after Close, when no write is in flight. Thread-safe; no method calls out or
// waits.
//
//   queue.Push(event);                       // engine loop; then, on any thread:
//   StreamAction next = queue.Next();        // kWrite: write next.event, later WriteDone(ok)
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "absl/status/status.h"
#include "engine/request/token_sink.h"
#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

struct StreamLimits {
  // Deltas: minutes of text for any reader that is alive.
  size_t max_unread_bytes = size_t{1} << 20;
  // Prompt events come in one burst that the client asked for and that no reader can keep up with.
  size_t max_unread_prompt_bytes = size_t{16} << 20;
  Duration max_unread_time = std::chrono::seconds(30);
  size_t max_message_bytes = size_t{240}
                             << 10;  // below the 256 KiB of the protocol, framing counted
};

struct StreamAction {
  enum class Kind { kNothing, kWrite, kFinish };
  Kind kind = Kind::kNothing;
  SinkEvent event;      // with kWrite
  absl::Status status;  // with kFinish
};

class StreamQueue {
 public:
  // `clock` outlives the queue.
  StreamQueue(const StreamLimits& limits, const Clock& clock) : limits_(limits), clock_(clock) {}

  // False when the stream is lost: the engine then ends the request. Not after Close.
  bool Push(SinkEvent event);
  // The request has ended: the queue ends with `status` once everything is written. Exactly once.
  void Close(absl::Status status);
  // The client is gone or has cancelled: what waits is dropped. The stream ends with `status`
  // unless it was lost before or everything is written. No-op after the finish.
  void Abandon(absl::Status status);
  // Loses the stream if one write has been in flight for longer than the limit; true when it is
  // lost now or was before. For streams whose engine side has nothing more to push.
  bool CheckStall();

  // What to do now. After kWrite no other write is given until WriteDone.
  StreamAction Next();
  // `ok` is false when the connection is gone.
  void WriteDone(bool ok);

  size_t unread_bytes() const;  // queued, not in flight

 private:
  enum class State { kOpen, kClosed, kFinished };
  struct Waiting {
    SinkEvent event;
    size_t num_bytes = 0;
  };

  bool IsStalled() const GATEHOUSE_REQUIRES(mutex_);
  void Lose(absl::Status status) GATEHOUSE_REQUIRES(mutex_);
  Waiting* LastDeltaOf(int32_t output_index) GATEHOUSE_REQUIRES(mutex_);
  void Enqueue(SinkEvent event) GATEHOUSE_REQUIRES(mutex_);
  SinkEvent TakeFront() GATEHOUSE_REQUIRES(mutex_);

  const StreamLimits limits_;
  const Clock& clock_;

  mutable Mutex mutex_;
  State state_ GATEHOUSE_GUARDED_BY(mutex_) = State::kOpen;
  bool lost_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool write_in_flight_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  TimePoint write_started_ GATEHOUSE_GUARDED_BY(mutex_){};
  absl::Status status_ GATEHOUSE_GUARDED_BY(mutex_);  // of the finish; the first loss wins
  std::deque<Waiting> events_ GATEHOUSE_GUARDED_BY(mutex_);
  size_t prompt_bytes_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
  size_t other_bytes_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
};

// About what `event` takes on the wire, never less than half and never 0.
size_t EventBytes(const SinkEvent& event);

}  // namespace gatehouse
