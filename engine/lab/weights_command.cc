// gatehouse-lab weights.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "engine/lab/lab_command.h"
#include "engine/lab/weight_error.h"
#include "engine/model/checkpoint.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

const char kWeightsUsage[] =
    "weights  MODEL\n"
    "         what bf16, int8 and int4 lose of each matrix: the root mean square error over that\n"
    "         of the values\n"
    "  --json             one JSON object a line\n";

namespace {

absl::Status PrintErrors(const std::string& dir, bool json) {
  GATEHOUSE_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(dir));
  GATEHOUSE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(dir));
  GATEHOUSE_ASSIGN_OR_RETURN(const TensorViews views, FindTensors(checkpoint, config));
  const ModelTensors tensors = GroupTensors(config, views);
  if (!json) std::printf("%-64s %10s %10s %10s\n", "matrix", "bf16", "int8", "int4");
  for (const NamedMatrix& matrix : RoundedMatrices(tensors)) {
    const double bf16 = RelativeError(WeightFormat::kBF16, matrix.view);
    const double int8 = RelativeError(WeightFormat::kInt8, matrix.view);
    const double int4 = RelativeError(WeightFormat::kInt4, matrix.view);
    if (json) {
      const nlohmann::ordered_json line = {
          {"matrix", matrix.name}, {"bf16", bf16}, {"int8", int8}, {"int4", int4}};
      std::printf("%s\n", line.dump().c_str());
    } else {
      std::printf("%-64s %9.4f%% %9.4f%% %9.4f%%\n", matrix.name.c_str(), 100 * bf16, 100 * int8,
                  100 * int4);
    }
  }
  return absl::OkStatus();
}

}  // namespace

int RunWeightsCommand(const std::vector<std::string>& words) {
  const absl::StatusOr<LabWords> read = ReadLabWords(words, {"--json"}, {});
  if (!read.ok()) return LabUsageError(read.status(), kWeightsUsage);
  if (read->plain.size() != 1) {
    return LabUsageError(absl::InvalidArgumentError("weights: expected one model folder"),
                         kWeightsUsage);
  }
  return LabExitCode(PrintErrors(read->plain[0], read->Has("--json")));
}

}  // namespace gatehouse
