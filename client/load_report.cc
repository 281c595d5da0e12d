#include "client/load_report.h"

#include <algorithm>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "absl/strings/str_format.h"
#include "client/build_stamp.h"

namespace gatehouse {
namespace {

using nlohmann::ordered_json;

std::string Dump(const ordered_json& line) {
  // Server names and error texts may hold anything: replace what is not UTF-8 instead of throwing.
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

double Ratio(double a, double b) { return b > 0 ? a / b : 0; }

ordered_json Latencies(const LatencyHistogram& h) {
  return {{"count", h.count()},      {"mean", h.mean()},           {"min", h.min()},
          {"p50", h.Percentile(50)}, {"p90", h.Percentile(90)},    {"p95", h.Percentile(95)},
          {"p99", h.Percentile(99)}, {"p999", h.Percentile(99.9)}, {"max", h.max()}};
}

// The numbers that repeats are compared by. Names end in their unit.
std::vector<std::pair<std::string, double>> KeyNumbers(const LoadResult& r) {
  const double tokens = static_cast<double>(r.num_tokens);
  return {
      {"requests_per_second", Ratio(static_cast<double>(r.num_done), r.wall_seconds)},
      {"tokens_per_second", Ratio(tokens, r.wall_seconds)},
      {"prompt_tokens_per_second", Ratio(static_cast<double>(r.num_prompt_tokens), r.wall_seconds)},
      {"messages_per_second", Ratio(static_cast<double>(r.num_messages), r.wall_seconds)},
      {"tokens_per_message", Ratio(tokens, static_cast<double>(r.num_messages))},
      {"client_cpu_us_per_token", Ratio(r.client_cpu_seconds * 1e6, tokens)},
      {"server_cpu_us_per_token", Ratio(r.server_cpu_seconds * 1e6, tokens)},
      {"time_to_first_token_p50_seconds", r.time_to_first_token.Percentile(50)},
      {"time_to_first_token_p99_seconds", r.time_to_first_token.Percentile(99)},
      {"inter_token_p50_seconds", r.inter_token.Percentile(50)},
      {"inter_token_p99_seconds", r.inter_token.Percentile(99)},
      {"message_gap_p99_seconds", r.message_gap.Percentile(99)},
      {"lateness_p50_seconds", r.lateness.Percentile(50)},
      {"lateness_p99_seconds", r.lateness.Percentile(99)},
  };
}

ordered_json ConfigJson(const LoadOptions& o) {
  ordered_json config = {{"loop", o.open_loop() ? "open" : "closed"}};
  if (o.open_loop()) {
    config["rate"] = o.rate;
    config["max_in_flight"] = o.max_in_flight;
  } else {
    config["clients"] = o.num_clients;
  }
  config.update({{"connections", o.num_connections},
                 {"requests", o.num_requests},
                 {"duration_seconds", o.duration_seconds},
                 {"warmup", o.num_warmup},
                 {"max_new_tokens", o.max_new_tokens},
                 {"ignore_eos", o.ignore_eos},
                 {"timeout_seconds", o.timeout_seconds},
                 {"token_rate", o.token_rate}});
  if (o.prompt_file.empty()) {
    config["prompt_tokens"] = o.num_prompt_tokens;
  } else {
    config["prompt_file"] = o.prompt_file;
  }
  if (o.temperature >= 0) config["temperature"] = o.temperature;
  if (!o.label.empty()) config["label"] = o.label;
  return config;
}

// What stands behind the first line of /proc/cpuinfo that begins with `key`.
std::string CpuField(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.compare(0, key.size(), key) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

std::string VectorFlags() {
  std::istringstream all(CpuField("flags"));
  std::string chosen;
  for (std::string flag; all >> flag;) {
    if (flag.compare(0, 3, "avx") != 0 && flag.compare(0, 3, "amx") != 0 && flag != "fma" &&
        flag != "f16c") {
      continue;
    }
    chosen += (chosen.empty() ? "" : " ") + flag;
  }
  return chosen;
}

std::string Milliseconds(const LatencyHistogram& h) {
  return absl::StrFormat("p50 %.3f  p90 %.3f  p99 %.3f  max %.3f ms", h.Percentile(50) * 1e3,
                         h.Percentile(90) * 1e3, h.Percentile(99) * 1e3, h.max() * 1e3);
}

}  // namespace

Provenance ReadProvenance() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char date[32];
  std::strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return {.commit = kBuildCommit,
          .preset = kBuildPreset,
          .cpu_model = CpuField("model name"),
          .cpu_flags = VectorFlags(),
          .num_cores = static_cast<int>(std::thread::hardware_concurrency()),
          .date = date};
}

std::string RunLine(const LoadResult& r, int repeat_idx) {
  ordered_json line = {{"kind", "run"},
                       {"repeat", repeat_idx},
                       {"started", r.num_started},
                       {"done", r.num_done},
                       {"not_sent", r.num_not_sent},
                       {"errors", r.errors},
                       {"prompt_tokens", r.num_prompt_tokens},
                       {"tokens", r.num_tokens},
                       {"messages", r.num_messages},
                       {"max_running", r.max_running},
                       {"wall_seconds", r.wall_seconds},
                       {"client_cpu_seconds", r.client_cpu_seconds},
                       {"server_cpu_seconds", r.server_cpu_seconds}};
  if (!r.first_error.empty()) line["first_error"] = r.first_error;
  for (const auto& [name, value] : KeyNumbers(r)) line[name] = value;
  line["time_to_first_token_seconds"] = Latencies(r.time_to_first_token);
  line["inter_token_seconds"] = Latencies(r.inter_token);
  line["message_gap_seconds"] = Latencies(r.message_gap);
  line["request_duration_seconds"] = Latencies(r.request_duration);
  line["start_delay_seconds"] = Latencies(r.start_delay);
  if (r.lateness.count() > 0) line["lateness_seconds"] = Latencies(r.lateness);
  return Dump(line);
}

std::string ResultLine(const Provenance& provenance, const LoadOptions& options,
                       const v1::ModelInfo& model, const v1::ServerInfo& server,
                       const std::vector<LoadResult>& results) {
  std::map<std::string, std::vector<double>> values;
  int64_t num_done = 0;
  int64_t num_errors = 0;
  for (const LoadResult& result : results) {
    for (const auto& [name, value] : KeyNumbers(result)) values[name].push_back(value);
    num_done += result.num_done;
    for (const auto& [code, count] : result.errors) num_errors += count;
  }
  ordered_json metrics;
  for (const auto& [name, repeats] : values) {
    metrics[name] = {{"median", Median(repeats)}, {"mad", MedianAbsoluteDeviation(repeats)}};
  }
  return Dump({{"kind", "result"},
               {"program", "gatehouse-loadgen"},
               {"date", provenance.date},
               {"commit", provenance.commit},
               {"preset", provenance.preset},
               {"cpu", provenance.cpu_model},
               {"cpu_flags", provenance.cpu_flags},
               {"cores", provenance.num_cores},
               {"threads", server.threads()},
               {"seed", options.seed},
               {"repeats", results.size()},
               {"config", ConfigJson(options)},
               {"server",
                {{"version", server.version()},
                 {"build", server.build()},
                 {"backend", server.backend()},
                 {"isa", server.isa()},
                 {"ranks", server.ranks()},
                 {"model", model.name()},
                 {"expert_weights", model.expert_weight_format()}}},
               {"done", num_done},
               {"errors", num_errors},
               {"metrics", metrics}});
}

std::string DescribeResult(const LoadResult& r) {
  std::string text = absl::StrFormat(
      "%d requests done in %.2f s: %.1f requests/s, %.1f tokens/s, %.2f tokens a message\n",
      r.num_done, r.wall_seconds, Ratio(static_cast<double>(r.num_done), r.wall_seconds),
      Ratio(static_cast<double>(r.num_tokens), r.wall_seconds),
      Ratio(static_cast<double>(r.num_tokens), static_cast<double>(r.num_messages)));
  text += absl::StrFormat("  first token     %s\n", Milliseconds(r.time_to_first_token));
  text += absl::StrFormat("  between tokens  %s\n", Milliseconds(r.inter_token));
  text += absl::StrFormat("  whole request   %s\n", Milliseconds(r.request_duration));
  if (r.lateness.count() > 0) {
    text += absl::StrFormat("  behind pace     %s\n", Milliseconds(r.lateness));
  }
  const double tokens = static_cast<double>(r.num_tokens);
  text += absl::StrFormat("  CPU per token   client %.1f us",
                          Ratio(r.client_cpu_seconds * 1e6, tokens));
  if (r.server_cpu_seconds > 0) {
    text += absl::StrFormat(", server %.1f us", Ratio(r.server_cpu_seconds * 1e6, tokens));
  }
  text += "\n";
  for (const auto& [code, count] : r.errors) text += absl::StrFormat("  %-24s %d\n", code, count);
  if (r.num_not_sent > 0) text += absl::StrFormat("  %-24s %d\n", "not sent", r.num_not_sent);
  if (!r.first_error.empty()) text += absl::StrFormat("  first error: %s\n", r.first_error);
  return text;
}

std::string DescribeProgress(const LoadProgress& p, const LoadOptions& options) {
  constexpr int kBarLength = 24;
  const double by_count =
      options.num_requests > 0
          ? Ratio(static_cast<double>(p.num_ended), static_cast<double>(options.num_requests))
          : 0;
  const double by_time =
      options.duration_seconds > 0 ? Ratio(p.seconds, options.duration_seconds) : 0;
  const double done = std::clamp(std::max(by_count, by_time), 0.0, 1.0);
  const int filled = static_cast<int>(done * kBarLength);
  return absl::StrFormat("[%s%s] %d ended, %d running, %d errors, %.0f tokens/s, %.0f s",
                         std::string(static_cast<size_t>(filled), '#'),
                         std::string(static_cast<size_t>(kBarLength - filled), ' '), p.num_ended,
                         p.num_running, p.num_errors,
                         Ratio(static_cast<double>(p.num_tokens), p.seconds), p.seconds);
}

}  // namespace gatehouse
