#include "server/server_config.h"

#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <map>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "server/config_option.h"
#include "server/deployment_config.h"

namespace gatehouse {
namespace {

Option Weights(std::string name, std::string help,
               const Field<std::optional<WeightFormat>>& field) {
  return {std::move(name), "FORMAT", std::move(help),
          [field](const std::string& text, ServerConfig& config) -> Expected {
            const std::optional<WeightFormat> format = FindWeightFormat(text);
            if (!format && text != "auto") return "auto, f32, bf16, int8 or int4";
            field(config) = format;
            return {};
          },
          [field](const ServerConfig& config) {
            const std::optional<WeightFormat>& format = Read(field, config);
            return format ? std::string(WeightFormatName(*format)) : std::string("auto");
          }};
}

Option KvTypeOption() {
  return {"kv-type", "f32|bf16|int8", "how keys and values are held; the narrow types round them",
          [](const std::string& text, ServerConfig& config) -> Expected {
            for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
              if (text != KvTypeName(type)) continue;
              config.engine.cache.kv_type = type;
              return {};
            }
            return "f32, bf16 or int8";
          },
          [](const ServerConfig& config) {
            return std::string(KvTypeName(config.engine.cache.kv_type));
          }};
}

Option MetricsLevel() {
  return {
      "metrics-level", "0|1|2",
      "1 adds imbalance per layer, 2 tokens per expert (auto: 2 while layers x experts <= 2048, "
      "else 1)",
      [](const std::string& text, ServerConfig& config) -> Expected {
        int level = 0;
        if (text == "auto") {
          config.metrics_level = std::nullopt;
        } else if (absl::SimpleAtoi(text, &level) && level >= 0 && level <= 2) {
          config.metrics_level = level;
        } else {
          return "0, 1, 2 or auto";
        }
        return {};
      },
      [](const ServerConfig& config) {
        return config.metrics_level ? std::to_string(*config.metrics_level) : std::string("auto");
      }};
}

Option LogFormatOption() {
  return {"log-format", "text|json", "how log lines are written",
          [](const std::string& text, ServerConfig& config) -> Expected {
            if (text != "text" && text != "json") return "text or json";
            config.log_format = text == "json" ? LogFormat::kJson : LogFormat::kText;
            return {};
          },
          [](const ServerConfig& config) {
            return std::string(config.log_format == LogFormat::kJson ? "json" : "text");
          }};
}

Option LogLevelOption() {
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  return {"log-level", "LEVEL", "debug, info, warning or error: this and above are logged",
          [](const std::string& text, ServerConfig& config) -> Expected {
            for (int i = 0; i < 4; ++i) {
              if (text != kNames[i]) continue;
              config.log_level = static_cast<LogLevel>(i);
              return {};
            }
            return "debug, info, warning or error";
          },
          [](const ServerConfig& config) {
            return std::string(kNames[static_cast<int>(config.log_level)]);
          }};
}

#define GATEHOUSE_FIELD(member) \
  [](ServerConfig & config) -> auto& { return config.member; }

void AddEngineOptions(std::vector<Option>& options) {
  constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
  options.push_back(Text("model", "DIR",
                         "directory of the model: config.json, safetensors, tokenizer",
                         GATEHOUSE_FIELD(engine.model.model_dir)));
  options.push_back(Weights("weights",
                            "how experts are held: auto (as stored), f32, bf16, int8 or "
                            "int4",
                            GATEHOUSE_FIELD(engine.model.expert_weights)));
  options.push_back(Weights("dense-weights", "the same for everything but experts",
                            GATEHOUSE_FIELD(engine.model.dense_weights)));
  options.push_back(
      Text("packed-cache", "DIR",
           "keeps packed weights in this directory, so that the next start reads them "
           "instead of packing",
           GATEHOUSE_FIELD(engine.model.packed_cache)));
  options.push_back(KvTypeOption());
  options.push_back(Whole<int32_t>("max-sequences", "requests running at once", {1, 65536},
                                   GATEHOUSE_FIELD(engine.scheduler.max_sequences)));
  options.push_back(Whole<int32_t>("max-step-tokens", "rows of one step", {1, 1 << 20},
                                   GATEHOUSE_FIELD(engine.scheduler.max_step_tokens)));
  options.push_back(Number("max-step-ms", "what a prefill chunk may add to running streams", 1,
                           3.6e6, GATEHOUSE_FIELD(engine.scheduler.max_step_ms)));
  options.push_back(Bytes("kv-cache-bytes", "memory of the KV cache (0: what the sequences need)",
                          GATEHOUSE_FIELD(engine.cache.kv_cache_bytes)));
  options.push_back(Whole<int32_t>("max-queued-requests", "waiting at once; more are refused",
                                   {0, kMaxInt32},
                                   GATEHOUSE_FIELD(engine.scheduler.max_queued_requests)));
  options.push_back(Whole<int64_t>("max-queued-tokens", "prompt tokens waiting at once",
                                   {0, int64_t{1} << 40},
                                   GATEHOUSE_FIELD(engine.scheduler.max_queued_tokens)));
  options.push_back(Whole<int32_t>("max-context",
                                   "prompt and generated tokens of one request (0: the model's)",
                                   {0, kMaxInt32}, GATEHOUSE_FIELD(engine.scheduler.max_context)));
}

void AddServerOptions(std::vector<Option>& options) {
  options.push_back(Text("backend", "NAME", "auto, cpu", GATEHOUSE_FIELD(backend.name)));
  options.push_back(Whole<int>("threads", "compute threads (0: the CPUs this process may use)",
                               {0, 1024}, GATEHOUSE_FIELD(backend.num_threads)));
  options.push_back(Whole<int>("ranks", "ranks in this process, which share threads and experts",
                               {1, 64}, GATEHOUSE_FIELD(backend.num_ranks)));
  options.push_back(Text("isa", "NAME", "instruction set", GATEHOUSE_FIELD(backend.isa)));
  options.back().is_flag = false;
  options.push_back(Address("listen", "the public gRPC listener", false, GATEHOUSE_FIELD(listen)));
  options.push_back(
      Address("admin-listen",
              "the operators' gRPC listener (empty: none; any free port if the default is taken)",
              true, GATEHOUSE_FIELD(admin.listen)));
  options.push_back(Address("metrics-listen", "/metrics /healthz /readyz (empty: none)", true,
                            GATEHOUSE_FIELD(metrics_listen)));
  options.push_back(MetricsLevel());
  options.push_back(Text("tls-cert", "FILE", "PEM certificate chain of both gRPC listeners",
                         GATEHOUSE_FIELD(tls.certificate)));
  options.push_back(Text("tls-key", "FILE", "PEM key of --tls-cert", GATEHOUSE_FIELD(tls.key)));
  options.push_back(Text("tls-client-ca", "FILE", "PEM authority that must have signed clients",
                         GATEHOUSE_FIELD(tls.client_ca)));
  options.push_back(Text("auth-token-file", "FILE", "bearer tokens of the one tenant, one a line",
                         GATEHOUSE_FIELD(auth.tokens)));
  options.push_back(Text("tenants", "FILE", "YAML of tenants: tokens, weights, ceilings",
                         GATEHOUSE_FIELD(auth.tenants)));
  options.push_back(Text("routing-config", "FILE", "YAML of the routing policy: modes and bounds",
                         GATEHOUSE_FIELD(routing_config)));
  options.push_back(Text("routing-secret-file", "FILE",
                         "32 hexadecimal digits that break ties of bounded routing (none: drawn)",
                         GATEHOUSE_FIELD(routing_secret_file)));
  options.push_back(Number("shadow-exact-fraction",
                           "share of the bounded requests that is replayed exactly when idle", 0, 1,
                           GATEHOUSE_FIELD(engine.routing.shadow_exact_fraction)));
  options.push_back(Text("admin-tls-client-ca", "FILE",
                         "PEM authority that must have signed operators",
                         GATEHOUSE_FIELD(admin.client_ca)));
  options.push_back(Text("admin-token-file", "FILE", "bearer tokens of operators, one a line",
                         GATEHOUSE_FIELD(admin.token_file)));
  options.push_back(
      Switch("insecure", "allow a listener off loopback without TLS", GATEHOUSE_FIELD(insecure)));
  options.push_back(Switch("allow-fault-injection", "operators may break ranks, for drills",
                           GATEHOUSE_FIELD(engine.allow_faults)));
  options.push_back(Number("drain-seconds", "what running requests get after SIGTERM", 0, 86400,
                           GATEHOUSE_FIELD(drain_seconds)));
  options.push_back(LogFormatOption());
  options.push_back(LogLevelOption());
  options.push_back(Text("record-routes", "FILE", "trace of the gates, for gatehouse-lab simulate",
                         GATEHOUSE_FIELD(engine.trace.file)));
  options.push_back(Bytes("record-routes-bytes", "size at which the trace ends",
                          GATEHOUSE_FIELD(engine.trace.max_bytes)));
  options.push_back(Text("ready-file", "PATH", "gets the ports as JSON once the server serves",
                         GATEHOUSE_FIELD(ready_file)));
  options.push_back(
      Switch("check", "load the model, print the memory plan, exit", GATEHOUSE_FIELD(check)));
}

#undef GATEHOUSE_FIELD

std::vector<Option> AllOptions() {
  std::vector<Option> options;
  AddEngineOptions(options);
  AddServerOptions(options);
  AddDeploymentOptions(options);
  return options;
}

std::string VariableName(const std::string& option) {
  std::string name = "GATEHOUSE_" + option;
  for (char& c : name) {
    c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

// What one place said: option name -> text.
using Values = std::map<std::string, std::string>;

struct Flags {
  Values values;
  std::string config_file;
  bool print_config = false;
  bool print = false;  // --help or --version: `text` is all there is to do
  std::string text;
};

absl::StatusOr<Flags> ParseFlags(const std::vector<Option>& options,
                                 const std::vector<std::string>& arguments) {
  Flags flags;
  CLI::App app(
      "gatehouse-server: serves a Mixture-of-Experts language model over gRPC.\n"
      "Every flag is also a variable, GATEHOUSE_MAX_SEQUENCES for --max-sequences, and a key of "
      "the "
      "YAML file of --config; flags win over variables, variables over the file.\n"
      "Exit codes: 0 drained, 1 run-time failure, 2 bad flags or configuration, 3 the model cannot "
      "be loaded.\n",
      "gatehouse-server");
  app.set_version_flag("--version", "gatehouse-server " GATEHOUSE_VERSION);
  std::map<std::string, bool> switches;
  for (const Option& option : options) {
    if (!option.is_flag) continue;
    const ServerConfig defaults;
    const std::string value = option.get(defaults);
    const std::string help =
        option.value.empty() || value.empty() ? option.help : option.help + " [" + value + "]";
    if (option.value.empty()) {
      app.add_flag("--" + option.name, switches[option.name], help);
    } else {
      app.add_option("--" + option.name, flags.values[option.name], help)
          ->option_text(option.value);
    }
  }
  app.add_option("--config", flags.config_file, "YAML file of flags")->option_text("FILE");
  app.add_flag("--print-config", flags.print_config, "print the configuration in force and exit");
  try {
    app.parse(
        std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // it wants them reversed
  } catch (const CLI::CallForHelp&) {
    return Flags{.print = true, .text = app.help()};
  } catch (const CLI::CallForVersion& version) {
    return Flags{.print = true, .text = std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(absl::StrFormat("%s (see --help)", error.what()));
  }
  for (auto& [name, set] : switches) flags.values[name] = set ? "true" : "false";
  std::erase_if(flags.values,
                [&](const auto& value) { return app.count("--" + value.first) == 0; });
  return flags;
}

absl::StatusOr<Values> ParseFile(const std::vector<Option>& options, const std::string& file) {
  Values values;
  try {
    const YAML::Node root = YAML::LoadFile(file);
    if (!root.IsMap() && !root.IsNull()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: not a map, expected lines such as \"max-sequences: 64\"", file));
    }
    for (const auto& entry : root) {
      const std::string name = entry.first.as<std::string>();
      const bool known = std::any_of(options.begin(), options.end(),
                                     [&](const Option& option) { return option.name == name; });
      if (!known) {
        return absl::InvalidArgumentError(
            absl::StrFormat("%s: unknown key \"%s\", expected a flag without dashes", file, name));
      }
      if (!entry.second.IsScalar() && !entry.second.IsNull()) {
        return absl::InvalidArgumentError(
            absl::StrFormat("%s: %s is not a single value", file, name));
      }
      const std::string value = entry.second.IsNull() ? "" : entry.second.as<std::string>();
      if (!values.emplace(name, value).second) {
        return absl::InvalidArgumentError(absl::StrFormat("%s: %s is given twice", file, name));
      }
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: %s", file, error.what()));
  }
  return values;
}

// Quoted when YAML would read another thing than this text.
std::string YamlScalar(const std::string& text) {
  YAML::Emitter emitter;
  emitter << text;
  return emitter.c_str();
}

absl::Status ValidateTls(const ServerConfig& config) {
  if (config.tls.certificate.empty() != config.tls.key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key must be given together");
  }
  if (config.tls.enabled()) return absl::OkStatus();
  if (!config.tls.client_ca.empty()) {
    return absl::InvalidArgumentError("--tls-client-ca needs --tls-cert and --tls-key");
  }
  if (!config.admin.client_ca.empty()) {
    return absl::InvalidArgumentError("--admin-tls-client-ca needs --tls-cert and --tls-key");
  }
  if (IsLoopback(config.listen)) return absl::OkStatus();
  if (!config.insecure) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--listen %s is not a loopback address: give --tls-cert and --tls-key, or --insecure to "
        "serve without encryption",
        config.listen));
  }
  if (config.auth.enabled()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--listen %s is not a loopback address and tokens would cross the network in the open: "
        "give --tls-cert and --tls-key",
        config.listen));
  }
  return absl::OkStatus();
}

absl::Status ValidateTogether(const ServerConfig& config) {
  if (config.engine.model.model_dir.empty()) {
    return absl::InvalidArgumentError("--model is missing: expected the directory of a model");
  }
  GATEHOUSE_RETURN_IF_ERROR(ValidateDeployment(config));
  if (config.deployment.is_worker) return absl::OkStatus();  // it has no listeners
  GATEHOUSE_RETURN_IF_ERROR(ValidateTls(config));
  if (!config.auth.tokens.empty() && !config.auth.tenants.empty()) {
    return absl::InvalidArgumentError("--auth-token-file and --tenants exclude each other");
  }
  const AdminOptions& admin = config.admin;
  const bool operators_are_known = !admin.token_file.empty() || !admin.client_ca.empty();
  if (admin.listen.empty() && operators_are_known) {
    return absl::InvalidArgumentError(
        "--admin-listen is empty: --admin-token-file and --admin-tls-client-ca would have no "
        "effect");
  }
  if (!admin.listen.empty() && !IsLoopback(admin.listen) &&
      !(config.tls.enabled() && operators_are_known)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--admin-listen %s is not a loopback address: it needs --tls-cert and --tls-key, and "
        "--admin-token-file or --admin-tls-client-ca",
        admin.listen));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsLoopback(const std::string& host_and_port) {
  const std::string host = host_and_port.substr(0, host_and_port.rfind(':'));
  if (host == "localhost" || host == "[::1]") return true;
  // Only four numbers: 127.example.org is a name like any other.
  return host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos;
}

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments,
                                             const EnvironmentFn& environment) {
  const std::vector<Option> options = AllOptions();
  GATEHOUSE_ASSIGN_OR_RETURN(const Flags flags, ParseFlags(options, arguments));
  CommandLine result;
  if (flags.print) {
    result.print = true;
    result.text = flags.text;
    return result;
  }
  const std::string file =
      flags.config_file.empty() ? environment("GATEHOUSE_CONFIG").value_or("") : flags.config_file;
  Values file_values;
  if (!file.empty()) {
    GATEHOUSE_ASSIGN_OR_RETURN(file_values, ParseFile(options, file));
  }
  std::string printed;
  for (const Option& option : options) {
    std::string source = "default", name;
    std::optional<std::string> text;
    if (const auto flag = flags.values.find(option.name); flag != flags.values.end()) {
      source = "flag", name = "--" + option.name, text = flag->second;
    } else if (auto variable = environment(VariableName(option.name))) {
      source = "environment", name = VariableName(option.name), text = std::move(*variable);
    } else if (const auto value = file_values.find(option.name); value != file_values.end()) {
      source = "file", name = absl::StrFormat("%s: %s", file, option.name), text = value->second;
    }
    if (text) {
      if (const Expected expected = option.set(*text, result.config)) {
        return absl::InvalidArgumentError(
            absl::StrFormat("%s: got \"%s\", expected %s", name, *text, *expected));
      }
    }
    printed += absl::StrFormat("%s: %s  # %s\n", option.name, YamlScalar(option.get(result.config)),
                               source);
  }
  GATEHOUSE_RETURN_IF_ERROR(ValidateTogether(result.config));
  if (flags.print_config) {
    result.print = true;
    result.text = printed;
  }
  return result;
}

}  // namespace gatehouse
