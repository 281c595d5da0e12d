// The checksum of many bytes, by all threads of a pool: that of the checksums of their pieces. Pure
// but for what the caller's function reads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/base/checksum.h"
#include "kernels/base/thread_pool.h"

namespace gatehouse {

inline constexpr int64_t kChecksumPiece = int64_t{1} << 20;  // stays in a core's own cache

// `piece(thread, offset, count)` gives the bytes [offset, offset + count) as a span, an empty one
// if they cannot be had: then there is no checksum.
template <typename Piece>
std::optional<uint64_t> PieceChecksum(ThreadPool& pool, int64_t num_bytes, const Piece& piece) {
  std::vector<uint64_t> sums((num_bytes + kChecksumPiece - 1) / kChecksumPiece);
  std::atomic<bool> failed = false;
  pool.Run(static_cast<int>(sums.size()), [&](int thread, int unit) {
    if (failed) return;
    const int64_t offset = unit * kChecksumPiece;
    const int64_t count = std::min(kChecksumPiece, num_bytes - offset);
    const std::span<const std::byte> bytes = piece(thread, offset, count);
    if (bytes.empty()) {
      failed = true;
    } else {
      sums[unit] = Checksum(bytes);
    }
  });
  if (failed) return std::nullopt;
  return Checksum(std::as_bytes(std::span(sums)));
}

}  // namespace gatehouse
