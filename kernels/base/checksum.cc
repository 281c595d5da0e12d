#include "kernels/base/checksum.h"

#include <cstring>

namespace gatehouse {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87ULL;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4FULL;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9ULL;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63ULL;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5ULL;

uint64_t Rotate(uint64_t word, int bits) { return (word << bits) | (word >> (64 - bits)); }

template <typename Word>
uint64_t Read(const std::byte* bytes) {
  Word word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

uint64_t Round(uint64_t lane, uint64_t word) { return Rotate(lane + word * kPrime2, 31) * kPrime1; }

uint64_t MergeLane(uint64_t hash, uint64_t lane) {
  return (hash ^ Round(0, lane)) * kPrime1 + kPrime4;
}

// The fewer than 32 bytes behind the last whole stripe.
uint64_t AddTail(uint64_t hash, const std::byte* bytes, const std::byte* end) {
  for (; end - bytes >= 8; bytes += 8) {
    hash = Rotate(hash ^ Round(0, Read<uint64_t>(bytes)), 27) * kPrime1 + kPrime4;
  }
  if (end - bytes >= 4) {
    hash = Rotate(hash ^ (Read<uint32_t>(bytes) * kPrime1), 23) * kPrime2 + kPrime3;
    bytes += 4;
  }
  for (; bytes < end; ++bytes) {
    hash = Rotate(hash ^ (std::to_integer<uint64_t>(*bytes) * kPrime5), 11) * kPrime1;
  }
  return hash;
}

uint64_t Avalanche(uint64_t hash) {
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

}  // namespace

uint64_t Checksum(std::span<const std::byte> bytes) {
  constexpr size_t kStripe = 32;
  const std::byte* at = bytes.data();
  const std::byte* const end = at + bytes.size();
  uint64_t hash = kPrime5;
  if (bytes.size() >= kStripe) {
    uint64_t lanes[4] = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
    for (; end - at >= static_cast<std::ptrdiff_t>(kStripe); at += kStripe) {
      for (int i = 0; i < 4; ++i) lanes[i] = Round(lanes[i], Read<uint64_t>(at + i * 8));
    }
    hash = Rotate(lanes[0], 1) + Rotate(lanes[1], 7) + Rotate(lanes[2], 12) + Rotate(lanes[3], 18);
    for (const uint64_t lane : lanes) hash = MergeLane(hash, lane);
  }
  return Avalanche(AddTail(hash + bytes.size(), at, end));
}

}  // namespace gatehouse
