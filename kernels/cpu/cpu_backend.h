// The CPU back end: every operation of backend.h on a thread pool and the best instruction set.
// Owns the pool; one thread at a time calls it.
#pragma once

#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>

#include "kernels/backend.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/packed_layout.h"

namespace gatehouse::cpu {

class CpuBackend final : public Backend {
 public:
  // INVALID_ARGUMENT for an instruction set that this machine lacks, or fewer than 1 thread.
  static absl::StatusOr<std::unique_ptr<Backend>> Make(const BackendOptions& options);

  CpuBackend(const IsaKernels& isa, int num_threads) : isa_(isa), pool_(num_threads) {}

  std::string_view name() const override { return "cpu"; }
  std::string isa() const override { return isa_.name; }
  int num_threads() const override { return pool_.num_threads(); }
  MachineLimits MeasureLimits() override;

  absl::StatusOr<Buffer> Allocate(size_t num_bytes) override;
  void CopyFromHost(void* destination, const void* source, size_t num_bytes) override;
  size_t KvBlockBytes(const KvShape& shape) const override;

  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(std::span<const WeightView> stacked,
                                                           WeightFormat format) override;
  absl::StatusOr<std::unique_ptr<PackedExperts>> PackExperts(std::span<const ExpertSource> experts,
                                                             WeightFormat format) override;
  std::string_view packed_layout() const override { return kPackedLayout; }
  std::unique_ptr<PackedMatrix> RestoreMatrix(int64_t num_outputs, int64_t num_inputs,
                                              WeightFormat format, Buffer bytes) override;
  std::unique_ptr<PackedExperts> RestoreExperts(const ExpertsShape& shape, WeightFormat format,
                                                Buffer bytes) override;
  size_t PackedMatrixBytes(int64_t num_outputs, int64_t num_inputs,
                           WeightFormat format) const override;
  size_t PackedExpertsBytes(const ExpertsShape& shape, WeightFormat format) const override;
  size_t GemmScratchBytes(int64_t num_rows, int64_t num_inputs, WeightFormat format) const override;
  size_t ExpertFfnScratchBytes(const ExpertFfnShape& shape, WeightFormat format) const override;
  absl::Status ReserveScratch(size_t num_bytes) override;

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
  // The one fault of the machine that a step can meet here: no memory for an operation's scratch.
  template <typename Operation>
  void Do(const Operation& operation) {
    if (!step_status_.ok()) return;
    try {
      operation(Machine{isa_, pool_, scratch_});
    } catch (const std::bad_alloc&) {
      step_status_ = absl::ResourceExhaustedError("out of host memory in a step");
    }
  }

  const IsaKernels& isa_;
  ThreadPool pool_;
  OpScratch scratch_;
  BatchLayout layout_;        // of the step that runs
  absl::Status step_status_;  // the first fault of the step that runs
};

}  // namespace gatehouse::cpu
