#include "engine/lab/lab_command.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "engine/lab/route_file.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

std::string LabWords::Last(std::string_view flag, std::string_view unless) const {
  const auto [begin, end] = flags.equal_range(flag);
  return begin == end ? std::string(unless) : std::prev(end)->second;
}

std::vector<std::string> LabWords::All(std::string_view flag) const {
  std::vector<std::string> values;
  const auto [begin, end] = flags.equal_range(flag);
  for (auto it = begin; it != end; ++it) values.push_back(it->second);
  return values;
}

absl::StatusOr<double> LabWords::Number(std::string_view flag, double unless, double min,
                                        double max) const {
  if (!Has(flag)) return unless;
  const std::string word = Last(flag, "");
  double value = 0;
  if (ParseRouteNumber(word, value) && value >= min && value <= max) return value;
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: got '%s', expected a number from %g to %g", flag, word, min, max));
}

absl::StatusOr<int64_t> LabWords::Count(std::string_view flag, int64_t unless, int64_t min,
                                        int64_t max) const {
  GATEHOUSE_ASSIGN_OR_RETURN(const double value,
                             Number(flag, static_cast<double>(unless), static_cast<double>(min),
                                    static_cast<double>(max)));
  if (value == std::floor(value)) return static_cast<int64_t>(value);
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: got %g, expected a whole number", flag, value));
}

absl::StatusOr<std::vector<double>> ReadLabNumbers(const std::string& flag, const std::string& list,
                                                   double min) {
  std::vector<double> numbers;
  for (const absl::string_view word : absl::StrSplit(list, ',', absl::SkipEmpty())) {
    double value = 0;
    if (!ParseRouteNumber({word.data(), word.size()}, value) || !(value >= min)) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s: got '%s', expected numbers from %g, separated by commas", flag, word, min));
    }
    numbers.push_back(value);
  }
  return numbers;
}

absl::StatusOr<std::vector<double>> ReadFactors(const std::string& list) {
  return ReadLabNumbers("--factors", list, 0);
}

absl::StatusOr<EvaluatorOptions> ReadEvaluatorOptions(const LabWords& words) {
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t window, words.Count("--window", 256, 1, 1 << 20));
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t batch, words.Count("--batch", 16, 1, 1 << 12));
  const int64_t cores = std::max(1U, std::thread::hardware_concurrency());
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t threads, words.Count("--threads", cores, 1, 1 << 10));
  if (window * batch > (1 << 22)) {
    return absl::InvalidArgumentError("--window times --batch: expected at most 4194304 tokens");
  }
  return EvaluatorOptions{.model_dir = words.plain.front(),
                          .num_threads = static_cast<int>(threads),
                          .window = static_cast<int32_t>(window),
                          .batch_windows = static_cast<int32_t>(batch)};
}

absl::StatusOr<Affinity> ReadAffinityName(std::string_view flag, const std::string& name) {
  const char* names[] = {"gate", "share", "cosine"};
  for (int i = 0; i < 3; ++i) {
    if (name == names[i]) return static_cast<Affinity>(i);
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: got '%s', expected gate, share or cosine", flag, name));
}

absl::StatusOr<EvalTokens> ReadEvalTokens(const std::string& tokens_file,
                                          const std::string& text_file,
                                          const Evaluator& evaluator) {
  const int32_t window = evaluator.options().window;
  if (text_file.empty()) {
    return ReadTokenFile(tokens_file, window, evaluator.parts().model.vocab_size);
  }
  return ReadTextTokens(text_file, window, *evaluator.parts().tokenizer);
}

int LabUsageError(const absl::Status& status, const char* usage) {
  std::fprintf(stderr, "gatehouse-lab: %s\n%s", std::string(status.message()).c_str(), usage);
  return 2;
}

int LabExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "gatehouse-lab: %s\n", std::string(status.message()).c_str());
  return 1;
}

absl::StatusOr<LabWords> ReadLabWords(const std::vector<std::string>& words,
                                      std::initializer_list<std::string_view> switches,
                                      std::initializer_list<std::string_view> flags) {
  const auto contains = [](std::initializer_list<std::string_view> list, std::string_view word) {
    return std::find(list.begin(), list.end(), word) != list.end();
  };
  LabWords read;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (!word.starts_with("--")) {
      read.plain.push_back(word);
    } else if (contains(switches, word)) {
      read.flags.emplace(word, "");
    } else if (!contains(flags, word)) {
      return absl::InvalidArgumentError("there is no flag '" + word + "'");
    } else if (i + 1 == words.size()) {
      return absl::InvalidArgumentError(word + ": expected a value");
    } else {
      read.flags.emplace(word, words[++i]);
    }
  }
  return read;
}

}  // namespace gatehouse
