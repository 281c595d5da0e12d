#include "engine/tokenizer/normalizer.h"

#include <map>

#include "kernels/base/utf8.h"
#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

std::string Normalized(const std::vector<NormalizerSpec>& specs, const std::string& text) {
  const absl::StatusOr<Normalizer> normalizer = Normalizer::Make(specs);
  EXPECT_TRUE(normalizer.ok()) << normalizer.status();
  NormalizerScratch scratch;
  return std::string(normalizer->Apply(text, &scratch).value_or("?"));
}

std::string Text(std::initializer_list<char32_t> code_points) {
  std::string text;
  for (const char32_t code_point : code_points) AppendUtf8(code_point, &text);
  return text;
}

// Alone, as a mark among marks, and behind a first half of the newest composition.
void ExpectAnswers(const NormalizerSpec& spec, const nlohmann::json& expected) {
  ASSERT_EQ(expected.size(), 0x110000u / 4096);
  const absl::StatusOr<Normalizer> normalizer = Normalizer::Make({spec});
  ASSERT_TRUE(normalizer.ok()) << normalizer.status();
  NormalizerScratch scratch;
  const auto answer = [&](const std::string& text) {
    return std::string(normalizer->Apply(text, &scratch).value_or("?")) + "\n";
  };
  for (size_t block = 0; block < expected.size(); ++block) {
    std::string answers;
    for (auto c = static_cast<char32_t>(block * 4096); c < (block + 1) * 4096; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      answers += answer(Text({c}));
      answers += answer(Text({'a', 0x345, c, 0x300, 0x323}));
      answers += answer(Text({0x11935, c, 0x301}));
    }
    EXPECT_EQ(Crc32(answers), expected[block]) << "code points from " << std::hex << block * 4096;
  }
}

TEST(NormalizerTest, EveryCodePointBecomesWhatHuggingFaceMakesOfIt) {
  const nlohmann::json expected = ReadJsonFile(TokenizerTestPath("forms.json"));
  const std::map<std::string, NormalizerSpec> specs = {{"NFC", NormalForm::kNfc},
                                                       {"NFD", NormalForm::kNfd},
                                                       {"NFKC", NormalForm::kNfkc},
                                                       {"NFKD", NormalForm::kNfkd},
                                                       {"Lowercase", LowercaseSpec{}}};
  for (const auto& [name, spec] : specs) {
    SCOPED_TRACE(name);
    ExpectAnswers(spec, expected[name]);
  }
}

TEST(NormalizerTest, ComposedTextIsReturnedWithoutACopy) {
  const absl::StatusOr<Normalizer> normalizer = Normalizer::Make({NormalForm::kNfc});
  ASSERT_TRUE(normalizer.ok());
  NormalizerScratch scratch;
  const std::string text = "caf\u00E9, na\u00EFve";
  EXPECT_EQ(normalizer->Apply(text, &scratch)->data(), text.data());
}

TEST(NormalizerTest, WithoutStepsTextStaysAsItIs) {
  EXPECT_EQ(Normalized({}, "e\u0301"), "e\u0301");
}

TEST(NormalizerTest, StepsFollowOneAnother) {
  const ReplaceSpec mark = {.pattern = {.text = " ", .is_regex = false}, .content = "_"};
  EXPECT_EQ(Normalized({PrependSpec{"_"}, mark}, "two words"), "_two_words");
  EXPECT_EQ(Normalized({PrependSpec{"_"}}, ""), "");
  EXPECT_EQ(Normalized({ReplaceSpec{.pattern = {.text = "x*"}, .content = "-"}}, "axxb"), "-a-b-");
  EXPECT_EQ(Normalized({StripSpec{.left = true}}, " \u3000a\u2003 "), "a\u2003 ");
  EXPECT_EQ(Normalized({StripSpec{.right = true}}, " \u3000a\u2003\u0085 "), " \u3000a");
  EXPECT_EQ(Normalized({StripSpec{.left = true, .right = true}}, " \n"), "");
}

// utf8proc's own ordering would take hours for this.
TEST(NormalizerTest, OrdersHalfAMillionMarksBehindOneLetter) {
  constexpr int kNumPairs = 250'000;
  std::string text = "q";
  std::string below;
  std::string above;
  for (int i = 0; i < kNumPairs; ++i) {
    text += "\u0307\u0323";  // above (class 230), below (class 220)
    above += "\u0307";
    below += "\u0323";
  }
  EXPECT_EQ(Normalized({NormalForm::kNfc}, text) == "q" + below + above, true);
}

}  // namespace
}  // namespace gatehouse
