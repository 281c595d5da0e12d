// Ranks of the deployment that are not in this process, as the engine finds them. Implemented by
// the server; outlives the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/local_rank.h"
#include "engine/rank_peer.h"
#include "kernels/kv_type.h"

namespace gatehouse {

// What all ranks have in common, decided by the first.
struct RankSettings {
  int num_ranks = 1;  // of the deployment
  std::string model_hash;
  std::string expert_weight_format;
  std::string dense_weight_format;
  KvType kv_type = KvType::kF32;
  int32_t block_tokens = 0;
  int64_t kv_block_bytes = 0;
  int64_t num_kv_blocks = 0;  // of each rank
  int32_t max_sequences = 0;
  int32_t max_step_tokens = 0;
  int32_t max_context = 0;  // in force
};

class RemoteRanks {
 public:
  virtual ~RemoteRanks() = default;
  virtual int num_ranks() const = 0;  // besides the first
  // Waits until all of them have loaded the model; ascending from rank 1. What keeps them out, once
  // it cannot change by waiting.
  virtual absl::StatusOr<std::vector<std::unique_ptr<RankPeer>>> Start(
      const RankSettings& settings) = 0;
  // How the first rank meets them.
  virtual JoinGroup join() = 0;
};

}  // namespace gatehouse
