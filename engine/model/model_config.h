// What a model is: sizes, choices and tensor names, read from config.json and validated field by
// field. Neutral of families; a family (engine/model/families) says how its keys map to this.
//
// A value: immutable after loading, any thread. Every number is bounded (kMax... below), so that
// the closed forms of this file cannot overflow.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/rope.h"
#include "engine/model/tensor_names.h"
#include "kernels/backend.h"

namespace gatehouse {

class JsonFields;

// 2^(10 + 13 + 17 + 19) * 3 matrices * 4 bytes < 2^63.
constexpr int32_t kMaxLayers = 1 << 10;
constexpr int32_t kMaxExperts = 1 << 13;
constexpr int32_t kMaxHiddenSize = 1 << 17;
constexpr int32_t kMaxIntermediateSize = 1 << 19;
constexpr int32_t kMaxHeads = 1 << 10;
constexpr int32_t kMaxHeadDim = 1 << 10;
constexpr int32_t kMaxLatentRank = 1 << 13;
constexpr int32_t kMaxVocabSize = 1 << 23;  // what sampling can rank (kernels/cpu/token_ranking.cc)

// RMSNorm of q and k before rope: of each head, or of all heads of a row together.
enum class QkNorm { kNone, kPerHead, kFullWidth };

// Multi-head latent attention (latent_attention.h).
struct LatentConfig {
  int32_t kv_rank = 0;                                // 0: attention is not latent
  int32_t q_rank = 0;                                 // 0: no q latent
  int32_t nope_dim = 0, rope_dim = 0, value_dim = 0;  // of a head; nope_dim + rope_dim = head_dim
  bool rotates_pairs = false;  // neighbouring channels turn together, not those half a width apart
};

struct AttentionConfig {
  int32_t num_heads = 0;  // a multiple of num_kv_heads
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;  // even; num_heads * head_dim need not be hidden_size
  LatentConfig latent;
  bool qkv_bias = false;
  bool o_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  float clip_qkv = 0;            // > 0: q, k and v are limited to it on both sides, after the norm
  float scale = 0;               // of q times k
  std::vector<int32_t> windows;  // [num_layers] positions a row sees, its own counted; 0: all
  RopeConfig rope;
};

// What a gate multiplies a row by.
enum class GateRows {
  kLearned,     // a matrix of the checkpoint
  kBlockMeans,  // nothing stored: expert i averages part i of the channels (GrAP)
};

struct MoeConfig {
  int32_t num_experts = 0;        // 0: no layer has any
  int32_t intermediate_size = 0;  // of each expert
  GateRecipe gate;                // its top_k <= num_experts
  GateRows gate_rows = GateRows::kLearned;
  bool gate_by_cosine = false;  // the gate's logits are cosines, not products
  ActivationOptions activation;
  int32_t shared_intermediate_size = 0;  // of the expert that every row goes to; 0: none
};

struct ModelConfig {
  std::string family;  // model_type
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  std::vector<bool> is_moe_layer;       // [num_layers]; the others have a dense MLP
  int32_t dense_intermediate_size = 0;  // of a dense MLP
  int32_t max_context = 0;              // positions the model was made for, rope scaling counted
  float norm_eps = 0;
  bool tie_word_embeddings = false;  // the output matrix is the embedding table
  float embedding_scale = 1;
  float residual_scale = 1;  // of what attention and feed-forward add
  float logit_scale = 1;
  AttentionConfig attention;
  MoeConfig moe;
  std::vector<int32_t> eos_token_ids;  // distinct, ascending; may be empty
  // Keys and values that the model goes without, to be logged.
  std::vector<std::string> ignored_keys;
  TensorNames tensor_names;

  int32_t num_moe_layers() const;
};

// The ids of eos_token_id that the model has, distinct and ascending. Others are noted in
// `ignored`: no step samples them, and transformers takes and writes such files (its default of a
// family belongs to the family's first vocabulary; -1 says that there is none).
std::vector<int32_t> ReadEosTokenIds(JsonFields& fields, int32_t vocab_size,
                                     std::vector<std::string>& ignored);

// DIR/config.json. FAILED_PRECONDITION "<file>: <field>: got <value>, expected <what>".
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir);
// The same from text; `file` opens the messages.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view text, const std::string& file);

// In closed form, without a checkpoint. Tied embeddings count once.
struct ParameterCount {
  int64_t expert = 0;  // all routed experts of all layers
  int64_t dense = 0;   // everything else
  int64_t active = 0;  // that one token uses
  int64_t total() const { return expert + dense; }
};
ParameterCount CountParameters(const ModelConfig& config);

}  // namespace gatehouse
