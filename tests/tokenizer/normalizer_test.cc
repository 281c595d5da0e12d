#include "engine/tokenizer/normalizer.h"

#include "kernels/base/utf8.h"
#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

std::string Nfc(const std::string& text) {
  std::string storage;
  return std::string(Normalizer({NormalForm::kNfc}).Apply(text, &storage));
}

std::string Text(std::initializer_list<char32_t> code_points) {
  std::string text;
  for (const char32_t code_point : code_points) AppendUtf8(code_point, &text);
  return text;
}

// Alone, as a mark among marks, and behind a first half of the newest composition.
TEST(NormalizerTest, EveryCodePointBecomesWhatHuggingFaceMakesOfIt) {
  const nlohmann::json expected = ReadJsonFile(TokenizerTestPath("nfc.json"));
  ASSERT_EQ(expected.size(), 0x110000u / 4096);
  for (size_t block = 0; block < expected.size(); ++block) {
    std::string answers;
    for (auto c = static_cast<char32_t>(block * 4096); c < (block + 1) * 4096; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      answers += Nfc(Text({c})) + "\n";
      answers += Nfc(Text({'a', 0x345, c, 0x300, 0x323})) + "\n";
      answers += Nfc(Text({0x11935, c, 0x301})) + "\n";
    }
    EXPECT_EQ(Crc32(answers), expected[block]) << "code points from " << std::hex << block * 4096;
  }
}

TEST(NormalizerTest, ComposedTextIsReturnedWithoutACopy) {
  std::string storage;
  const std::string text = "caf\u00E9, na\u00EFve";
  EXPECT_EQ(Normalizer({NormalForm::kNfc}).Apply(text, &storage).data(), text.data());
}

TEST(NormalizerTest, WithoutStepsTextStaysAsItIs) {
  std::string storage;
  EXPECT_EQ(Normalizer({}).Apply("e\u0301", &storage), "e\u0301");
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
  EXPECT_EQ(Nfc(text) == "q" + below + above, true);
}

}  // namespace
}  // namespace gatehouse
