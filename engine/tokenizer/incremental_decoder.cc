#include "engine/tokenizer/incremental_decoder.h"

#include "kernels/base/utf8.h"

namespace gatehouse {

std::string IncrementalDecoder::Append(int32_t id) {
  // A special token adds nothing, and bytes around it still join to one character: Hugging Face
  // drops it before it looks at bytes. So it does with ids outside the vocabulary.
  if (skip_special_tokens_ && tokenizer_->IsSpecial(id)) return "";
  std::string_view bytes = tokenizer_->TokenBytes(id);
  if (bytes.empty()) return "";
  if (!has_token_) bytes = tokenizer_->FirstTokenBytes(id);
  has_token_ = true;
  std::string text;
  if (tokenizer_->IsByteToken(id)) {
    is_byte_run_ = true;
    pending_.append(bytes);
    return text;
  }
  if (is_byte_run_) EndByteRun(&text);
  pending_.append(bytes);
  pending_.erase(0, pending_.size() - AppendUtf8Lossy(pending_, &text));
  return Stripped(std::move(text));
}

std::string IncrementalDecoder::Flush() {
  std::string text;
  if (is_byte_run_) EndByteRun(&text);
  if (!pending_.empty()) text = kReplacementCharacter;
  pending_.clear();
  return Stripped(std::move(text));
}

void IncrementalDecoder::EndByteRun(std::string* text) {
  if (FindInvalidUtf8(pending_) == pending_.size()) {
    text->append(pending_);
  } else {
    for (size_t i = 0; i < pending_.size(); ++i) text->append(kReplacementCharacter);
  }
  pending_.clear();
  is_byte_run_ = false;
}

std::string IncrementalDecoder::Stripped(std::string text) {
  const LeadingStrip strip = tokenizer_->leading_strip();
  while (num_stripped_ < strip.max_times && !text.empty()) {
    if (text.compare(0, strip.character.size(), strip.character) == 0) {
      text.erase(0, strip.character.size());
      ++num_stripped_;
    } else {
      num_stripped_ = strip.max_times;
    }
  }
  return text;
}

}  // namespace gatehouse
