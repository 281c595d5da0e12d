#include "client/cli_commands.h"

#include <unistd.h>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/chat_command.h"
#include "client/chat_session.h"
#include "client/generate_output.h"
#include "client/json_output.h"
#include "client/rpc_error.h"
#include "client/text.h"

namespace gatehouse {
namespace {

constexpr std::chrono::milliseconds kToldDelay{500};
constexpr size_t kMaxPromptBytes = 64 << 20;  // more than any context holds

// Prints and returns the exit code of a command that gives one answer.
int PrintAnswer(const std::string& text) {
  const absl::Status written = WriteAll(STDOUT_FILENO, text);
  return written.ok() ? kExitDone : PrintLostOutput(written);
}

int RunGenerate(GatehouseClient& client, CliOptions& options, InterruptWatcher& watcher) {
  if (!options.generate.has_tokens()) {
    absl::StatusOr<std::string> prompt = ReadPrompt(options.prompt);
    if (!prompt.ok()) return PrintBadInput(options, prompt.status());
    if (options.generate.has_chat()) {
      v1::ChatMessage& message = *options.generate.mutable_chat()->add_messages();
      message.set_role("user");
      message.set_content(*std::move(prompt));
    } else {
      options.generate.set_text(*std::move(prompt));
    }
  }
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const int num_outputs = options.generate.sampling().has_n() ? options.generate.sampling().n() : 1;
  GenerateOutput output(
      {.json = options.json, .terminal = isatty(STDOUT_FILENO) != 0, .num_outputs = num_outputs},
      now());
  const std::unique_ptr<GenerateStream> stream =
      client.Generate(options.generate, CallOptionsOf(options));
  watcher.OnInterrupt([&stream] { stream->Cancel(); });
  v1::GenerateResponse event;
  absl::Status written;
  while (written.ok() && stream->Next(event)) {
    written = WriteAll(STDOUT_FILENO, output.OnEvent(event, now()));
  }
  if (!written.ok()) stream->Cancel();
  absl::Status status = stream->Finish();
  watcher.OnInterrupt(nullptr);
  if (written.ok()) written = WriteAll(STDOUT_FILENO, output.OnEnd());
  if (options.stats) WriteAll(STDERR_FILENO, output.Stats(now())).IgnoreError();
  if (watcher.interrupted()) {
    WriteAll(STDERR_FILENO, "gatehouse: interrupted; the request was cancelled\n").IgnoreError();
    return kExitInterrupted;
  }
  if (!written.ok()) {
    WriteAll(STDERR_FILENO, absl::StrFormat("gatehouse: %s; the request was cancelled\n",
                                            std::string(written.message())))
        .IgnoreError();
    return kExitFailed;
  }
  if (status.ok() && !output.finished()) {
    status = absl::DataLossError("the stream ended without `finished`");
  }
  return status.ok() ? kExitDone : PrintCallError(client, options, status);
}

int RunTokenize(GatehouseClient& client, CliOptions& options) {
  const bool is_chat = !options.chat_file.empty();
  if (is_chat) options.prompt = {.has_text = false, .text = "", .file = options.chat_file};
  absl::StatusOr<std::string> text = ReadPrompt(options.prompt);
  if (!text.ok()) return PrintBadInput(options, text.status());
  if (is_chat) {
    absl::StatusOr<v1::Chat> chat = ParseChat(*text);
    if (!chat.ok()) return PrintBadInput(options, chat.status());
    *options.tokenize.mutable_chat() = *std::move(chat);
  } else {
    options.tokenize.set_text(*std::move(text));
  }
  const auto response = client.Tokenize(options.tokenize, CallOptionsOf(options));
  if (!response.ok()) return PrintCallError(client, options, response.status());
  return PrintAnswer(options.json ? ToJsonLine(*response)
                                  : absl::StrJoin(response->ids(), " ") + "\n");
}

int RunDetokenize(GatehouseClient& client, CliOptions& options) {
  if (options.ids_from_stdin) {
    if (isatty(STDIN_FILENO) != 0) {
      return PrintBadInput(
          options, absl::InvalidArgumentError("no ids: give some, or pass them on standard input"));
    }
    const absl::StatusOr<std::string> text = ReadAll("-", kMaxPromptBytes);
    if (!text.ok()) return PrintBadInput(options, text.status());
    const absl::StatusOr<std::vector<int32_t>> ids = ParseTokenIds(*text);
    if (!ids.ok()) return PrintBadInput(options, ids.status());
    options.detokenize.mutable_ids()->Assign(ids->begin(), ids->end());
  }
  const auto response = client.Detokenize(options.detokenize, CallOptionsOf(options));
  if (!response.ok()) return PrintCallError(client, options, response.status());
  if (options.json) return PrintAnswer(ToJsonLine(*response));
  return PrintAnswer(isatty(STDOUT_FILENO) != 0 ? TerminalSafe(response->text()) + "\n"
                                                : response->text());
}

std::string Row(const char* name, const std::string& value) {
  return absl::StrFormat("  %-28s %s\n", name, value);
}
std::string Row(const char* name, int64_t value) { return Row(name, absl::StrFormat("%d", value)); }

std::string DescribeModel(const v1::ModelInfo& m) {
  const v1::Sampling& s = m.default_sampling();
  return absl::StrFormat("Model %s\n", m.name()) + Row("family", m.family()) +
         Row("parameters",
             absl::StrFormat("%d, %d for each token", m.parameters(), m.active_parameters())) +
         Row("layers", m.layers()) + Row("layers with experts", m.moe_layers_size()) +
         Row("experts",
             absl::StrFormat("%d, %d for each token", m.experts(), m.experts_per_token())) +
         Row("hidden size", m.hidden_size()) + Row("vocabulary", m.vocab_size()) +
         Row("context", absl::StrFormat("%d tokens", m.max_context())) +
         Row("end of sequence", absl::StrJoin(m.eos_token_ids(), " ")) +
         Row("chat template", m.has_chat_template() ? "yes" : "no") +
         Row("weights", absl::StrFormat("experts %s, others %s", m.expert_weight_format(),
                                        m.dense_weight_format())) +
         Row("default sampling",
             absl::StrFormat("temperature %.3g, top_k %d, top_p %.3g, min_p %.3g", s.temperature(),
                             s.top_k(), s.top_p(), s.min_p()));
}

// All of them by the names of the API, so that none can be forgotten here.
std::string DescribeLimits(const v1::Limits& limits) {
  const google::protobuf::Descriptor& type = *limits.GetDescriptor();
  const google::protobuf::Reflection& fields = *limits.GetReflection();
  std::string rows = "Limits\n";
  for (int i = 0; i < type.field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = type.field(i);
    switch (field->cpp_type()) {
      case google::protobuf::FieldDescriptor::CPPTYPE_INT32:
        rows += Row(field->name().c_str(), fields.GetInt32(limits, field));
        break;
      case google::protobuf::FieldDescriptor::CPPTYPE_INT64:
        rows += Row(field->name().c_str(), fields.GetInt64(limits, field));
        break;
      default:
        rows += Row(field->name().c_str(), absl::StrFormat("%g", fields.GetDouble(limits, field)));
    }
  }
  return rows;
}

std::string DescribeServer(const v1::ServerInfo& s) {
  return absl::StrFormat("Server %s\n", s.version()) + Row("build", s.build()) +
         Row("back end", absl::StrFormat("%s, %s", s.backend(), s.isa())) +
         Row("ranks, threads", absl::StrFormat("%d, %d", s.ranks(), s.threads())) +
         Row("KV type", s.kv_type()) + DescribeLimits(s.limits());
}

int RunInfo(GatehouseClient& client, const CliOptions& options) {
  const auto model = client.GetModelInfo({}, CallOptionsOf(options));
  if (!model.ok()) return PrintCallError(client, options, model.status());
  const auto server = client.GetServerInfo(CallOptionsOf(options));
  if (!server.ok()) return PrintCallError(client, options, server.status());
  return PrintAnswer(options.json ? ToJsonLine(*model) + ToJsonLine(*server)
                                  : DescribeModel(*model) + DescribeServer(*server));
}

std::string DescribeHealth(HealthState state, const CliOptions& options) {
  return options.json ? absl::StrFormat("{\"status\": \"%s\"}\n", HealthStateName(state))
                      : absl::StrFormat("%s\n", HealthStateName(state));
}

int RunHealth(GatehouseClient& client, const CliOptions& options) {
  const CallOptions call = CallOptionsOf(options);
  HealthState last = HealthState::kUnknown;
  if (options.watch) {
    absl::Status written;
    const absl::Status status =
        client.WatchHealth(options.health_service, call, [&](HealthState state) {
          last = state;
          written = WriteAll(STDOUT_FILENO, DescribeHealth(state, options));
          return written.ok();
        });
    if (!written.ok()) return PrintLostOutput(written);
    if (!status.ok()) return PrintCallError(client, options, status);
  } else {
    const absl::StatusOr<HealthState> state = client.CheckHealth(options.health_service, call);
    if (!state.ok()) return PrintCallError(client, options, state.status());
    last = *state;
    if (PrintAnswer(DescribeHealth(last, options)) != kExitDone) return kExitFailed;
  }
  return last == HealthState::kServing ? kExitDone : kExitFailed;
}

}  // namespace

void PrintError(const absl::Status& status, const std::string& text, bool json) {
  if (json) WriteAll(STDOUT_FILENO, ToJsonLine(status)).IgnoreError();
  WriteAll(STDERR_FILENO, absl::StrFormat("gatehouse: %s\n", TerminalSafe(text))).IgnoreError();
}

int PrintLostOutput(const absl::Status& status) {
  WriteAll(STDERR_FILENO, absl::StrFormat("gatehouse: %s\n", std::string(status.message())))
      .IgnoreError();
  return kExitFailed;
}

int PrintCallError(GatehouseClient& client, const CliOptions& options, const absl::Status& status) {
  PrintError(status, DescribeCallError(status, options.connection.target, client.reachable()),
             options.json);
  return kExitFailed;
}

CallOptions CallOptionsOf(const CliOptions& options) {
  return {.timeout = options.timeout(),
          .on_retry = [](const absl::Status& status, std::chrono::milliseconds delay) {
            if (delay < kToldDelay) return;
            const std::string text =
                absl::StrFormat("%s: %s; trying again in %.1f s", CodeName(status.code()),
                                std::string(status.message()), 0.001 * delay.count());
            WriteAll(STDERR_FILENO, absl::StrFormat("gatehouse: %s\n", TerminalSafe(text)))
                .IgnoreError();
          }};
}

int PrintBadInput(const CliOptions& options, const absl::Status& status) {
  PrintError(status, std::string(status.message()), options.json);
  return kExitBadUsage;
}

absl::StatusOr<std::string> ReadPrompt(const PromptSource& prompt) {
  std::string text = prompt.text;
  if (!prompt.has_text) {
    if (prompt.file.empty() && isatty(STDIN_FILENO) != 0) {
      return absl::InvalidArgumentError(
          "no prompt: give a text, --file FILE, or something on standard input");
    }
    absl::StatusOr<std::string> read =
        ReadAll(prompt.file.empty() ? "-" : prompt.file, kMaxPromptBytes);
    if (!read.ok()) return read.status();
    text = *std::move(read);
  }
  const std::optional<size_t> bad_byte = FirstInvalidUtf8(text);
  if (bad_byte.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the prompt is not UTF-8 at byte %d", *bad_byte));
  }
  return text;
}

int RunCommand(GatehouseClient& client, CliOptions& options, InterruptWatcher& watcher) {
  switch (options.command) {
    case CliCommand::kGenerate:
      return RunGenerate(client, options, watcher);
    case CliCommand::kChat:
      return RunChat(client, options, watcher);
    case CliCommand::kTokenize:
      return RunTokenize(client, options);
    case CliCommand::kDetokenize:
      return RunDetokenize(client, options);
    case CliCommand::kInfo:
      return RunInfo(client, options);
    case CliCommand::kHealth:
      return RunHealth(client, options);
    default:
      return kExitBadUsage;
  }
}

}  // namespace gatehouse
