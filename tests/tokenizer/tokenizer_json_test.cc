// Corrupt and unsupported files: refused at load with one line that names the file, the place and
// what is expected there.
#include "engine/tokenizer/tokenizer_json.h"

#include <gmock/gmock.h>

#include <functional>

#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

void ExpectRefusal(const std::string& text, const std::string& problem) {
  const TemporaryTokenizer file(text);
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(file.dir());
  ASSERT_FALSE(tokenizer.ok()) << "expected: " << problem;
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(tokenizer.status().message());
  EXPECT_THAT(message, StartsWith(file.path() + ": "));
  EXPECT_THAT(message, HasSubstr(problem));
  EXPECT_THAT(message, HasSubstr(", expected "));
  EXPECT_EQ(message.find_first_of("\r\n"), std::string::npos);
  EXPECT_LT(message.size(), 500u);
}

struct CorruptCase {
  const char* name;
  std::function<void(Json&)> corrupt;  // of llama3's document
  const char* problem;
};

Json AddedToken(int id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

Json Split(const std::string& kind, const std::string& pattern, const std::string& behavior) {
  return {
      {"type", "Split"}, {"pattern", {{kind, pattern}}}, {"behavior", behavior}, {"invert", false}};
}

void SetFirstSplit(Json& d, const Json& step) { d["pre_tokenizer"]["pretokenizers"][0] = step; }

const CorruptCase kCorruptCases[] = {
    {"unknown_key", [](Json& d) { d["modle"] = 1; }, "has the unknown key \"modle\""},
    {"version", [](Json& d) { d["version"] = "2.0"; }, "version: is another version"},
    {"no_model", [](Json& d) { d.erase("model"); }, "has no \"model\""},
    {"model_is_list", [](Json& d) { d["model"] = Json::array(); }, "model: is an array"},
    {"model_type", [](Json& d) { d["model"]["type"] = "Unigram"; }, "model.type: is \"Unigram\""},
    {"model_key", [](Json& d) { d["model"]["vocap"] = 1; }, "model: has the unknown key \"vocap\""},
    {"dropout", [](Json& d) { d["model"]["dropout"] = 0.1; }, "model.dropout: is not zero"},
    {"prefix", [](Json& d) { d["model"]["continuing_subword_prefix"] = "##"; },
     "model.continuing_subword_prefix: is \"##\""},
    {"suffix", [](Json& d) { d["model"]["end_of_word_suffix"] = "</w>"; },
     "model.end_of_word_suffix: is \"</w>\""},
    {"ignore_merges", [](Json& d) { d["model"]["ignore_merges"] = "yes"; },
     "model.ignore_merges: is the string \"yes\""},
    {"no_vocab", [](Json& d) { d["model"].erase("vocab"); }, "model: has no \"vocab\""},
    {"empty_vocab", [](Json& d) { d["model"]["vocab"] = Json::object(); }, "model.vocab: is empty"},
    {"vocab_list", [](Json& d) { d["model"]["vocab"] = {"a"}; }, "model.vocab: is an array"},
    {"text_id", [](Json& d) { d["model"]["vocab"]["a"] = "7"; }, "the token \"a\" the id string"},
    {"negative_id", [](Json& d) { d["model"]["vocab"]["a"] = -1; }, "the token \"a\" the id -1"},
    {"fraction_id", [](Json& d) { d["model"]["vocab"]["a"] = 1.5; }, "the token \"a\" the id 1.5"},
    {"huge_id", [](Json& d) { d["model"]["vocab"]["a"] = 1LL << 40; }, "an integer from 0 to"},
    {"same_id", [](Json& d) { d["model"]["vocab"]["new\ntoken"] = 3; }, "gives the id 3 to"},
    {"long_token", [](Json& d) { d["model"]["vocab"][std::string(70000, 'a')] = 9999; },
     "model.vocab: has a token of 70000 bytes"},
    {"merges_object", [](Json& d) { d["model"]["merges"] = Json::object(); },
     "model.merges: is an object"},
    {"merge_number", [](Json& d) { d["model"]["merges"][4] = 4; },
     "model.merges[4]: is no pair of strings"},
    {"merge_of_three", [](Json& d) { d["model"]["merges"][4] = "a b c"; },
     "model.merges[4]: is \"a b c\""},
    {"merge_left",
     [](Json& d) {
       d["model"]["merges"][0] = {"nope", "a"};
     },
     "model.merges[0]: joins the unknown token \"nope\""},
    {"merge_result",
     [](Json& d) {
       d["model"]["merges"][0] = {"q", "q"};
     },
     "model.merges[0]: makes the unknown token \"qq\""},
    {"byte_fallback",
     [](Json& d) {
       d["model"]["merges"] = Json::array();
       d["model"]["vocab"].erase("!");
       d["model"]["byte_fallback"] = true;
     },
     "model: has byte_fallback"},
    {"unk_token",
     [](Json& d) {
       d["model"]["merges"] = Json::array();
       d["model"]["vocab"].erase("!");
       d["model"]["unk_token"] = "<unk>";
     },
     "model.unk_token: is \"<unk>\""},
    {"added_number", [](Json& d) { d["added_tokens"] = 5; }, "added_tokens: is 5"},
    {"added_no_flag", [](Json& d) { d["added_tokens"][1].erase("lstrip"); },
     "added_tokens[1]: has no \"lstrip\""},
    {"added_empty", [](Json& d) { d["added_tokens"][1]["content"] = ""; },
     "added_tokens[1].content: has 0 bytes"},
    {"added_id", [](Json& d) { d["added_tokens"][1]["id"] = 9000; }, "added_tokens[1]: gives"},
    {"added_id_text", [](Json& d) { d["added_tokens"][1]["id"] = "1"; },
     "added_tokens[1].id: is the string"},
    {"added_twice", [](Json& d) { d["added_tokens"].push_back(AddedToken(8000, "<|eot_id|>")); },
     "repeats the token \"<|eot_id|>\""},
    {"normalizer",
     [](Json& d) {
       d["normalizer"] = {{"type", "Lowercase"}};
     },
     "normalizer: has the type \"Lowercase\""},
    {"normalizer_no_type", [](Json& d) { d["normalizer"] = Json::object(); },
     "normalizer: has no \"type\""},
    {"no_pre_tokenizer", [](Json& d) { d["pre_tokenizer"] = nullptr; }, "has no pre_tokenizer"},
    {"pre_tokenizer",
     [](Json& d) {
       SetFirstSplit(d, {{"type", "BertPreTokenizer"}});
     },
     "pre_tokenizer.pretokenizers[0]: has the type \"BertPreTokenizer\""},
    {"split_last", [](Json& d) { d["pre_tokenizer"]["pretokenizers"].erase(1); },
     "pre_tokenizer.pretokenizers[0]: has the type \"Split\""},
    {"regex", [](Json& d) { SetFirstSplit(d, Split("Regex", "(a\n", "Isolated")); },
     "pre_tokenizer.pretokenizers[0].pattern.Regex: an open group"},
    {"regex_compile", [](Json& d) { SetFirstSplit(d, Split("Regex", "a{3,2}", "Isolated")); },
     "pre_tokenizer.pretokenizers[0].pattern.Regex: "},
    {"pattern_kind", [](Json& d) { SetFirstSplit(d, Split("Glob", "*", "Isolated")); },
     "pattern: has the unknown key \"Glob\""},
    {"behavior", [](Json& d) { SetFirstSplit(d, Split("String", "a", "Swallowed")); },
     "behavior: is \"Swallowed\""},
    {"byte_level_flag",
     [](Json& d) { d["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = 1; },
     "pre_tokenizer.pretokenizers[1].add_prefix_space: is 1"},
    {"too_many_steps",
     [](Json& d) {
       const Json step = Split("String", "a", "Isolated");
       d["pre_tokenizer"]["pretokenizers"] = Json(100, step);
     },
     "pre_tokenizer.pretokenizers[64]: is one step too many"},
    {"post_processor",
     [](Json& d) {
       d["post_processor"] = {{"type", "BertProcessing"}};
     },
     "post_processor: has the type \"BertProcessing\""},
    {"template_name",
     [](Json& d) { d["post_processor"]["processors"][1]["special_tokens"] = Json::object(); },
     "single[0].SpecialToken.id: is \"<|begin_of_text|>\""},
    {"template_id",
     [](Json& d) {
       d["post_processor"]["processors"][1]["special_tokens"]["<|end_of_text|>"]["ids"] = {70000};
     },
     "ids[0]: is 70000"},
    {"template_no_text", [](Json& d) { d["post_processor"]["processors"][1]["single"].erase(1); },
     "single: holds the text 0 times"},
    {"no_decoder", [](Json& d) { d["decoder"] = nullptr; }, "has 0 decoder steps"},
    {"decoder",
     [](Json& d) {
       d["decoder"] = {{"type", "WordPiece"}};
     },
     "decoder: has the type \"WordPiece\""},
    {"truncation",
     [](Json& d) {
       d["truncation"] = {{"max_length", 8}};
     },
     "asks for truncation"},
    {"padding",
     [](Json& d) {
       d["padding"] = {{"strategy", {{"Fixed", 8}}}};
     },
     "asks for padding"},
};

class CorruptTokenizerTest : public ::testing::TestWithParam<CorruptCase> {};

TEST_P(CorruptTokenizerTest, IsRefusedInOneLine) {
  Json document = ReadJsonFile(TokenizerDir("llama3") + "/tokenizer.json");
  GetParam().corrupt(document);
  ExpectRefusal(document.dump(), GetParam().problem);
}

INSTANTIATE_TEST_SUITE_P(All, CorruptTokenizerTest, ::testing::ValuesIn(kCorruptCases),
                         [](const auto& test) { return std::string(test.param.name); });

std::string Llama3Text() { return ReadJsonFile(TokenizerDir("llama3") + "/tokenizer.json").dump(); }

TEST(ReadTokenizerJsonTest, TextThatIsNotJsonIsRefusedWithItsByte) {
  ExpectRefusal("", "is not JSON at byte 1");
  ExpectRefusal("{\"model\": ]}", "is not JSON at byte 11");
  ExpectRefusal("{\"a\": \"\xFF\"}", "is not JSON at byte 8");
  ExpectRefusal("[]", "is an array");
  ExpectRefusal("null", "is null");
}

TEST(ReadTokenizerJsonTest, EveryCutOfTheFileIsRefused) {
  const std::string text = Llama3Text();
  for (size_t length = 0; length < text.size(); length += 997) {
    ExpectRefusal(text.substr(0, length), "is not JSON");
  }
}

TEST(ReadTokenizerJsonTest, DeepNestingIsRefusedBeforeItIsParsed) {
  ExpectRefusal(std::string(10'000'000, '['), "is nested deeper than 64 levels");
}

TEST(ReadTokenizerJsonTest, MissingFileIsRefused) {
  const absl::Status status = LoadTokenizer("/nonexistent").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              StartsWith("/nonexistent/tokenizer.json: can not be read"));
}

// Neither crashes nor hangs; what it says does not matter.
TEST(ReadTokenizerJsonTest, FlippedBytesAreReadOrRefused) {
  const std::string text = Llama3Text();
  int num_refused = 0;
  for (size_t at = 0; at < text.size(); at += 61) {
    std::string flipped = text;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 7)));
    const TemporaryTokenizer file(flipped);
    num_refused += !LoadTokenizer(file.dir()).ok();
  }
  EXPECT_GT(num_refused, 50);
}

TEST(ReadTokenizerJsonTest, MergesReadAlikeInBothForms) {
  Json document = ReadJsonFile(TokenizerDir("llama3") + "/tokenizer.json");
  const TemporaryTokenizer pairs(document.dump());
  for (Json& merge : document["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  const TemporaryTokenizer texts(document.dump());
  const auto from_pairs = ReadTokenizerJson(pairs.path());
  const auto from_texts = ReadTokenizerJson(texts.path());
  ASSERT_TRUE(from_pairs.ok() && from_texts.ok()) << from_texts.status();
  ASSERT_EQ(from_pairs->model.merges.size(), from_texts->model.merges.size());
  for (size_t i = 0; i < from_pairs->model.merges.size(); ++i) {
    EXPECT_EQ(from_pairs->model.merges[i].merged_id, from_texts->model.merges[i].merged_id);
  }
}

// The format of GPT-2's time: no model type, empty marks, an unk_token that is never needed.
TEST(ReadTokenizerJsonTest, OldFilesAreRead) {
  Json document = ReadJsonFile(TokenizerDir("demo") + "/tokenizer.json");
  document["model"].erase("type");
  document["model"]["continuing_subword_prefix"] = "";
  document["model"]["end_of_word_suffix"] = "";
  document["model"]["unk_token"] = "";
  document.erase("version");
  const TemporaryTokenizer file(document.dump());
  EXPECT_TRUE(LoadTokenizer(file.dir()).ok()) << LoadTokenizer(file.dir()).status();
}

}  // namespace
}  // namespace gatehouse
