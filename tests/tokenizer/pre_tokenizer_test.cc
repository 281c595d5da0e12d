#include "engine/tokenizer/pre_tokenizer.h"

#include <gmock/gmock.h>

#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

PreTokenizer MakeFrom(const std::string& json_path) {
  absl::StatusOr<TokenizerSpec> spec = ReadTokenizerJson(json_path);
  EXPECT_TRUE(spec.ok()) << spec.status();
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::Make(spec->pre_tokenizers);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  return *std::move(pre_tokenizer);
}

void AppendWordLengths(const PreTokenizer& pre_tokenizer, const std::string& text,
                       std::vector<int32_t>* lengths) {
  PreTokenizerScratch scratch;
  ASSERT_TRUE(pre_tokenizer.Split(text, &scratch).ok());
  for (std::string_view word : scratch.words) {
    lengths->push_back(static_cast<int32_t>(word.size()));
  }
}

// Ids can agree though words differ, where no merge crosses the border. Words are compared apart.
TEST(PreTokenizerTest, CutsTheCorpusWhereHuggingFaceCuts) {
  std::vector<PreTokenizer> own;
  for (const char* name : {"demo", "qwen2", "llama3", "sparse"}) {
    own.push_back(MakeFrom(TokenizerDir(name) + "/tokenizer.json"));
  }
  std::vector<PreTokenizer> variants;
  const nlohmann::json base = ReadJsonFile(TokenizerDir("llama3") + "/tokenizer.json");
  const nlohmann::json all_changes = ReadJsonFile(TokenizerTestPath("variants.json"));
  for (const nlohmann::json& changes : all_changes) {  // in the order of the names
    nlohmann::json document = base;
    document["pre_tokenizer"] = changes["pre_tokenizer"];
    const TemporaryTokenizer file(document.dump());
    variants.push_back(MakeFrom(file.path()));
  }
  int num_wrong = 0;
  for (const nlohmann::json& line : ReadJsonLines(TokenizerTestPath("corpus.jsonl"))) {
    const std::string text = line["s"].get<std::string>();
    std::vector<uint32_t> crcs;
    for (const PreTokenizer& each : own) {
      std::vector<int32_t> lengths;
      AppendWordLengths(each, text, &lengths);
      crcs.push_back(Crc32OfIds(lengths));
    }
    std::vector<int32_t> lengths;
    for (const PreTokenizer& each : variants) AppendWordLengths(each, text, &lengths);
    crcs.push_back(Crc32OfIds(lengths));
    if (crcs == line["w"].get<std::vector<uint32_t>>() || ++num_wrong > 10) continue;
    ADD_FAILURE() << "class " << line["c"] << ", text " << line["s"].dump(-1, ' ', true) << ": "
                  << ::testing::PrintToString(crcs) << " and not " << line["w"];
  }
  EXPECT_EQ(num_wrong, 0);
}

std::vector<std::string> Words(const std::vector<PreTokenizerSpec>& specs, std::string_view text) {
  const absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::Make(specs);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  PreTokenizerScratch scratch;
  EXPECT_TRUE(pre_tokenizer->Split(text, &scratch).ok());
  return {scratch.words.begin(), scratch.words.end()};
}

TEST(PreTokenizerTest, Gpt2SplitKeepsOneSpaceWithTheWord) {
  EXPECT_THAT(Words({ByteLevelSpec{}}, "Hello  my friend's 42!\n\n"),
              ElementsAre("Hello", " ", " my", " friend", "'s", " 42", "!", "\n\n"));
}

TEST(PreTokenizerTest, PrefixSpaceIsAddedOnlyWhereNoneStands) {
  const ByteLevelSpec spec = {.add_prefix_space = true, .use_regex = false};
  EXPECT_THAT(Words({spec}, "a b"), ElementsAre(" a b"));
  EXPECT_THAT(Words({spec}, " a b"), ElementsAre(" a b"));
  EXPECT_THAT(Words({spec}, ""), ElementsAre());
}

// The example of Hugging Face's documentation, for each behaviour.
TEST(PreTokenizerTest, BehavioursPlaceTheDelimiter) {
  const auto words = [](SplitBehavior behavior) {
    const SplitSpec spec = {.pattern = "-", .is_regex = false, .behavior = behavior};
    return Words({spec}, "the-final--countdown");
  };
  EXPECT_THAT(words(SplitBehavior::kRemoved), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(words(SplitBehavior::kIsolated),
              ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(words(SplitBehavior::kMergedWithPrevious),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(words(SplitBehavior::kMergedWithNext),
              ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(words(SplitBehavior::kContiguous),
              ElementsAre("the", "-", "final", "--", "countdown"));
}

}  // namespace
}  // namespace gatehouse
