#include "engine/model/model_hash.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

constexpr int64_t kPieces = 64;
constexpr int64_t kPieceBytes = 64;

// Eight bytes at a time through a multiplication and a rotation (as in MurmurHash).
class Hasher {
 public:
  void Add(uint64_t word) {
    state_ = (state_ ^ word) * 0x9ddfea08eb382d69ULL;
    state_ ^= state_ >> 29;
  }
  void Add(const void* data, int64_t num_bytes) {
    const auto* bytes = static_cast<const char*>(data);
    for (int64_t i = 0; i < num_bytes; i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, bytes + i, std::min<int64_t>(8, num_bytes - i));
      Add(word);
    }
    Add(static_cast<uint64_t>(num_bytes));
  }
  void Add(std::string_view text) { Add(text.data(), static_cast<int64_t>(text.size())); }
  void Add(double value) { Add(&value, sizeof(value)); }
  uint64_t state() const { return state_; }

 private:
  uint64_t state_ = 0x243f6a8885a308d3ULL;
};

void AddConfig(const ModelConfig& config, Hasher& hash) {
  const GateRecipe& gate = config.moe.gate;
  hash.Add(config.family);
  for (const int64_t value :
       {int64_t{config.vocab_size}, int64_t{config.hidden_size}, int64_t{config.num_layers},
        int64_t{config.attention.num_heads}, int64_t{config.attention.num_kv_heads},
        int64_t{config.attention.head_dim}, int64_t{config.moe.num_experts},
        int64_t{config.moe.intermediate_size}, int64_t{gate.top_k}, int64_t{gate.renormalise},
        static_cast<int64_t>(gate.score), static_cast<int64_t>(gate.group_score),
        int64_t{gate.num_groups}, int64_t{gate.num_open_groups},
        static_cast<int64_t>(config.moe.gate_rows), int64_t{config.moe.gate_by_cosine}}) {
    hash.Add(static_cast<uint64_t>(value));
  }
  for (const float value : {gate.logit_scale, gate.scale, config.norm_eps, config.embedding_scale,
                            config.residual_scale, config.logit_scale, config.attention.scale}) {
    hash.Add(double{value});
  }
  for (const bool is_moe : config.is_moe_layer) hash.Add(uint64_t{is_moe});
}

}  // namespace

std::string HashModel(const ModelConfig& config, const TensorViews& views) {
  Hasher hash;
  AddConfig(config, hash);
  for (const auto& [name, view] : views) {
    hash.Add(name);
    hash.Add(static_cast<uint64_t>(view.dtype));
    hash.Add(static_cast<uint64_t>(view.num_rows));
    hash.Add(static_cast<uint64_t>(view.num_cols));
    const auto* bytes = static_cast<const char*>(view.data);
    const int64_t num_bytes =
        view.num_rows * view.num_cols * static_cast<int64_t>(DTypeBytes(view.dtype));
    const bool is_router = view.num_rows == config.moe.num_experts;
    if (is_router || num_bytes <= kPieces * kPieceBytes) {
      hash.Add(bytes, num_bytes);
      continue;
    }
    for (int64_t piece = 0; piece < kPieces; ++piece) {
      hash.Add(bytes + (num_bytes - kPieceBytes) * piece / (kPieces - 1), kPieceBytes);
    }
  }
  return absl::StrFormat("%016x", hash.state());
}

}  // namespace gatehouse
