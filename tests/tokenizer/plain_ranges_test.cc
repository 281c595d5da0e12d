// EncodeOptions::plain_ranges: text of clients within a text of ours.
#include <gmock/gmock.h>

#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

class PlainRangesTest : public ::testing::Test {
 protected:
  std::vector<int32_t> Encode(std::string_view text, const std::vector<ByteRange>& plain) {
    return tokenizer_
        ->Encode(text, {.add_special_tokens = false, .parse_special = true, .plain_ranges = plain})
        .value_or(std::vector<int32_t>{});
  }
  std::vector<int32_t> Plain(std::string_view text) {
    return tokenizer_->Encode(text, {.add_special_tokens = false, .parse_special = false})
        .value_or(std::vector<int32_t>{});
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = LoadTestTokenizer("llama3");
  const int32_t end_ = tokenizer_->TokenToId("<|end_of_text|>").value();
};

TEST_F(PlainRangesTest, HarmlessTextHasTheIdsItHasWithoutThem) {
  const std::string text = "<|end_of_text|>user said\n\nHello there<|end_of_text|>";
  EXPECT_EQ(Encode(text, {{20, 35}}), Encode(text, {}));
  EXPECT_EQ(Encode(text, {{15, 16}, {17, 19}, {22, 30}}), Encode(text, {}));
}

TEST_F(PlainRangesTest, NoSpecialTokenIsMadeWithinThem) {
  const std::string text = "<|end_of_text|>a<|end_of_text|>b<|end_of_text|>";
  std::vector<int32_t> expected = {end_};
  const std::vector<int32_t> inner = Plain("a<|end_of_text|>b");
  expected.insert(expected.end(), inner.begin(), inner.end());
  expected.push_back(end_);
  EXPECT_EQ(Encode(text, {{15, 32}}), expected);
}

TEST_F(PlainRangesTest, NorAtTheirBorders) {
  const std::string text = "<|end_of_text|>";
  for (size_t at = 0; at < text.size(); ++at) {
    EXPECT_EQ(Encode(text, {{at, at + 1}}), Plain(text)) << at;
  }
}

TEST_F(PlainRangesTest, APartlyPlainTokenHidesNoneBehindIt) {
  const std::string text = "<|end_of_text|<|end_of_text|>";
  std::vector<int32_t> expected = Plain("<|end_of_text|");
  expected.push_back(end_);
  EXPECT_EQ(Encode(text, {{0, 14}}), expected);
}

}  // namespace
}  // namespace gatehouse
