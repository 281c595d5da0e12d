// Against the answers of Hugging Face `tokenizers` 0.23.3 (make_corpus.py).
#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

using ::testing::SizeIs;

constexpr const char* kTokenizers[] = {"demo",  "qwen2",   "llama3",      "sparse",      "mixtral",
                                       "olmoe", "granite", "deepseek_v2", "deepseek_v3", "gpt_oss"};
constexpr int kMaxReported = 10;

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text, bool parse_special) {
  const absl::StatusOr<std::vector<int32_t>> ids =
      tokenizer.Encode(text, {.add_special_tokens = true, .parse_special = parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(std::vector<int32_t>{});
}

// As both_ways of make_corpus.py: the ids with special tokens parsed, -1, the ids without.
std::vector<int32_t> IdsBothWays(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids = Ids(tokenizer, text, true);
  ids.push_back(-1);
  const std::vector<int32_t> plain = Ids(tokenizer, text, false);
  ids.insert(ids.end(), plain.begin(), plain.end());
  return ids;
}

std::string Where(const nlohmann::json& line) {
  return "class " + line["c"].get<std::string>() + ", text " + line["s"].dump(-1, ' ', true);
}

// As write_long of make_corpus.py.
std::map<std::string, std::string> LongTexts(size_t size) {
  const auto repeated = [size](const std::string& text) {
    std::string all;
    while (all.size() + text.size() <= size) all += text;
    return all;
  };
  std::string random_letters;
  for (uint32_t state = 1; random_letters.size() < size;) {
    state = (state * 1103515245u + 12345u) % (1u << 31);
    random_letters.push_back(static_cast<char>('a' + (state >> 16) % 26));
  }
  return {{"one_letter", repeated("a")},
          {"random_letters", random_letters},
          {"spaces", repeated(" ")},
          {"newlines", repeated("\n")},
          {"digits", repeated("7")},
          {"ideographs", repeated("\u65E5")},
          {"emoji", repeated("\U0001F600")},
          {"letter_and_space", repeated("a ")},
          {"letter_and_digit", repeated("a1")},
          {"marks", "e" + repeated("\u0301")},
          {"spaces_and_digit", std::string(size - 1, ' ') + "7"},
          {"capitals", repeated("aB")},
          {"unknown_letters", repeated("\uA66E")}};
}

class ParityTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ParityTest, EveryStringOfTheCorpusHasTheIdsOfHuggingFace) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const Corpus corpus = ReadCorpus();
  ASSERT_GE(corpus.lines.size(), 5000u);
  const size_t index = corpus.IndexOf(GetParam());
  int num_wrong = 0;
  for (const nlohmann::json& line : corpus.lines) {
    const std::vector<int32_t> ids = IdsBothWays(*tokenizer, line["s"].get<std::string>());
    if (Crc32OfIds(ids) == line["k"][index] || ++num_wrong > kMaxReported) continue;
    ADD_FAILURE() << Where(line)
                  << ": not the ids of Hugging Face: " << ::testing::PrintToString(ids);
  }
  EXPECT_EQ(num_wrong, 0) << "of " << corpus.lines.size();
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
  EXPECT_GE(num_lines, 80);
}

// No time is measured, but a quadratic step anywhere would take minutes.
TEST_P(ParityTest, LongTextWithoutABreakHasTheIdsOfHuggingFace) {
  constexpr size_t kSize = size_t{1} << 17;
  const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const nlohmann::json expected = ReadJsonFile(TokenizerTestPath("long.json"));
  const std::map<std::string, std::string> texts = LongTexts(kSize);
  ASSERT_THAT(expected, SizeIs(texts.size()));
  int num_compared = 0;
  for (const auto& [name, text] : texts) {
    if (!expected[name].contains(GetParam())) continue;
    const std::vector<int32_t> ids = Ids(*tokenizer, text, true);
    EXPECT_EQ(ids.size(), expected[name][GetParam()][0]) << name;
    EXPECT_EQ(Crc32OfIds(ids), expected[name][GetParam()][1]) << name;
    ++num_compared;
  }
  EXPECT_GE(num_compared, 12);
}

INSTANTIATE_TEST_SUITE_P(All, ParityTest, ::testing::ValuesIn(kTokenizers),
                         [](const auto& test) { return std::string(test.param); });

TEST(ParityCorpusTest, NamesItsClassesAndFillsEach) {
  std::map<std::string, int> class_to_count;
  for (const nlohmann::json& line : ReadCorpus().lines) {
    ++class_to_count[line["c"].get<std::string>()];
  }
  EXPECT_GE(class_to_count.size(), 35u);
  for (const auto& [name, count] : class_to_count) EXPECT_GE(count, 130) << name;
}

// One MiB each, where a quadratic step would take hours. A run of spaces that ends no line is one
// for Hugging Face with DeepSeek-V2's \s+$, which fails anew at every space.
TEST(LongTextTest, MebibyteOfEachKindComesBackAsItWent) {
  for (const char* name :
       {"llama3", "mixtral", "granite", "deepseek_v2", "deepseek_v3", "gpt_oss"}) {
    const std::unique_ptr<Tokenizer> tokenizer = LoadTestTokenizer(name);
    ASSERT_NE(tokenizer, nullptr);
    for (const auto& [kind, text] : LongTexts(size_t{1} << 20)) {
      const std::vector<int32_t> ids = Ids(*tokenizer, text, false);
      EXPECT_EQ(tokenizer->Decode(ids, true).value_or("?") == text, true) << name << " " << kind;
    }
  }
}

// Steps, behaviours and syntax of other families, on llama3's vocabulary and on mixtral's.
TEST(VariantsTest, EveryVariantHasTheIdsAndTextsOfHuggingFace) {
  const Corpus corpus = ReadCorpus();
  const std::vector<nlohmann::json> decode_lines = ReadJsonLines(TokenizerTestPath("decode.jsonl"));
  size_t index = 0;
  for (const Variant& variant : ReadVariants()) {
    const TemporaryTokenizer file(variant.document.dump());
    const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(file.dir());
    ASSERT_TRUE(tokenizer.ok()) << variant.name << ": " << tokenizer.status();
    int num_wrong = 0;
    int num_compared = 0;
    for (const nlohmann::json& line : corpus.lines) {
      if (!line.contains("v")) continue;
      const std::vector<int32_t> ids = IdsBothWays(**tokenizer, line["s"].get<std::string>());
      ++num_compared;
      if ((Crc32OfIds(ids) & 0xFFFF) == line["v"][index] || ++num_wrong > kMaxReported) continue;
      ADD_FAILURE() << variant.name << ": other ids than Hugging Face, " << Where(line) << ": "
                    << ::testing::PrintToString(ids);
    }
    for (const nlohmann::json& line : decode_lines) {
      if (variant.base != "mixtral" || line["t"] != variant.name) continue;
      const auto ids = line["i"].get<std::vector<int32_t>>();
      EXPECT_EQ((*tokenizer)->Decode(ids, true).value_or("?"), line["skip"]) << line["i"];
      EXPECT_EQ((*tokenizer)->Decode(ids, false).value_or("?"), line["keep"]) << line["i"];
    }
    EXPECT_EQ(num_wrong, 0) << variant.name;
    EXPECT_GE(num_compared, 1000);
    ++index;
  }
  EXPECT_GE(index, 30u);
}

}  // namespace
}  // namespace gatehouse
