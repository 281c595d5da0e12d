#include "engine/tokenizer/bpe_tokenizer.h"

#include <gmock/gmock.h>

#include <random>
#include <thread>

#include "kernels/base/utf8.h"
#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

std::string RandomText(uint32_t seed) {
  std::mt19937 random(seed);
  std::string text;
  const uint32_t num_code_points = random() % 60;
  for (uint32_t i = 0; i < num_code_points; ++i) {
    const uint32_t limit = std::vector<uint32_t>{0x80, 0x800, 0x10000, 0x110000}[random() % 4];
    const uint32_t code_point = random() % limit;
    AppendUtf8(code_point >= 0xD800 && code_point < 0xE000 ? ' ' : code_point, &text);
  }
  return text;
}

class RoundTripTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RoundTripTest, RandomTextComesBackAsItWent) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    const std::string text = RandomText(seed);
    const auto ids = tokenizer->Encode(text, {.add_special_tokens = seed % 2 == 0});
    ASSERT_TRUE(ids.ok()) << ids.status();
    ASSERT_EQ(tokenizer->Decode(*ids, true).value_or("?"), text) << "seed " << seed;
  }
}

// Byte-level without a normalizer, but for mixtral, whose marks and bytes come back as well.
INSTANTIATE_TEST_SUITE_P(All, RoundTripTest,
                         ::testing::Values("demo", "llama3", "granite", "deepseek_v2",
                                           "deepseek_v3", "gpt_oss", "mixtral"));

TEST(BpeTokenizerTest, TemplateStandsOnlyAroundTextThatAsksForIt) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer("llama3");
  ASSERT_NE(tokenizer, nullptr);
  const int32_t bos = tokenizer->TokenToId("<|begin_of_text|>").value();
  const int32_t eos = tokenizer->TokenToId("<|end_of_text|>").value();
  const std::vector<int32_t> bare = tokenizer->Encode("hi", {.add_special_tokens = false}).value();
  std::vector<int32_t> expected = {bos};
  expected.insert(expected.end(), bare.begin(), bare.end());
  expected.push_back(eos);
  EXPECT_EQ(tokenizer->Encode("hi", {}).value(), expected);
  EXPECT_EQ(tokenizer->Encode("", {}).value(), (std::vector<int32_t>{bos, eos}));
}

TEST(BpeTokenizerTest, SpecialTextOfUsersStaysText) {
  for (const char* name : {"demo", "qwen2", "llama3", "sparse", "mixtral", "gpt_oss"}) {
    const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer(name);
    ASSERT_NE(tokenizer, nullptr);
    int num_special = 0;
    for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
      if (!tokenizer->IsSpecial(id)) continue;
      ++num_special;
      const std::string text(tokenizer->TokenBytes(id));
      const EncodeOptions plain = {.add_special_tokens = false, .parse_special = false};
      const EncodeOptions parsed = {.add_special_tokens = false, .parse_special = true};
      const std::vector<int32_t> plain_ids = tokenizer->Encode(text, plain).value();
      for (const int32_t each : plain_ids) {
        EXPECT_FALSE(tokenizer->IsSpecial(each)) << name << " " << text;
      }
      EXPECT_EQ(tokenizer->Encode(text, parsed).value(), std::vector<int32_t>{id}) << text;
    }
    EXPECT_GE(num_special, 1) << name;
  }
}

TEST(BpeTokenizerTest, TextThatIsNotUtf8IsRefusedWithItsOffset) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer("qwen2");
  const auto ids = tokenizer->Encode("abc\xED\xA0\x80", {});
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("byte 3 of 6"));
}

TEST(BpeTokenizerTest, UnknownIdsAreRefusedByDecode) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer("qwen2");
  for (const int32_t id : {-1, tokenizer->vocab_size(), INT32_MAX, INT32_MIN}) {
    const auto text = tokenizer->Decode({0, id}, true);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << id;
    EXPECT_THAT(std::string(text.status().message()), HasSubstr("at index 1"));
    EXPECT_EQ(tokenizer->TokenBytes(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
  EXPECT_EQ(tokenizer->TokenToId("no such token"), std::nullopt);
}

TEST(BpeTokenizerTest, ThreadsShareOneTokenizer) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer("qwen2");
  ASSERT_NE(tokenizer, nullptr);
  std::vector<std::vector<int32_t>> expected;
  for (uint32_t seed = 0; seed < 200; ++seed) {
    expected.push_back(tokenizer->Encode(RandomText(seed), {}).value());
  }
  std::vector<int> num_wrong(4);
  std::vector<std::thread> threads;
  for (int& count : num_wrong) {
    threads.emplace_back([&] {
      for (uint32_t seed = 0; seed < 200; ++seed) {
        count += tokenizer->Encode(RandomText(seed), {}).value() != expected[seed];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(num_wrong, ::testing::Each(0));
}

}  // namespace
}  // namespace gatehouse
