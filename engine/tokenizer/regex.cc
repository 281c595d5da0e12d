#include "engine/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "engine/tokenizer/regex_syntax.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// A pattern of the published families needs a few steps per byte and never comes near; a hostile
// one would otherwise hold a thread for hours. Counted per start of a search.
constexpr uint32_t kMatchLimit = 20'000'000;
// The JIT keeps places to return to on this stack: groups that repeat over a long text.
constexpr size_t kJitStackFirstBytes = 32 << 10;
constexpr size_t kJitStackMaxBytes = 16 << 20;

PCRE2_SPTR Bytes(std::string_view text) {
  // PCRE2 wants a pointer even for no bytes.
  return reinterpret_cast<PCRE2_SPTR>(text.data() == nullptr ? "" : text.data());
}

std::string MessageOf(int error) {
  PCRE2_UCHAR buffer[256];
  const int length = pcre2_get_error_message(error, buffer, sizeof(buffer));
  return length < 0 ? absl::StrFormat("PCRE2 error %d", error)
                    : std::string(reinterpret_cast<const char*>(buffer));
}

}  // namespace

void PcreDeleter::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void PcreDeleter::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}
void PcreDeleter::operator()(pcre2_real_match_data_8* match_data) const {
  pcre2_match_data_free(match_data);
}
void PcreDeleter::operator()(pcre2_real_jit_stack_8* stack) const { pcre2_jit_stack_free(stack); }

void RegexScratch::Allocate() {
  if (match_data_ != nullptr) return;
  match_data_.reset(pcre2_match_data_create(1, nullptr));
  jit_stack_.reset(pcre2_jit_stack_create(kJitStackFirstBytes, kJitStackMaxBytes, nullptr));
  context_.reset(pcre2_match_context_create(nullptr));
  GATEHOUSE_CHECK(match_data_ != nullptr && context_ != nullptr) << "out of memory";
  pcre2_set_match_limit(context_.get(), kMatchLimit);
  if (jit_stack_ != nullptr) pcre2_jit_stack_assign(context_.get(), nullptr, jit_stack_.get());
}

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string translated, OnigurumaToPcre2(pattern));
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  GATEHOUSE_CHECK(context != nullptr) << "out of memory";
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  int error = 0;
  PCRE2_SIZE offset = 0;
  PcrePointer<pcre2_code> code(pcre2_compile(Bytes(translated), translated.size(), kOptions, &error,
                                             &offset, context.get()));
  if (code == nullptr) {
    return absl::InvalidArgumentError(absl::StrFormat("%s in the regular expression \"%s\"",
                                                      MessageOf(error), Printable(pattern)));
  }
  // Failure is no error: pcre2_match then interprets.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

absl::Status Regex::FindAll(std::string_view text, RegexScratch* scratch,
                            std::vector<RegexMatch>* matches) const {
  scratch->Allocate();
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(scratch->match_data_.get());
  size_t at = 0;
  while (at <= text.size()) {
    const int result = pcre2_match(code_.get(), Bytes(text), text.size(), at, PCRE2_NO_UTF_CHECK,
                                   scratch->match_data_.get(), scratch->context_.get());
    if (result == PCRE2_ERROR_NOMATCH) return absl::OkStatus();
    if (result < 0) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "the pre-tokenizer gave up at byte %d of %d: %s", at, text.size(), MessageOf(result)));
    }
    const RegexMatch match = {ends[0], ends[1]};
    const bool is_empty = match.begin == match.end;
    const bool touches_last = !matches->empty() && matches->back().end == match.end;
    if (!is_empty || !touches_last) matches->push_back(match);
    at = match.end;
    if (is_empty) {
      do {
        ++at;
      } while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Pattern> Pattern::Compile(const PatternSpec& spec) {
  if (!spec.is_regex) return Pattern(std::nullopt, spec.text);
  absl::StatusOr<Regex> regex = Regex::Compile(spec.text);
  if (regex.ok()) return Pattern(*std::move(regex), "");
  return absl::FailedPreconditionError(
      absl::StrFormat("%s: got %s, expected what this server can follow exactly", spec.place,
                      std::string(regex.status().message())));
}

absl::Status Pattern::FindAll(std::string_view text, RegexScratch* scratch,
                              std::vector<RegexMatch>* matches) const {
  if (regex_.has_value()) return regex_->FindAll(text, scratch, matches);
  for (size_t at = text.find(text_); at != std::string_view::npos;
       at = text.find(text_, at + text_.size())) {
    matches->push_back({at, at + text_.size()});
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
