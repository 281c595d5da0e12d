// gatehouse-lab pack.
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "engine/lab/lab_command.h"
#include "engine/loaded_model.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

const char kPackUsage[] =
    "pack     MODEL --output DIR\n"
    "         packs the weights for gatehouse-server --packed-cache DIR, which then starts from\n"
    "         what it finds there; says so if DIR has them already\n"
    "  --weights F        how experts are held: auto (as stored), f32, bf16, int8, int4\n"
    "  --dense-weights F  the same for everything but experts\n"
    "  --threads N        [2]\n";

namespace {

absl::StatusOr<std::optional<WeightFormat>> ReadFormat(const LabWords& words,
                                                       std::string_view flag) {
  const std::string name = words.Last(flag, "auto");
  const std::optional<WeightFormat> format = FindWeightFormat(name);
  if (format || name == "auto") return format;
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: got '%s', expected auto, f32, bf16, int8 or int4", flag, name));
}

struct PackCommand {
  ModelOptions model;
  int num_threads = 0;
};

absl::StatusOr<PackCommand> ReadPackCommand(const std::vector<std::string>& words) {
  GATEHOUSE_ASSIGN_OR_RETURN(
      const LabWords read,
      ReadLabWords(words, {}, {"--output", "--weights", "--dense-weights", "--threads"}));
  PackCommand command;
  if (read.plain.size() != 1) {
    return absl::InvalidArgumentError("pack: expected one model folder");
  }
  command.model.model_dir = read.plain[0];
  command.model.packed_cache = read.Last("--output", "");
  if (command.model.packed_cache.empty()) {
    return absl::InvalidArgumentError("pack: expected --output DIR");
  }
  GATEHOUSE_ASSIGN_OR_RETURN(command.model.expert_weights, ReadFormat(read, "--weights"));
  GATEHOUSE_ASSIGN_OR_RETURN(command.model.dense_weights, ReadFormat(read, "--dense-weights"));
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t num_threads, read.Count("--threads", 2, 1, 1024));
  command.num_threads = static_cast<int>(num_threads);
  return command;
}

absl::Status Pack(const PackCommand& command) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  GATEHOUSE_ASSIGN_OR_RETURN(Backends backends,
                             MakeBackends("cpu", {.num_threads = command.num_threads}, 1));
  EngineConfig config{.model = command.model};  // no step runs: the least of all else
  config.scheduler.max_sequences = 1;
  config.scheduler.max_step_tokens = 1;
  config.scheduler.max_context = 1;
  GATEHOUSE_ASSIGN_OR_RETURN(const LoadedParts parts, LoadParts(config, std::move(backends)));
  const PackedCacheReport& report = parts.description.packed_cache;
  if (!report.not_saved.empty()) {
    return absl::FailedPreconditionError(absl::StrFormat("%s: %s", report.file, report.not_saved));
  }
  std::error_code ignored;
  const uintmax_t num_bytes = std::filesystem::file_size(report.file, ignored);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  std::printf("%s: %s, %.1f MiB, %.1f s%s\n", report.file.c_str(),
              report.not_read.empty() ? "is up to date" : "written",
              static_cast<double>(num_bytes) / (1 << 20), seconds,
              report.not_read.empty() ? "" : (" (" + report.not_read + ")").c_str());
  return absl::OkStatus();
}

}  // namespace

int RunPackCommand(const std::vector<std::string>& words) {
  const absl::StatusOr<PackCommand> command = ReadPackCommand(words);
  if (!command.ok()) return LabUsageError(command.status(), kPackUsage);
  return LabExitCode(Pack(*command));
}

}  // namespace gatehouse
