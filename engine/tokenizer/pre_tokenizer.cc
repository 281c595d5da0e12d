#include "engine/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Part {
  size_t begin;
  size_t end;
  bool is_delimiter;
};

std::vector<Part> PartsBetween(const std::vector<RegexMatch>& matches, size_t num_bytes,
                               bool invert) {
  std::vector<Part> parts;
  size_t end = 0;
  for (const RegexMatch& match : matches) {
    if (end != match.begin) parts.push_back({end, match.begin, invert});
    parts.push_back({match.begin, match.end, !invert});
    end = match.end;
  }
  if (end != num_bytes) parts.push_back({end, num_bytes, invert});
  return parts;
}

// What a part does under a behaviour: begins a word of its own or joins the one before (for
// MergedWithNext: after, the list being read backwards).
bool Joins(SplitBehavior behavior, const Part& part, bool last_was_delimiter) {
  if (behavior == SplitBehavior::kContiguous) return part.is_delimiter == last_was_delimiter;
  return part.is_delimiter && !last_was_delimiter;
}

std::vector<Part> Merge(std::vector<Part> parts, SplitBehavior behavior) {
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Part> merged;
  bool last_was_delimiter = false;
  for (const Part& part : parts) {
    if (!merged.empty() && Joins(behavior, part, last_was_delimiter)) {
      merged.back().begin = std::min(merged.back().begin, part.begin);
      merged.back().end = std::max(merged.back().end, part.end);
    } else {
      merged.push_back(part);
    }
    last_was_delimiter = part.is_delimiter;
  }
  if (backwards) std::reverse(merged.begin(), merged.end());
  return merged;
}

class SplitStep : public PreTokenizerStep {
 public:
  SplitStep(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  absl::Status Split(std::string_view word, PreTokenizerScratch* scratch) const override {
    scratch->matches.clear();
    GATEHOUSE_RETURN_IF_ERROR(pattern_.FindAll(word, &scratch->regex, &scratch->matches));
    if (behavior_ == SplitBehavior::kIsolated) {  // every part is a word, matched or not
      Isolate(word, scratch);
      return absl::OkStatus();
    }
    std::vector<Part> parts = PartsBetween(scratch->matches, word.size(), invert_);
    const bool removes = behavior_ == SplitBehavior::kRemoved;
    if (!removes) parts = Merge(std::move(parts), behavior_);
    for (const Part& part : parts) {
      if (part.begin == part.end || (removes && part.is_delimiter)) continue;
      scratch->next_words.push_back(word.substr(part.begin, part.end - part.begin));
    }
    return absl::OkStatus();
  }

 private:
  static void Isolate(std::string_view word, PreTokenizerScratch* scratch) {
    size_t end = 0;
    const auto add = [&](size_t to) {
      if (to != end) scratch->next_words.push_back(word.substr(end, to - end));
      end = to;
    };
    for (const RegexMatch& match : scratch->matches) {
      add(match.begin);
      add(match.end);
    }
    add(word.size());
  }

  const Pattern pattern_;
  const SplitBehavior behavior_;
  const bool invert_;
};

class PrefixSpaceStep : public PreTokenizerStep {
 public:
  absl::Status Split(std::string_view word, PreTokenizerScratch* scratch) const override {
    if (word[0] != ' ') word = scratch->changed.emplace_back(" " + std::string(word));
    scratch->next_words.push_back(word);
    return absl::OkStatus();
  }
};

// Marks for spaces, one in front, and a word from each mark to the next:
//   "Hey  friend" -> "▁Hey", "▁", "▁friend"
class MetaspaceStep : public PreTokenizerStep {
 public:
  explicit MetaspaceStep(MetaspaceSpec spec) : spec_(std::move(spec)) {}

  absl::Status Split(std::string_view word, PreTokenizerScratch* scratch) const override {
    const std::string_view marked = scratch->changed.emplace_back(Mark(word, *scratch));
    size_t begin = 0;
    while (spec_.split && begin < marked.size()) {
      const size_t next = marked.find(spec_.mark, begin + 1);
      if (next == std::string_view::npos) break;
      scratch->next_words.push_back(marked.substr(begin, next - begin));
      begin = next;
    }
    scratch->next_words.push_back(marked.substr(begin));
    return absl::OkStatus();
  }

 private:
  std::string Mark(std::string_view word, const PreTokenizerScratch& scratch) const {
    const bool may_prepend = spec_.prepend_scheme == PrependScheme::kAlways ||
                             (spec_.prepend_scheme == PrependScheme::kFirst && scratch.is_start);
    const bool begins_marked = word[0] == ' ' || word.substr(0, spec_.mark.size()) == spec_.mark;
    std::string marked = may_prepend && !begins_marked ? spec_.mark : "";
    marked.reserve(word.size() + word.size() / 2);
    for (size_t begin = 0; begin < word.size();) {
      const size_t space = std::min(word.find(' ', begin), word.size());
      marked.append(word.substr(begin, space - begin));
      if (space < word.size()) marked.append(spec_.mark);
      begin = space + 1;
    }
    return marked;
  }

  const MetaspaceSpec spec_;
};

absl::StatusOr<std::unique_ptr<PreTokenizerStep>> MakeSplit(const SplitSpec& spec) {
  GATEHOUSE_ASSIGN_OR_RETURN(Pattern pattern, Pattern::Compile(spec.pattern));
  return std::make_unique<SplitStep>(std::move(pattern), spec.behavior, spec.invert);
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Make(const std::vector<PreTokenizerSpec>& specs) {
  PreTokenizer pre_tokenizer;
  std::vector<std::unique_ptr<PreTokenizerStep>>& steps = pre_tokenizer.steps_;
  for (const PreTokenizerSpec& spec : specs) {
    if (const auto* split = std::get_if<SplitSpec>(&spec)) {
      GATEHOUSE_ASSIGN_OR_RETURN(steps.emplace_back(), MakeSplit(*split));
      continue;
    }
    if (const auto* metaspace = std::get_if<MetaspaceSpec>(&spec)) {
      steps.push_back(std::make_unique<MetaspaceStep>(*metaspace));
      continue;
    }
    const auto& byte_level = std::get<ByteLevelSpec>(spec);
    if (byte_level.add_prefix_space) steps.push_back(std::make_unique<PrefixSpaceStep>());
    if (byte_level.use_regex) {
      const SplitSpec split = {.pattern = {.text = std::string(kGpt2Pattern), .place = "GPT-2"}};
      GATEHOUSE_ASSIGN_OR_RETURN(steps.emplace_back(), MakeSplit(split));
    }
  }
  return pre_tokenizer;
}

absl::Status PreTokenizer::Split(std::string_view text, bool is_start,
                                 PreTokenizerScratch* scratch) const {
  scratch->is_start = is_start;
  scratch->changed.clear();
  scratch->words.assign(text.empty() ? 0 : 1, text);
  for (const auto& step : steps_) {
    scratch->next_words.clear();
    for (std::string_view word : scratch->words) {
      GATEHOUSE_RETURN_IF_ERROR(step->Split(word, scratch));
    }
    scratch->words.swap(scratch->next_words);
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
