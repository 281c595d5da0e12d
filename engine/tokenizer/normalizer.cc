#include "engine/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/base/check.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

struct Range {
  int32_t first;
  int32_t last;
};

// Code points newer than Unicode 9 that have a combining class or take part in a composition.
// tests/tokenizer/normalizer_test.cc compares every one of them with Hugging Face's answers.
constexpr Range kNewerMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
};

bool IsNewerMark(int32_t code_point) {
  if (code_point < kNewerMarks[0].first) return false;
  const auto* range =
      std::lower_bound(std::begin(kNewerMarks), std::end(kNewerMarks), code_point,
                       [](const Range& each, int32_t value) { return each.last < value; });
  return range != std::end(kNewerMarks) && range->first <= code_point;
}

int CombiningClass(int32_t code_point) {
  return IsNewerMark(code_point) ? 0 : utf8proc_get_property(code_point)->combining_class;
}

// Everything below U+0300 is composed already and does not reorder: its lead bytes are below CC.
bool NeedsNoWork(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0xCC;
  });
}

// Decomposes, orders and composes one stretch of text that starts at a newer mark or at the
// beginning. utf8proc's own ordering takes quadratic time on a long run of marks (minutes for
// 1 MiB); a stable sort does not.
void ComposeInto(std::vector<int32_t>* code_points, std::string* out) {
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
  const utf8proc_ssize_t length =
      utf8proc_normalize_utf32(all.data(), static_cast<utf8proc_ssize_t>(all.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  GATEHOUSE_CHECK(length >= 0) << utf8proc_errmsg(length);
  for (utf8proc_ssize_t i = 0; i < length; ++i) AppendUtf8(static_cast<char32_t>(all[i]), out);
  all.clear();
}

std::string ToNfc(std::string_view text) {
  constexpr auto kDecompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
  std::string out;
  out.reserve(text.size());
  std::vector<int32_t> code_points;
  for (size_t offset = 0; offset < text.size();) {
    const auto code_point = static_cast<int32_t>(NextCodePoint(text, &offset));
    if (IsNewerMark(code_point)) {
      ComposeInto(&code_points, &out);
      code_points.push_back(code_point);
      continue;
    }
    std::array<int32_t, 8> parts;  // the longest canonical decomposition has 4
    int boundary_class = 0;
    const utf8proc_ssize_t num_parts = utf8proc_decompose_char(
        code_point, parts.data(), parts.size(), kDecompose, &boundary_class);
    GATEHOUSE_CHECK(num_parts >= 0 && num_parts <= static_cast<utf8proc_ssize_t>(parts.size()))
        << "U+" << std::hex << code_point;
    code_points.insert(code_points.end(), parts.begin(), parts.begin() + num_parts);
  }
  ComposeInto(&code_points, &out);
  return out;
}

}  // namespace

std::string_view Normalizer::Apply(std::string_view text, std::string* storage) const {
  for (NormalForm step : steps_) {
    if (NeedsNoWork(text)) continue;
    switch (step) {
      case NormalForm::kNfc:
        *storage = ToNfc(text);
        break;
    }
    text = *storage;
  }
  return text;
}

}  // namespace gatehouse
