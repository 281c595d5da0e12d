// The command line of `gatehouse`, parsed into the requests that it stands for.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "client/admin_options.h"
#include "client/connection_flags.h"
#include "gatehouse/v1/inference.pb.h"

namespace gatehouse {

enum class CliCommand {
  kGenerate,
  kChat,
  kTokenize,
  kDetokenize,
  kInfo,
  kHealth,
  kAdminStatus,  // from here on: of the operators' service
  kAdminWatch,
  kAdminExperts,
  kAdminPlacement,
  kAdminRebalance,
  kAdminRequests,
  kAdminCancel,
  kAdminDrain,
  kAdminLogLevel,
  kAdminFault,
  kAdminRouting,
  kAdminSetRouting,
  kTop,
};
inline bool IsAdmin(CliCommand command) { return command >= CliCommand::kAdminStatus; }

// Where a prompt comes from: an argument, a file, or standard input (file "-").
struct PromptSource {
  bool has_text = false;
  std::string text;
  std::string file;
};

struct CliOptions {
  CliCommand command = CliCommand::kGenerate;
  ConnectionFlags connection;
  double timeout_seconds = 0;  // 0: none
  bool json = false;

  PromptSource prompt;           // generate, tokenize
  v1::GenerateRequest generate;  // of generate and chat, all but a prompt that has to be read first
  bool stats = false;

  v1::TokenizeRequest tokenize;
  std::string chat_file;  // tokenize: a chat in JSON instead of a prompt; "-": standard input
  v1::DetokenizeRequest detokenize;
  bool ids_from_stdin = false;  // detokenize without ids

  std::string health_service;
  bool watch = false;

  AdminOptions admin;

  std::chrono::milliseconds timeout() const {
    // Rounded up: 0 would be none.
    return std::chrono::ceil<std::chrono::milliseconds>(
        std::chrono::duration<double>(timeout_seconds));
  }
};

// Fills `options` unless the outcome says not to run. Refuses arguments that are not UTF-8.
ParseOutcome ParseCliOptions(int argc, const char* const* argv, CliOptions& options);

// "5, 7 9" or "[5, 7, 9]" to ids; INVALID_ARGUMENT names the word that is not an id.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(std::string_view text);

}  // namespace gatehouse
