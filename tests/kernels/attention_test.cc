// Attention and the cache behind it, through QkvToCache: against the reference, and bit against bit
// under everything that must not matter. Every cache is full of NaN before its first token, so a
// slot read too early, or of another sequence, shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

struct Heads {
  int num_heads = 2;
  int num_kv_heads = 1;
  int head_dim = 8;
  int block_tokens = 16;
  int row_floats() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
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

// Runs steps on a back end, with a cache of its own.
class CachedRun {
 public:
  CachedRun(Backend& backend, const Heads& heads, int num_sequences, int max_tokens)
      : backend_(backend),
        heads_(heads),
        blocks_each_((max_tokens + heads.block_tokens - 1) / heads.block_tokens),
        shape_{heads.num_kv_heads, heads.head_dim, heads.block_tokens},
        num_blocks_(num_sequences * blocks_each_ + 3),
        cache_(*backend.Allocate(num_blocks_ * backend.KvBlockBytes(shape_))),
        lengths_(num_sequences),
        outputs_(num_sequences) {
    const size_t num_floats = cache_.num_bytes() / sizeof(float);
    std::fill_n(cache_.as<float>(), num_floats, std::numeric_limits<float>::quiet_NaN());
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
        const std::vector<float> row = RowOf(heads_, step[s].seed, lengths_[s]);
        qkv.insert(qkv.end(), row.begin(), row.end());
        positions.push_back(lengths_[s]++);
      }
    }
    const int64_t num_rows = static_cast<int64_t>(positions.size());
    const int64_t width = heads_.num_heads * heads_.head_dim;
    const std::vector<int32_t> token_ids(num_rows);
    std::vector<float> out(num_rows * width);
    const MatrixView<float> qkv_view(qkv.data(), num_rows, heads_.row_floats());
    const KvLayerView kv = {cache_.as<void>(), num_blocks_, shape_};
    backend_.BeginStep({.token_ids = token_ids, .positions = positions, .sequences = spans});
    backend_.QkvToCache({.qkv = qkv_view, .num_heads = heads_.num_heads, .kv = kv});
    backend_.Attention({.q = qkv_view.Cols(0, width),
                        .num_heads = heads_.num_heads,
                        .scale = 1 / std::sqrt(static_cast<float>(heads_.head_dim)),
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
  Backend& backend_;
  const Heads heads_;
  const size_t blocks_each_;
  const KvShape shape_;
  const int64_t num_blocks_;
  const Buffer cache_;
  std::vector<int32_t> free_blocks_;
  std::vector<int32_t> lengths_;
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
  for (int position = 0; position < num_tokens; ++position) {
    const std::vector<float> row = RowOf(heads, seed, position);
    for (int h = 0; h < heads.num_heads + 2 * heads.num_kv_heads; ++h) {
      double square = 0;
      for (int d = 0; d < heads.head_dim; ++d) {
        const double x = row[h * heads.head_dim + d];
        square += x * x;
        if (h >= heads.num_heads + heads.num_kv_heads) v = std::max(v, std::abs(x));
      }
      double& largest = h < heads.num_heads ? q : k;
      if (h < heads.num_heads + heads.num_kv_heads) largest = std::max(largest, std::sqrt(square));
    }
  }
  const double eps = std::ldexp(1, -24);
  const double score_error = (heads.head_dim + 4) * eps * q * k / std::sqrt(heads.head_dim);
  return (2 * score_error + (num_tokens + 24) * eps) * v;
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
    ::testing::Values(Heads{1, 1, 2, 8}, Heads{2, 1, 6, 16}, Heads{4, 2, 64, 16},
                      Heads{6, 2, 12, 24}, Heads{5, 1, 20, 16}, Heads{7, 1, 80, 16},
                      Heads{8, 1, 16, 32}, Heads{16, 2, 34, 16}, Heads{2, 2, 128, 8}),
    [](const ::testing::TestParamInfo<Heads>& info) {
      const Heads& h = info.param;
      return std::to_string(h.num_heads) + "Of" + std::to_string(h.num_kv_heads) + "Dim" +
             std::to_string(h.head_dim) + "Block" + std::to_string(h.block_tokens);
    });

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

}  // namespace
}  // namespace gatehouse
