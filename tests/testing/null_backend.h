// A back end that computes nothing (after tinygrad's ops_null): Sample gives the tokens of a
// script, GateTopK spreads rows evenly, every other operation leaves its output as it is. With a
// pace, a step takes at least that long. So a benchmark of server and engine measures neither
// weights nor arithmetic. Memory is host memory, zeroed.
//
// Owned by the worker; one thread at a time. Tokens come in the order in which rows ask for them:
// bias and allowed_ids are not looked at, so leave eos out of the script or ask for ignore_eos.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "kernels/base/clock.h"

namespace gatehouse {

struct NullBackendOptions {
  std::vector<int32_t> script;  // token ids, taken in turn, over and over; at least one
  Duration step_duration{};     // from one Finish to the next; 500 tokens/s a stream: 2 ms
};

class NullBackend final : public Backend {
 public:
  explicit NullBackend(NullBackendOptions options);

  std::string_view name() const override { return "null"; }
  std::string isa() const override { return "none"; }

  absl::StatusOr<Buffer> Allocate(size_t num_bytes) override;
  void CopyFromHost(void* destination, const void* source, size_t num_bytes) override;
  size_t KvBlockBytes(const KvShape& shape) const override;

  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(std::span<const WeightView> stacked,
                                                           WeightFormat format) override;
  absl::StatusOr<std::unique_ptr<PackedExperts>> PackExperts(std::span<const ExpertSource> experts,
                                                             WeightFormat format) override;
  size_t PackedMatrixBytes(int64_t, int64_t, WeightFormat) const override { return 0; }
  size_t PackedExpertsBytes(const ExpertsShape&, WeightFormat) const override { return 0; }
  size_t GemmScratchBytes(int64_t, int64_t, WeightFormat) const override { return 0; }
  size_t ExpertFfnScratchBytes(const ExpertFfnShape&, WeightFormat) const override { return 0; }
  absl::Status ReserveScratch(size_t) override { return absl::OkStatus(); }

  void BeginStep(const BatchLayout&) override {}
  void Embed(const EmbedArgs&) override {}
  void RmsNorm(const RmsNormArgs&) override {}
  void Gemm(const GemmArgs&) override {}
  void HeadGemm(const HeadGemmArgs&) override {}
  void QkvToCache(const QkvToCacheArgs&) override {}
  void LatentToCache(const LatentToCacheArgs&) override {}
  void Attention(const AttentionArgs&) override {}
  void RowNorms(const RowNormsArgs&) override {}
  void BlockMeans(const BlockMeansArgs&) override {}
  void Cosines(const CosinesArgs&) override {}
  void GateTopK(const GateTopKArgs& args) override;
  void ExpertFfn(const ExpertFfnArgs&) override {}
  void Combine(const CombineArgs&) override {}
  void Add(const AddArgs&) override {}
  void Sample(const SampleArgs& args) override;
  absl::Status Finish() override;

 private:
  const NullBackendOptions options_;
  size_t next_token_ = 0;  // index in the script
  TimePoint next_finish_{};
};

}  // namespace gatehouse
