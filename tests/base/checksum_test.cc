#include "kernels/base/checksum.h"

#include <gtest/gtest.h>

#include <vector>

namespace gatehouse {
namespace {

std::vector<std::byte> Message(size_t length) {
  std::vector<std::byte> bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(i * 131 + 7);
  return bytes;
}

// python: xxhash.xxh64(bytes((i * 131 + 7) & 255 for i in range(n))).hexdigest(). The lengths have
// every kind of tail, without and with whole stripes of 32 bytes.
TEST(ChecksumTest, EqualsXxh64) {
  struct Vector {
    size_t length;
    uint64_t checksum;
  };
  for (const Vector& vector :
       {Vector{0, 0xef46db3751d8e999ULL}, Vector{1, 0xa96c7f0ce858bbb7ULL},
        Vector{3, 0xbed43740ee6332bbULL}, Vector{4, 0xfa212ae44b3bb23dULL},
        Vector{8, 0x994b676b71ce94ddULL}, Vector{31, 0x6711d55e306b5d8fULL},
        Vector{32, 0x07f7b8e3bc5d6e25ULL}, Vector{33, 0x09f85eeb4e1cbe9fULL},
        Vector{63, 0xb7c9968c066cb6a5ULL}, Vector{100, 0x9ddada11d3dc2d8fULL},
        Vector{1000, 0x0bf0bdbcc82eb373ULL}}) {
    EXPECT_EQ(Checksum(Message(vector.length)), vector.checksum) << vector.length;
  }
}

TEST(ChecksumTest, EveryBitCounts) {
  std::vector<std::byte> bytes = Message(77);
  const uint64_t checksum = Checksum(bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] ^= static_cast<std::byte>(1 << bit);
      EXPECT_NE(Checksum(bytes), checksum) << i << " " << bit;
      bytes[i] ^= static_cast<std::byte>(1 << bit);
    }
  }
}

}  // namespace
}  // namespace gatehouse
