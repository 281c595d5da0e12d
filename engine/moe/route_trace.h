// A record of what gates said in served steps, with each step's composition, to try other
// placements and policies on (gatehouse-lab simulate). No text, no token ids, no tenants.
//
//   file    "GHROUTE1", the model's hash (16 characters), num_experts, num_moe_layers, top_k,
//           num_ranked (u32 each), then steps to the end of the file
//   step    num_rows (u32); of each row request (u32), position (u32), 1 for decode (u8);
//           then by MoE layer and row num_ranked times: expert (u16, 65535: none), P (bf16)
//
// Numbers are little-endian. Values, but for the reader, which one thread uses.
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gatehouse {

struct TraceHeader {
  std::string model_hash;  // 16 characters
  int32_t num_experts = 0;
  int32_t num_moe_layers = 0;
  int32_t top_k = 0;
  int32_t num_ranked = 0;  // >= top_k
};

struct TraceRow {
  uint32_t request = 0;
  uint32_t position = 0;
  bool decode = false;
};

struct TraceStep {
  std::vector<TraceRow> rows;
  // [num_moe_layers, num_rows, num_ranked] best first; -1: none from here on.
  std::vector<int32_t> ranked_ids;
  std::vector<float> gate;  // P, rounded to bf16
};

std::string EncodeTraceHeader(const TraceHeader& header);
std::string EncodeTraceStep(const TraceStep& step);

// INVALID_ARGUMENT "<name>: byte N: ..." where the file is not of the format.
class TraceReader {
 public:
  static absl::StatusOr<TraceReader> Open(std::istream& stream, const std::string& name);

  const TraceHeader& header() const { return header_; }
  // False at the end of the file.
  absl::StatusOr<bool> Next(TraceStep& step);

 private:
  TraceReader(std::istream& stream, const std::string& name) : stream_(&stream), name_(name) {}

  absl::Status Error(std::string_view what) const;
  absl::Status Read(std::string& bytes, size_t count);

  std::istream* stream_;
  std::string name_;
  TraceHeader header_;
  int64_t offset_ = 0;  // of the next byte
};

}  // namespace gatehouse
