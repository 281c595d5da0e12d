// The lists of steps: normalizer, pre_tokenizer, post_processor, decoder. Each is null, one step,
// or a Sequence of steps.
#include <cstdint>
#include <map>
#include <set>
#include <string_view>

#include "absl/strings/str_format.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxSteps = 64;

struct Step {
  std::string type;
  JsonNode node;
};

absl::Status FlattenInto(const JsonNode& node, const std::string& list_name,
                         std::vector<Step>* steps) {
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode type_node, node.Field("type"));
  GATEHOUSE_ASSIGN_OR_RETURN(std::string type, type_node.String());
  if (type != "Sequence") {
    if (steps->size() == kMaxSteps) {
      return node.Error("is one step too many", absl::StrFormat("at most %d", kMaxSteps));
    }
    steps->push_back({std::move(type), node});
    return absl::OkStatus();
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode list, node.Field(list_name));
  GATEHOUSE_RETURN_IF_ERROR(list.ExpectArray());
  for (size_t i = 0; i < list.value().size(); ++i) {
    GATEHOUSE_RETURN_IF_ERROR(FlattenInto(list.Element(i), list_name, steps));
  }
  return absl::OkStatus();
}

// `list_name` is the key under which a Sequence of this kind keeps its steps.
absl::StatusOr<std::vector<Step>> ReadSteps(const JsonNode& root, const std::string& name,
                                            const std::string& list_name) {
  std::vector<Step> steps;
  if (const std::optional<JsonNode> node = root.Find(name)) {
    GATEHOUSE_RETURN_IF_ERROR(FlattenInto(*node, list_name, &steps));
  }
  return steps;
}

absl::Status UnknownStep(const Step& step, std::string_view expected) {
  return step.node.Error("has the type " + QuoteForMessage(step.type), expected);
}

absl::StatusOr<bool> RequiredFlag(const JsonNode& node, const std::string& name) {
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode field, node.Field(name));
  return field.Bool();
}

// The fields of ByteLevel wherever it stands; missing use_regex means true, as in Hugging Face.
absl::StatusOr<ByteLevelSpec> ReadByteLevel(const JsonNode& node) {
  GATEHOUSE_RETURN_IF_ERROR(
      node.ExpectOnly({"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  ByteLevelSpec spec;
  GATEHOUSE_ASSIGN_OR_RETURN(spec.add_prefix_space, RequiredFlag(node, "add_prefix_space"));
  GATEHOUSE_RETURN_IF_ERROR(RequiredFlag(node, "trim_offsets").status());
  if (const std::optional<JsonNode> use_regex = node.Find("use_regex")) {
    GATEHOUSE_ASSIGN_OR_RETURN(spec.use_regex, use_regex->Bool());
  }
  return spec;
}

absl::StatusOr<SplitBehavior> ReadBehavior(const JsonNode& node) {
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode field, node.Field("behavior"));
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string name, field.String());
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return field.Error("is " + QuoteForMessage(name),
                     "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

absl::StatusOr<SplitSpec> ReadSplit(const JsonNode& node) {
  GATEHOUSE_RETURN_IF_ERROR(node.ExpectOnly({"type", "pattern", "behavior", "invert"}));
  SplitSpec spec;
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode pattern, node.Field("pattern"));
  GATEHOUSE_RETURN_IF_ERROR(pattern.ExpectOnly({"Regex", "String"}));
  if (pattern.value().size() != 1) {
    return pattern.Error("has not exactly one key", "either Regex or String");
  }
  spec.is_regex = pattern.Find("Regex").has_value();
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode text,
                             pattern.Field(spec.is_regex ? "Regex" : "String"));
  GATEHOUSE_ASSIGN_OR_RETURN(spec.pattern, text.String());
  if (spec.pattern.empty()) return text.Error("is empty", "a pattern");
  spec.place = text.place();
  GATEHOUSE_ASSIGN_OR_RETURN(spec.behavior, ReadBehavior(node));
  GATEHOUSE_ASSIGN_OR_RETURN(spec.invert, RequiredFlag(node, "invert"));
  return spec;
}

// TemplateProcessing: the ids of each special token by its name.
using TemplateTokens = std::map<std::string, std::vector<int32_t>>;

absl::StatusOr<TemplateTokens> ReadTemplateTokens(const JsonNode& node,
                                                  const std::set<int32_t>& known_ids) {
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode tokens, node.Field("special_tokens"));
  GATEHOUSE_RETURN_IF_ERROR(tokens.ExpectObject());
  TemplateTokens name_to_ids;
  for (const auto& [name, unused] : tokens.value().items()) {
    GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode token, tokens.Field(name));
    GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode ids, token.Field("ids"));
    GATEHOUSE_RETURN_IF_ERROR(ids.ExpectArray());
    for (size_t i = 0; i < ids.value().size(); ++i) {
      GATEHOUSE_ASSIGN_OR_RETURN(const int32_t id, ids.Element(i).Integer(0, INT32_MAX));
      if (known_ids.count(id) == 0) {
        return ids.Element(i).Error(absl::StrFormat("is %d", id), "the id of a token");
      }
      name_to_ids[name].push_back(id);
    }
  }
  return name_to_ids;
}

absl::StatusOr<TemplateSpec> ReadTemplate(const JsonNode& node,
                                          const std::set<int32_t>& known_ids) {
  GATEHOUSE_RETURN_IF_ERROR(node.ExpectOnly({"type", "single", "pair", "special_tokens"}));
  GATEHOUSE_ASSIGN_OR_RETURN(const TemplateTokens tokens, ReadTemplateTokens(node, known_ids));
  GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode single, node.Field("single"));
  GATEHOUSE_RETURN_IF_ERROR(single.ExpectArray());
  TemplateSpec spec;
  int num_texts = 0;
  for (size_t i = 0; i < single.value().size(); ++i) {
    const JsonNode piece = single.Element(i);
    GATEHOUSE_RETURN_IF_ERROR(piece.ExpectOnly({"SpecialToken", "Sequence"}));
    const std::optional<JsonNode> special = piece.Find("SpecialToken");
    GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode id_node,
                               (special ? *special : piece).Field(special ? "id" : "Sequence"));
    if (!special.has_value()) {
      GATEHOUSE_ASSIGN_OR_RETURN(const JsonNode text_name, id_node.Field("id"));
      if (text_name.value() != "A") return text_name.Error("is not the text", "\"A\"");
      ++num_texts;
      continue;
    }
    GATEHOUSE_ASSIGN_OR_RETURN(const std::string name, id_node.String());
    const auto found = tokens.find(name);
    if (found == tokens.end()) {
      return id_node.Error("is " + QuoteForMessage(name), "a name in special_tokens");
    }
    std::vector<int32_t>& side = num_texts == 0 ? spec.prefix_ids : spec.suffix_ids;
    side.insert(side.end(), found->second.begin(), found->second.end());
  }
  if (num_texts != 1) {
    return single.Error(absl::StrFormat("holds the text %d times", num_texts), "it once");
  }
  return spec;
}

}  // namespace

absl::Status ReadNormalizers(const JsonNode& root, TokenizerSpec* spec) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Step> steps,
                             ReadSteps(root, "normalizer", "normalizers"));
  for (const Step& step : steps) {
    if (step.type != "NFC") return UnknownStep(step, "NFC or a Sequence of it");
    spec->normalizers.push_back(NormalForm::kNfc);
  }
  return absl::OkStatus();
}

absl::Status ReadPreTokenizers(const JsonNode& root, TokenizerSpec* spec) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Step> steps,
                             ReadSteps(root, "pre_tokenizer", "pretokenizers"));
  for (const Step& step : steps) {
    const bool is_last = &step == &steps.back();
    if (step.type == "ByteLevel" && is_last) {
      GATEHOUSE_ASSIGN_OR_RETURN(const ByteLevelSpec byte_level, ReadByteLevel(step.node));
      spec->pre_tokenizers.emplace_back(byte_level);
    } else if (step.type == "Split" && !is_last) {
      GATEHOUSE_ASSIGN_OR_RETURN(SplitSpec split, ReadSplit(step.node));
      spec->pre_tokenizers.emplace_back(std::move(split));
    } else {
      return UnknownStep(step, "Split steps and then ByteLevel");
    }
  }
  if (steps.empty()) {
    return root.Error("has no pre_tokenizer", "one that ends with ByteLevel");
  }
  return absl::OkStatus();
}

absl::Status ReadPostProcessors(const JsonNode& root, TokenizerSpec* spec) {
  std::set<int32_t> known_ids;
  for (const auto& [text, id] : spec->model.vocab) known_ids.insert(id);
  for (const AddedTokenSpec& token : spec->added_tokens) known_ids.insert(token.id);
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Step> steps,
                             ReadSteps(root, "post_processor", "processors"));
  for (const Step& step : steps) {
    if (step.type == "ByteLevel") {  // changes offsets, not ids
      GATEHOUSE_RETURN_IF_ERROR(ReadByteLevel(step.node).status());
    } else if (step.type == "TemplateProcessing" && spec->templates.empty()) {
      GATEHOUSE_ASSIGN_OR_RETURN(TemplateSpec piece, ReadTemplate(step.node, known_ids));
      spec->templates.push_back(std::move(piece));
    } else {
      return UnknownStep(step, "ByteLevel, or TemplateProcessing once");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDecoder(const JsonNode& root) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Step> steps, ReadSteps(root, "decoder", "decoders"));
  for (const Step& step : steps) {
    if (step.type != "ByteLevel") return UnknownStep(step, "ByteLevel");
    GATEHOUSE_RETURN_IF_ERROR(ReadByteLevel(step.node).status());
  }
  if (steps.size() != 1) {
    return root.Error(absl::StrFormat("has %d decoder steps", steps.size()), "one, ByteLevel");
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
