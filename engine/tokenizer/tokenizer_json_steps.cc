// The lists of steps: normalizer, pre_tokenizer, post_processor, decoder. Each is null, one step,
// or a Sequence of steps.
#include <cstdint>
#include <map>
#include <set>
#include <string_view>

#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxSteps = 64;
constexpr size_t kMaxContentBytes = 16;  // of what a step puts into a text; published: 3
constexpr int32_t kMaxStripped = 64;

// char::is_numeric of Rust, which Digits asks: N of Unicode 17, one version newer than the regular
// expressions.
constexpr const char* kNumeric = R"([\p{N}\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";

struct Step {
  std::string type;
  JsonFields fields;
};

void FlattenInto(JsonFields node, const char* list_name, std::vector<Step>* steps) {
  std::string type = node.String("type", std::nullopt);
  if (type != "Sequence") {
    if (steps->size() == kMaxSteps) {
      node.Refuse("type", absl::StrFormat("at most %d steps", kMaxSteps));
      return;
    }
    steps->push_back({std::move(type), std::move(node)});
    return;
  }
  if (!node.Has(list_name)) node.Refuse(list_name, "a list of steps");
  for (JsonFields& each : node.Objects(list_name)) {
    if (!node.status().ok()) return;
    FlattenInto(std::move(each), list_name, steps);
  }
}

// `list_name` is the key under which a Sequence of this kind keeps its steps. Empty after an error.
std::vector<Step> ReadSteps(JsonFields& root, const char* name, const char* list_name) {
  std::vector<Step> steps;
  if (root.Has(name)) FlattenInto(root.Object(name), list_name, &steps);
  if (!root.status().ok()) steps.clear();
  return steps;
}

std::string ReadContent(JsonFields& fields, const char* key) {
  std::string content = fields.String(key, std::nullopt);
  if (content.size() <= kMaxContentBytes) return content;
  fields.Refuse(key, absl::StrFormat("at most %d bytes", kMaxContentBytes));
  return "";
}

std::string ReadCharacter(JsonFields& fields, const char* key) {
  std::string text = fields.String(key, std::nullopt);
  size_t end = 0;
  if (!text.empty()) NextCodePoint(text, &end);
  if (text.empty() || end != text.size()) fields.Refuse(key, "one character");
  return text;
}

PatternSpec ReadPattern(JsonFields& step) {
  JsonFields pattern = step.Object("pattern");
  pattern.ExpectOnly({"Regex", "String"});
  PatternSpec spec;
  if (pattern.Has("Regex") == pattern.Has("String")) {
    step.Refuse("pattern", "either Regex or String");
    return spec;
  }
  spec.is_regex = pattern.Has("Regex");
  const char* const key = spec.is_regex ? "Regex" : "String";
  spec.text = pattern.String(key, std::nullopt);
  spec.place = pattern.PlaceOf(key);
  if (spec.text.empty()) pattern.Refuse(key, "a pattern that is not empty");
  return spec;
}

// The fields of ByteLevel wherever it stands; missing use_regex means true, as in Hugging Face.
ByteLevelSpec ReadByteLevel(JsonFields& fields) {
  fields.ExpectOnly({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  fields.Bool("trim_offsets", std::nullopt);  // changes offsets, not ids
  return {.add_prefix_space = fields.Bool("add_prefix_space", std::nullopt),
          .use_regex = fields.Bool("use_regex", true)};
}

// Files of older versions have add_prefix_space for prepend_scheme, and a copy of the mark.
MetaspaceSpec ReadMetaspace(JsonFields& fields) {
  fields.ExpectOnly(
      {"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"});
  MetaspaceSpec spec = {.mark = ReadCharacter(fields, "replacement")};
  const bool adds_prefix = fields.Bool("add_prefix_space", true);
  const std::string scheme = fields.String("prepend_scheme", adds_prefix ? "always" : "never");
  if (scheme == "first") {
    spec.prepend_scheme = PrependScheme::kFirst;
  } else if (scheme == "never") {
    spec.prepend_scheme = PrependScheme::kNever;
  } else if (scheme != "always") {
    fields.Refuse("prepend_scheme", "always, first or never");
  }
  if (!adds_prefix && scheme != "never") {
    fields.Refuse("prepend_scheme", "never, as add_prefix_space is false");
  }
  spec.split = fields.Bool("split", true);
  return spec;
}

SplitBehavior ReadBehavior(JsonFields& fields) {
  const std::string name = fields.String("behavior", std::nullopt);
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  if (name != "Isolated") {
    fields.Refuse("behavior",
                  "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
  }
  return SplitBehavior::kIsolated;
}

SplitSpec ReadSplit(JsonFields& fields) {
  fields.ExpectOnly({"type", "pattern", "behavior", "invert"});
  SplitSpec spec = {.pattern = ReadPattern(fields), .behavior = ReadBehavior(fields)};
  spec.invert = fields.Bool("invert", std::nullopt);
  return spec;
}

SplitSpec ReadDigits(JsonFields& fields) {
  fields.ExpectOnly({"type", "individual_digits"});
  const bool individual = fields.Bool("individual_digits", std::nullopt);
  return {.pattern = {.text = kNumeric, .is_regex = true, .place = fields.PlaceOf("type")},
          .behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous};
}

std::optional<NormalizerSpec> ReadNormalizer(Step& step) {
  const std::map<std::string_view, NormalForm> forms = {{"NFC", NormalForm::kNfc},
                                                        {"NFD", NormalForm::kNfd},
                                                        {"NFKC", NormalForm::kNfkc},
                                                        {"NFKD", NormalForm::kNfkd}};
  JsonFields& fields = step.fields;
  if (const auto form = forms.find(step.type); form != forms.end()) {
    fields.ExpectOnly({"type"});
    return form->second;
  }
  if (step.type == "Lowercase") {
    fields.ExpectOnly({"type"});
    return LowercaseSpec{};
  }
  if (step.type == "Strip") {
    fields.ExpectOnly({"type", "strip_left", "strip_right"});
    return StripSpec{.left = fields.Bool("strip_left", std::nullopt),
                     .right = fields.Bool("strip_right", std::nullopt)};
  }
  if (step.type == "Replace") {
    fields.ExpectOnly({"type", "pattern", "content"});
    return ReplaceSpec{.pattern = ReadPattern(fields), .content = ReadContent(fields, "content")};
  }
  if (step.type == "Prepend") {
    fields.ExpectOnly({"type", "prepend"});
    return PrependSpec{ReadContent(fields, "prepend")};
  }
  fields.Refuse("type",
                "NFC, NFD, NFKC, NFKD, Lowercase, Strip, Replace, Prepend or a Sequence of them");
  return std::nullopt;
}

// Whether what begins the normalized text may come from a later place of the original.
bool MayDropTheStart(const NormalizerSpec& spec) {
  const auto* strip = std::get_if<StripSpec>(&spec);
  const auto* replace = std::get_if<ReplaceSpec>(&spec);
  return (strip != nullptr && strip->left) || (replace != nullptr && replace->content.empty());
}

// "first" means the word that begins at byte 0 of the original text. Which one that is, is only
// clear where no step before it cuts words or drops the start.
void CheckFirst(Step& step, bool is_first_step, const TokenizerSpec& spec) {
  bool is_clear = is_first_step;
  for (const NormalizerSpec& each : spec.normalizers) is_clear &= !MayDropTheStart(each);
  if (is_clear) return;
  step.fields.Refuse("prepend_scheme",
                     "always or never, where words are cut or the start is dropped before");
}

// TemplateProcessing: the ids of each special token by its name.
using TemplateTokens = std::map<std::string, std::vector<int32_t>>;

TemplateTokens ReadTemplateTokens(JsonFields& fields, const std::set<int32_t>& known_ids) {
  TemplateTokens name_to_ids;
  const nlohmann::json* const names = fields.Find("special_tokens");
  if (names == nullptr || !names->is_object()) {
    fields.Refuse("special_tokens", "an object");
    return name_to_ids;
  }
  JsonFields tokens = fields.Object("special_tokens");
  for (const auto& [name, unused] : names->items()) {
    JsonFields token = tokens.Object(name.c_str());
    std::vector<int32_t> ids = token.IntList("ids", {0, INT32_MAX});
    if (!token.Has("ids")) token.Refuse("ids", "a list of token ids");
    for (const int32_t id : ids) {
      if (known_ids.count(id) == 0) token.Refuse("ids", "ids of tokens");
    }
    name_to_ids[name] = std::move(ids);
  }
  return name_to_ids;
}

TemplateSpec ReadTemplate(JsonFields& fields, const std::set<int32_t>& known_ids) {
  fields.ExpectOnly({"type", "single", "pair", "special_tokens"});
  const TemplateTokens tokens = ReadTemplateTokens(fields, known_ids);
  TemplateSpec spec;
  int num_texts = 0;
  for (JsonFields& piece : fields.Objects("single")) {
    piece.ExpectOnly({"SpecialToken", "Sequence"});
    if (!piece.Has("SpecialToken")) {
      if (piece.Object("Sequence").String("id", std::nullopt) != "A") {
        piece.Refuse("Sequence", "the text \"A\"");
      }
      ++num_texts;
      continue;
    }
    JsonFields special = piece.Object("SpecialToken");
    const auto found = tokens.find(special.String("id", std::nullopt));
    if (found == tokens.end()) {
      special.Refuse("id", "a name in special_tokens");
      return spec;
    }
    std::vector<int32_t>& side = num_texts == 0 ? spec.prefix_ids : spec.suffix_ids;
    side.insert(side.end(), found->second.begin(), found->second.end());
  }
  if (num_texts != 1) fields.Refuse("single", "the text \"A\" once");
  return spec;
}

// Which kinds of decoder step came already, in the order in which they may.
enum class DecoderStage { kTokens, kReplaced, kBytes, kFused, kStripped };

std::optional<TokenReplaceSpec> ReadTokenReplace(Step& step) {
  JsonFields& fields = step.fields;
  if (step.type == "Metaspace") {
    const MetaspaceSpec metaspace = ReadMetaspace(fields);
    const bool drops = metaspace.prepend_scheme != PrependScheme::kNever;
    return TokenReplaceSpec{
        .text = metaspace.mark, .content = " ", .first_content = drops ? "" : " "};
  }
  if (step.type != "Replace") return std::nullopt;
  fields.ExpectOnly({"type", "pattern", "content"});
  PatternSpec pattern = ReadPattern(fields);
  if (pattern.is_regex) fields.Refuse("pattern", "{\"String\": ..} in a decoder");
  const std::string content = ReadContent(fields, "content");
  return TokenReplaceSpec{
      .text = std::move(pattern.text), .content = content, .first_content = content};
}

void ReadStrip(JsonFields& fields, DecoderSpec* decoder) {
  fields.ExpectOnly({"type", "content", "start", "stop"});
  decoder->stripped = ReadCharacter(fields, "content");
  decoder->max_stripped = fields.Int("start", std::nullopt, {0, kMaxStripped});
  // At the end it would take back what a reader has seen already.
  fields.Int("stop", std::nullopt, {0, 0});
}

DecoderStage ReadDecoderStep(Step& step, DecoderStage stage, DecoderSpec* decoder) {
  if (stage == DecoderStage::kTokens) {
    if (std::optional<TokenReplaceSpec> replace = ReadTokenReplace(step)) {
      decoder->replacement = std::move(replace);
      return DecoderStage::kReplaced;
    }
  }
  if (step.type == "ByteFallback" && stage < DecoderStage::kBytes) {
    step.fields.ExpectOnly({"type"});
    decoder->byte_fallback = true;
    return DecoderStage::kBytes;
  }
  if (step.type == "Fuse" && stage < DecoderStage::kFused) {
    step.fields.ExpectOnly({"type"});
    return DecoderStage::kFused;
  }
  if (step.type == "Strip" && stage == DecoderStage::kFused) {
    ReadStrip(step.fields, decoder);
    return DecoderStage::kStripped;
  }
  step.fields.Refuse("type", "Replace or Metaspace, ByteFallback, Fuse, Strip, in this order");
  return stage;
}

}  // namespace

void ReadNormalizers(JsonFields& root, TokenizerSpec* spec) {
  for (Step& step : ReadSteps(root, "normalizer", "normalizers")) {
    std::optional<NormalizerSpec> normalizer = ReadNormalizer(step);
    if (!normalizer.has_value()) return;
    spec->normalizers.push_back(*std::move(normalizer));
  }
}

void ReadPreTokenizers(JsonFields& root, TokenizerSpec* spec) {
  std::vector<Step> steps = ReadSteps(root, "pre_tokenizer", "pretokenizers");
  spec->model.is_byte_level = !steps.empty() && steps.back().type == "ByteLevel";
  for (Step& step : steps) {
    const bool is_first = &step == &steps.front();
    const bool is_last = &step == &steps.back();
    if (step.type == "ByteLevel" && is_last) {
      spec->pre_tokenizers.emplace_back(ReadByteLevel(step.fields));
    } else if (step.type == "Split") {
      spec->pre_tokenizers.emplace_back(ReadSplit(step.fields));
    } else if (step.type == "Digits") {
      spec->pre_tokenizers.emplace_back(ReadDigits(step.fields));
    } else if (step.type == "Metaspace") {
      MetaspaceSpec metaspace = ReadMetaspace(step.fields);
      if (metaspace.prepend_scheme == PrependScheme::kFirst) CheckFirst(step, is_first, *spec);
      spec->pre_tokenizers.emplace_back(std::move(metaspace));
    } else {
      step.fields.Refuse("type", "Split, Digits or Metaspace, or ByteLevel as the last one");
    }
  }
}

void ReadPostProcessors(JsonFields& root, TokenizerSpec* spec) {
  std::set<int32_t> known_ids;
  for (const auto& [text, id] : spec->model.vocab) known_ids.insert(id);
  for (const AddedTokenSpec& token : spec->added_tokens) known_ids.insert(token.id);
  for (Step& step : ReadSteps(root, "post_processor", "processors")) {
    if (step.type == "ByteLevel") {
      ReadByteLevel(step.fields);
    } else if (step.type == "TemplateProcessing" && spec->templates.empty()) {
      spec->templates.push_back(ReadTemplate(step.fields, known_ids));
    } else {
      step.fields.Refuse("type", "ByteLevel, or TemplateProcessing once");
    }
  }
}

// Bytes written by letters need the one decoder that reads letters, and no other text does.
void ReadDecoder(JsonFields& root, TokenizerSpec* spec) {
  std::vector<Step> steps = ReadSteps(root, "decoder", "decoders");
  if (!root.status().ok()) return;
  spec->decoder.is_byte_level = spec->model.is_byte_level;
  if (spec->model.is_byte_level) {
    if (steps.size() != 1 || steps[0].type != "ByteLevel") {
      root.Refuse("decoder", "ByteLevel alone, as the last pre-tokenizer is ByteLevel");
      return;
    }
    ReadByteLevel(steps[0].fields);
    return;
  }
  if (steps.empty()) root.Refuse("decoder", "steps that join tokens to a text");
  for (Step& step : steps) {
    if (step.type != "ByteLevel") continue;
    step.fields.Refuse("type", "another one, as the last pre-tokenizer is not ByteLevel");
  }
  DecoderStage stage = DecoderStage::kTokens;
  for (Step& step : steps) stage = ReadDecoderStep(step, stage, &spec->decoder);
}

}  // namespace gatehouse
