// gatehouse-lab eval.
#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "engine/lab/eval_policy.h"
#include "engine/lab/eval_run.h"
#include "engine/lab/lab_command.h"
#include "engine/lab/model_facts.h"
#include "engine/lab/route_file.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

const char kEvalUsage[] =
    "eval     MODEL (--tokens FILE | --text FILE) [--policy \"NAME: WORDS\"]... [--factors LIST]\n"
    "         loss, perplexity, divergence from exact routing, drops, loads and estimated time of\n"
    "         the experts under bounds or with narrow weights, all on the same tokens. A policy is "
    "written in the "
    "settings\n"
    "         of a route file (docs/routing.md), F standing for the capacity factor:\n"
    "           --policy \"device: gamma_dev F devices 4 nbar_min 0\" --factors 0.75,1,inf\n"
    "  --tokens FILE      16-bit ids, window + 1 for each window (the last is predicted only)\n"
    "  --text FILE        text, cut into windows one after the other\n"
    "  --curve AFFINITY   the policies of docs/routing.md on that affinity: gate, share, "
    "cosine\n"
    "  --weights LIST     of formats f32, bf16, int8, int4: the model held so, routed exactly\n"
    "  --factors LIST     (0.5,0.75,1,1.25,1.5,2,inf)\n"
    "  --exempt LIST      MoE layers, counted from 0, that are routed exactly (none)\n"
    "  --calibration FILE for thresholds calibrated, and checked against the model\n"
    "  --window N         tokens of a sequence (256)     --batch B   sequences of a step (16)\n"
    "  --windows N        so many of them (all)          --threads N (all cores)\n"
    "  --json             one JSON object a line\n";

namespace {

struct EvalCommand {
  EvaluatorOptions evaluator;
  std::string tokens_file, text_file, calibration_file;
  std::vector<EvalPolicy> policies;
  std::vector<double> factors;
  std::vector<WeightFormat> weights;
  std::vector<int32_t> exempt_layers;
  int64_t max_windows = 0;
  bool json = false;
};

absl::Status ReadPolicies(const LabWords& words, EvalCommand& command) {
  for (const std::string& text : words.All("--policy")) {
    GATEHOUSE_ASSIGN_OR_RETURN(EvalPolicy policy, ParseEvalPolicy(text));
    command.policies.push_back(std::move(policy));
  }
  if (!words.Has("--curve")) return absl::OkStatus();
  GATEHOUSE_ASSIGN_OR_RETURN(const Affinity affinity,
                             ReadAffinityName("--curve", words.Last("--curve", "")));
  for (EvalPolicy& policy : CurvePolicies(affinity)) command.policies.push_back(std::move(policy));
  return absl::OkStatus();
}

absl::StatusOr<EvalCommand> ReadCommand(const std::vector<std::string>& texts) {
  GATEHOUSE_ASSIGN_OR_RETURN(const LabWords words,
                             ReadLabWords(texts, {"--json"},
                                          {"--tokens", "--text", "--policy", "--curve", "--factors",
                                           "--exempt", "--calibration", "--weights", "--window",
                                           "--batch", "--windows", "--threads"}));
  EvalCommand command{.tokens_file = words.Last("--tokens", ""),
                      .text_file = words.Last("--text", ""),
                      .calibration_file = words.Last("--calibration", ""),
                      .json = words.Has("--json")};
  if (words.plain.size() != 1) return absl::InvalidArgumentError("eval: expected one model folder");
  if (command.tokens_file.empty() == command.text_file.empty()) {
    return absl::InvalidArgumentError("eval: expected --tokens or --text");
  }
  GATEHOUSE_ASSIGN_OR_RETURN(command.evaluator, ReadEvaluatorOptions(words));
  GATEHOUSE_ASSIGN_OR_RETURN(command.max_windows, words.Count("--windows", 0, 0, int64_t{1} << 40));
  GATEHOUSE_RETURN_IF_ERROR(ReadPolicies(words, command));
  for (const absl::string_view name :
       absl::StrSplit(words.Last("--weights", ""), ',', absl::SkipEmpty())) {
    const std::optional<WeightFormat> format = FindWeightFormat({name.data(), name.size()});
    if (!format) {
      return absl::InvalidArgumentError(
          absl::StrFormat("--weights: got \"%s\", expected f32, bf16, int8 or int4", name));
    }
    command.weights.push_back(*format);
  }
  GATEHOUSE_ASSIGN_OR_RETURN(command.factors,
                             ReadFactors(words.Last("--factors", "0.5,0.75,1,1.25,1.5,2,inf")));
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<double> exempt,
                             ReadLabNumbers("--exempt", words.Last("--exempt", ""), 0));
  for (const double layer : exempt) command.exempt_layers.push_back(static_cast<int32_t>(layer));
  return command;
}

absl::StatusOr<std::vector<EvalCase>> MakeCases(const EvalCommand& command,
                                                const PolicyModel& model,
                                                const Calibration* calibration) {
  std::vector<EvalCase> cases;
  for (const EvalPolicy& policy : command.policies) {
    std::vector<double> factors = {std::numeric_limits<double>::quiet_NaN()};
    if (policy.has_factor()) factors = command.factors;
    for (const double factor : factors) {
      GATEHOUSE_ASSIGN_OR_RETURN(PinnedPolicy pinned,
                                 MakePinnedPolicy(policy, model,
                                                  {.factor = factor,
                                                   .calibration = calibration,
                                                   .exempt_layers = command.exempt_layers}));
      cases.push_back({.name = policy.name, .factor = factor, .policy = std::move(pinned)});
    }
  }
  return cases;
}

std::string FactorText(double factor) {
  return std::isnan(factor) ? "-" : absl::StrFormat("%g", factor);
}

void PrintTable(const std::vector<EvalResult>& results, double bytes_per_token) {
  std::printf("%-18s %6s %8s %9s %8s %8s %7s %7s %7s %7s %7s\n", "policy", "factor", "loss",
              "+loss", "se", "kl", "dropped", "moved", "mass", "load", "time");
  for (const EvalResult& result : results) {
    const RouteTotals& totals = result.totals;
    const double moved = static_cast<double>(totals.report.rerouted) /
                         std::max(1.0, static_cast<double>(totals.report.assignments));
    std::printf("%-18s %6s %8.4f %+9.4f %8.4f %8.4f %6.2f%% %6.2f%% %7.4f %7.3f %7.3f\n",
                result.name.c_str(), FactorText(result.factor).c_str(), result.loss,
                result.loss_difference, result.loss_difference_se, result.kl,
                100 * totals.drop_share(), 100 * moved, totals.gate_mass_kept(),
                totals.mean_max_load(), totals.step_time());
  }
  const EvalResult& exact = results.front();
  std::printf(
      "\n%lld tokens. Exact: perplexity %.3f, %.4f bits/byte at %.3f bytes a token; kl on %lld "
      "rows.\n"
      "loss, +loss, se, kl: nats/token. dropped, moved: share of pairs. mass: gate mass kept.\n"
      "load: largest expert load over the mean of what was asked; time: of the experts on the\n"
      "slowest device, 1 where no work is dropped and all devices are equally busy.\n",
      static_cast<long long>(exact.num_tokens), std::exp(exact.loss),
      exact.loss / std::log(2.0) / bytes_per_token, bytes_per_token,
      static_cast<long long>(exact.num_kl_rows));
}

void PrintJson(const EvalCommand& command, const std::vector<EvalResult>& results,
               double bytes_per_token) {
  for (const EvalResult& result : results) {
    const RouteTotals& totals = result.totals;
    nlohmann::ordered_json line = {{"model", command.evaluator.model_dir},
                                   {"policy", result.name},
                                   {"factor", nullptr},
                                   {"tokens", result.num_tokens},
                                   {"loss", result.loss},
                                   {"perplexity", std::exp(result.loss)},
                                   {"bits_per_byte", result.loss / std::log(2.0) / bytes_per_token},
                                   {"loss_difference", result.loss_difference},
                                   {"loss_difference_se", result.loss_difference_se},
                                   {"kl", result.kl},
                                   {"kl_rows", result.num_kl_rows},
                                   {"assignments", totals.report.assignments},
                                   {"kept", totals.report.kept},
                                   {"rerouted", totals.report.rerouted},
                                   {"dropped", totals.report.dropped},
                                   {"overrides", totals.report.overrides},
                                   {"drop_share", totals.drop_share()},
                                   {"gate_mass_kept", totals.gate_mass_kept()},
                                   {"max_load", totals.mean_max_load()},
                                   {"max_device_load", totals.mean_max_device_load()},
                                   {"step_time", totals.step_time()},
                                   {"seconds", result.seconds}};
    if (std::isfinite(result.factor)) line["factor"] = result.factor;
    if (std::isinf(result.factor)) line["factor"] = "inf";
    std::printf("%s\n", line.dump().c_str());
  }
}

absl::Status Eval(const EvalCommand& command) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::unique_ptr<Evaluator> evaluator,
                             Evaluator::Create(command.evaluator));
  const LoadedParts& parts = evaluator->parts();
  Calibration calibration;
  if (!command.calibration_file.empty()) {
    GATEHOUSE_ASSIGN_OR_RETURN(calibration, LoadCalibration(command.calibration_file));
    GATEHOUSE_RETURN_IF_ERROR(
        CheckCalibration(calibration, CalibratedModelOf(parts), command.calibration_file));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const EvalTokens tokens,
                             ReadEvalTokens(command.tokens_file, command.text_file, *evaluator));
  GATEHOUSE_ASSIGN_OR_RETURN(std::vector<EvalCase> cases,
                             MakeCases(command, PolicyModelOf(parts),
                                       command.calibration_file.empty() ? nullptr : &calibration));
  const bool has_policy = !cases.empty();
  std::vector<std::unique_ptr<Evaluator>> narrow;
  for (const WeightFormat format : command.weights) {
    EvaluatorOptions narrow_options = command.evaluator;
    narrow_options.weights = format;
    GATEHOUSE_ASSIGN_OR_RETURN(narrow.emplace_back(), Evaluator::Create(narrow_options));
    cases.push_back({.name = "weights " + std::string(WeightFormatName(format)),
                     .factor = std::numeric_limits<double>::quiet_NaN(),
                     .narrow = narrow.back().get()});
  }
  EvalRunOptions options{.max_windows = command.max_windows};
  const int32_t num_experts = std::max(parts.model.moe.num_experts, 1);
  options.exact_placement =
      has_policy ? cases.front().policy.placement : LinearPlacement(num_experts, 1);
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<EvalResult> results,
                             RunEval(*evaluator, tokens, cases, options, [&](int64_t num_windows) {
                               std::fprintf(stderr, "\r%d windows", static_cast<int>(num_windows));
                             }));
  std::fprintf(stderr, "\n");
  const int64_t num_windows = results.front().num_tokens / command.evaluator.window;
  const double bytes_per_token = BytesPerToken(tokens, num_windows, *parts.tokenizer);
  if (command.json) {
    PrintJson(command, results, bytes_per_token);
  } else {
    PrintTable(results, bytes_per_token);
  }
  return absl::OkStatus();
}

}  // namespace

int RunEvalCommand(const std::vector<std::string>& words) {
  const absl::StatusOr<EvalCommand> command = ReadCommand(words);
  if (!command.ok()) return LabUsageError(command.status(), kEvalUsage);
  return LabExitCode(Eval(*command));
}

}  // namespace gatehouse
