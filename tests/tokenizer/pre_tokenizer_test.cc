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
  ASSERT_TRUE(pre_tokenizer.Split(text, true, &scratch).ok());
  for (std::string_view word : scratch.words) {
    lengths->push_back(static_cast<int32_t>(word.size()));
  }
}

// Ids can agree though words differ, where no merge crosses the border. Words are compared apart.
TEST(PreTokenizerTest, CutsTheCorpusWhereHuggingFaceCuts) {
  const Corpus corpus = ReadCorpus();
  std::vector<PreTokenizer> pre_tokenizers;
  for (const std::string& name : corpus.tokenizers) {
    if (name == "mixtral") continue;  // one word, whatever the text
    pre_tokenizers.push_back(MakeFrom(TokenizerDir(name) + "/tokenizer.json"));
  }
  for (const Variant& variant : ReadVariants()) {
    if (variant.base != "llama3") continue;
    const TemporaryTokenizer file(variant.document.dump());
    pre_tokenizers.push_back(MakeFrom(file.path()));
  }
  int num_wrong = 0;
  for (const nlohmann::json& line : corpus.lines) {
    const std::string text = line["s"].get<std::string>();
    std::vector<int32_t> lengths;
    for (const PreTokenizer& each : pre_tokenizers) AppendWordLengths(each, text, &lengths);
    if (Crc32OfIds(lengths) == line["w"] || ++num_wrong > 10) continue;
    ADD_FAILURE() << "class " << line["c"] << ", text " << line["s"].dump(-1, ' ', true) << ": "
                  << ::testing::PrintToString(lengths);
  }
  EXPECT_EQ(num_wrong, 0);
}

std::vector<std::string> Words(const std::vector<PreTokenizerSpec>& specs, std::string_view text,
                               bool is_start = true) {
  const absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::Make(specs);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  PreTokenizerScratch scratch;
  EXPECT_TRUE(pre_tokenizer->Split(text, is_start, &scratch).ok());
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

TEST(PreTokenizerTest, MarksStandForSpacesAndOneIsPutInFront) {
  MetaspaceSpec spec = {.mark = "_"};
  EXPECT_THAT(Words({spec}, "Hey  my_friend "), ElementsAre("_Hey", "_", "_my", "_friend", "_"));
  EXPECT_THAT(Words({spec}, " Hey"), ElementsAre("_Hey"));
  spec.split = false;
  EXPECT_THAT(Words({spec}, "Hey you"), ElementsAre("_Hey_you"));
  spec.prepend_scheme = PrependScheme::kNever;
  EXPECT_THAT(Words({spec}, "Hey you"), ElementsAre("Hey_you"));
  spec.prepend_scheme = PrependScheme::kFirst;
  EXPECT_THAT(Words({spec}, "Hey you"), ElementsAre("_Hey_you"));
  EXPECT_THAT(Words({spec}, "Hey you", /*is_start=*/false), ElementsAre("Hey_you"));
}

// The example of Hugging Face's documentation, for each behaviour.
TEST(PreTokenizerTest, BehavioursPlaceTheDelimiter) {
  const auto words = [](SplitBehavior behavior) {
    const SplitSpec spec = {.pattern = {.text = "-", .is_regex = false}, .behavior = behavior};
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
