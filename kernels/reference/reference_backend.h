// The specification of every operation: plain loops over the definitions of backend.h, every sum in
// double, one rounding to f32 where a result is stored. Slow on purpose and linked by tests only;
// the fast back ends are compared with it. The body of an operation stands in the file of its name.
//
// One thread. Fails never: its memory is std::vector and new.
//
// A block of its cache is [key, value][num_kv_heads][block_tokens][head_dim].
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kernels/backend.h"

namespace gatehouse {

class ReferenceBackend : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  std::string isa() const override { return "double"; }

  absl::StatusOr<Buffer> Allocate(size_t num_bytes) override;
  void CopyFromHost(void* destination, const void* source, size_t num_bytes) override;
  size_t KvBlockBytes(const KvShape& shape) const override;

  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(std::span<const WeightView> stacked,
                                                           WeightFormat format) override;
  absl::StatusOr<std::unique_ptr<PackedExperts>> PackExperts(std::span<const ExpertSource> experts,
                                                             WeightFormat format) override;
  size_t PackedMatrixBytes(int64_t num_outputs, int64_t num_inputs,
                           WeightFormat format) const override;
  size_t PackedExpertsBytes(const ExpertsShape& shape, WeightFormat format) const override;

  size_t GemmScratchBytes(int64_t, int64_t, WeightFormat) const override { return 0; }
  size_t ExpertFfnScratchBytes(const ExpertFfnShape&, WeightFormat) const override { return 0; }
  absl::Status ReserveScratch(size_t) override { return absl::OkStatus(); }

  void BeginStep(const BatchLayout& layout) override;
  void Embed(const EmbedArgs& args) override;
  void RmsNorm(const RmsNormArgs& args) override;
  void Gemm(const GemmArgs& args) override;
  void HeadGemm(const HeadGemmArgs& args) override;
  void QkvToCache(const QkvToCacheArgs& args) override;
  void LatentToCache(const LatentToCacheArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void RowNorms(const RowNormsArgs& args) override;
  void BlockMeans(const BlockMeansArgs& args) override;
  void Cosines(const CosinesArgs& args) override;
  void GateTopK(const GateTopKArgs& args) override;
  void ExpertFfn(const ExpertFfnArgs& args) override;
  void Combine(const CombineArgs& args) override;
  void Add(const AddArgs& args) override;
  void Sample(const SampleArgs& args) override;
  absl::Status Finish() override;

 private:
  BatchLayout layout_;
};

}  // namespace gatehouse
