// The commands of gatehouse-lab, each with its words behind the command's own. They print, and
// return the exit code: 0 done, 1 it could not be done, 2 bad usage.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/lab/eval_tokens.h"
#include "engine/lab/evaluator.h"

namespace gatehouse {

// Words as "--flag value", "--switch" and others.
struct LabWords {
  std::vector<std::string> plain;
  std::multimap<std::string, std::string, std::less<>> flags;  // in the order of the words

  bool Has(std::string_view flag) const { return flags.count(flag) > 0; }
  std::string Last(std::string_view flag, std::string_view unless) const;
  std::vector<std::string> All(std::string_view flag) const;
  // INVALID_ARGUMENT for what is no number from min to max.
  absl::StatusOr<int64_t> Count(std::string_view flag, int64_t unless, int64_t min,
                                int64_t max) const;
  absl::StatusOr<double> Number(std::string_view flag, double unless, double min, double max) const;
};
// INVALID_ARGUMENT names a flag that is not among those, or that lacks its value.
absl::StatusOr<LabWords> ReadLabWords(const std::vector<std::string>& words,
                                      std::initializer_list<std::string_view> switches,
                                      std::initializer_list<std::string_view> flags);

// Separated by commas, none below min.
absl::StatusOr<std::vector<double>> ReadLabNumbers(const std::string& flag, const std::string& list,
                                                   double min);
absl::StatusOr<std::vector<double>> ReadFactors(const std::string& list);  // --factors
// --window, --batch, --threads and the model folder.
absl::StatusOr<EvaluatorOptions> ReadEvaluatorOptions(const LabWords& words);
absl::StatusOr<Affinity> ReadAffinityName(std::string_view flag, const std::string& name);
// One of the two files is named.
absl::StatusOr<EvalTokens> ReadEvalTokens(const std::string& tokens_file,
                                          const std::string& text_file, const Evaluator& evaluator);

// They say on stderr what is wrong.
int LabUsageError(const absl::Status& status, const char* usage);
int LabExitCode(const absl::Status& status);

extern const char kEvalUsage[], kCalibrateUsage[], kSimulateUsage[], kWeightsUsage[], kPackUsage[];
int RunEvalCommand(const std::vector<std::string>& words);
int RunCalibrateCommand(const std::vector<std::string>& words);
int RunSimulateCommand(const std::vector<std::string>& words);
int RunWeightsCommand(const std::vector<std::string>& words);
int RunPackCommand(const std::vector<std::string>& words);

}  // namespace gatehouse
