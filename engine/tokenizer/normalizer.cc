#include "engine/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "absl/strings/str_format.h"
#include "engine/tokenizer/unicode.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

// Positions in a word are int32_t. Steps that grow the text, one after the other, would otherwise
// fill the memory.
constexpr size_t kMaxNormalizedBytes = size_t{1} << 30;

struct Range {
  int32_t first;
  int32_t last;
};

// Code points newer than Unicode 9 that have a combining class, take part in a composition or
// decompose. tests/tokenizer/normalizer_test.cc compares all code points with Hugging Face's
// answers.
constexpr Range kNewer[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x107BA}, {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C},
    {0x1FBF0, 0x1FBF9},
};

bool IsNewer(int32_t code_point) {
  if (code_point < kNewer[0].first) return false;
  const auto* range =
      std::lower_bound(std::begin(kNewer), std::end(kNewer), code_point,
                       [](const Range& each, int32_t value) { return each.last < value; });
  return range != std::end(kNewer) && range->first <= code_point;
}

int CombiningClass(int32_t code_point) {
  return IsNewer(code_point) ? 0 : utf8proc_get_property(code_point)->combining_class;
}

struct FormRules {
  bool composes;
  bool is_compatible;        // K: ligatures and widths, too
  unsigned char first_lead;  // text whose bytes are all below stays as it is
};

// Below U+0300 (lead byte CC) everything is composed already, below U+00C0 (C3) nothing decomposes
// canonically, and below U+00A0 (C2) nothing at all.
FormRules RulesOf(NormalForm form) {
  switch (form) {
    case NormalForm::kNfc:
      return {true, false, 0xCC};
    case NormalForm::kNfd:
      return {false, false, 0xC3};
    case NormalForm::kNfkc:
      return {true, true, 0xC2};
    case NormalForm::kNfkd:
      break;
  }
  return {false, true, 0xC2};
}

// Orders, and composes where asked for, one stretch of decomposed text that starts at a newer code
// point or at the beginning. utf8proc's own ordering takes quadratic time on a long run of marks
// (minutes for 1 MiB); a stable sort does not.
void OrderInto(bool composes, std::vector<int32_t>* code_points, std::string* out) {
  std::vector<int32_t>& all = *code_points;
  const auto by_class = [](int32_t a, int32_t b) { return CombiningClass(a) < CombiningClass(b); };
  for (auto begin = all.begin(); begin != all.end();) {
    if (CombiningClass(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, all.end(), [](int32_t each) { return CombiningClass(each) == 0; });
    std::stable_sort(begin, end, by_class);
    begin = end;
  }
  auto length = static_cast<utf8proc_ssize_t>(all.size());
  if (composes) {
    length = utf8proc_normalize_utf32(
        all.data(), length, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  }
  GATEHOUSE_CHECK(length >= 0) << utf8proc_errmsg(length);
  for (utf8proc_ssize_t i = 0; i < length; ++i) AppendUtf8(static_cast<char32_t>(all[i]), out);
  all.clear();
}

absl::Status TooLong(size_t num_bytes) {
  return absl::ResourceExhaustedError(absl::StrFormat(
      "the normalizer made up to %d bytes, expected at most %d", num_bytes, kMaxNormalizedBytes));
}

class FormStep : public NormalizerStep {
 public:
  explicit FormStep(NormalForm form) : rules_(RulesOf(form)) {}

  absl::StatusOr<bool> Apply(std::string_view text, NormalizerScratch* scratch) const override {
    const auto is_low = [this](char c) {
      return static_cast<unsigned char>(c) < rules_.first_lead;
    };
    // Bytes behind a lead byte are at most BF, below all of these.
    if (std::all_of(text.begin(), text.end(), is_low)) return false;
    const auto decompose = static_cast<utf8proc_option_t>(
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (rules_.is_compatible ? UTF8PROC_COMPAT : 0));
    std::vector<int32_t> code_points;
    for (size_t offset = 0; offset < text.size();) {
      const auto code_point = static_cast<int32_t>(NextCodePoint(text, &offset));
      if (IsNewer(code_point)) {
        OrderInto(rules_.composes, &code_points, &scratch->next);
        code_points.push_back(code_point);
        continue;
      }
      std::array<int32_t, 32> parts;  // the longest decomposition has 18
      int boundary_class = 0;
      const utf8proc_ssize_t num_parts = utf8proc_decompose_char(
          code_point, parts.data(), parts.size(), decompose, &boundary_class);
      GATEHOUSE_CHECK(num_parts >= 0 && num_parts <= static_cast<utf8proc_ssize_t>(parts.size()))
          << "U+" << std::hex << code_point;
      code_points.insert(code_points.end(), parts.begin(), parts.begin() + num_parts);
    }
    OrderInto(rules_.composes, &code_points, &scratch->next);
    return true;
  }

 private:
  const FormRules rules_;
};

class LowercaseStep : public NormalizerStep {
 public:
  absl::StatusOr<bool> Apply(std::string_view text, NormalizerScratch* scratch) const override {
    for (size_t offset = 0; offset < text.size();) {
      AppendLowercase(NextCodePoint(text, &offset), &scratch->next);
    }
    return true;
  }
};

class StripStep : public NormalizerStep {
 public:
  explicit StripStep(StripSpec spec) : spec_(spec) {}

  absl::StatusOr<bool> Apply(std::string_view text, NormalizerScratch* scratch) const override {
    size_t begin = 0;
    while (spec_.left && begin < text.size()) {
      size_t next = begin;
      if (!IsSpace(NextCodePoint(text, &next))) break;
      begin = next;
    }
    size_t end = text.size();
    while (spec_.right && end > begin) {
      const char32_t last = PreviousCodePoint(text, end);
      if (!IsSpace(last)) break;
      end -= last < 0x80 ? 1 : last < 0x800 ? 2 : 3;  // spaces are below U+10000
    }
    scratch->next = text.substr(begin, end - begin);
    return true;
  }

 private:
  const StripSpec spec_;
};

class ReplaceStep : public NormalizerStep {
 public:
  ReplaceStep(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  absl::StatusOr<bool> Apply(std::string_view text, NormalizerScratch* scratch) const override {
    scratch->matches.clear();
    GATEHOUSE_RETURN_IF_ERROR(pattern_.FindAll(text, &scratch->regex, &scratch->matches));
    if (text.empty() || scratch->matches.empty()) return false;
    const size_t num_bytes = text.size() + scratch->matches.size() * content_.size();
    if (num_bytes > kMaxNormalizedBytes) return TooLong(num_bytes);
    size_t done = 0;
    for (const RegexMatch& match : scratch->matches) {
      scratch->next.append(text.substr(done, match.begin - done)).append(content_);
      done = match.end;
    }
    scratch->next.append(text.substr(done));
    return true;
  }

 private:
  const Pattern pattern_;
  const std::string content_;
};

class PrependStep : public NormalizerStep {
 public:
  explicit PrependStep(std::string text) : text_(std::move(text)) {}

  absl::StatusOr<bool> Apply(std::string_view text, NormalizerScratch* scratch) const override {
    if (text.empty()) return false;
    scratch->next.append(text_).append(text);
    return true;
  }

 private:
  const std::string text_;
};

absl::StatusOr<std::unique_ptr<NormalizerStep>> MakeStep(const NormalizerSpec& spec) {
  if (const auto* form = std::get_if<NormalForm>(&spec)) return std::make_unique<FormStep>(*form);
  if (const auto* strip = std::get_if<StripSpec>(&spec)) return std::make_unique<StripStep>(*strip);
  if (const auto* prepend = std::get_if<PrependSpec>(&spec)) {
    return std::make_unique<PrependStep>(prepend->text);
  }
  if (const auto* replace = std::get_if<ReplaceSpec>(&spec)) {
    GATEHOUSE_ASSIGN_OR_RETURN(Pattern pattern, Pattern::Compile(replace->pattern));
    return std::make_unique<ReplaceStep>(std::move(pattern), replace->content);
  }
  return std::make_unique<LowercaseStep>();
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Make(const std::vector<NormalizerSpec>& specs) {
  Normalizer normalizer;
  for (const NormalizerSpec& spec : specs) {
    GATEHOUSE_ASSIGN_OR_RETURN(normalizer.steps_.emplace_back(), MakeStep(spec));
  }
  return normalizer;
}

absl::StatusOr<std::string_view> Normalizer::Apply(std::string_view text,
                                                   NormalizerScratch* scratch) const {
  for (const auto& step : steps_) {
    scratch->next.clear();
    GATEHOUSE_ASSIGN_OR_RETURN(const bool changes, step->Apply(text, scratch));
    if (!changes) continue;
    if (scratch->next.size() > kMaxNormalizedBytes) {
      return TooLong(scratch->next.size());
    }
    scratch->current.swap(scratch->next);
    text = scratch->current;
  }
  return text;
}

}  // namespace gatehouse
