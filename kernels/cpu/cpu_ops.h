// The operations of the CPU back end as free functions: what backend.h says of each, one file an
// operation. They split the work into units, hand these to the pool and call the instruction set's
// kernels in them. Called by one thread at a time; what a unit writes, no other unit touches.
#pragma once

#include <cstddef>

#include "kernels/backend.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/op_scratch.h"

namespace gatehouse::cpu {

// What every operation runs on.
struct Machine {
  const IsaKernels& isa;
  ThreadPool& pool;
  OpScratch& scratch;
};

void Embed(Machine machine, const BatchLayout& layout, const EmbedArgs& args);  // embed.cc
void RmsNorm(Machine machine, const RmsNormArgs& args);                         // norm_rope.cc
void Gemm(Machine machine, const GemmArgs& args);                               // gemm.cc
void HeadGemm(Machine machine, const HeadGemmArgs& args);                       // gemm.cc
void QkvToCache(Machine machine, const BatchLayout& layout,
                const QkvToCacheArgs& args);  // norm_rope.cc
void LatentToCache(Machine machine, const BatchLayout& layout,
                   const LatentToCacheArgs& args);  // norm_rope.cc
void Attention(Machine machine, const BatchLayout& layout,
               const AttentionArgs& args);                     // attention.cc
void RowNorms(Machine machine, const RowNormsArgs& args);      // norm_rope.cc
void BlockMeans(Machine machine, const BlockMeansArgs& args);  // cosine.cc
void Cosines(Machine machine, const CosinesArgs& args);        // cosine.cc
void GateTopK(Machine machine, const GateTopKArgs& args);      // gate.cc
void ExpertFfn(Machine machine, const ExpertFfnArgs& args);    // grouped_gemm.cc
void Combine(Machine machine, const CombineArgs& args);        // permute.cc
void Add(Machine machine, const AddArgs& args);                // add.cc
void Sample(Machine machine, const SampleArgs& args);          // sample.cc

size_t KvBlockBytes(const KvShape& shape);  // attention.cc

}  // namespace gatehouse::cpu
