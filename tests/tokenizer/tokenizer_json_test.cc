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
    {"unknown_key", [](Json& d) { d["modle"] = 1; },
     "modle: got 1, expected no other keys than version,"},
    {"version", [](Json& d) { d["version"] = "2.0"; }, "version: got \"2.0\""},
    {"no_model", [](Json& d) { d.erase("model"); }, "model: got nothing"},
    {"model_is_list", [](Json& d) { d["model"] = Json::array(); }, "model: got []"},
    {"model_type", [](Json& d) { d["model"]["type"] = "Unigram"; },
     "model.type: got \"Unigram\", expected BPE"},
    {"model_key", [](Json& d) { d["model"]["vocap"] = 1; },
     "model.vocap: got 1, expected no other keys"},
    {"dropout", [](Json& d) { d["model"]["dropout"] = 0.1; },
     "model.dropout: got 0.1, expected null"},
    {"prefix", [](Json& d) { d["model"]["continuing_subword_prefix"] = "##"; },
     "model.continuing_subword_prefix: got \"##\""},
    {"suffix", [](Json& d) { d["model"]["end_of_word_suffix"] = "</w>"; },
     "model.end_of_word_suffix: got \"</w>\""},
    {"ignore_merges", [](Json& d) { d["model"]["ignore_merges"] = "yes"; },
     "model.ignore_merges: got \"yes\""},
    {"no_vocab", [](Json& d) { d["model"].erase("vocab"); }, "model.vocab: got nothing"},
    {"empty_vocab", [](Json& d) { d["model"]["vocab"] = Json::object(); }, "model.vocab: got {}"},
    {"vocab_list", [](Json& d) { d["model"]["vocab"] = {"a"}; }, "model.vocab: got [\"a\"]"},
    {"text_id", [](Json& d) { d["model"]["vocab"]["a"] = "7"; }, "model.vocab[\"a\"]: got \"7\""},
    {"negative_id", [](Json& d) { d["model"]["vocab"]["a"] = -1; }, "model.vocab[\"a\"]: got -1"},
    {"fraction_id", [](Json& d) { d["model"]["vocab"]["a"] = 1.5; }, "model.vocab[\"a\"]: got 1.5"},
    {"huge_id", [](Json& d) { d["model"]["vocab"]["a"] = 1LL << 40; }, "an integer from 0 to"},
    {"same_id", [](Json& d) { d["model"]["vocab"]["new\ntoken"] = 3; },
     "got 3, expected an id that no other token has"},
    {"long_token", [](Json& d) { d["model"]["vocab"][std::string(70000, 'a')] = 9999; },
     "...\"]: got 9999, expected a token of at most 65536 bytes"},
    {"merges_object", [](Json& d) { d["model"]["merges"] = Json::object(); },
     "model.merges: got {}"},
    {"merge_number", [](Json& d) { d["model"]["merges"][4] = 4; },
     "model.merges[4]: got 4, expected \"left right\""},
    {"merge_of_three", [](Json& d) { d["model"]["merges"][4] = "a b c"; },
     "model.merges[4]: got \"a b c\""},
    {"merge_left",
     [](Json& d) {
       d["model"]["merges"][0] = {"nope", "a"};
     },
     "model.merges[0]: got [\"nope\",\"a\"], expected two tokens of"},
    {"merge_result",
     [](Json& d) {
       d["model"]["merges"][0] = {"q", "q"};
     },
     "model.merges[0]: got [\"q\",\"q\"], expected two tokens that together"},
    {"byte_fallback",
     [](Json& d) {
       d["model"]["merges"] = Json::array();
       d["model"]["vocab"].erase("!");
       d["model"]["byte_fallback"] = true;
     },
     "model.byte_fallback: got true"},
    {"unk_token",
     [](Json& d) {
       d["model"]["merges"] = Json::array();
       d["model"]["vocab"].erase("!");
       d["model"]["unk_token"] = "<unk>";
     },
     "model.unk_token: got \"<unk>\""},
    {"added_number", [](Json& d) { d["added_tokens"] = 5; },
     "added_tokens: got 5, expected a list of objects"},
    {"added_no_flag", [](Json& d) { d["added_tokens"][1].erase("lstrip"); },
     "added_tokens[1].lstrip: got nothing"},
    {"added_empty", [](Json& d) { d["added_tokens"][1]["content"] = ""; },
     "added_tokens[1].content: got \"\", expected 1 to"},
    {"added_id", [](Json& d) { d["added_tokens"][1]["id"] = 9000; },
     "added_tokens[1].id: got 9000"},
    {"added_id_text", [](Json& d) { d["added_tokens"][1]["id"] = "1"; },
     "added_tokens[1].id: got \"1\""},
    {"added_twice", [](Json& d) { d["added_tokens"].push_back(AddedToken(8000, "<|eot_id|>")); },
     "content: got \"<|eot_id|>\", expected distinct tokens"},
    {"normalizer",
     [](Json& d) {
       d["normalizer"] = {{"type", "StripAccents"}};
     },
     "normalizer.type: got \"StripAccents\""},
    {"normalizer_no_type", [](Json& d) { d["normalizer"] = Json::object(); },
     "normalizer.type: got nothing"},
    {"no_pre_tokenizer", [](Json& d) { d["pre_tokenizer"] = nullptr; },
     "decoder.type: got \"ByteLevel\""},
    {"pre_tokenizer",
     [](Json& d) {
       SetFirstSplit(d, {{"type", "BertPreTokenizer"}});
     },
     "pre_tokenizer.pretokenizers[0].type: got \"BertPreTokenizer\""},
    {"split_last", [](Json& d) { d["pre_tokenizer"]["pretokenizers"].erase(1); },
     "decoder.type: got \"ByteLevel\""},
    {"regex", [](Json& d) { SetFirstSplit(d, Split("Regex", "(a\n", "Isolated")); },
     "pre_tokenizer.pretokenizers[0].pattern.Regex: got an open group"},
    {"regex_compile", [](Json& d) { SetFirstSplit(d, Split("Regex", "a{3,2}", "Isolated")); },
     "pre_tokenizer.pretokenizers[0].pattern.Regex: "},
    {"pattern_kind", [](Json& d) { SetFirstSplit(d, Split("Glob", "*", "Isolated")); },
     "pattern.Glob: got \"*\""},
    {"behavior", [](Json& d) { SetFirstSplit(d, Split("String", "a", "Swallowed")); },
     "behavior: got \"Swallowed\""},
    {"byte_level_flag",
     [](Json& d) { d["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = 1; },
     "pre_tokenizer.pretokenizers[1].add_prefix_space: got 1"},
    {"too_many_steps",
     [](Json& d) {
       const Json step = Split("String", "a", "Isolated");
       d["pre_tokenizer"]["pretokenizers"] = Json(100, step);
     },
     "pre_tokenizer.pretokenizers[64].type: got \"Split\", expected at most 64"},
    {"post_processor",
     [](Json& d) {
       d["post_processor"] = {{"type", "BertProcessing"}};
     },
     "post_processor.type: got \"BertProcessing\""},
    {"template_name",
     [](Json& d) { d["post_processor"]["processors"][1]["special_tokens"] = Json::object(); },
     "single[0].SpecialToken.id: got \"<|begin_of_text|>\""},
    {"template_id",
     [](Json& d) {
       d["post_processor"]["processors"][1]["special_tokens"]["<|end_of_text|>"]["ids"] = {70000};
     },
     "ids: got [70000]"},
    {"template_no_text", [](Json& d) { d["post_processor"]["processors"][1]["single"].erase(1); },
     "single: got [{"},
    {"no_decoder", [](Json& d) { d["decoder"] = nullptr; }, "decoder: got null"},
    {"decoder",
     [](Json& d) {
       d["decoder"] = {{"type", "WordPiece"}};
     },
     "decoder: got {\"type\":\"WordPiece\"}"},
    {"truncation",
     [](Json& d) {
       d["truncation"] = {{"max_length", 8}};
     },
     "truncation: got {"},
    {"padding",
     [](Json& d) {
       d["padding"] = {{"strategy", {{"Fixed", 8}}}};
     },
     "padding: got {"},
};

Json Metaspace(const std::string& scheme) {
  return {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", scheme}, {"split", true}};
}

Json Sequence(const std::string& key, const std::vector<Json>& steps) {
  return {{"type", "Sequence"}, {key, steps}};
}

Json Replace(const std::string& kind, const std::string& pattern, const std::string& content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}

void AddDecoderSteps(Json& d, const std::vector<Json>& steps) {
  d["decoder"] = Sequence("decoders", steps);
}

const Json kFallback = {{"type", "ByteFallback"}};
const Json kFuse = {{"type", "Fuse"}};
const Json kStrip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};

// Of mixtral's document: what a tokenizer that is not byte-level can have wrong.
const CorruptCase kCorruptCharacterCases[] = {
    {"byte_missing", [](Json& d) { d["model"]["vocab"].erase("<0x0A>"); },
     "model.byte_fallback: got true, expected false, as model.vocab has no token <0x0A>"},
    {"fallback_text", [](Json& d) { d["model"]["byte_fallback"] = 1; },
     "model.byte_fallback: got 1, expected true or false"},
    {"fuse_text", [](Json& d) { d["model"]["fuse_unk"] = "no"; }, "model.fuse_unk: got \"no\""},
    {"unk_unknown",
     [](Json& d) {
       d["model"]["byte_fallback"] = false;
       d["model"]["unk_token"] = "<what>";
     },
     "model.unk_token: got \"<what>\""},
    {"merge_of_bytes",
     [](Json& d) {
       d["model"]["merges"].push_back({"<0x0A>", "<0x0D>"});
     },
     "expected two tokens that together are one of model.vocab"},
    {"byte_level_inside",
     [](Json& d) {
       const Json byte_level = {
           {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
       d["pre_tokenizer"] = Sequence("pretokenizers", {byte_level, Metaspace("always")});
     },
     "pre_tokenizer.pretokenizers[0].type: got \"ByteLevel\", expected Split"},
    {"byte_level_decoder",
     [](Json& d) {
       d["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}};
     },
     "decoder.type: got \"ByteLevel\", expected another one"},
    {"whitespace",
     [](Json& d) {
       d["pre_tokenizer"] = {{"type", "Whitespace"}};
     },
     "pre_tokenizer.type: got \"Whitespace\""},
    {"digits_flag",
     [](Json& d) {
       d["pre_tokenizer"] = {{"type", "Digits"}};
     },
     "pre_tokenizer.individual_digits: got nothing"},
    {"metaspace_scheme", [](Json& d) { d["pre_tokenizer"] = Metaspace("last"); },
     "pre_tokenizer.prepend_scheme: got \"last\", expected always, first or never"},
    {"metaspace_mark",
     [](Json& d) {
       d["pre_tokenizer"] = Metaspace("never");
       d["pre_tokenizer"]["replacement"] = "__";
     },
     "pre_tokenizer.replacement: got \"__\", expected one character"},
    {"metaspace_two_truths",
     [](Json& d) {
       d["pre_tokenizer"] = Metaspace("always");
       d["pre_tokenizer"]["add_prefix_space"] = false;
     },
     "pre_tokenizer.prepend_scheme: got \"always\", expected never, as"},
    {"metaspace_first_of_what",
     [](Json& d) {
       d["pre_tokenizer"] =
           Sequence("pretokenizers", {Split("String", "a", "Isolated"), Metaspace("first")});
     },
     "pre_tokenizer.pretokenizers[1].prepend_scheme: got \"first\""},
    {"metaspace_first_after_strip",
     [](Json& d) {
       d["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}};
       d["pre_tokenizer"] = Metaspace("first");
     },
     "pre_tokenizer.prepend_scheme: got \"first\""},
    {"strip_normalizer_flag",
     [](Json& d) {
       d["normalizer"] = {{"type", "Strip"}, {"strip_left", true}};
     },
     "normalizer.strip_right: got nothing"},
    {"form_key",
     [](Json& d) {
       d["normalizer"] = {{"type", "NFKC"}, {"version", 9}};
     },
     "normalizer.version: got 9"},
    {"replace_regex", [](Json& d) { d["normalizer"] = Replace("Regex", "(a", "b"); },
     "normalizer.pattern.Regex: got an open group"},
    {"replace_two_patterns",
     [](Json& d) {
       d["normalizer"] = Replace("Regex", "a", "b");
       d["normalizer"]["pattern"]["String"] = "a";
     },
     "normalizer.pattern: got {"},
    {"replace_empty", [](Json& d) { d["normalizer"] = Replace("String", "", "b"); },
     "normalizer.pattern.String: got \"\", expected a pattern"},
    {"replace_long",
     [](Json& d) { d["normalizer"] = Replace("String", "a", std::string(17, 'b')); },
     "normalizer.content: got \"bbb"},
    {"prepend_number",
     [](Json& d) {
       d["normalizer"] = {{"type", "Prepend"}, {"prepend", 5}};
     },
     "normalizer.prepend: got 5, expected a string"},
    {"normalizers_missing",
     [](Json& d) {
       d["normalizer"] = {{"type", "Sequence"}};
     },
     "normalizer.normalizers: got nothing"},
    {"normalizers_of_text", [](Json& d) { d["normalizer"] = Sequence("normalizers", {"NFC"}); },
     "normalizer.normalizers[0]: got \"NFC\", expected an object"},
    {"no_decoder", [](Json& d) { d["decoder"] = nullptr; }, "decoder: got null, expected steps"},
    {"decoder_order",
     [](Json& d) {
       AddDecoderSteps(d, {kFuse, kFallback});
     },
     "decoder.decoders[1].type: got \"ByteFallback\", expected Replace or"},
    {"decoder_regex", [](Json& d) { AddDecoderSteps(d, {Replace("Regex", "_", " ")}); },
     "decoder.decoders[0].pattern: got {\"Regex\""},
    {"decoder_two_replacements",
     [](Json& d) {
       AddDecoderSteps(d, {Replace("String", "_", " "), Metaspace("always")});
     },
     "decoder.decoders[1].type: got \"Metaspace\""},
    {"strip_without_fuse",
     [](Json& d) {
       AddDecoderSteps(d, {kFallback, kStrip});
     },
     "decoder.decoders[1].type: got \"Strip\""},
    {"strip_at_the_end",
     [](Json& d) {
       AddDecoderSteps(d, {kFuse, kStrip});
       d["decoder"]["decoders"][1]["stop"] = 1;
     },
     "decoder.decoders[1].stop: got 1, expected an integer from 0 to 0"},
    {"strip_text",
     [](Json& d) {
       AddDecoderSteps(d, {kFuse, kStrip});
       d["decoder"]["decoders"][1]["content"] = "";
     },
     "decoder.decoders[1].content: got \"\", expected one character"},
    {"strip_count",
     [](Json& d) {
       AddDecoderSteps(d, {kFuse, kStrip});
       d["decoder"]["decoders"][1]["start"] = -1;
     },
     "decoder.decoders[1].start: got -1"},
    {"template_id", [](Json& d) { d["post_processor"]["special_tokens"]["<s>"]["ids"] = {-1}; },
     "special_tokens.<s>.ids: got -1"},
    {"template_twice",
     [](Json& d) {
       d["post_processor"] = Sequence("processors", {d["post_processor"], d["post_processor"]});
     },
     "post_processor.processors[1].type: got \"TemplateProcessing\""},
};

class CorruptTokenizerTest : public ::testing::TestWithParam<CorruptCase> {};

TEST_P(CorruptTokenizerTest, IsRefusedInOneLine) {
  Json document = ReadJsonFile(TokenizerDir("llama3") + "/tokenizer.json");
  GetParam().corrupt(document);
  ExpectRefusal(document.dump(), GetParam().problem);
}

INSTANTIATE_TEST_SUITE_P(All, CorruptTokenizerTest, ::testing::ValuesIn(kCorruptCases),
                         [](const auto& test) { return std::string(test.param.name); });

class CorruptCharacterTokenizerTest : public ::testing::TestWithParam<CorruptCase> {};

TEST_P(CorruptCharacterTokenizerTest, IsRefusedInOneLine) {
  Json document = ReadJsonFile(TokenizerDir("mixtral") + "/tokenizer.json");
  GetParam().corrupt(document);
  ExpectRefusal(document.dump(), GetParam().problem);
}

INSTANTIATE_TEST_SUITE_P(All, CorruptCharacterTokenizerTest,
                         ::testing::ValuesIn(kCorruptCharacterCases),
                         [](const auto& test) { return std::string(test.param.name); });

std::string Llama3Text() { return ReadJsonFile(TokenizerDir("llama3") + "/tokenizer.json").dump(); }

TEST(ReadTokenizerJsonTest, TextThatIsNotJsonIsRefusedWithItsByte) {
  ExpectRefusal("", "bad JSON at byte 1,");
  ExpectRefusal("{\"model\": ]}", "bad JSON at byte 11,");
  ExpectRefusal("{\"a\": \"\xFF\"}", "bad JSON at byte 8,");
  ExpectRefusal("[]", "got a JSON array");
  ExpectRefusal("null", "got a JSON null");
}

TEST(ReadTokenizerJsonTest, EveryCutOfTheFileIsRefused) {
  const std::string text = Llama3Text();
  for (size_t length = 0; length < text.size(); length += 997) {
    ExpectRefusal(text.substr(0, length), "bad JSON at byte");
  }
}

TEST(ReadTokenizerJsonTest, DeepNestingIsRefusedBeforeItIsParsed) {
  ExpectRefusal(std::string(10'000'000, '['), "JSON nests deeper than 32 levels");
}

TEST(ReadTokenizerJsonTest, MissingFileIsRefused) {
  const absl::Status status = LoadTokenizer("/nonexistent").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              StartsWith("/nonexistent/tokenizer.json: no such file"));
}

// Neither crashes nor hangs; what it says does not matter.
TEST(ReadTokenizerJsonTest, FlippedBytesAreReadOrRefused) {
  for (const char* name : {"llama3", "mixtral"}) {
    const std::string text = ReadJsonFile(TokenizerDir(name) + "/tokenizer.json").dump();
    int num_refused = 0;
    for (size_t at = 0; at < text.size(); at += 97) {
      std::string flipped = text;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 7)));
      const TemporaryTokenizer file(flipped);
      const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(file.dir());
      if (tokenizer.ok()) {
        EXPECT_TRUE((*tokenizer)->Encode("a\u00e9 \U0001f600 1", {}).ok()) << at;
      } else {
        ++num_refused;
      }
    }
    EXPECT_GT(num_refused, 30) << name;
  }
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
