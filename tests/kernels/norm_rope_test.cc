#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

constexpr float kEps = 1e-6f;

std::vector<float> Norm(Backend& backend, std::vector<float> x, const std::vector<float>& weight,
                        bool in_place = false) {
  const int64_t n = static_cast<int64_t>(weight.size());
  const int64_t num_rows = static_cast<int64_t>(x.size()) / n;
  std::vector<float> out(x.size());
  backend.RmsNorm({.x = MatrixView<float>(x.data(), num_rows, n),
                   .weight = weight.data(),
                   .eps = kEps,
                   .out = {in_place ? x.data() : out.data(), num_rows, n}});
  return in_place ? x : out;
}

TEST(RmsNormTest, AgreesWithTheReferenceAtEveryWidth) {
  ReferenceBackend reference;
  for (const int n : {1, 2, 6, 8, 31, 32, 33, 100, 1024}) {
    const std::vector<float> x = RandomFloats(n, 19 * n), weight = RandomFloats(n + 1, n);
    const std::vector<float> expected = Norm(reference, x, weight);
    std::vector<float> first;
    for (const std::unique_ptr<Backend>& backend : AllCpuBackends()) {
      const std::vector<float> out = Norm(*backend, x, weight);
      for (size_t i = 0; i < out.size(); ++i) {
        // The sum of squares rounds n / 32 + 8 times in a lane; half of that reaches the root.
        const double tolerance = std::ldexp(n / 64 + 8, -24) * std::abs(expected[i]);
        ASSERT_NEAR(out[i], expected[i], tolerance) << n << " at " << i;
      }
      if (first.empty()) first = out;
      EXPECT_TRUE(SameBits(out, first)) << n << " " << backend->isa();
      EXPECT_TRUE(SameBits(out, Norm(*backend, x, weight, true))) << n << " in place";
    }
  }
}

TEST(RowNormsTest, AgreesWithTheReferenceAtEveryWidth) {
  const auto backends = AllCpuBackends();
  ReferenceBackend reference;
  for (const int n : {1, 7, 8, 33, 48, 1000}) {
    const std::vector<float> x = RandomFloats(n, 5 * n, 3);
    std::vector<float> expected(5), first(5), norms(5);
    reference.RowNorms({.x = MatrixView<const float>(x.data(), 5, n), .out = expected});
    backends[0]->RowNorms({.x = MatrixView<const float>(x.data(), 5, n), .out = first});
    for (const auto& backend : backends) {
      backend->RowNorms({.x = MatrixView<const float>(x.data(), 5, n), .out = norms});
      EXPECT_TRUE(SameBits(norms, first)) << backend->isa();
      for (int r = 0; r < 5; ++r) {
        ASSERT_NEAR(norms[r], expected[r], std::ldexp(n / 8 + 8, -24) * expected[r]) << n;
      }
    }
  }
}

TEST(RmsNormTest, RowsKnowNothingOfEachOther) {
  constexpr int kNumRows = 19, kWidth = 50;
  const std::vector<float> x = RandomFloats(1, kNumRows * kWidth), weight = RandomFloats(2, kWidth);
  const std::unique_ptr<Backend> backend = MakeCpu("", 2);
  const std::vector<float> together = Norm(*backend, x, weight);
  for (int r = 0; r < kNumRows; ++r) {
    const std::vector<float> row(x.begin() + r * kWidth, x.begin() + (r + 1) * kWidth);
    const std::span<const float> there(together.data() + r * kWidth, kWidth);
    EXPECT_TRUE(SameBits(Norm(*backend, row, weight), there)) << r;
  }
}

struct QkvCase {
  int num_heads, num_kv_heads, head_dim, rotary_dim;
  bool norm;
  float clip = 0;
};

std::vector<float> Qkv(Backend& backend, const QkvCase& c, int num_rows, int first_position) {
  const int width = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim;
  const KvShape shape{c.num_kv_heads, c.head_dim, 16};
  constexpr int kNumBlocks = 4;
  Buffer cache = *backend.Allocate(kNumBlocks * backend.KvBlockBytes(shape));
  const std::vector<int32_t> block_ids = {2, 0, 3, 1}, token_ids(num_rows);
  std::vector<int32_t> positions;
  std::vector<float> qkv, cos_sin;
  for (int r = 0; r < num_rows; ++r) {
    positions.push_back(first_position + r);
    const std::vector<float> row = RandomFloats(first_position + r, width, 3);
    qkv.insert(qkv.end(), row.begin(), row.end());
  }
  for (int p = 0; p < kNumBlocks * 16; ++p) {
    for (int i = 0; i < c.rotary_dim / 2; ++i) cos_sin.push_back(std::cos(p / (i + 1.0f)));
    for (int i = 0; i < c.rotary_dim / 2; ++i) cos_sin.push_back(std::sin(p / (i + 1.0f)));
  }
  const std::vector<float> q_norm = RandomFloats(101, c.head_dim);
  const std::vector<float> k_norm = RandomFloats(102, c.head_dim);
  const SequenceSpan span{
      .num_rows = num_rows, .first_position = first_position, .block_ids = block_ids};
  backend.BeginStep({token_ids, positions, {&span, 1}});
  backend.QkvToCache({.qkv = {qkv.data(), num_rows, width},
                      .num_heads = c.num_heads,
                      .clip = c.clip,
                      .q_norm = c.norm ? q_norm.data() : nullptr,
                      .k_norm = c.norm ? k_norm.data() : nullptr,
                      .norm_eps = kEps,
                      .rope = {cos_sin.data(), kNumBlocks * 16, c.rotary_dim},
                      .kv = {cache.as<void>(), kNumBlocks, shape}});
  return qkv;
}

// What lands in the cache shows in attention_test.cc; here q, and k before it is stored.
TEST(QkvToCacheTest, NormsAndTurnsAsTheReferenceDoes) {
  ReferenceBackend reference;
  for (const QkvCase& c :
       {QkvCase{2, 1, 6, 6, true}, QkvCase{4, 2, 64, 64, true}, QkvCase{3, 3, 20, 12, false},
        QkvCase{2, 1, 80, 40, true}, QkvCase{1, 1, 2, 2, true}, QkvCase{2, 2, 34, 0, true},
        QkvCase{3, 1, 10, 10, false, 2}, QkvCase{3, 1, 10, 0, true, 0.5f}}) {
    const std::vector<float> expected = Qkv(reference, c, 21, 13);
    const std::vector<float> first = Qkv(*MakeCpu("portable"), c, 21, 13);
    for (const std::unique_ptr<Backend>& backend : AllCpuBackends()) {
      const std::vector<float> out = Qkv(*backend, c, 21, 13);
      EXPECT_TRUE(SameBits(out, first)) << c.head_dim << " " << backend->isa();
      for (size_t i = 0; i < out.size(); ++i) {
        // A rotated pair is below 3 normal deviates of 3, times a weight, times root 2: say 60.
        ASSERT_NEAR(out[i], expected[i], std::ldexp(60 * 12, -24)) << c.head_dim << " at " << i;
      }
    }
  }
}

// Values too: without rotation and norm, all that is left of a row are its limits.
TEST(QkvToCacheTest, LimitsQKAndV) {
  const QkvCase c{2, 1, 6, 0, false, 1.5f};
  const QkvCase free{2, 1, 6, 0, false};
  const std::vector<float> out = Qkv(*MakeCpu(""), c, 5, 0), in = Qkv(*MakeCpu(""), free, 5, 0);
  int num_limited = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(out[i], std::clamp(in[i], -1.5f, 1.5f)) << i;
    num_limited += out[i] == in[i] ? 0 : 1;
  }
  EXPECT_GT(num_limited, 0);
}

TEST(QkvToCacheTest, RowsKnowNothingOfEachOther) {
  const QkvCase c{4, 2, 20, 20, true};
  const std::unique_ptr<Backend> backend = MakeCpu("", 2);
  const std::vector<float> together = Qkv(*backend, c, 21, 13);
  const size_t width = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim;
  for (int r = 0; r < 21; ++r) {
    const std::span<const float> there(together.data() + r * width, width);
    EXPECT_TRUE(SameBits(Qkv(*backend, c, 1, 13 + r), there)) << r;
  }
}

struct LatentCase {
  int num_heads, value_dim, rotary_dim, q_dim;
};

// The latent rows, then the absorbed q rows, of which only the ends are written.
std::vector<float> Latent(Backend& backend, const LatentCase& c, int num_rows, int first_position) {
  const int head_dim = c.value_dim + c.rotary_dim;
  const KvShape shape{
      .num_kv_heads = 1, .head_dim = head_dim, .block_tokens = 16, .value_prefix = c.value_dim};
  constexpr int kNumBlocks = 4;
  Buffer cache = *backend.Allocate(kNumBlocks * backend.KvBlockBytes(shape));
  const std::vector<int32_t> block_ids = {2, 0, 3, 1}, token_ids(num_rows);
  std::vector<int32_t> positions;
  std::vector<float> out, q;
  for (int r = 0; r < num_rows; ++r) positions.push_back(first_position + r);
  for (const int p : positions) {
    const std::vector<float> row = RandomFloats(p, head_dim, 3);
    out.insert(out.end(), row.begin(), row.end());
    const std::vector<float> q_row = RandomFloats(p + 1000, c.num_heads * c.q_dim, 3);
    q.insert(q.end(), q_row.begin(), q_row.end());
  }
  const size_t latent_floats = out.size();
  out.resize(latent_floats + num_rows * c.num_heads * head_dim, 5);
  const std::vector<float> cos_sin = RandomFloats(7, kNumBlocks * 16 * c.rotary_dim);
  const std::vector<float> norm = RandomFloats(8, c.value_dim);
  const SequenceSpan span{
      .num_rows = num_rows, .first_position = first_position, .block_ids = block_ids};
  backend.BeginStep({token_ids, positions, {&span, 1}});
  backend.LatentToCache(
      {.latent = {out.data(), num_rows, head_dim},
       .norm = norm.data(),
       .norm_eps = kEps,
       .num_heads = c.num_heads,
       .q = MatrixView<float>(q.data(), num_rows, c.num_heads * c.q_dim),
       .absorbed_q = {out.data() + latent_floats, num_rows, c.num_heads * head_dim},
       .rope = {cos_sin.data(), kNumBlocks * 16, c.rotary_dim},
       .kv = {cache.as<void>(), kNumBlocks, shape}});
  return out;
}

TEST(LatentToCacheTest, NormsTheLatentAndTurnsTheEndsAsTheReferenceDoes) {
  ReferenceBackend reference;
  for (const LatentCase& c : {LatentCase{2, 6, 4, 9}, LatentCase{3, 64, 8, 8},
                              LatentCase{1, 15, 2, 40}, LatentCase{4, 33, 16, 24}}) {
    const std::vector<float> expected = Latent(reference, c, 21, 13);
    const std::vector<float> first = Latent(*MakeCpu("portable"), c, 21, 13);
    for (const std::unique_ptr<Backend>& backend : AllCpuBackends()) {
      const std::vector<float> out = Latent(*backend, c, 21, 13);
      EXPECT_TRUE(SameBits(out, first)) << c.value_dim << " " << backend->isa();
      for (size_t i = 0; i < out.size(); ++i) {
        // Two products of a normal deviate and one of 3: say 60, as above.
        ASSERT_NEAR(out[i], expected[i], std::ldexp(60 * 12, -24)) << c.value_dim << " at " << i;
      }
    }
    // Rows know nothing of each other.
    const int head_dim = c.value_dim + c.rotary_dim, q_floats = c.num_heads * head_dim;
    for (int r = 0; r < 21; ++r) {
      std::vector<float> there(first.begin() + r * head_dim, first.begin() + (r + 1) * head_dim);
      const auto q = first.begin() + 21 * head_dim + r * q_floats;
      there.insert(there.end(), q, q + q_floats);
      EXPECT_TRUE(SameBits(Latent(*MakeCpu(""), c, 1, 13 + r), there)) << r;
    }
  }
}

}  // namespace
}  // namespace gatehouse
