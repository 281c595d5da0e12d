// A load run's numbers as JSON lines (for files and scripts) and as text (for people).
#pragma once

#include <string>
#include <vector>

#include "client/load_options.h"
#include "client/load_run.h"
#include "gatehouse/v1/inference.pb.h"

namespace gatehouse {

// The machine and build that made a result.
struct Provenance {
  std::string commit;  // of the sources, with -dirty if they differ
  std::string preset;
  std::string cpu_model;
  std::string cpu_flags;  // the vector extensions among them
  int num_cores = 0;
  std::string date;  // UTC, ISO 8601
};
Provenance ReadProvenance();

// One repeat: {"kind": "run", ...}.
std::string RunLine(const LoadResult& result, int repeat_idx);

// All repeats: {"kind": "result", commit, preset, cpu, threads, seed, repeats, config, server,
// metrics: {name: {median, mad}}}.
std::string ResultLine(const Provenance& provenance, const LoadOptions& options,
                       const v1::ModelInfo& model, const v1::ServerInfo& server,
                       const std::vector<LoadResult>& results);

std::string DescribeResult(const LoadResult& result);
// One line without line break; `total` 0: not known.
std::string DescribeProgress(const LoadProgress& progress, const LoadOptions& options);

}  // namespace gatehouse
