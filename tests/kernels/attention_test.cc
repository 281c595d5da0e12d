// Attention and the cache behind it, through QkvToCache: against the reference, and bit against bit
// under everything that must not matter. Every cache is full of NaN before its first token, so a
// slot read too early, or of another sequence, shows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsNan;

struct Heads {
  int num_heads = 2;
  int num_kv_heads = 1;
  int head_dim = 8;
  int block_tokens = 16;
  int window = 0;
  bool has_sinks = false;
  KvType type = KvType::kF32;
  int value_prefix = 0;  // > 0: latent attention
  KvShape shape() const { return {num_kv_heads, head_dim, block_tokens, type, value_prefix}; }
  bool is_latent() const { return value_prefix > 0; }
  int row_floats() const { return (num_heads + (is_latent() ? 1 : 2 * num_kv_heads)) * head_dim; }
  int out_floats() const { return num_heads * shape().value_dim(); }
};

// Some rows of one sequence in a step. A sequence's numbers come from its seed and the position.
struct Part {
  uint32_t seed = 0;
  int num_rows = 0;
};
using Step = std::vector<Part>;
using Outputs = std::vector<std::vector<float>>;  // [sequence][position * num_heads * head_dim]

std::vector<float> RowOf(const Heads& heads, uint32_t seed, int position) {
  return RandomFloats(seed * 100003 + position, heads.row_floats());
}

// Of what LatentToCache does the reference and f32 agree in every bit where the latent is +-1 with
// an epsilon of 0, and the rotation turns nothing: so both hold the same keys, whatever their type.
void SignsOnly(const Heads& heads, std::vector<float>& row) {
  float* latent = row.data() + heads.num_heads * heads.head_dim;
  for (int i = 0; i < heads.value_prefix; ++i) latent[i] = latent[i] < 0 ? -1.0f : 1.0f;
}

// Runs steps on a back end, with a cache of its own.
class CachedRun {
 public:
  CachedRun(Backend& backend, const Heads& heads, int num_sequences, int max_tokens)
      : backend_(backend),
        heads_(heads),
        blocks_each_((max_tokens + heads.block_tokens - 1) / heads.block_tokens),
        shape_(heads.shape()),
        num_blocks_(num_sequences * blocks_each_ + 3),
        cache_(*backend.Allocate(num_blocks_ * backend.KvBlockBytes(shape_))),
        lengths_(num_sequences),
        sinks_(RandomFloats(99, heads.num_heads, 2)),
        outputs_(num_sequences) {
    std::memset(cache_.as<void>(), 0xff, cache_.num_bytes());  // NaN, as scales of int8 too
    free_blocks_.resize(num_blocks_);
    for (int b = 0; b < num_blocks_; ++b) free_blocks_[b] = b;
    std::shuffle(free_blocks_.begin(), free_blocks_.end(), std::mt19937(7));
  }

  // Sequence i of the run is the one of the step's part i.
  void Do(const Step& step) {
    std::vector<float> qkv;
    std::vector<int32_t> positions;
    std::vector<SequenceSpan> spans;
    for (size_t s = 0; s < step.size(); ++s) {
      if (step[s].num_rows == 0) continue;
      spans.push_back({.first_row = static_cast<int32_t>(positions.size()),
                       .num_rows = step[s].num_rows,
                       .first_position = lengths_[s],
                       .block_ids = {free_blocks_.data() + s * blocks_each_, blocks_each_}});
      for (int i = 0; i < step[s].num_rows; ++i) {
        std::vector<float> row = RowOf(heads_, step[s].seed, lengths_[s]);
        if (heads_.is_latent()) SignsOnly(heads_, row);
        qkv.insert(qkv.end(), row.begin(), row.end());
        positions.push_back(lengths_[s]++);
      }
    }
    const int64_t num_rows = static_cast<int64_t>(positions.size());
    const int64_t q_width = heads_.num_heads * heads_.head_dim, width = heads_.out_floats();
    const std::vector<int32_t> token_ids(num_rows);
    std::vector<float> out(num_rows * width);
    const MatrixView<float> qkv_view(qkv.data(), num_rows, heads_.row_floats());
    const KvLayerView kv = {cache_.as<void>(), num_blocks_, shape_};
    backend_.BeginStep({.token_ids = token_ids, .positions = positions, .sequences = spans});
    if (heads_.is_latent()) {
      StoreLatents(qkv_view, kv);
    } else {
      backend_.QkvToCache({.qkv = qkv_view, .num_heads = heads_.num_heads, .kv = kv});
    }
    backend_.Attention({.q = qkv_view.Cols(0, q_width),
                        .num_heads = heads_.num_heads,
                        .scale = 1 / std::sqrt(static_cast<float>(heads_.head_dim)),
                        .window = heads_.window,
                        .sinks = heads_.has_sinks ? sinks_.data() : nullptr,
                        .kv = kv,
                        .out = {out.data(), num_rows, width}});
    ASSERT_TRUE(backend_.Finish().ok());
    const float* next = out.data();
    for (size_t s = 0; s < step.size(); ++s) {
      outputs_[s].insert(outputs_[s].end(), next, next + step[s].num_rows * width);
      next += step[s].num_rows * width;
    }
  }

  const Outputs& outputs() const { return outputs_; }

 private:
  // The q heads of `rows` lose their ends, which come back from a copy.
  void StoreLatents(MatrixView<float> rows, const KvLayerView& kv) {
    const int64_t q_width = heads_.num_heads * heads_.head_dim;
    const int rotary_dim = heads_.head_dim - heads_.value_prefix;
    std::vector<float> q, cos_sin;
    for (int64_t r = 0; r < rows.num_rows; ++r) {
      q.insert(q.end(), rows.row(r), rows.row(r) + q_width);
      for (int64_t i = 0; i < q_width; ++i) {
        if (i % heads_.head_dim >= heads_.value_prefix) rows.row(r)[i] = 1e9f;
      }
    }
    const int64_t num_positions = static_cast<int64_t>(blocks_each_) * heads_.block_tokens;
    for (int64_t p = 0; p < num_positions; ++p) {
      for (int i = 0; i < rotary_dim; ++i) cos_sin.push_back(i < rotary_dim / 2 ? 1.0f : 0.0f);
    }
    const std::vector<float> norm = RandomFloats(77, heads_.value_prefix);
    backend_.LatentToCache({.latent = rows.Cols(q_width, heads_.head_dim),
                            .norm = norm.data(),
                            .norm_eps = 0,
                            .num_heads = heads_.num_heads,
                            .q = MatrixView<float>(q.data(), rows.num_rows, q_width),
                            .absorbed_q = rows.Cols(0, q_width),
                            .rope = {cos_sin.data(), num_positions, rotary_dim},
                            .kv = kv});
  }

  Backend& backend_;
  const Heads heads_;
  const size_t blocks_each_;
  const KvShape shape_;
  const int64_t num_blocks_;
  const Buffer cache_;
  std::vector<int32_t> free_blocks_;
  std::vector<int32_t> lengths_;
  const std::vector<float> sinks_;
  Outputs outputs_;
};

// One sequence in chunks of so many rows.
std::vector<float> InChunks(Backend& backend, const Heads& heads, uint32_t seed, int num_tokens,
                            int chunk) {
  CachedRun run(backend, heads, 1, num_tokens);
  for (int done = 0; done < num_tokens; done += chunk) {
    run.Do({{seed, std::min(chunk, num_tokens - done)}});
  }
  return run.outputs()[0];
}

// How far f32 may stray from the truth for one query: an error d of the scores (a dot product of
// head_dim terms, scaled) changes each weight by a factor 1 +- 2d at most, and the sums over the
// keys add one rounding a key.
double Tolerance(const Heads& heads, uint32_t seed, int num_tokens) {
  double q = 0, k = 0, v = 0;  // the largest norms, and the largest value
  const std::vector<float> norm = RandomFloats(77, heads.value_prefix);
  for (int position = 0; position < num_tokens; ++position) {
    std::vector<float> row = RowOf(heads, seed, position);
    if (heads.is_latent()) {
      SignsOnly(heads, row);
      for (int d = 0; d < heads.value_prefix; ++d)
        row[heads.num_heads * heads.head_dim + d] *= norm[d];
    }
    for (int h = 0; h < static_cast<int>(row.size()) / heads.head_dim; ++h) {
      double square = 0;
      for (int d = 0; d < heads.head_dim; ++d) {
        const double x = row[h * heads.head_dim + d];
        square += x * x;
        const bool is_value = h >= heads.num_heads + heads.num_kv_heads;
        if (is_value || heads.is_latent()) v = std::max(v, std::abs(x));
      }
      double& largest = h < heads.num_heads ? q : k;
      if (h < heads.num_heads + heads.num_kv_heads) largest = std::max(largest, std::sqrt(square));
    }
  }
  const double eps = std::ldexp(1, -24);
  const double score_error = (heads.head_dim + 4) * eps * q * k / std::sqrt(heads.head_dim);
  // A narrow type may round magnitudes up, by less than a hundredth.
  return 1.03 * (2 * score_error + (num_tokens + 24) * eps) * v;
}

class AttentionTest : public ::testing::TestWithParam<Heads> {};

TEST_P(AttentionTest, AgreesWithTheReferenceAtEveryContextLength) {
  const Heads heads = GetParam();
  constexpr int kNumTokens = 200;
  ReferenceBackend reference;
  const std::vector<float> expected = InChunks(reference, heads, 1, kNumTokens, kNumTokens);
  const double tolerance = Tolerance(heads, 1, kNumTokens);
  for (const std::string& isa : Isas()) {
    const std::vector<float> out = InChunks(*MakeCpu(isa), heads, 1, kNumTokens, kNumTokens);
    ASSERT_EQ(out.size(), expected.size());
    double worst = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      ASSERT_FALSE(std::isnan(out[i])) << isa << " at " << i;
      worst = std::max(worst, std::abs(double{out[i]} - expected[i]));
    }
    EXPECT_LE(worst, tolerance) << isa;
  }
}

TEST_P(AttentionTest, ChunksNeighboursThreadsAndInstructionSetsLeaveTheBits) {
  const Heads heads = GetParam();
  constexpr int kNumTokens = 90;
  const std::vector<float> alone = InChunks(*MakeCpu("portable"), heads, 1, kNumTokens, kNumTokens);
  for (const std::unique_ptr<Backend>& backend : AllCpuBackends()) {
    for (const int chunk : {3, 16, 17, kNumTokens}) {
      EXPECT_TRUE(SameBits(alone, InChunks(*backend, heads, 1, kNumTokens, chunk)))
          << backend->isa() << ", chunks of " << chunk;
    }
    // Beside a sequence that decodes and one that is prefilled in other chunks, on either side.
    CachedRun run(*backend, heads, 3, kNumTokens);
    run.Do({{2, 20}, {1, 70}, {3, 5}});
    for (int i = 0; i < 20; ++i) run.Do({{2, 1}, {1, 1}, {3, i % 2}});
    EXPECT_TRUE(SameBits(alone, run.outputs()[1])) << backend->isa();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionTest,
    ::testing::Values(
        Heads{1, 1, 2, 8}, Heads{2, 1, 6, 16}, Heads{4, 2, 64, 16}, Heads{6, 2, 12, 24},
        Heads{5, 1, 20, 16}, Heads{7, 1, 80, 16}, Heads{8, 1, 16, 32}, Heads{16, 2, 34, 16},
        Heads{2, 2, 128, 8}, Heads{4, 2, 64, 16, 0, false, KvType::kBF16},
        Heads{5, 1, 20, 24, 0, false, KvType::kBF16}, Heads{4, 2, 64, 16, 0, false, KvType::kInt8},
        Heads{5, 5, 2, 8, 0, false, KvType::kInt8}, Heads{6, 1, 40, 16, 0, false, KvType::kF32, 32},
        Heads{10, 1, 23, 8, 0, false, KvType::kF32, 15},
        Heads{50, 1, 36, 32, 0, false, KvType::kF32, 32},
        Heads{6, 1, 40, 16, 0, false, KvType::kBF16, 32},
        Heads{3, 1, 23, 16, 0, false, KvType::kInt8, 15},
        Heads{6, 1, 40, 16, 0, false, KvType::kInt8, 32}, Heads{4, 2, 12, 16, 1},
        Heads{3, 1, 12, 16, 5}, Heads{2, 2, 20, 16, 64}, Heads{2, 1, 8, 16, 70},
        Heads{4, 2, 16, 16, 199}, Heads{8, 1, 10, 16, 17, true}, Heads{6, 2, 12, 16, 0, true},
        Heads{1, 1, 34, 8, 3, true}, Heads{4, 2, 12, 16, 17, true, KvType::kBF16},
        Heads{4, 2, 12, 16, 17, true, KvType::kInt8}),
    [](const ::testing::TestParamInfo<Heads>& info) {
      const Heads& h = info.param;
      return std::to_string(h.num_heads) + "Of" + std::to_string(h.num_kv_heads) + "Dim" +
             std::to_string(h.head_dim) + "Block" + std::to_string(h.block_tokens) +
             std::string(KvTypeName(h.type)) + "Latent" + std::to_string(h.value_prefix) +
             (h.window > 0 ? "Window" + std::to_string(h.window) : "") +
             (h.has_sinks ? "Sinks" : "");
    });

// Blocks that lie before every window may belong to somebody else by then: their ids mean nothing.
TEST(AttentionWindowTest, LooksAtNoBlockBeforeTheWindow) {
  constexpr int kDim = 8, kBlock = 16, kNumBlocks = 12, kWindow = 20, kPosition = 180;
  const KvShape shape{.num_kv_heads = 1, .head_dim = kDim, .block_tokens = kBlock};
  for (const std::string& isa : Isas()) {
    const std::unique_ptr<Backend> backend = MakeCpu(isa);
    Buffer cache = *backend->Allocate(kNumBlocks * backend->KvBlockBytes(shape));
    const KvLayerView kv = {cache.as<void>(), kNumBlocks, shape};
    const std::vector<float> q = RandomFloats(1, kDim);
    std::vector<int32_t> block_ids(kNumBlocks, 0);  // block 0 is the other's, full of NaN
    for (int b = (kPosition - kWindow + 1) / kBlock; b < kNumBlocks; ++b) block_ids[b] = b;
    std::fill_n(cache.as<float>(), backend->KvBlockBytes(shape) / sizeof(float),
                std::numeric_limits<float>::quiet_NaN());
    const std::vector<int32_t> token_ids = {0}, positions = {kPosition};
    const SequenceSpan span{.num_rows = 1, .first_position = kPosition, .block_ids = block_ids};
    std::vector<float> out(kDim, -1);
    backend->BeginStep({token_ids, positions, {&span, 1}});
    backend->Attention({.q = {q.data(), 1, kDim},
                        .num_heads = 1,
                        .scale = 1,
                        .window = kWindow,
                        .kv = kv,
                        .out = {out.data(), 1, kDim}});
    EXPECT_EQ(out, std::vector<float>(kDim, 0)) << isa;  // the values of a fresh cache
  }
}

TEST(AttentionOfBadRowsTest, NanStaysInItsRowAndDoesNotVanish) {
  constexpr int kNumRows = 9, kDim = 8, kBad = 4;
  const KvShape shape{.num_kv_heads = 1, .head_dim = kDim, .block_tokens = 16};
  const std::vector<int32_t> block_ids = {0}, token_ids(kNumRows);
  std::vector<int32_t> positions(kNumRows);
  for (int i = 0; i < kNumRows; ++i) positions[i] = i;
  const SequenceSpan span{.num_rows = kNumRows, .block_ids = block_ids};
  for (const std::string& isa : Isas()) {
    const std::unique_ptr<Backend> backend = MakeCpu(isa);
    Buffer cache = *backend->Allocate(backend->KvBlockBytes(shape));
    const KvLayerView kv = {cache.as<void>(), 1, shape};
    std::vector<float> qkv = RandomFloats(3, kNumRows * 3 * kDim), out(kNumRows * kDim);
    qkv[kBad * 3 * kDim + 2] = std::numeric_limits<float>::quiet_NaN();
    const MatrixView<float> view(qkv.data(), kNumRows, 3 * kDim);
    backend->BeginStep({token_ids, positions, {&span, 1}});
    backend->QkvToCache({.qkv = view, .num_heads = 1, .kv = kv});
    backend->Attention({.q = view.Cols(0, kDim),
                        .num_heads = 1,
                        .scale = 1,
                        .kv = kv,
                        .out = {out.data(), kNumRows, kDim}});
    for (int i = 0; i < kNumRows * kDim; ++i) {
      EXPECT_EQ(std::isnan(out[i]), i / kDim == kBad) << isa << " at " << i;
    }
  }
}

// One key and value, so that attention gives back the value as stored.
std::vector<float> StoredValue(Backend& backend, KvType type, const std::vector<float>& value) {
  const auto dim = static_cast<int>(value.size());
  const KvShape shape{.num_kv_heads = 1, .head_dim = dim, .block_tokens = 16, .type = type};
  const std::vector<int32_t> zero = {0};
  const SequenceSpan span{.num_rows = 1, .block_ids = zero};
  Buffer cache = *backend.Allocate(backend.KvBlockBytes(shape));
  const KvLayerView kv = {cache.as<void>(), 1, shape};
  std::vector<float> qkv(3 * dim), out(dim);
  std::copy(value.begin(), value.end(), qkv.begin() + 2 * dim);
  const MatrixView<float> view(qkv.data(), 1, 3 * dim);
  backend.BeginStep({zero, zero, {&span, 1}});
  backend.QkvToCache({.qkv = view, .num_heads = 1, .kv = kv});
  backend.Attention(
      {.q = view.Cols(0, dim), .num_heads = 1, .scale = 1, .kv = kv, .out = {out.data(), 1, dim}});
  return out;
}

TEST(KvTypeTest, AVectorReadsBackAsItsTypeRoundsIt) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const std::string& isa : Isas()) {
    const std::unique_ptr<Backend> backend = MakeCpu(isa);
    EXPECT_THAT(StoredValue(*backend, KvType::kF32, {1.00001f, -2}), ElementsAre(1.00001f, -2));
    // 2^-8 beside 1 is half a step of bf16: to even, which is down beside 1 and up beside 1 + 2^-7.
    EXPECT_THAT(StoredValue(*backend, KvType::kBF16, {1.00390625f, 1.01171875f, -3}),
                ElementsAre(1, 1.015625f, -3));
    // Scale 254 / 127 = 2: 3 and 5 lie between two multiples and go to the even one.
    EXPECT_THAT(StoredValue(*backend, KvType::kInt8, {254, 3, 5, -0.9f, -7.5f}),
                ElementsAre(254, 4, 4, 0, -8));
    EXPECT_THAT(StoredValue(*backend, KvType::kInt8, {0, 0}), ElementsAre(0, 0));
    for (const float bad : {kNan, kInf, -kInf}) {
      EXPECT_THAT(StoredValue(*backend, KvType::kInt8, {1, bad, 2}), Each(IsNan())) << isa;
    }
  }
}

TEST(KvTypeTest, ABlockTakesWhatItsTypeSays) {
  const std::unique_ptr<Backend> backend = MakeCpu("");
  KvShape shape{.num_kv_heads = 4, .head_dim = 64, .block_tokens = 16};
  EXPECT_EQ(backend->KvBlockBytes(shape), 2 * 4 * 64 * 16 * 4);
  shape.type = KvType::kBF16;
  EXPECT_EQ(backend->KvBlockBytes(shape), 2 * 4 * 64 * 16 * 2);
  shape.type = KvType::kInt8;
  EXPECT_EQ(backend->KvBlockBytes(shape), 2 * 4 * (64 + 4) * 16);
  // One latent row a token.
  shape = {.num_kv_heads = 1, .head_dim = 576, .block_tokens = 16, .value_prefix = 512};
  EXPECT_EQ(backend->KvBlockBytes(shape), 576 * 16 * 4);
  shape.type = KvType::kInt8;
  EXPECT_EQ(backend->KvBlockBytes(shape), (576 + 4) * 16);
}

}  // namespace
}  // namespace gatehouse
