// gatehouse-lab calibrate.
#include <cstdio>
#include <fstream>
#include <thread>

#include "absl/strings/str_format.h"
#include "engine/lab/calibrator.h"
#include "engine/lab/lab_command.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

const char kCalibrateUsage[] =
    "calibrate MODEL (--tokens FILE | --text FILE) -o OUT.json\n"
    "         thresholds, floors, layers to exempt and quality against capacity, bound to the "
    "model:\n"
    "         what the server wants to see before it bounds requests in shared mode\n"
    "  --affinity A       that thresholds are of: gate, share, cosine (share)\n"
    "  --drop-share X     of pairs, that thresholds drop (0.25)\n"
    "  --balance          a threshold an expert, so that none expects more than its share\n"
    "  --probe-windows N  for the cost of each layer alone (32)\n"
    "  --window, --batch, --windows, --threads   as in eval\n";

namespace {

struct CalibrateCommand {
  EvaluatorOptions evaluator;
  CalibrateOptions options;
  std::string tokens_file, text_file, out_file;
};

absl::StatusOr<CalibrateCommand> ReadCommand(std::vector<std::string> texts) {
  for (std::string& text : texts) {
    if (text == "-o") text = "--out";
  }
  GATEHOUSE_ASSIGN_OR_RETURN(
      const LabWords words,
      ReadLabWords(texts, {"--balance"},
                   {"--tokens", "--text", "--out", "--affinity", "--drop-share", "--probe-windows",
                    "--window", "--batch", "--windows", "--threads"}));
  CalibrateCommand command{.tokens_file = words.Last("--tokens", ""),
                           .text_file = words.Last("--text", ""),
                           .out_file = words.Last("--out", "")};
  if (words.plain.size() != 1 || command.out_file.empty() ||
      command.tokens_file.empty() == command.text_file.empty()) {
    return absl::InvalidArgumentError(
        "calibrate: expected one model folder, --tokens or --text, and -o");
  }
  GATEHOUSE_ASSIGN_OR_RETURN(command.evaluator, ReadEvaluatorOptions(words));
  GATEHOUSE_ASSIGN_OR_RETURN(command.options.affinity,
                             ReadAffinityName("--affinity", words.Last("--affinity", "share")));
  GATEHOUSE_ASSIGN_OR_RETURN(command.options.drop_share, words.Number("--drop-share", 0.25, 0, 1));
  GATEHOUSE_ASSIGN_OR_RETURN(command.options.max_windows,
                             words.Count("--windows", 0, 0, int64_t{1} << 40));
  GATEHOUSE_ASSIGN_OR_RETURN(command.options.max_probe_windows,
                             words.Count("--probe-windows", 32, 1, int64_t{1} << 40));
  command.options.balance = words.Has("--balance");
  return command;
}

void PrintSummary(const Calibration& calibration) {
  std::printf("model %s, %lld tokens, loss %.4f nats/token, %.0f rows/s through the experts\n\n",
              calibration.model_hash.c_str(), static_cast<long long>(calibration.num_tokens),
              calibration.loss, calibration.expert_rows_per_second);
  std::printf("%-6s %10s %8s %8s %10s  %s\n", "layer", "threshold", "delta", "d_eff", "if bound",
              "");
  for (size_t l = 0; l < calibration.layers.size(); ++l) {
    const CalibratedLayer& layer = calibration.layers[l];
    std::printf("%-6zu %10.4f %8.4f %8.1f %+10.4f  %s\n", l, layer.thresholds.front(), layer.delta,
                layer.effective_dim, layer.bound_cost, layer.exempt ? "exempt" : "");
  }
  std::printf("\n%-10s %7s %9s %8s %8s %8s\n", "policy", "factor", "+loss", "kl", "dropped",
              "mass");
  for (const MeasuredQuality& cell : calibration.quality) {
    std::printf("%-10s %7g %+9.4f %8.4f %7.2f%% %8.4f\n", cell.policy.c_str(), cell.factor,
                cell.loss_difference, cell.kl, 100 * cell.drop_share, cell.gate_mass_kept);
  }
}

absl::Status CalibrateModel(const CalibrateCommand& command) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::unique_ptr<Evaluator> evaluator,
                             Evaluator::Create(command.evaluator));
  GATEHOUSE_ASSIGN_OR_RETURN(const EvalTokens tokens,
                             ReadEvalTokens(command.tokens_file, command.text_file, *evaluator));
  GATEHOUSE_ASSIGN_OR_RETURN(const Calibration calibration,
                             Calibrate(*evaluator, tokens, command.options));
  std::ofstream out(command.out_file, std::ios::binary);
  out << FormatCalibration(calibration);
  if (!out.flush()) return absl::InternalError(command.out_file + ": cannot be written");
  PrintSummary(calibration);
  return absl::OkStatus();
}

}  // namespace

int RunCalibrateCommand(const std::vector<std::string>& words) {
  const absl::StatusOr<CalibrateCommand> command = ReadCommand(words);
  if (!command.ok()) return LabUsageError(command.status(), kCalibrateUsage);
  return LabExitCode(CalibrateModel(*command));
}

}  // namespace gatehouse
