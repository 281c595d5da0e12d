#include "kernels/base/keyed_hash.h"

#include <gtest/gtest.h>

#include <vector>

namespace gatehouse {
namespace {

// Key 00 01 .. 0f, messages "", 00, 00 01, ...: the vectors of the authors' reference code.
TEST(KeyedHashTest, EqualsTheVectorsOfItsAuthors) {
  const HashKey key = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
  std::vector<std::byte> message;
  EXPECT_EQ(KeyedHash(key, message), 0x726fdb47dd0e0e31u);
  message.push_back(std::byte{0});
  EXPECT_EQ(KeyedHash(key, message), 0x74f839c593dc67fdu);
  for (int i = 1; i < 15; ++i) message.push_back(static_cast<std::byte>(i));
  EXPECT_EQ(KeyedHash(key, message), 0xa129ca6149be45e5u);  // the paper's appendix A
}

TEST(KeyedHashTest, AnotherKeyGivesAnotherValue) {
  const std::vector<std::byte> message(8);
  EXPECT_NE(KeyedHash({1, 0}, message), KeyedHash({0, 1}, message));
}

}  // namespace
}  // namespace gatehouse
