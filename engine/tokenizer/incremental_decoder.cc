#include "engine/tokenizer/incremental_decoder.h"

#include "kernels/base/utf8.h"

namespace gatehouse {

std::string IncrementalDecoder::Append(int32_t id) {
  std::string text;
  // A special token adds nothing, and bytes around it still join to one character: Decode drops it
  // before it looks at bytes.
  if (tokenizer_->IsSpecial(id)) return text;
  pending_.append(tokenizer_->TokenBytes(id));
  pending_.erase(0, pending_.size() - AppendUtf8Lossy(pending_, &text));
  return text;
}

std::string IncrementalDecoder::Flush() {
  const bool unfinished = !pending_.empty();
  pending_.clear();
  return std::string(unfinished ? kReplacementCharacter : std::string_view());
}

}  // namespace gatehouse
