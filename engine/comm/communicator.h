// Moves rows between the ranks of a deployment. Every rank makes the same calls in the same order;
// a call returns when this rank's part is done, and its send rows may then be written again.
//
// Ranks are the deployment's; one that is lost exchanges nothing, and its counts are 0. Owned by
// one rank, used by its thread. What can fail: UNAVAILABLE "rank 2 lost in epoch 5" on every rank
// that is left, for this call and all later ones: the group has come to its end, and who is left
// forms a new one. No call waits longer than the group's deadline. Counts that do not fit are
// faults of ours and abort.
//
//   rank 0 sends rows 4 | 0 2      rank 0 receives  0:4 | 1:7
//   rank 1 sends rows 7 | -        rank 1 receives  0:0 0:2 | -
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"

namespace gatehouse {

// Rows of one length, anywhere in memory at equal distance.
struct RowsView {
  const std::byte* data = nullptr;
  size_t row_bytes = 0;
  size_t stride_bytes = 0;

  const std::byte* row(int64_t index) const {
    return data + static_cast<size_t>(index) * stride_bytes;
  }
};
struct MutableRowsView {
  std::byte* data = nullptr;
  size_t row_bytes = 0;
  size_t stride_bytes = 0;

  std::byte* row(int64_t index) const { return data + static_cast<size_t>(index) * stride_bytes; }
};

// Rank r gets rows row_ids[send_begin[r]] .. row_ids[send_begin[r + 1] - 1] of `send`; what comes
// from rank r stands in rows receive_begin[r] .. receive_begin[r + 1] - 1 of `receive`.
struct AllToAllArgs {
  RowsView send;
  std::span<const int32_t> row_ids;
  std::span<const int32_t> send_begin;  // [size + 1]
  MutableRowsView receive;
  std::span<const int32_t> receive_begin;  // [size + 1]
};

// Every rank gets all of `send` of every rank: that of rank r in [receive_begin[r],
// receive_begin[r + 1]) of `receive`.
struct AllGatherArgs {
  std::span<const std::byte> send;
  std::span<std::byte> receive;
  std::span<const int64_t> receive_begin;  // [size + 1] bytes
};

// Of one rank since it was made. Waiting is until the last rank has come to the call, or has taken
// what it was sent; what is left of a call's time moves bytes.
struct CommStats {
  double wait_seconds = 0;
  double move_seconds = 0;
  int64_t bytes_sent = 0;  // to other ranks
  int64_t bytes_received = 0;

  CommStats operator-(const CommStats& other) const {
    return {wait_seconds - other.wait_seconds, move_seconds - other.move_seconds,
            bytes_sent - other.bytes_sent, bytes_received - other.bytes_received};
  }
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;  // of the deployment
  virtual absl::Status AllToAll(const AllToAllArgs& args) = 0;
  virtual absl::Status AllGather(const AllGatherArgs& args) = 0;
  virtual absl::Status Barrier() = 0;
  // Any thread: every call fails from now on, one that waits now too. The first loss is the one
  // that they name.
  virtual void Lose(int rank) = 0;
  virtual CommStats stats() const = 0;
};

}  // namespace gatehouse
