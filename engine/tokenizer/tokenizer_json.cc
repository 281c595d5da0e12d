#include "engine/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

// The largest published file has about 20 MB, the largest vocabulary about 262,000 tokens. Tables
// are sized by the highest id, hence the limit on ids.
constexpr int64_t kMaxFileBytes = 128 << 20;
constexpr int32_t kMaxId = (1 << 22) - 1;
constexpr size_t kMaxTokenBytes = 64 << 10;
constexpr size_t kMaxAddedTokenBytes = 1024;  // matching costs this much per character at worst

using TextToId = std::unordered_map<std::string_view, int32_t>;

void ReadVocab(JsonFields& fields, BpeSpec* model) {
  const nlohmann::json* const vocab = fields.Find("vocab");
  if (vocab == nullptr || !vocab->is_object() || vocab->empty()) {
    fields.Refuse("vocab", "an object of at least one token");
    return;
  }
  std::unordered_set<int32_t> seen_ids;
  for (auto token = vocab->begin(); token != vocab->end(); ++token) {
    const std::string& text = token.key();
    const nlohmann::json& value = token.value();
    const auto refuse = [&](std::string_view expected) {
      fields.RefuseAt(absl::StrFormat("vocab[\"%s\"]", Printable(text)), &value, expected);
    };
    if (text.size() > kMaxTokenBytes) {
      refuse(absl::StrFormat("a token of at most %d bytes", kMaxTokenBytes));
    } else if (!value.is_number_unsigned() || value.get<uint64_t>() > kMaxId) {
      refuse(absl::StrFormat("an integer from 0 to %d", kMaxId));
    } else if (!seen_ids.insert(value.get<int32_t>()).second) {
      refuse("an id that no other token has");
    } else {
      model->vocab.emplace_back(text, value.get<int32_t>());
    }
    if (!fields.status().ok()) return;
  }
}

// "a b" or ["a", "b"].
std::optional<std::pair<std::string, std::string>> ReadMergePair(const nlohmann::json& value) {
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) return {};
    return std::make_pair(text.substr(0, space), text.substr(space + 1));
  }
  if (!value.is_array() || value.size() != 2 || !value[0].is_string() || !value[1].is_string()) {
    return {};
  }
  return std::make_pair(value[0].get<std::string>(), value[1].get<std::string>());
}

void ReadMerges(JsonFields& fields, const TextToId& text_to_id, BpeSpec* model) {
  const nlohmann::json* const merges = fields.Find("merges");
  if (merges == nullptr || !merges->is_array()) {
    fields.Refuse("merges", "a list");
    return;
  }
  model->merges.reserve(merges->size());
  for (size_t rank = 0; rank < merges->size(); ++rank) {
    const auto refuse = [&](std::string_view expected) {
      fields.RefuseAt(absl::StrFormat("merges[%d]", rank), &(*merges)[rank], expected);
    };
    const auto pair = ReadMergePair((*merges)[rank]);
    if (!pair.has_value()) return refuse("\"left right\" or [\"left\", \"right\"]");
    const std::string merged = pair->first + pair->second;
    const auto left = text_to_id.find(pair->first);
    const auto right = text_to_id.find(pair->second);
    const auto both = text_to_id.find(merged);
    const auto end = text_to_id.end();
    if (left == end || right == end) return refuse("two tokens of model.vocab");
    if (both == end) return refuse("two tokens that together are one of model.vocab");
    model->merges.push_back(
        {.left_id = left->second, .right_id = right->second, .merged_id = both->second});
  }
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

// Hugging Face takes the unknown token for a character one of whose bytes has no token; here all of
// them must be there.
void ReadByteTokens(JsonFields& fields, const TextToId& text_to_id, BpeSpec* model) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = absl::StrFormat("<0x%02X>", byte);
    const auto found = text_to_id.find(text);
    if (found == text_to_id.end()) {
      fields.Refuse("byte_fallback", "false, as model.vocab has no token " + text);
      return;
    }
    model->byte_ids.push_back(found->second);
  }
}

// What stands for a symbol that is not in the vocabulary.
void ReadUnknownSymbols(JsonFields& fields, const TextToId& text_to_id, BpeSpec* model) {
  model->fuse_unk = fields.Bool("fuse_unk", false);
  const bool byte_fallback = fields.Bool("byte_fallback", false);
  if (model->is_byte_level && CoversAllBytes(text_to_id)) return;
  if (byte_fallback) {
    // A byte is written by a letter, and it would be the letter's bytes that are looked for.
    if (!model->is_byte_level) return ReadByteTokens(fields, text_to_id, model);
    fields.Refuse("byte_fallback", "false, as single bytes of a byte-level model have no token");
  }
  const std::optional<std::string> unk_token = fields.OptionalString("unk_token");
  if (!unk_token.has_value()) return;
  const auto found = text_to_id.find(*unk_token);
  if (found == text_to_id.end()) return fields.Refuse("unk_token", "a token of model.vocab");
  model->unk_id = found->second;
}

void RefuseSubwordMarks(JsonFields& fields) {
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!fields.OptionalString(name).value_or("").empty()) fields.Refuse(name, "null or \"\"");
  }
  if (fields.OptionalNumber("dropout", {0, 1}).value_or(0) != 0) {
    fields.Refuse("dropout", "null: ids may not depend on chance");
  }
}

void ReadModel(JsonFields& root, BpeSpec* model) {
  if (!root.Has("model")) return root.Refuse("model", "an object");
  JsonFields fields = root.Object("model");
  fields.ExpectOnly({"type", "dropout", "unk_token", "continuing_subword_prefix",
                     "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab",
                     "merges"});
  // Files of GPT-2's time have no type.
  if (fields.String("type", "BPE") != "BPE") fields.Refuse("type", "BPE");
  RefuseSubwordMarks(fields);
  ReadVocab(fields, model);
  if (!fields.status().ok()) return;
  TextToId text_to_id;
  text_to_id.reserve(model->vocab.size());
  for (const auto& [text, id] : model->vocab) text_to_id.emplace(text, id);
  ReadMerges(fields, text_to_id, model);
  model->ignore_merges = fields.Bool("ignore_merges", false);
  ReadUnknownSymbols(fields, text_to_id, model);
}

AddedTokenSpec ReadAddedToken(JsonFields& fields) {
  fields.ExpectOnly({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  AddedTokenSpec token = {.id = fields.Int("id", std::nullopt, {0, kMaxId}),
                          .content = fields.String("content", std::nullopt),
                          .single_word = fields.Bool("single_word", std::nullopt),
                          .lstrip = fields.Bool("lstrip", std::nullopt),
                          .rstrip = fields.Bool("rstrip", std::nullopt),
                          .normalized = fields.Bool("normalized", std::nullopt),
                          .special = fields.Bool("special", std::nullopt)};
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    fields.Refuse("content", absl::StrFormat("1 to %d bytes", kMaxAddedTokenBytes));
  }
  return token;
}

// Hugging Face does not believe the ids of this list: a text of the vocabulary keeps its id there,
// others are numbered from the vocabulary's length on, in the order of the file. Where the list
// says something else there are two truths, and the file is refused.
void ReadAddedTokens(JsonFields& root, TokenizerSpec* spec) {
  TextToId text_to_id;
  for (const auto& [text, id] : spec->model.vocab) text_to_id.emplace(text, id);
  int32_t next_id = static_cast<int32_t>(spec->model.vocab.size());
  std::unordered_set<std::string> contents;
  for (JsonFields& fields : root.Objects("added_tokens")) {
    AddedTokenSpec token = ReadAddedToken(fields);
    if (!contents.insert(token.content).second) fields.Refuse("content", "distinct tokens");
    const auto known = text_to_id.find(token.content);
    const int32_t expected_id = known != text_to_id.end() ? known->second : next_id;
    if (token.id != expected_id) {
      fields.Refuse("id", absl::StrFormat("%d: its id in model.vocab, or else the next free one",
                                          expected_id));
    }
    if (!fields.status().ok()) return;
    next_id = std::max(next_id, token.id + 1);
    spec->added_tokens.push_back(std::move(token));
  }
}

void RefuseLengthRules(JsonFields& root) {
  if (root.Has("truncation")) root.Refuse("truncation", "null: a prompt is never cut silently");
  if (!root.Has("padding")) return;
  // Padding to the longest of a batch does nothing to one text.
  JsonFields padding = root.Object("padding");
  const nlohmann::json* const strategy = padding.Find("strategy");
  const bool to_longest = strategy != nullptr && *strategy == "BatchLongest";
  if (!to_longest || padding.Has("pad_to_multiple_of")) {
    root.Refuse("padding", "null or the strategy \"BatchLongest\"");
  }
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadTokenizerJson(const std::string& path) {
  const absl::StatusOr<nlohmann::json> document = ReadJsonObjectFile(path, kMaxFileBytes);
  if (!document.ok()) {
    return absl::FailedPreconditionError(document.status().message());
  }
  JsonFields root(*document, path);
  root.ExpectOnly({"version", "truncation", "padding", "added_tokens", "normalizer",
                   "pre_tokenizer", "post_processor", "decoder", "model"});
  if (root.OptionalString("version").value_or("1.0") != "1.0") root.Refuse("version", "\"1.0\"");
  TokenizerSpec spec;
  RefuseLengthRules(root);
  ReadNormalizers(root, &spec);
  ReadPreTokenizers(root, &spec);
  ReadDecoder(root, &spec);
  ReadModel(root, &spec.model);
  if (root.status().ok()) ReadAddedTokens(root, &spec);
  if (root.status().ok()) ReadPostProcessors(root, &spec);
  GATEHOUSE_RETURN_IF_ERROR(root.status());
  return spec;
}

}  // namespace gatehouse
