// Turns one request's tokens into text as they come: valid UTF-8, cut only at character borders.
// The concatenation of everything it returns, Flush included, is Tokenizer::Decode of the same ids.
// Owned by one request; one thread at a time.
//
// A run of byte-fallback tokens is held back to its end: one byte that does not fit makes U+FFFD of
// all of it, in Hugging Face and so here.
#pragma once

#include <cstdint>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace gatehouse {

class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true)
      : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}
  // Text that is complete after `id`; bytes of an unfinished character stay inside.
  std::string Append(int32_t id);
  // What is left: an unfinished character becomes U+FFFD.
  std::string Flush();

 private:
  void EndByteRun(std::string* text);
  std::string Stripped(std::string text);

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;       // an incomplete UTF-8 sequence, at most 3 bytes; or a run of bytes
  bool is_byte_run_ = false;  // which of the two
  bool has_token_ = false;    // one came already
  int32_t num_stripped_ = 0;  // of LeadingStrip::max_times; that many also once other text came
};

}  // namespace gatehouse
