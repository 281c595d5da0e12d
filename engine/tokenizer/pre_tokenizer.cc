#include "engine/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "absl/strings/str_format.h"
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
  SplitStep(std::optional<Regex> regex, SplitSpec spec)
      : regex_(std::move(regex)), spec_(std::move(spec)) {}

  absl::Status Split(std::string_view word, PreTokenizerScratch* scratch) const override {
    scratch->matches.clear();
    GATEHOUSE_RETURN_IF_ERROR(FindAll(word, scratch));
    if (spec_.behavior == SplitBehavior::kIsolated) {  // every part is a word, matched or not
      Isolate(word, scratch);
      return absl::OkStatus();
    }
    std::vector<Part> parts = PartsBetween(scratch->matches, word.size(), spec_.invert);
    const bool removes = spec_.behavior == SplitBehavior::kRemoved;
    if (!removes) parts = Merge(std::move(parts), spec_.behavior);
    for (const Part& part : parts) {
      if (part.begin == part.end || (removes && part.is_delimiter)) continue;
      scratch->next_words.push_back(word.substr(part.begin, part.end - part.begin));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status FindAll(std::string_view word, PreTokenizerScratch* scratch) const {
    if (regex_.has_value()) return regex_->FindAll(word, &scratch->regex, &scratch->matches);
    for (size_t at = word.find(spec_.pattern); at != std::string_view::npos;
         at = word.find(spec_.pattern, at + spec_.pattern.size())) {
      scratch->matches.push_back({at, at + spec_.pattern.size()});
    }
    return absl::OkStatus();
  }

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

  std::optional<Regex> regex_;  // none: spec_.pattern is plain text
  SplitSpec spec_;
};

class PrefixSpaceStep : public PreTokenizerStep {
 public:
  absl::Status Split(std::string_view word, PreTokenizerScratch* scratch) const override {
    if (word[0] != ' ') word = scratch->prefixed.emplace_back(" " + std::string(word));
    scratch->next_words.push_back(word);
    return absl::OkStatus();
  }
};

absl::StatusOr<std::unique_ptr<PreTokenizerStep>> MakeSplit(const SplitSpec& spec) {
  if (!spec.is_regex) return std::make_unique<SplitStep>(std::nullopt, spec);
  absl::StatusOr<Regex> regex = Regex::Compile(spec.pattern);
  if (regex.ok()) return std::make_unique<SplitStep>(*std::move(regex), spec);
  return absl::FailedPreconditionError(
      absl::StrFormat("%s: %s, expected what this server can follow exactly", spec.place,
                      std::string(regex.status().message())));
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
    const auto& byte_level = std::get<ByteLevelSpec>(spec);
    if (byte_level.add_prefix_space) steps.push_back(std::make_unique<PrefixSpaceStep>());
    if (byte_level.use_regex) {
      GATEHOUSE_ASSIGN_OR_RETURN(
          steps.emplace_back(),
          MakeSplit({.pattern = std::string(kGpt2Pattern), .place = "GPT-2"}));
    }
  }
  return pre_tokenizer;
}

absl::Status PreTokenizer::Split(std::string_view text, PreTokenizerScratch* scratch) const {
  scratch->prefixed.clear();
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
