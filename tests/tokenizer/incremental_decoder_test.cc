#include "engine/tokenizer/incremental_decoder.h"

#include <random>

#include "kernels/base/utf8.h"
#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

class IncrementalDecoderTest : public ::testing::TestWithParam<const char*> {};

TEST_P(IncrementalDecoderTest, PartsOfAnyIdsMakeTheTextOfDecode) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  std::vector<int32_t> known_ids;
  std::vector<int32_t> short_ids;  // these make most of the broken UTF-8
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    if (!tokenizer->Decode({id}, false).ok()) continue;
    known_ids.push_back(id);
    if (tokenizer->TokenBytes(id).size() == 1) short_ids.push_back(id);
  }
  int num_replaced = 0;
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    IncrementalDecoder decoder(*tokenizer);
    std::vector<int32_t> ids;
    std::string joined;
    const uint32_t num_ids = random() % 40;
    for (uint32_t i = 0; i < num_ids; ++i) {
      const std::vector<int32_t>& pool = random() % 3 == 0 ? known_ids : short_ids;
      ids.push_back(pool[random() % pool.size()]);
      const std::string part = decoder.Append(ids.back());
      ASSERT_EQ(FindInvalidUtf8(part), part.size()) << "seed " << seed;
      joined += part;
    }
    joined += decoder.Flush();
    const absl::StatusOr<std::string> whole = tokenizer->Decode(ids, true);
    ASSERT_TRUE(whole.ok()) << whole.status();
    ASSERT_EQ(joined, *whole) << "seed " << seed;
    if (joined.find(kReplacementCharacter) != std::string::npos) ++num_replaced;
  }
  // The test met what it is for; "sparse" has a token for few bytes.
  EXPECT_GT(num_replaced, short_ids.size() >= 256 ? 500 : 50);
}

INSTANTIATE_TEST_SUITE_P(All, IncrementalDecoderTest,
                         ::testing::Values("demo", "qwen2", "llama3", "sparse", "mixtral"));

class IncrementalDecoderOfQwen2Test : public ::testing::Test {
 protected:
  int32_t IdOfByte(const char* letter) const { return tokenizer_->TokenToId(letter).value(); }
  const std::unique_ptr<Tokenizer> tokenizer_ = LoadTestTokenizer("qwen2");
};

TEST_F(IncrementalDecoderOfQwen2Test, HoldsBackACharacterUntilItsLastByte) {
  IncrementalDecoder decoder(*tokenizer_);
  EXPECT_EQ(decoder.Append(IdOfByte("\u00E2")), "");  // E2 82 AC, written by letters
  EXPECT_EQ(decoder.Append(IdOfByte("\u0124")), "");
  EXPECT_EQ(decoder.Append(IdOfByte("\u00AC")), "\u20AC");
  EXPECT_EQ(decoder.Flush(), "");
}

TEST_F(IncrementalDecoderOfQwen2Test, JoinsACharacterAcrossASpecialToken) {
  IncrementalDecoder decoder(*tokenizer_);
  EXPECT_EQ(decoder.Append(IdOfByte("\u00C3")), "");
  EXPECT_EQ(decoder.Append(tokenizer_->TokenToId("<|im_end|>").value()), "");
  EXPECT_EQ(decoder.Append(IdOfByte("\u00A9")), "\u00E9");
}

TEST_F(IncrementalDecoderOfQwen2Test, FlushReplacesAnUnfinishedCharacterOnce) {
  IncrementalDecoder decoder(*tokenizer_);
  for (const char* letter : {"\u00F0", "\u0141", "\u013A"}) {  // F0 9F 98 of four bytes
    EXPECT_EQ(decoder.Append(IdOfByte(letter)), "");
  }
  EXPECT_EQ(decoder.Flush(), kReplacementCharacter);
  EXPECT_EQ(decoder.Flush(), "");
}

TEST_F(IncrementalDecoderOfQwen2Test, IdsOutsideTheVocabularyAddNothing) {
  IncrementalDecoder decoder(*tokenizer_);
  EXPECT_EQ(decoder.Append(-1), "");
  EXPECT_EQ(decoder.Append(tokenizer_->vocab_size()), "");
  EXPECT_EQ(decoder.Append(INT32_MAX), "");
  EXPECT_EQ(decoder.Flush(), "");
}

class IncrementalDecoderOfMixtralTest : public ::testing::Test {
 protected:
  int32_t IdOf(const char* token) const { return tokenizer_->TokenToId(token).value(); }
  const std::unique_ptr<Tokenizer> tokenizer_ = LoadTestTokenizer("mixtral");
};

TEST_F(IncrementalDecoderOfMixtralTest, DropsOneSpaceAtTheStartOnly) {
  IncrementalDecoder decoder(*tokenizer_);
  EXPECT_EQ(decoder.Append(IdOf("<s>")), "");
  EXPECT_EQ(decoder.Append(IdOf("\u2581")), "");
  EXPECT_EQ(decoder.Append(IdOf("\u2581")), " ");
  EXPECT_EQ(decoder.Append(IdOf("a")), "a");
  EXPECT_EQ(decoder.Append(IdOf("\u2581")), " ");
}

TEST_F(IncrementalDecoderOfMixtralTest, ARunOfBytesIsOneTextOrNone) {
  IncrementalDecoder decoder(*tokenizer_);
  for (const char* byte : {"<0xE2>", "<0x82>", "<0xAC>"}) EXPECT_EQ(decoder.Append(IdOf(byte)), "");
  EXPECT_EQ(decoder.Append(IdOf("a")), "\u20ACa");
  for (const char* byte : {"<0xE2>", "<0x82>", "<0xAC>", "<0xFF>"}) decoder.Append(IdOf(byte));
  EXPECT_EQ(decoder.Append(IdOf("a")), "\uFFFD\uFFFD\uFFFD\uFFFDa");
  decoder.Append(IdOf("<0x41>"));
  EXPECT_EQ(decoder.Append(IdOf("</s>")), "");  // dropped before bytes are looked at
  decoder.Append(IdOf("<0x42>"));
  EXPECT_EQ(decoder.Flush(), "AB");
  EXPECT_EQ(decoder.Flush(), "");
}

}  // namespace
}  // namespace gatehouse
