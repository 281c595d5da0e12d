#include "client/cli_options.h"

#include <CLI/CLI.hpp>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/chat_session.h"
#include "client/text.h"

namespace gatehouse {
namespace {

constexpr double kMaxTimeoutSeconds = 1e6;
constexpr int kDefaultRetries = 3;
constexpr char kFooter[] = R"(Examples:
  gatehouse generate "It is a truth universally acknowledged" --max-new-tokens 40
  gatehouse generate --file prompt.txt --temperature 0 --json
  gatehouse top

Environment:
  GATEHOUSE_TARGET        Where the server is, without --target
  GATEHOUSE_ADMIN_TARGET  The same for admin and top
  GATEHOUSE_TOKEN         Bearer token, without --token-file

Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted.
Answers go to standard output, all else to standard error.
The flags above may also stand behind a command, whose own ones `gatehouse help COMMAND` shows.
)";
constexpr int kMaxRetries = 1000;

// Each flag writes its field of the request, so that "not given" stays "not set". Ranges are the
// server's to check: it knows the model, and its error names the field and the limit.
template <typename T, typename Set>
void AddField(CLI::App& app, const char* flag, const char* group, const char* help, Set set) {
  app.add_option_function<T>(
         flag, [set](const T& value) { set(value); }, help)
      ->allow_extra_args(false)
      ->group(group);
}

template <typename T, typename Set>
void AddRepeated(CLI::App& app, const char* flag, const char* group, const char* help, Set set) {
  app.add_option_function<std::vector<T>>(
         flag,
         [set](const std::vector<T>& values) {
           for (const T& value : values) set(value);
         },
         std::string(help) + "; may be repeated")
      ->allow_extra_args(false)
      ->group(group);
}

using LogitBias = std::pair<int32_t, float>;

std::optional<LogitBias> ParseLogitBias(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  LogitBias bias;
  if (!absl::SimpleAtoi(parts.first, &bias.first)) return std::nullopt;
  if (!absl::SimpleAtof(parts.second, &bias.second)) return std::nullopt;
  return bias;
}

// For Option::check: an empty string means good.
std::string CheckTokenIds(const std::string& text) {
  return std::string(ParseTokenIds(text).status().message());
}

// `text` passed CheckTokenIds.
void AppendTokenIds(const std::string& text, google::protobuf::RepeatedField<int32_t>& ids) {
  const absl::StatusOr<std::vector<int32_t>> parsed = ParseTokenIds(text);
  if (parsed.ok()) ids.Add(parsed->begin(), parsed->end());
}

void AddSamplingFlags(CLI::App& app, v1::Sampling& s) {
  const char* const group = "Sampling (what is not given: the model's defaults)";
  AddField<float>(app, "--temperature", group, "0 is greedy",
                  [&s](float v) { s.set_temperature(v); });
  AddField<int32_t>(app, "--top-k", group, "Draw from the k most likely; 0: all",
                    [&s](int32_t v) { s.set_top_k(v); });
  AddField<float>(app, "--top-p", group, "Draw from the most likely that reach this probability",
                  [&s](float v) { s.set_top_p(v); });
  AddField<float>(app, "--min-p", group, "Leave out what is less likely than this times the best",
                  [&s](float v) { s.set_min_p(v); });
  AddField<float>(app, "--typical-p", group, "Locally typical sampling",
                  [&s](float v) { s.set_typical_p(v); });
  AddField<float>(app, "--frequency-penalty", group, "Less of what was generated, by its count",
                  [&s](float v) { s.set_frequency_penalty(v); });
  AddField<float>(app, "--presence-penalty", group, "Less of what was generated, once",
                  [&s](float v) { s.set_presence_penalty(v); });
  AddField<float>(app, "--repetition-penalty", group, "Less of what prompt or output hold",
                  [&s](float v) { s.set_repetition_penalty(v); });
  AddField<uint64_t>(app, "--seed", group, "The same seed gives the same text",
                     [&s](uint64_t v) { s.set_seed(v); });
  app.get_option("--seed")->check(CheckNotNegative);
  AddField<int32_t>(app, "-n,--outputs", group, "How many outputs",
                    [&s](int32_t v) { s.set_n(v); });
  AddRepeated<std::string>(app, "--logit-bias", group, "ID=VALUE, added to the token's logit",
                           [&s](const std::string& text) {
                             const auto [id, value] = ParseLogitBias(text).value_or(LogitBias());
                             (*s.mutable_logit_bias())[id] = value;
                           });
  app.get_option("--logit-bias")->check([](const std::string& text) {
    return ParseLogitBias(text).has_value() ? "" : "'" + text + "' is not ID=VALUE";
  });
  AddRepeated<int32_t>(app, "--allowed-token-id", group, "Choose among these ids only",
                       [&s](int32_t v) { s.add_allowed_token_ids(v); });
  AddRepeated<std::string>(app, "--bad-word", group, "Text that must not be generated",
                           [&s](const std::string& v) { s.add_bad_words(v); });
}

void AddStopFlags(CLI::App& app, v1::Stop& s) {
  const char* const group = "Stopping";
  AddField<int32_t>(app, "--max-new-tokens", group, "Default: as many as the context has room for",
                    [&s](int32_t v) { s.set_max_new_tokens(v); });
  AddField<int32_t>(app, "--min-new-tokens", group, "No stop of any kind before",
                    [&s](int32_t v) { s.set_min_new_tokens(v); });
  AddRepeated<std::string>(app, "--stop", group, "Text that ends the output",
                           [&s](const std::string& v) { s.add_strings(v); });
  AddRepeated<int32_t>(app, "--stop-token-id", group, "Token that ends the output",
                       [&s](int32_t v) { s.add_token_ids(v); });
  app.add_flag_callback(
         "--ignore-eos", [&s] { s.set_ignore_eos(true); }, "Go on past the model's end of sequence")
      ->group(group);
  app.add_flag_callback(
         "--include-stop", [&s] { s.set_include_stop(true); }, "Keep the matched stop text")
      ->group(group);
}

void AddOutputFlags(CLI::App& app, CliOptions& options) {
  const char* const group = "Output";
  v1::Output& o = *options.generate.mutable_output();
  AddField<int32_t>(app, "--top-logprobs", group,
                    "Log-probabilities of the tokens and of the n most likely (shown by --json)",
                    [&o](int32_t v) { o.set_top_logprobs(v); });
  AddField<int32_t>(app, "--prompt-logprobs", group, "The same for the prompt",
                    [&o](int32_t v) { o.set_prompt_logprobs(v); });
  app.add_flag_callback(
         "--token-ids", [&o] { o.set_token_ids(true); }, "The prompt's ids (--json)")
      ->group(group);
  app.add_flag_callback(
         "--routed-experts", [&o] { o.set_routed_experts(true); },
         "Which experts computed each token (--json)")
      ->group(group);
  app.add_flag_callback(
         "--moe-report", [&o] { o.set_moe_report(true); },
         "What routing did to the request (--json, --stats)")
      ->group(group);
  app.add_flag("--stats", options.stats, "Counts and times on standard error at the end")
      ->group(group);
}

void AddRequestFlags(CLI::App& app, v1::GenerateRequest& request) {
  const char* const group = "Request";
  AddField<std::string>(app, "--request-id", group, "For logs and traces",
                        [&request](const std::string& v) { request.set_request_id(v); });
  AddField<std::string>(app, "--cache-salt", group, "Share cached prompts with this salt only",
                        [&request](const std::string& v) { request.set_cache_salt(v); });
  const std::map<std::string, v1::Routing::Mode> modes{{"exact", v1::Routing::EXACT},
                                                       {"isolated", v1::Routing::ISOLATED},
                                                       {"shared", v1::Routing::SHARED}};
  app.add_option_function<std::string>(
         "--mode,--routing",
         [&request, modes](const std::string& v) {
           request.mutable_routing()->set_mode(modes.at(v));
         },
         "What a full expert may do to the request")
      ->check(CLI::IsMember({"exact", "isolated", "shared"}))
      ->group(group);
  const std::map<std::string, v1::GenerateRequest::Priority> priorities{
      {"low", v1::GenerateRequest::LOW},
      {"normal", v1::GenerateRequest::NORMAL},
      {"high", v1::GenerateRequest::HIGH}};
  app.add_option_function<std::string>(
         "--priority",
         [&request, priorities](const std::string& v) { request.set_priority(priorities.at(v)); },
         "Who waits for whom")
      ->check(CLI::IsMember({"low", "normal", "high"}))
      ->group(group);
}

void AddPromptFlags(CLI::App& app, PromptSource& prompt) {
  auto* text = app.add_option_function<std::string>(
      "prompt",
      [&prompt](const std::string& value) {
        prompt.has_text = value != "-";
        prompt.text = value;
        if (value == "-") prompt.file = "-";
      },
      "The text; '-' or nothing: standard input");
  app.add_option("-f,--file", prompt.file, "Read the text from a file ('-': standard input)")
      ->type_name("FILE")
      ->excludes(text);
}

// Every command has these, before or after its name.
void AddCommonFlags(CLI::App& app, CliOptions& options) {
  AddConnectionFlags(app, options.connection,
                     std::string(kPublicTargetHelp) +
                         ". admin and top talk to the operators' listener instead "
                         "(GATEHOUSE_ADMIN_TARGET; default 127.0.0.1:50052)");
  options.connection.num_retries = kDefaultRetries;
  app.add_option("--retries", options.connection.num_retries,
                 "How often to try again what a busy or restarting server refused; 0: never")
      ->check(CLI::Range(0, kMaxRetries))
      ->capture_default_str()
      ->group("Connection");
  app.add_option("--timeout", options.timeout_seconds,
                 "Seconds until the call ends with DEADLINE_EXCEEDED; 0: none")
      ->check(CLI::Range(0.0, kMaxTimeoutSeconds))
      ->group("Connection");
  app.add_flag("--json", options.json, "Print JSON (one object a line)");
}

CLI::App& AddCommand(CLI::App& app, CliOptions& options, CliCommand command, const char* name,
                     const char* help) {
  CLI::App* added = app.add_subcommand(name, help);
  added->fallthrough();  // the common flags may also stand behind the command
  added->parse_complete_callback([&options, command] { options.command = command; });
  return *added;
}

// What a chat begins with, and what its template gets.
void AddChatFlags(CLI::App& app, v1::GenerateRequest& request) {
  const char* const group = "Chat";
  AddField<std::string>(app, "--system", group, "The system message that the chat begins with",
                        [&request](const std::string& v) {
                          v1::ChatMessage& message = *request.mutable_chat()->add_messages();
                          message.set_role("system");
                          message.set_content(v);
                        });
  AddField<std::string>(
      app, "--template-variables", group,
      "A JSON object for the model's chat template, such as '{\"enable_thinking\": false}'",
      [&request](const std::string& v) {
        const auto variables = ParseTemplateVariables(v);
        if (variables.ok()) *request.mutable_chat()->mutable_template_variables() = *variables;
      });
  app.get_option("--template-variables")->check([](const std::string& text) {
    return std::string(ParseTemplateVariables(text).status().message());
  });
}

void AddChat(CLI::App& app, CliOptions& options) {
  CLI::App& chat = AddCommand(app, options, CliCommand::kChat, "chat",
                              "Talk with the model: a line is a message, Ctrl-C ends an answer, "
                              "Ctrl-D the chat");
  AddChatFlags(chat, options.generate);
  AddField<std::string>(chat, "--model", "Request", "The model that the server must serve",
                        [&options](const std::string& v) { options.generate.set_model(v); });
  AddSamplingFlags(chat, *options.generate.mutable_sampling());
  AddStopFlags(chat, *options.generate.mutable_stop());
  AddOutputFlags(chat, options);
  AddRequestFlags(chat, options.generate);
}

void AddGenerate(CLI::App& app, CliOptions& options) {
  CLI::App& generate = AddCommand(app, options, CliCommand::kGenerate, "generate",
                                  "Send a prompt and stream the text that the model writes");
  v1::GenerateRequest& request = options.generate;
  AddPromptFlags(generate, options.prompt);
  AddField<std::string>(generate, "--tokens", "", "The prompt as token ids, such as 5,7,9",
                        [&request](const std::string& v) {
                          AppendTokenIds(v, *request.mutable_tokens()->mutable_ids());
                        });
  generate.get_option("--tokens")
      ->group("Options")
      ->check(CheckTokenIds)
      ->excludes(generate.get_option("--file"))
      ->excludes(generate.get_option("prompt"));
  AddChatFlags(generate, request);
  generate
      .add_flag_callback(
          "--chat", [&request] { request.mutable_chat(); },
          "The prompt is a user's message: render it by the model's chat template")
      ->group("Chat");
  for (const char* flag : {"--chat", "--system", "--template-variables"}) {
    generate.get_option(flag)->excludes(generate.get_option("--tokens"));
  }
  AddField<std::string>(generate, "--model", "Request", "The model that the server must serve",
                        [&request](const std::string& v) { request.set_model(v); });
  AddField<bool>(generate, "--add-special-tokens", "Request",
                 "Whether the tokenizer adds BOS or EOS: true or false",
                 [&request](bool v) { request.set_add_special_tokens(v); });
  AddSamplingFlags(generate, *request.mutable_sampling());
  AddStopFlags(generate, *request.mutable_stop());
  AddOutputFlags(generate, options);
  AddRequestFlags(generate, request);
}

void AddTokenizing(CLI::App& app, CliOptions& options) {
  CLI::App& tokenize =
      AddCommand(app, options, CliCommand::kTokenize, "tokenize", "Show the token ids of a text");
  AddPromptFlags(tokenize, options.prompt);
  tokenize
      .add_option(
          "--chat", options.chat_file,
          "A chat in JSON, {\"messages\": [{\"role\": ..., \"content\": ...}]}, from a file "
          "('-': standard input)")
      ->excludes(tokenize.get_option("--file"))
      ->excludes(tokenize.get_option("prompt"));
  AddField<std::string>(tokenize, "--model", "Options", "The model that the server must serve",
                        [&options](const std::string& v) { options.tokenize.set_model(v); });
  AddField<bool>(tokenize, "--add-special-tokens", "Options",
                 "Whether the tokenizer adds BOS or EOS: true or false",
                 [&options](bool v) { options.tokenize.set_add_special_tokens(v); });
  tokenize.add_flag_callback(
      "--parse-special", [&options] { options.tokenize.set_parse_special(true); },
      "Text such as <|endoftext|> becomes the special token");

  CLI::App& detokenize =
      AddCommand(app, options, CliCommand::kDetokenize, "detokenize", "Show the text of token ids");
  detokenize
      .add_option_function<std::vector<std::string>>(
          "ids",
          [&options](const std::vector<std::string>& words) {
            for (const std::string& word : words) {
              AppendTokenIds(word, *options.detokenize.mutable_ids());
            }
          },
          "Ids; nothing: standard input")
      ->check(CheckTokenIds);
  AddField<std::string>(detokenize, "--model", "Options", "The model that the server must serve",
                        [&options](const std::string& v) { options.detokenize.set_model(v); });
  detokenize.add_flag_callback(
      "--skip-special-tokens", [&options] { options.detokenize.set_skip_special_tokens(true); },
      "Leave special tokens out of the text");
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(std::string_view text) {
  std::vector<int32_t> ids;
  for (const absl::string_view word :
       absl::StrSplit(absl::string_view(text.data(), text.size()), absl::ByAnyChar(" ,[]\t\r\n"),
                      absl::SkipEmpty())) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(word, &id) || id < 0) {
      return absl::InvalidArgumentError(absl::StrFormat("'%s' is not a token id (0 to %d)", word,
                                                        std::numeric_limits<int32_t>::max()));
    }
    ids.push_back(id);
  }
  return ids;
}

ParseOutcome ParseCliOptions(int argc, const char* const* argv, CliOptions& options) {
  // Most become strings of a message, which would be sent without them or not at all.
  for (int i = 1; i < argc; ++i) {
    const std::optional<size_t> bad_byte = FirstInvalidUtf8(argv[i]);
    if (!bad_byte.has_value()) continue;
    return {.exit_code = 2,
            .output =
                absl::StrFormat("gatehouse: argument %d is not UTF-8 at byte %d\n", i, *bad_byte)};
  }
  CLI::App app("Command line client of a Gatehouse server.", "gatehouse");
  app.footer("Flags of all commands: gatehouse --help.\n");  // what the commands below take over
  app.add_subcommand("help", "Show this page, or with the name of a command its flags");
  app.set_version_flag("--version", "gatehouse " GATEHOUSE_VERSION);
  app.require_subcommand(1);
  AddCommonFlags(app, options);
  AddGenerate(app, options);
  AddChat(app, options);
  AddTokenizing(app, options);
  AddCommand(app, options, CliCommand::kInfo, "info", "Show the model, the server and its limits");
  CLI::App& health = AddCommand(app, options, CliCommand::kHealth, "health",
                                "Say whether the server serves; exit code 0 only if it does");
  health.add_option("--service", options.health_service,
                    "gatehouse.v1.Inference, or nothing for the server as a whole");
  health.add_flag("--watch", options.watch, "Go on and print every change");

  AddAdmin(app, options);
  app.footer(kFooter);

  std::vector<const char*> words(argv, argv + argc);
  if (argc > 1 && std::string_view(argv[1]) == "help") {
    words.erase(words.begin() + 1);
    words.push_back("--help");
  }
  ParseOutcome outcome = ParseFlags(app, static_cast<int>(words.size()), words.data());
  if (!outcome.run) return outcome;
  SetDefaultTarget(IsAdmin(options.command) ? Listener::kAdmin : Listener::kPublic,
                   options.connection);
  options.ids_from_stdin =
      options.command == CliCommand::kDetokenize && options.detokenize.ids().empty();
  if (options.generate.has_tokens() && options.generate.tokens().ids().empty()) {
    return {.exit_code = 2, .output = "gatehouse: --tokens: no ids given\n"};
  }
  return outcome;
}

}  // namespace gatehouse
