// tokenizer.json up to the first NUL byte, then a text (the whole of it is the text too, if it is
// not the NUL byte's): what loads must encode to ids of its own, and decode them, all at once and
// one after the other, to the same text.
#include "engine/tokenizer/bpe_tokenizer.h"
#include "engine/tokenizer/incremental_decoder.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "kernels/base/check.h"
#include "tests/fuzz/memory_file.h"

namespace gatehouse {
namespace {

void CheckIds(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) GATEHOUSE_CHECK(id >= 0 && id < tokenizer.vocab_size()) << id;
  GATEHOUSE_CHECK(tokenizer.Decode(ids, /*skip_special_tokens=*/false).ok());
  const auto whole = tokenizer.Decode(ids, /*skip_special_tokens=*/true);
  GATEHOUSE_CHECK(whole.ok()) << whole.status();
  IncrementalDecoder decoder(tokenizer);
  std::string pieces;
  for (const int32_t id : ids) pieces += decoder.Append(id);
  pieces += decoder.Flush();
  GATEHOUSE_CHECK(pieces == *whole) << pieces.size() << " and " << whole->size() << " bytes";
}

void Run(std::string_view input) {
  const size_t end = input.find('\0');
  const MemoryFile file(input.substr(0, end));
  absl::StatusOr<TokenizerSpec> spec = ReadTokenizerJson(file.path());
  if (!spec.ok()) return;
  const auto tokenizer = BpeTokenizer::Make(*std::move(spec));
  if (!tokenizer.ok()) return;
  const std::string_view text =
      end == std::string_view::npos ? input.substr(0, 200) : input.substr(end + 1);
  for (const bool add_special : {false, true}) {
    for (const bool parse_special : {false, true}) {
      const auto ids =
          (*tokenizer)
              ->Encode(text, {.add_special_tokens = add_special, .parse_special = parse_special});
      if (ids.ok()) CheckIds(**tokenizer, *ids);
    }
  }
}

}  // namespace
}  // namespace gatehouse

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gatehouse::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
