// Against the answers of Hugging Face `tokenizers` 0.23.3 (make_corpus.py).
#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

using ::testing::SizeIs;

constexpr const char* kTokenizers[] = {"demo", "qwen2", "llama3", "sparse"};
constexpr int kMaxReported = 10;

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text, bool parse_special) {
  const absl::StatusOr<std::vector<int32_t>> ids =
      tokenizer.Encode(text, {.add_special_tokens = true, .parse_special = parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(std::vector<int32_t>{});
}

std::string Where(const nlohmann::json& line) {
  return "class " + line["c"].get<std::string>() + ", text " + line["s"].dump(-1, ' ', true);
}

class ParityTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ParityTest, EveryStringOfTheCorpusHasTheIdsOfHuggingFace) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<nlohmann::json> corpus = ReadJsonLines(TokenizerTestPath("corpus.jsonl"));
  ASSERT_GE(corpus.size(), 2000u);
  int num_wrong = 0;
  for (const nlohmann::json& line : corpus) {
    const std::string text = line["s"].get<std::string>();
    const auto parsed = line[GetParam()].get<std::vector<int32_t>>();
    const bool differs = line.contains("plain") && line["plain"].contains(GetParam());
    const auto plain = differs ? line["plain"][GetParam()].get<std::vector<int32_t>>() : parsed;
    const bool right =
        Ids(*tokenizer, text, true) == parsed && Ids(*tokenizer, text, false) == plain;
    if (right || ++num_wrong > kMaxReported) continue;
    EXPECT_EQ(Ids(*tokenizer, text, true), parsed) << Where(line);
    EXPECT_EQ(Ids(*tokenizer, text, false), plain) << "plain, " << Where(line);
  }
  EXPECT_EQ(num_wrong, 0) << "of " << corpus.size();
}

TEST_P(ParityTest, AnyIdsDecodeToTheTextOfHuggingFace) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  int num_lines = 0;
  for (const nlohmann::json& line : ReadJsonLines(TokenizerTestPath("decode.jsonl"))) {
    if (line["t"] != GetParam()) continue;
    const auto ids = line["i"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->Decode(ids, true).value_or("?"), line["skip"]) << line["i"];
    EXPECT_EQ(tokenizer->Decode(ids, false).value_or("?"), line["keep"]) << line["i"];
    ++num_lines;
  }
  EXPECT_GE(num_lines, 100);
}

// No time is measured, but a quadratic step anywhere would take hours.
TEST_P(ParityTest, MebibyteWithoutABreakHasTheIdsOfHuggingFace) {
  constexpr size_t kSize = size_t{1} << 20;
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  std::string random_letters;
  for (uint32_t state = 1; random_letters.size() < kSize;) {
    state = (state * 1103515245u + 12345u) % (1u << 31);
    random_letters.push_back(static_cast<char>('a' + (state >> 16) % 26));
  }
  std::string ideographs;
  while (ideographs.size() + 3 <= kSize) ideographs += "\xE6\x97\xA5";
  const std::map<std::string, std::string> texts = {
      {"one_letter", std::string(kSize, 'a')}, {"random_letters", random_letters},
      {"spaces", std::string(kSize, ' ')},     {"newlines", std::string(kSize, '\n')},
      {"digits", std::string(kSize, '7')},     {"ideographs", ideographs}};
  const nlohmann::json expected = ReadJsonFile(TokenizerTestPath("long.json"));
  ASSERT_THAT(expected, SizeIs(texts.size()));
  for (const auto& [name, text] : texts) {
    const std::vector<int32_t> ids = Ids(*tokenizer, text, true);
    EXPECT_EQ(ids.size(), expected[name][GetParam()][0]) << name;
    EXPECT_EQ(Crc32OfIds(ids), expected[name][GetParam()][1]) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ParityTest, ::testing::ValuesIn(kTokenizers),
                         [](const auto& test) { return std::string(test.param); });

TEST(ParityCorpusTest, NamesItsClassesAndFillsEach) {
  std::map<std::string, int> class_to_count;
  for (const nlohmann::json& line : ReadJsonLines(TokenizerTestPath("corpus.jsonl"))) {
    ++class_to_count[line["c"].get<std::string>()];
  }
  EXPECT_GE(class_to_count.size(), 25u);
  for (const auto& [name, count] : class_to_count) EXPECT_GE(count, 80) << name;
}

// Splits, behaviours and syntax of other families, on llama3's vocabulary.
TEST(SplitVariantsTest, EveryVariantHasTheIdsOfHuggingFace) {
  const nlohmann::json variants = ReadJsonFile(TokenizerTestPath("variants.json"));
  const nlohmann::json base = ReadJsonFile(TokenizerDir("llama3") + "/tokenizer.json");
  const std::vector<nlohmann::json> corpus = ReadJsonLines(TokenizerTestPath("corpus.jsonl"));
  size_t index = 0;
  for (const auto& [name, changes] : variants.items()) {  // in the order of the names
    nlohmann::json document = base;
    for (const auto& [key, value] : changes.items()) {
      if (key == "model") {
        document[key].update(value);
      } else {
        document[key] = value;
      }
    }
    const TemporaryTokenizer file(document.dump());
    const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(file.dir());
    ASSERT_TRUE(tokenizer.ok()) << name << ": " << tokenizer.status();
    int num_wrong = 0;
    int num_compared = 0;
    for (const nlohmann::json& line : corpus) {
      if (!line.contains("v")) continue;
      const std::vector<int32_t> ids = Ids(**tokenizer, line["s"].get<std::string>(), true);
      ++num_compared;
      if (Crc32OfIds(ids) == line["v"][index] || ++num_wrong > kMaxReported) continue;
      ADD_FAILURE() << name << ": other ids than Hugging Face, " << Where(line);
    }
    EXPECT_EQ(num_wrong, 0) << name;
    EXPECT_GE(num_compared, 500);
    ++index;
  }
  EXPECT_GE(index, 15u);
}

}  // namespace
}  // namespace gatehouse
