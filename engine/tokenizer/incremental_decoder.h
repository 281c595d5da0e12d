// Turns one request's tokens into text as they come: valid UTF-8, cut only at character borders.
// The concatenation of everything it returns, Flush included, equals Tokenizer::Decode of the same
// ids (skip_special_tokens true). Owned by one request; one thread at a time.
#pragma once

#include <cstdint>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace gatehouse {

class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  // Text that is complete after `id`; bytes of an unfinished character stay inside.
  std::string Append(int32_t id);
  // What is left: an unfinished character becomes U+FFFD.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;  // an incomplete UTF-8 sequence, at most 3 bytes
};

}  // namespace gatehouse
