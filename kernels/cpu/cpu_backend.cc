#include "kernels/cpu/cpu_backend.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"
#include "kernels/cpu/isa_list.h"
#include "kernels/cpu/machine_limits.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/panel_product.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {

absl::StatusOr<std::unique_ptr<Backend>> CpuBackend::Make(const BackendOptions& options) {
  if (options.num_threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the CPU back end needs at least 1 thread, not %d", options.num_threads));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const IsaKernels* isa, FindIsa(options.isa));
  return std::make_unique<CpuBackend>(*isa, options.num_threads);
}

MachineLimits CpuBackend::MeasureLimits() { return cpu::MeasureLimits(isa_.name, pool_); }

absl::StatusOr<Buffer> CpuBackend::Allocate(size_t num_bytes) { return AllocateZeroed(num_bytes); }

void CpuBackend::CopyFromHost(void* destination, const void* source, size_t num_bytes) {
  if (num_bytes > 0) std::memcpy(destination, source, num_bytes);
}

size_t CpuBackend::KvBlockBytes(const KvShape& shape) const { return cpu::KvBlockBytes(shape); }

absl::StatusOr<std::unique_ptr<PackedMatrix>> CpuBackend::PackMatrix(
    std::span<const WeightView> stacked, WeightFormat format) {
  return Pack(pool_, stacked, format);
}

absl::StatusOr<std::unique_ptr<PackedExperts>> CpuBackend::PackExperts(
    std::span<const ExpertSource> experts, WeightFormat format) {
  return Pack(pool_, experts, format);
}

std::unique_ptr<PackedMatrix> CpuBackend::RestoreMatrix(int64_t num_outputs, int64_t num_inputs,
                                                        WeightFormat format, Buffer bytes) {
  GATEHOUSE_CHECK(bytes.num_bytes() == MatrixBytes(format, num_outputs, num_inputs))
      << bytes.num_bytes();
  return std::make_unique<CpuPackedMatrix>(format, num_outputs, num_inputs, std::move(bytes));
}

std::unique_ptr<PackedExperts> CpuBackend::RestoreExperts(const ExpertsShape& shape,
                                                          WeightFormat format, Buffer bytes) {
  GATEHOUSE_CHECK(bytes.num_bytes() == ExpertsBytes(format, shape)) << bytes.num_bytes();
  return std::make_unique<CpuPackedExperts>(format, shape, std::move(bytes));
}

size_t CpuBackend::PackedMatrixBytes(int64_t num_outputs, int64_t num_inputs,
                                     WeightFormat format) const {
  return MatrixBytes(format, num_outputs, num_inputs);
}

size_t CpuBackend::PackedExpertsBytes(const ExpertsShape& shape, WeightFormat format) const {
  return ExpertsBytes(format, shape);
}

size_t CpuBackend::GemmScratchBytes(int64_t num_rows, int64_t num_inputs,
                                    WeightFormat format) const {
  return QuantRowsBytes(format, num_rows, num_inputs);
}

size_t CpuBackend::ExpertFfnScratchBytes(const ExpertFfnShape& shape, WeightFormat format) const {
  return QuantRowsBytes(format, shape.num_rows, shape.hidden_size) +
         QuantRowsBytes(format, shape.num_assignments, shape.intermediate_size);
}

absl::Status CpuBackend::ReserveScratch(size_t num_bytes) {
  try {
    scratch_.Take(num_bytes);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("the system refused %u bytes of memory", num_bytes));
  }
  return absl::OkStatus();
}

void CpuBackend::BeginStep(const BatchLayout& layout) {
  CheckLayout(layout);
  layout_ = layout;
  step_status_ = absl::OkStatus();
}

void CpuBackend::Embed(const EmbedArgs& args) {
  Do([&](Machine machine) { cpu::Embed(machine, layout_, args); });
}
void CpuBackend::RmsNorm(const RmsNormArgs& args) {
  Do([&](Machine machine) { cpu::RmsNorm(machine, args); });
}
void CpuBackend::Gemm(const GemmArgs& args) {
  Do([&](Machine machine) { cpu::Gemm(machine, args); });
}
void CpuBackend::HeadGemm(const HeadGemmArgs& args) {
  Do([&](Machine machine) { cpu::HeadGemm(machine, args); });
}
void CpuBackend::QkvToCache(const QkvToCacheArgs& args) {
  Do([&](Machine machine) { cpu::QkvToCache(machine, layout_, args); });
}
void CpuBackend::LatentToCache(const LatentToCacheArgs& args) {
  Do([&](Machine machine) { cpu::LatentToCache(machine, layout_, args); });
}
void CpuBackend::Attention(const AttentionArgs& args) {
  Do([&](Machine machine) { cpu::Attention(machine, layout_, args); });
}
void CpuBackend::RowNorms(const RowNormsArgs& args) {
  Do([&](Machine machine) { cpu::RowNorms(machine, args); });
}

void CpuBackend::BlockMeans(const BlockMeansArgs& args) {
  Do([&](Machine machine) { cpu::BlockMeans(machine, args); });
}
void CpuBackend::Cosines(const CosinesArgs& args) {
  Do([&](Machine machine) { cpu::Cosines(machine, args); });
}
void CpuBackend::GateTopK(const GateTopKArgs& args) {
  Do([&](Machine machine) { cpu::GateTopK(machine, args); });
}
void CpuBackend::ExpertFfn(const ExpertFfnArgs& args) {
  Do([&](Machine machine) { cpu::ExpertFfn(machine, args); });
}
void CpuBackend::Combine(const CombineArgs& args) {
  Do([&](Machine machine) { cpu::Combine(machine, args); });
}
void CpuBackend::Add(const AddArgs& args) {
  Do([&](Machine machine) { cpu::Add(machine, args); });
}
void CpuBackend::Sample(const SampleArgs& args) {
  Do([&](Machine machine) { cpu::Sample(machine, args); });
}

absl::Status CpuBackend::Finish() { return std::exchange(step_status_, absl::OkStatus()); }

}  // namespace gatehouse::cpu
