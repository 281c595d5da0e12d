// Every device operation, at the granularity of a layer's steps: one virtual call an operation, and
// no virtual call inside a back end. Each operation has a file of the same name in reference/
// (plain loops, sums in double: the specification, linked by tests only) and cpu/.
//
// Contract of every operation
//   Rows      A row's result depends on that row alone (in attention also on the keys of its own
//             sequence): the same bits at every number of rows, position among them, thread count
//             and chunking.
//   Errors    The machine's faults stick: the back end remembers the first, later operations do
//             nothing, and Finish() returns it once. Wrong shapes are faults of ours and abort.
//   Memory    Views and spans belong to the caller and outlive the step (until Finish returns).
//             Spans named `host` are host memory on every back end.
//   Threads   One thread at a time calls a back end. Pack* may not overlap with a step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/buffer.h"
#include "kernels/kv_type.h"
#include "kernels/machine_limits.h"
#include "kernels/tensor.h"
#include "kernels/weight_format.h"

namespace gatehouse {

// The rows of one sequence in a step: consecutive rows and consecutive positions.
struct SequenceSpan {
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t first_position = 0;  // position of first_row; the cache holds all before it
  // host; block_ids[i] holds positions [i * block_tokens, (i + 1) * block_tokens)
  std::span<const int32_t> block_ids;
};

// Which token stands in which row of a step.
struct BatchLayout {
  std::span<const int32_t> token_ids;       // host [num_rows]
  std::span<const int32_t> positions;       // host [num_rows]
  std::span<const SequenceSpan> sequences;  // host; cover the rows in order, none twice
};

// A weight matrix [num_outputs, num_inputs] in a back end's own layout. Immutable, owned by the
// model.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  virtual int64_t num_outputs() const = 0;
  virtual int64_t num_inputs() const = 0;
  virtual size_t num_bytes() const = 0;  // what one pass over it reads
  // host [num_bytes], of a back end with a packed_layout
  virtual std::span<const std::byte> bytes() const { return {}; }
};

// The gated experts of one layer (a dense MLP is one expert). Immutable, owned by the model.
class PackedExperts {
 public:
  virtual ~PackedExperts() = default;
  virtual int num_experts() const = 0;
  virtual int64_t hidden_size() const = 0;
  virtual int64_t intermediate_size() const = 0;
  virtual size_t num_bytes() const = 0;                            // of all experts
  virtual std::span<const std::byte> bytes() const { return {}; }  // as PackedMatrix's
};

struct ExpertSource {
  WeightView gate;  // [intermediate, hidden]
  WeightView up;    // [intermediate, hidden]
  WeightView down;  // [hidden, intermediate]
  // Of all experts of a layer or of none (no data): [intermediate], [intermediate], [hidden].
  WeightView gate_bias, up_bias, down_bias;
};
struct ExpertsShape {
  int num_experts = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  bool has_bias = false;
};

// What a call of ExpertFfn is given at most.
struct ExpertFfnShape {
  int64_t num_rows = 0;
  int64_t num_assignments = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
};

// One layer's part of the paged cache. The layout inside a block belongs to the back end.
struct KvShape {
  int num_kv_heads = 0;
  int head_dim = 0;
  int block_tokens = 0;  // 16
  KvType type = KvType::kF32;
  // > 0: values are the first so many channels of the keys and are not stored a second time.
  int value_prefix = 0;

  int value_dim() const { return value_prefix > 0 ? value_prefix : head_dim; }
};
struct KvLayerView {
  void* data = nullptr;  // num_blocks * KvBlockBytes(shape)
  int64_t num_blocks = 0;
  KvShape shape;
};

struct EmbedArgs {
  WeightView table;       // [vocab, hidden] as the checkpoint stores it
  float scale = 1;        // what every value is multiplied by
  MatrixView<float> out;  // [num_rows, hidden], rows of layout.token_ids
};

struct RmsNormArgs {              // out = x / sqrt(mean(x^2) + eps) * weight
  MatrixView<const float> x;      // [num_rows, n]
  const float* weight = nullptr;  // [n]
  float eps = 0;
  MatrixView<float> out;  // [num_rows, n], may be x
};

struct GemmArgs {             // out[r] = scale * (x[row_ids[r]] * weights^T (+ bias)) (+ out[r])
  MatrixView<const float> x;  // [.., num_inputs]
  std::span<const int32_t> row_ids;       // host; empty: rows 0 .. out.num_rows - 1
  const PackedMatrix* weights = nullptr;  // [num_outputs, num_inputs]
  const float* bias = nullptr;            // [num_outputs] or null
  float scale = 1;
  bool accumulate = false;  // add to what `out` holds
  MatrixView<float> out;    // [num_rows, num_outputs]
};

struct HeadGemmArgs {  // a matrix for each head, in f32 or bf16: out[r] of head h = x[r] of head h
                       // * weights[h]^T
  MatrixView<const float> x;  // [num_rows, num_heads * any]: the first num_inputs channels of each
                              // head are read
  std::span<const std::unique_ptr<PackedMatrix>> weights;  // host [num_heads], of one shape
  MatrixView<float> out;  // [num_rows, num_heads * any]: the first num_outputs are written
};

// Rotation of the first rotary_dim channels of each head by halves (channel i with i + rotary_dim /
// 2), as in Hugging Face's rotate_half.
struct RopeTable {
  const float* cos_sin =
      nullptr;  // [num_positions, rotary_dim]: rotary_dim/2 cosines, then as many sines
  int64_t num_positions = 0;
  int rotary_dim = 0;

  const float* row(int64_t position) const { return cos_sin + position * rotary_dim; }
};

struct QkvToCacheArgs {  // clip q, k and v, norm q and k per head, rotate, keep q in place, write k
                         // and v to the cache
  MatrixView<float>
      qkv;  // [num_rows, (num_heads + 2 num_kv_heads) * head_dim]: q heads, k heads, v heads
  int num_heads = 0;
  float clip = 0;                 // > 0: q, k and v are limited to [-clip, clip] first
  const float* q_norm = nullptr;  // [head_dim] or null: RMSNorm weight of each q head
  const float* k_norm = nullptr;
  float norm_eps = 0;
  RopeTable rope;
  KvLayerView kv;
};

// Multi-head latent attention: keys and values of all heads are one latent vector a token, and a
// head's own part lies in the queries ("absorbed").
struct LatentToCacheArgs {      // norm and rotate the latent, write it to the cache, and rotate the
                                // ends of the q heads into the absorbed ones
  MatrixView<float> latent;     // [num_rows, head_dim]: value_dim channels to norm, the rest rotate
  const float* norm = nullptr;  // [value_dim]
  float norm_eps = 0;
  int num_heads = 0;
  // [num_rows, num_heads * any]: the last rope.rotary_dim channels of each head are read.
  MatrixView<const float> q;
  MatrixView<float> absorbed_q;  // [num_rows, num_heads * head_dim]: likewise written
  RopeTable rope;                // rotary_dim = head_dim - value_dim
  KvLayerView kv;                // one kv head
};

struct AttentionArgs {  // causal, over the cache, which holds this step's keys and values already
  MatrixView<const float> q;  // [num_rows, num_heads * head_dim] (a column range of qkv)
  int num_heads =
      0;  // a multiple of kv.shape.num_kv_heads; query head h reads kv head h / (heads / kv heads)
  float scale = 0;
  int32_t window = 0;  // > 0: position p sees positions p - window + 1 .. p alone
  // [num_heads] or null: a logit of each head that takes part in the softmax and has no value.
  const float* sinks = nullptr;
  KvLayerView kv;
  MatrixView<float> out;  // [num_rows, num_heads * kv.shape.value_dim()]
};

struct BlockMeansArgs {  // out[r][i] = mean of part i of row r, of as many equal parts as out has
                         // columns: x times the rows of grouped average pooling
  MatrixView<const float> x;  // [num_rows, n], n a multiple of out.num_cols
  MatrixView<float> out;
};

struct CosinesArgs {  // dots[r][i] /= (|x[r]| + 1e-9) * norms[i]; 0 where norms[i] is 0 (rule
                      // R5); not finite where |x[r]|^2 is not
  MatrixView<const float> x;     // [num_rows, n]
  const float* norms = nullptr;  // [num_cols] of what x was multiplied by
  MatrixView<float> dots;        // [num_rows, num_cols]
};

enum class GateScore {  // P of rule R4
  kSoftmax,             // softmax over all experts
  kSoftmaxOfChosen,     // softmax over the chosen ones
  kSigmoid,             // sigmoid of the logit
};
enum class GroupScore { kLargest, kSumOfTwoLargest };  // of the selection values in a group

// How a family comes from logits to experts and weights. Experts are ranked by selection value,
// ties to the lower id (rule R6): the logit, or P plus choice bias where the score is a sigmoid or
// there is a bias.
struct GateRecipe {
  GateScore score = GateScore::kSoftmax;
  float logit_scale = 1;  // of the logits in P; the selection takes them as they are
  int top_k = 0;
  bool renormalise = false;  // P / (sum of the chosen P + 1e-20)
  float scale = 1;           // of the weights, last
  // Experts stand in groups of one size; only the best groups are open to choice. The open ones
  // hold top_k experts at least.
  int num_groups = 1;
  int num_open_groups = 1;
  GroupScore group_score = GroupScore::kLargest;
};

struct RowNormsArgs {         // out[r] = |x[r]|
  MatrixView<const float> x;  // [num_rows, n]
  std::span<float> out;       // host [num_rows]
};

struct GateTopKArgs {              // rules R3 (rows that are not finite), R4 and R6
  MatrixView<const float> logits;  // [num_rows, num_experts]
  GateRecipe recipe;
  const float* choice_bias = nullptr;  // [num_experts] or null
  // The ranking, num_ranked >= top_k: the chosen in slot order, then the experts that come next; -1
  // from where no open one is left. A failed row holds 0 .. top_k - 1, then -1.
  MatrixView<int32_t> expert_ids;  // host [num_rows, num_ranked]
  MatrixView<float> weights;       // host [num_rows, num_ranked]; 0 in a failed row or without id
  MatrixView<float> gate;          // host [num_rows, num_ranked], P likewise; or null
  std::span<float> mass;           // host [num_rows], the sum of the chosen P likewise; or empty
  std::span<uint8_t>
      row_failed;  // host [num_rows]: set to 1 where a logit is not finite, else left as it is
};

// Rows grouped by expert: assignment a of expert e, expert_begin[e] <= a < expert_begin[e + 1], is
// row row_ids[a].
struct ExpertGroups {
  std::span<const int32_t> row_ids;       // host [num_assignments]
  std::span<const int32_t> expert_begin;  // host [num_experts + 1]
};

// What happens between an expert's two products. The second form is gpt-oss's:
//   g = min(gate, limit)   u = clamp(up, -limit, limit)   (u + 1) * g * sigmoid(alpha * g)
enum class ExpertActivation { kSwiglu, kClampedSwiglu };  // silu(gate) * up
struct ActivationOptions {
  ExpertActivation kind = ExpertActivation::kSwiglu;
  float alpha = 0;  // of the clamped form
  float limit = 0;  // likewise
};

struct ExpertFfnArgs {  // out[a] = down(act(gate(x), up(x))) with x = x[row_ids[a]] and a's expert
  MatrixView<const float> x;  // [num_rows, hidden]
  ExpertGroups groups;
  const PackedExperts* experts = nullptr;
  ActivationOptions activation;
  MatrixView<float> scratch;  // [num_assignments, intermediate], overwritten
  MatrixView<float> out;      // [num_assignments, hidden], in the order of the assignments
};

struct CombineArgs {  // rule R17: y = fma(weight, expert row, y), ascending expert id, from 0; out
                      // = y
  MatrixView<const float> expert_rows;      // [num_assignments, hidden]
  std::span<const int32_t> token_begin;     // host [num_rows + 1] into the two below
  std::span<const int32_t> assignment_ids;  // host; of one token in ascending expert id
  std::span<const float> weights;           // host
  MatrixView<float> out;                    // [num_rows, hidden]
};

struct AddArgs {  // out = fma(scale, x, out), the scale of a gated row times sigmoid(its gate)
  MatrixView<const float> x;
  float scale = 1;
  const float* gates = nullptr;  // [num_rows] or null
  MatrixView<float> out;
};

// How one row's next token is chosen. All fields are values the caller already validated.
struct RowSampling {
  float temperature =
      0;  // 0: greedy (highest adjusted logit, ties to the lower id); top_k to uniform do not apply
  int32_t top_k = 0;  // 0: off
  float top_p = 1;
  float min_p = 0;
  float typical_p = 1;
  double uniform = 0;  // in [0, 1): this token's draw
  // First: a positive logit of these ids is divided by the penalty, any other is multiplied by it.
  std::span<const int32_t> repeated_ids;  // distinct; empty: none
  float repetition_penalty = 1;           // > 0
  // Then: added to the logits, in this order (an id may stand here more than once); -inf forbids.
  // Both hold for greedy too.
  std::span<const std::pair<int32_t, float>> bias;
  // Ascending, distinct; if not empty, all others are forbidden.
  std::span<const int32_t> allowed_ids;
  int32_t forced_id = -1;  // >= 0: no choice, report this token (log-probabilities of a prompt)
  int32_t num_top_logprobs =
      -1;  // -1: no log-probabilities; 0: the chosen token's; n: also the n most likely
  std::span<const int32_t> wanted_ids;  // whose log-probabilities are wanted, whatever is chosen
};
struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
};
// A logit is not finite: the model's fault. Every token is forbidden: the request's.
enum class SampleFailure { kNone, kNotFinite, kAllForbidden };
struct RowSample {
  int32_t token_id = 0;
  float logprob = 0;              // log softmax of the unadjusted logits; 0 when not asked for
  std::vector<TokenLogprob> top;  // most likely first, ties to the lower id
  std::vector<float> wanted;      // log softmax likewise, [wanted_ids.size()]
  SampleFailure failure = SampleFailure::kNone;  // if any, the others mean nothing
};
struct SampleArgs {
  MatrixView<const float> logits;     // [num_rows, vocab]
  std::span<const RowSampling> rows;  // host [num_rows]
  std::span<RowSample> samples;       // host [num_rows], overwritten
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;     // "cpu"
  virtual std::string isa() const = 0;           // "avx2", "portable"
  virtual int num_threads() const { return 1; }  // that it computes with
  // At most 0.2 s. Not while a step runs.
  virtual MachineLimits MeasureLimits() { return {}; }

  // Memory. Allocate is zeroed, aligned to 64 bytes; RESOURCE_EXHAUSTED with the number of bytes
  // when it cannot be had.
  virtual absl::StatusOr<Buffer> Allocate(size_t num_bytes) = 0;
  virtual void CopyFromHost(void* destination, const void* source, size_t num_bytes) = 0;
  virtual size_t KvBlockBytes(
      const KvShape& shape) const = 0;  // of one block of one layer, keys and values

  // Weights, at load time. Any num_outputs, num_inputs >= 1. The sources may go afterwards.
  virtual absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      std::span<const WeightView> stacked,
      WeightFormat format) = 0;  // matrices on top of each other: q, k, v
  virtual absl::StatusOr<std::unique_ptr<PackedExperts>> PackExperts(
      std::span<const ExpertSource> experts, WeightFormat format) = 0;
  // Packed weights from what bytes() said of the same ones, in memory of Allocate. The layout's
  // name changes as soon as the bytes of one source would; empty: this back end has no such bytes.
  virtual std::string_view packed_layout() const { return ""; }
  virtual std::unique_ptr<PackedMatrix> RestoreMatrix(int64_t /*num_outputs*/,
                                                      int64_t /*num_inputs*/,
                                                      WeightFormat /*format*/, Buffer /*bytes*/) {
    return nullptr;
  }
  virtual std::unique_ptr<PackedExperts> RestoreExperts(const ExpertsShape& /*shape*/,
                                                        WeightFormat /*format*/, Buffer /*bytes*/) {
    return nullptr;
  }
  // Bytes that PackMatrix and PackExperts will take, for the memory plan.
  virtual size_t PackedMatrixBytes(int64_t num_outputs, int64_t num_inputs,
                                   WeightFormat format) const = 0;
  virtual size_t PackedExpertsBytes(const ExpertsShape& shape, WeightFormat format) const = 0;
  // What one product takes of the back end's own memory beside its arguments, for the memory plan
  // too; ReserveScratch takes the largest of them before the first step, not in it.
  // RESOURCE_EXHAUSTED when that cannot be had.
  virtual size_t GemmScratchBytes(int64_t num_rows, int64_t num_inputs,
                                  WeightFormat format) const = 0;
  virtual size_t ExpertFfnScratchBytes(const ExpertFfnShape& shape, WeightFormat format) const = 0;
  virtual absl::Status ReserveScratch(size_t num_bytes) = 0;

  // One step: Begin, operations in order, Finish.
  virtual void BeginStep(const BatchLayout& layout) = 0;
  virtual void Embed(const EmbedArgs& args) = 0;
  virtual void RmsNorm(const RmsNormArgs& args) = 0;
  virtual void Gemm(const GemmArgs& args) = 0;
  virtual void HeadGemm(const HeadGemmArgs& args) = 0;
  virtual void QkvToCache(const QkvToCacheArgs& args) = 0;
  virtual void LatentToCache(const LatentToCacheArgs& args) = 0;
  virtual void Attention(const AttentionArgs& args) = 0;
  virtual void RowNorms(const RowNormsArgs& args) = 0;
  virtual void BlockMeans(const BlockMeansArgs& args) = 0;
  virtual void Cosines(const CosinesArgs& args) = 0;
  virtual void GateTopK(const GateTopKArgs& args) = 0;
  virtual void ExpertFfn(const ExpertFfnArgs& args) = 0;
  virtual void Combine(const CombineArgs& args) = 0;
  virtual void Add(const AddArgs& args) = 0;
  virtual void Sample(const SampleArgs& args) = 0;
  virtual absl::Status Finish() = 0;
};

struct BackendOptions {
  int num_threads = 1;
  std::string isa;  // empty: the best this machine has; else one of the back end's names
};

// Which back ends this build has is a source file (backends_cpu.cc), not a macro.
std::span<const std::string_view> CompiledBackends();
// INVALID_ARGUMENT for a name that was not compiled in or an ISA that the machine lacks; the text
// lists what there is.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(std::string_view name,
                                                     const BackendOptions& options);

using Backends = std::vector<std::unique_ptr<Backend>>;
// One for each rank of a process: they share options.num_threads as evenly as can be, at least one
// each.
absl::StatusOr<Backends> MakeBackends(std::string_view name, const BackendOptions& options,
                                      int num_ranks);

}  // namespace gatehouse
