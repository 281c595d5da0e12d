// A worker that computes nothing: a row's token is a hash of all tokens up to it, read back through
// the block tables as attention reads keys. So a wrong table, a lost token or a block with two
// owners changes the output, and Choose() says without any engine what the output must be.
//
// Owned by the engine or by a test; one thread at a time calls Run, which honours forced_id, -inf
// bias, temperature (then `uniform` counts), num_top_logprobs and wanted_ids: the i-th most likely
// token has probability 2^-(i + 1), and the most likely one is what is chosen.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/scheduler/step_plan.h"
#include "engine/worker.h"
#include "kernels/base/clock.h"

namespace gatehouse {

struct FakeWorkerOptions {
  int num_ranks = 1;
  int32_t num_blocks = 0;  // of each rank
  int32_t block_tokens = 16;
  int32_t vocab_size = 1000;
  int num_moe_layers = 0;
  int num_experts = 8;
  int top_k = 2;
  Duration step_duration{};  // Run sleeps for it
  // Ranks that are up when the n-th Run begins, from 0; ranks that the plan uses and that are not
  // make it UNAVAILABLE. Null: all, always. A rank that was down has an empty cache.
  std::function<std::vector<int>(int64_t n)> ranks_up;
  // Called at the start of the n-th Run, from 0, with its plan; an error is what Run returns.
  std::function<absl::Status(int64_t n, const StepPlan& plan)> before_step;
  // Added to the hash of bounded rows: their most likely tokens are so many ids higher.
  uint64_t bounded_shift = 0;
  // True marks the row failed.
  std::function<bool(int32_t token_id, int32_t position)> row_fails;
};

class FakeWorker final : public Worker {
 public:
  explicit FakeWorker(FakeWorkerOptions options);
  const std::vector<ExpertPlacement>& placements() const override { return placements_; }
  void Place(int moe_layer_idx, const ExpertPlacement& placement) override {
    placements_[moe_layer_idx] = placement;
  }
  absl::StatusOr<StepResult> Run(const StepPlan& plan,
                                 std::span<const RowSampling> sampling) override;

  const Membership& membership() const override { return membership_; }
  bool needs_regroup() const override { return membership_.members != up_; }
  absl::StatusOr<Regrouped> Regroup() override;

  // What Run chooses after `tokens`.
  static RowSample Choose(std::span<const int32_t> tokens, int32_t vocab_size,
                          const RowSampling& sampling);
  // The first expert of the row of the last of `tokens`: slot s of MoE layer l holds
  // (this + l + s) % num_experts.
  static int32_t FirstExpert(std::span<const int32_t> tokens, int num_experts);

 private:
  struct Slot {
    uint64_t hash = 0;      // of the tokens up to here
    int32_t position = -1;  // that was written here last
  };
  Slot& SlotOf(const SequenceSpan& span, int32_t rank, int32_t position);
  void AddRoutes(std::span<const uint64_t> row_hashes, StepResult& result) const;

  const FakeWorkerOptions options_;
  std::vector<Slot> cache_;                  // [num_ranks * num_blocks * block_tokens]
  std::vector<ExpertPlacement> placements_;  // [num_moe_layers]
  Membership membership_;
  std::vector<int> up_;
  int64_t num_steps_ = 0;
};

}  // namespace gatehouse
