#include "engine/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "absl/strings/str_format.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

// The largest published file has about 20 MB, the largest vocabulary about 262,000 tokens. Tables
// are sized by the highest id, hence the limit on ids.
constexpr uint64_t kMaxFileBytes = 128u << 20;
constexpr int kMaxDepth = 64;
constexpr int32_t kMaxId = (1 << 22) - 1;
constexpr size_t kMaxTokenBytes = 64 << 10;
constexpr size_t kMaxAddedTokenBytes = 1024;  // matching costs this much per character at worst

using TextToId = std::unordered_map<std::string_view, int32_t>;

absl::Status FileError(const std::string& path, std::string_view problem,
                       std::string_view expected) {
  return absl::FailedPreconditionError(
      absl::StrFormat("%s: %s, expected %s", path, problem, expected));
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  const uint64_t num_bytes = std::filesystem::file_size(path, error);
  if (error) {
    return FileError(path, absl::StrFormat("can not be read (%s)", error.message()),
                     "a readable file");
  }
  if (num_bytes > kMaxFileBytes) {
    return FileError(path, absl::StrFormat("has %d bytes", num_bytes),
                     absl::StrFormat("at most %d", kMaxFileBytes));
  }
  std::string text(num_bytes, '\0');
  std::ifstream stream(path, std::ios::binary);
  if (!stream.read(text.data(), static_cast<std::streamsize>(num_bytes))) {
    return FileError(path, "can not be read to its end", "a readable file");
  }
  return text;
}

// Counts brackets outside strings, so that the parser never builds what is too deep to walk.
bool IsDeeperThan(std::string_view json, int limit) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limit) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

absl::StatusOr<nlohmann::json> ParseJson(const std::string& path) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  if (IsDeeperThan(text, kMaxDepth)) {
    return FileError(path, absl::StrFormat("is nested deeper than %d levels", kMaxDepth),
                     "a tokenizer.json");
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    const auto* parse_error = dynamic_cast<const nlohmann::json::parse_error*>(&error);
    return FileError(
        path,
        absl::StrFormat("is not JSON at byte %d", parse_error == nullptr ? 0 : parse_error->byte),
        "valid JSON in UTF-8");
  }
}

absl::Status ReadVocab(const JsonNode& node, BpeSpec* model) {
  GATEHOUSE_RETURN_IF_ERROR(node.ExpectObject());
  if (node.value().empty()) return node.Error("is empty", "at least one token");
  std::unordered_map<int32_t, std::string_view> id_to_text;
  for (const auto& [text, value] : node.value().items()) {
    if (text.size() > kMaxTokenBytes) {
      return node.Error(absl::StrFormat("has a token of %d bytes", text.size()),
                        absl::StrFormat("at most %d", kMaxTokenBytes));
    }
    if (!value.is_number_unsigned() || value.get<uint64_t>() > kMaxId) {
      return node.Error(absl::StrFormat("gives the token %s the id %s", QuoteForMessage(text),
                                        value.is_number() ? value.dump() : value.type_name()),
                        absl::StrFormat("an integer from 0 to %d", kMaxId));
    }
    const int32_t id = value.get<int32_t>();
    const auto [other, is_new] = id_to_text.emplace(id, text);
    if (!is_new) {
      return node.Error(absl::StrFormat("gives the id %d to %s and to %s", id,
                                        QuoteForMessage(other->second), QuoteForMessage(text)),
                        "distinct ids");
    }
    model->vocab.emplace_back(text, id);
  }
  return absl::OkStatus();
}

// "a b" or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ReadMergePair(const JsonNode& node) {
  constexpr std::string_view kExpected = "\"left right\" or [\"left\", \"right\"]";
  const nlohmann::json& value = node.value();
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return node.Error(absl::StrFormat("is %s", QuoteForMessage(text)), kExpected);
    }
    return std::make_pair(text.substr(0, space), text.substr(space + 1));
  }
  if (!value.is_array() || value.size() != 2 || !value[0].is_string() || !value[1].is_string()) {
    return node.Error("is no pair of strings", kExpected);
  }
  return std::make_pair(value[0].get<std::string>(), value[1].get<std::string>());
}

absl::Status ReadMerges(const JsonNode& node, const TextToId& text_to_id, BpeSpec* model) {
  GATEHOUSE_RETURN_IF_ERROR(node.ExpectArray());
  model->merges.reserve(node.value().size());
  for (size_t rank = 0; rank < node.value().size(); ++rank) {
    const JsonNode merge = node.Element(rank);
    GATEHOUSE_ASSIGN_OR_RETURN(const auto pair, ReadMergePair(merge));
    int32_t ids[3];
    const std::string merged = pair.first + pair.second;
    const std::string* const texts[] = {&pair.first, &pair.second, &merged};
    for (int i = 0; i < 3; ++i) {
      const auto found = text_to_id.find(*texts[i]);
      if (found == text_to_id.end()) {
        return merge.Error(absl::StrFormat("%s the unknown token %s", i < 2 ? "joins" : "makes",
                                           QuoteForMessage(*texts[i])),
                           "tokens of model.vocab");
      }
      ids[i] = found->second;
    }
    model->merges.push_back({.left_id = ids[0], .right_id = ids[1], .merged_id = ids[2]});
  }
  return absl::OkStatus();
}

// Byte-level text never meets an unknown symbol when each byte has a token; published files rely on
// it and name an unk_token that does not exist.
bool CoversAllBytes(const TextToId& text_to_id) {
  for (int byte = 0; byte < 256; ++byte) {
    std::string letter;
    AppendUtf8(ByteToLetter(static_cast<uint8_t>(byte)), &letter);
    if (text_to_id.find(letter) == text_to_id.end()) return false;
  }
  return true;
}

absl::Status ReadUnknownToken(const JsonNode& node, const TextToId& text_to_id, BpeSpec* model) {
  GATEHOUSE_ASSIGN_OR_RETURN(model->fuse_unk, ReadFlag(node, "fuse_unk"));
  GATEHOUSE_ASSIGN_OR_RETURN(const bool byte_fallback, ReadFlag(node, "byte_fallback"));
  if (CoversAllBytes(text_to_id)) return absl::OkStatus();
  if (byte_fallback) {
    return node.Error("has byte_fallback while single bytes have no token",
                      "a token for each of the 256 bytes");
  }
  const std::optional<JsonNode> unk_token = node.Find("unk_token");
  if (!unk_token.has_value()) return absl::OkStatus();
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, unk_token->String());
  const auto found = text_to_id.find(text);
  if (found == text_to_id.end()) {
    return unk_token->Error(absl::StrFormat("is %s", QuoteForMessage(text)),
                            "a token of model.vocab");
  }
  model->unk_id = found->second;
  return absl::OkStatus();
}

absl::Status RefuseSubwordMarks(const JsonNode& node) {
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const std::optional<JsonNode> mark = node.Find(name);
    if (!mark.has_value()) continue;
    GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, mark->String());
    if (!text.empty()) {
      return mark->Error(absl::StrFormat("is %s", QuoteForMessage(text)), "null or \"\"");
    }
  }
  const std::optional<JsonNode> dropout = node.Find("dropout");
  if (!dropout.has_value() || dropout->value() == 0) return absl::OkStatus();
  return dropout->Error("is not zero", "null: ids may not depend on chance");
}

absl::Status ReadModel(const JsonNode& root, BpeSpec* model) {
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode node, root.Field("model"));
  GATEHOUSE_RETURN_IF_ERROR(node.ExpectOnly(
      {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
       "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
  if (const std::optional<JsonNode> type = node.Find("type")) {  // files of GPT-2's time have none
    GATEHOUSE_ASSIGN_OR_RETURN(const std::string name, type->String());
    if (name != "BPE") return type->Error("is " + QuoteForMessage(name), "\"BPE\"");
  }
  GATEHOUSE_RETURN_IF_ERROR(RefuseSubwordMarks(node));
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode vocab, node.Field("vocab"));
  GATEHOUSE_RETURN_IF_ERROR(ReadVocab(vocab, model));
  TextToId text_to_id;
  text_to_id.reserve(model->vocab.size());
  for (const auto& [text, id] : model->vocab) text_to_id.emplace(text, id);
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode merges, node.Field("merges"));
  GATEHOUSE_RETURN_IF_ERROR(ReadMerges(merges, text_to_id, model));
  GATEHOUSE_ASSIGN_OR_RETURN(model->ignore_merges, ReadFlag(node, "ignore_merges"));
  return ReadUnknownToken(node, text_to_id, model);
}

absl::StatusOr<AddedTokenSpec> ReadAddedToken(const JsonNode& node) {
  GATEHOUSE_RETURN_IF_ERROR(node.ExpectOnly(
      {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}));
  AddedTokenSpec token;
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode id, node.Field("id"));
  GATEHOUSE_ASSIGN_OR_RETURN(token.id, id.Integer(0, kMaxId));
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode content, node.Field("content"));
  GATEHOUSE_ASSIGN_OR_RETURN(token.content, content.String());
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    return content.Error(absl::StrFormat("has %d bytes", token.content.size()),
                         absl::StrFormat("1 to %d", kMaxAddedTokenBytes));
  }
  const std::pair<const char*, bool*> flags[] = {{"single_word", &token.single_word},
                                                 {"lstrip", &token.lstrip},
                                                 {"rstrip", &token.rstrip},
                                                 {"normalized", &token.normalized},
                                                 {"special", &token.special}};
  for (const auto& [name, flag] : flags) {
    GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode field, node.Field(name));
    GATEHOUSE_ASSIGN_OR_RETURN(*flag, field.Bool());
  }
  return token;
}

// Hugging Face does not believe the ids of this list: a text of the vocabulary keeps its id there,
// others are numbered from the vocabulary's length on, in the order of the file. Where the list
// says something else there are two truths, and the file is refused.
absl::Status ReadAddedTokens(const JsonNode& root, TokenizerSpec* spec) {
  const std::optional<JsonNode> list = root.Find("added_tokens");
  if (!list.has_value()) return absl::OkStatus();
  GATEHOUSE_RETURN_IF_ERROR(list->ExpectArray());
  TextToId text_to_id;
  for (const auto& [text, id] : spec->model.vocab) text_to_id.emplace(text, id);
  const int32_t vocab_len = static_cast<int32_t>(spec->model.vocab.size());
  int32_t next_id = vocab_len;
  std::unordered_set<std::string> contents;
  for (size_t i = 0; i < list->value().size(); ++i) {
    const JsonNode node = list->Element(i);
    GATEHOUSE_ASSIGN_OR_RETURN(AddedTokenSpec token, ReadAddedToken(node));
    if (!contents.insert(token.content).second) {
      return node.Error("repeats the token " + QuoteForMessage(token.content), "distinct tokens");
    }
    const auto known = text_to_id.find(token.content);
    const int32_t expected_id = known != text_to_id.end() ? known->second : next_id;
    if (token.id != expected_id) {
      return node.Error(
          absl::StrFormat("gives %s the id %d", QuoteForMessage(token.content), token.id),
          absl::StrFormat("%d: its id in model.vocab, or else the next free one", expected_id));
    }
    next_id = std::max(next_id, token.id + 1);
    spec->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status RefuseLengthRules(const JsonNode& root) {
  if (const std::optional<JsonNode> truncation = root.Find("truncation")) {
    return truncation->Error("asks for truncation", "null: a prompt is never cut silently");
  }
  const std::optional<JsonNode> padding = root.Find("padding");
  if (!padding.has_value()) return absl::OkStatus();
  // Padding to the longest of a batch does nothing to one text.
  const std::optional<JsonNode> strategy = padding->Find("strategy");
  const bool to_longest = strategy.has_value() && strategy->value() == "BatchLongest";
  if (to_longest && !padding->Find("pad_to_multiple_of").has_value()) return absl::OkStatus();
  return padding->Error("asks for padding", "null or the strategy \"BatchLongest\"");
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadTokenizerJson(const std::string& path) {
  GATEHOUSE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(path));
  const JsonNode root(&document, &path, "");
  GATEHOUSE_RETURN_IF_ERROR(
      root.ExpectOnly({"version", "truncation", "padding", "added_tokens", "normalizer",
                       "pre_tokenizer", "post_processor", "decoder", "model"}));
  if (const std::optional<JsonNode> version = root.Find("version")) {
    if (version->value() != "1.0") return version->Error("is another version", "\"1.0\"");
  }
  TokenizerSpec spec;
  GATEHOUSE_RETURN_IF_ERROR(RefuseLengthRules(root));
  GATEHOUSE_RETURN_IF_ERROR(ReadNormalizers(root, &spec));
  GATEHOUSE_RETURN_IF_ERROR(ReadPreTokenizers(root, &spec));
  GATEHOUSE_RETURN_IF_ERROR(CheckDecoder(root));
  GATEHOUSE_RETURN_IF_ERROR(ReadModel(root, &spec.model));
  GATEHOUSE_RETURN_IF_ERROR(ReadAddedTokens(root, &spec));
  GATEHOUSE_RETURN_IF_ERROR(ReadPostProcessors(root, &spec));
  return spec;
}

}  // namespace gatehouse
