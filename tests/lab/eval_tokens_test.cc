#include "engine/lab/eval_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class EvalTokensTest : public testing::Test {
 protected:
  std::string Write(const std::string& bytes) const {
    const std::string path = testing::TempDir() + "/tokens.u16";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  std::string Refusal(const std::string& bytes) const {
    return std::string(ReadTokenFile(Write(bytes), 2, 300).status().message());
  }
};

TEST_F(EvalTokensTest, AWindowPredictsWhatFollowsEachToken) {
  const std::string bytes("\x01\0\x02\x01\x03\0\x04\0\x05\0\x06\0", 12);
  const auto tokens = ReadTokenFile(Write(bytes), 2, 300);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->num_windows(), 2);
  EXPECT_THAT(tokens->inputs(0), ElementsAre(1, 0x102));
  EXPECT_THAT(tokens->targets(0), ElementsAre(0x102, 3));
  EXPECT_THAT(tokens->inputs(1), ElementsAre(4, 5));
  EXPECT_THAT(tokens->targets(1), ElementsAre(5, 6));
}

TEST_F(EvalTokensTest, FaultsAreNamedWithTheirPlace) {
  EXPECT_THAT(Refusal(std::string(8, '\0')), HasSubstr("got 8 bytes, expected a multiple of 6"));
  EXPECT_THAT(Refusal(std::string("\0\0\0\0\x2c\x01", 6)), HasSubstr("byte 4: got id 300"));
  EXPECT_THAT(std::string(ReadTokenFile("/nowhere/x", 2, 300).status().message()),
              HasSubstr("/nowhere/x"));
}

TEST(ShippedTokensTest, TheValidationTokensAreWhole) {
  const auto tokens = ReadTokenFile(GATEHOUSE_SOURCE_DIR "/models/validation.u16", 256, 4096);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->num_windows(), 128);
}

}  // namespace
}  // namespace gatehouse
