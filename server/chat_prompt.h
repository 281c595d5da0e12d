// A client's chat, rendered by the model's template and tokenised. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gatehouse/v1/inference.pb.h"

namespace gatehouse {

struct ChatPrompt {
  std::string text;
  std::vector<int32_t> ids;
};

// Special tokens are made of what the template wrote alone, with `parse_special` of clients' text,
// too. A role of letters, digits, '-' and '_' counts as the template's: it is a name, and templates
// such as Phi-3's make the marker <|role|> of it. INVALID_ARGUMENT "<field path>: <problem>".
absl::StatusOr<ChatPrompt> EncodeChat(const v1::Chat& chat, bool add_special_tokens,
                                      bool parse_special, const Engine& engine);

}  // namespace gatehouse
