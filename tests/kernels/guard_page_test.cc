// No operation reads or writes past what it was given: every argument stands between two pages that
// nobody may touch, flush with one of them, then with the other. A step beyond ends the test
// program. And nothing depends on what lies around: the results are those of plain memory.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <functional>
#include <list>

#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

enum class Side { kNone, kEnd, kBegin };

// Hands out copies of values, in plain memory or flush with a forbidden page, until it goes.
class Guards {
 public:
  explicit Guards(Side side) : side_(side), page_(sysconf(_SC_PAGESIZE)) {}
  Guards(const Guards&) = delete;
  Guards& operator=(const Guards&) = delete;
  ~Guards() {
    for (const Mapping& mapping : mappings_) munmap(mapping.data, mapping.num_bytes);
  }

  template <typename T>
  T* Copy(const std::vector<T>& values) {
    T* const copy = static_cast<T*>(Take(values.size() * sizeof(T), alignof(T)));
    if (!values.empty()) std::memcpy(copy, values.data(), values.size() * sizeof(T));
    return copy;
  }
  // Likewise, as the memory of a back end, which is aligned.
  Buffer CopyOf(std::span<const std::byte> bytes) {
    void* const copy = Take(bytes.size(), 64);
    std::memcpy(copy, bytes.data(), bytes.size());
    return {copy, bytes.size(), [](void*, size_t) {}};
  }
  void* Take(size_t num_bytes, size_t alignment) {
    if (side_ == Side::kNone) {
      plain_.emplace_back(num_bytes + alignment);
      const auto address = reinterpret_cast<uintptr_t>(plain_.back().data());
      return reinterpret_cast<void*>((address + alignment - 1) / alignment * alignment);
    }
    const size_t inner = (num_bytes + page_ - 1) / page_ * page_;
    auto* const data = static_cast<std::byte*>(mmap(
        nullptr, inner + 2 * page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (data == MAP_FAILED) abort();
    mappings_.push_back({data, inner + 2 * page_});
    mprotect(data, page_, PROT_NONE);
    mprotect(data + page_ + inner, page_, PROT_NONE);
    if (side_ == Side::kBegin) return data + page_;
    return data + page_ + (inner - num_bytes) / alignment * alignment;
  }

 private:
  struct Mapping {
    void* data = nullptr;
    size_t num_bytes = 0;
  };
  const Side side_;
  const size_t page_;
  std::vector<Mapping> mappings_;
  std::list<std::vector<std::byte>> plain_;
};

struct Shape {
  int64_t rows, inputs, outputs;
};
// Tails of every width, one row and one more than tiles take.
constexpr Shape kShapes[] = {{1, 1, 1}, {1, 33, 31}, {3, 17, 65}, {7, 64, 32}, {13, 100, 1}};
constexpr WeightFormat kFormats[] = {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kInt8,
                                     WeightFormat::kInt4};

std::vector<float> Values(const float* data, int64_t count) { return {data, data + count}; }

// `run` yields the results of an operation on arguments from `guards`.
void ExpectTheSameBetweenGuards(
    const std::function<std::vector<float>(Backend&, Guards& guards)>& run) {
  for (const std::string& isa : Isas()) {
    const std::unique_ptr<Backend> backend = MakeCpu(isa, 2);
    const auto result = [&](Side side) {
      Guards guards(side);
      return run(*backend, guards);
    };
    const std::vector<float> plain = result(Side::kNone);
    EXPECT_TRUE(SameBits(result(Side::kEnd), plain)) << isa;
    EXPECT_TRUE(SameBits(result(Side::kBegin), plain)) << isa;
  }
}

WeightView ViewOf(const float* data, int64_t rows, int64_t cols) {
  return {.data = data, .num_rows = rows, .num_cols = cols};
}

TEST(GuardPageTest, ProductsOfEveryFormat) {
  for (const WeightFormat format : kFormats) {
    for (const Shape& s : kShapes) {
      SCOPED_TRACE(testing::Message() << WeightFormatName(format) << " " << s.rows << " "
                                      << s.inputs << " " << s.outputs);
      ExpectTheSameBetweenGuards([&](Backend& backend, Guards& guards) {
        const float* source = guards.Copy(RandomFloats(1, s.outputs * s.inputs));
        const WeightView view = ViewOf(source, s.outputs, s.inputs);
        const auto packed = *backend.PackMatrix({&view, 1}, format);
        const auto guarded =
            backend.RestoreMatrix(s.outputs, s.inputs, format, guards.CopyOf(packed->bytes()));
        float* out = guards.Copy(RandomFloats(2, s.rows * s.outputs));
        backend.BeginStep({});
        backend.Gemm({.x = {guards.Copy(RandomFloats(3, s.rows * s.inputs)), s.rows, s.inputs},
                      .weights = guarded.get(),
                      .bias = guards.Copy(RandomFloats(4, s.outputs)),
                      .accumulate = true,
                      .out = {out, s.rows, s.outputs}});
        EXPECT_TRUE(backend.Finish().ok());
        return Values(out, s.rows * s.outputs);
      });
    }
  }
}

TEST(GuardPageTest, ExpertsOfEveryFormat) {
  constexpr int kExperts = 3;
  for (const WeightFormat format : kFormats) {
    for (const Shape& s : kShapes) {
      const int64_t hidden = s.inputs, width = s.outputs;
      SCOPED_TRACE(testing::Message()
                   << WeightFormatName(format) << " " << s.rows << " " << hidden << " " << width);
      std::vector<int32_t> row_ids;  // all rows go to the first and the last
      for (int copy = 0; copy < 2; ++copy) {
        for (int32_t r = 0; r < s.rows; ++r) row_ids.push_back(r);
      }
      const auto num_rows = static_cast<int32_t>(s.rows);
      const std::vector<int32_t> expert_begin = {0, num_rows, num_rows, 2 * num_rows};
      ExpectTheSameBetweenGuards([&](Backend& backend, Guards& guards) {
        std::vector<ExpertSource> sources;
        for (int e = 0; e < kExperts; ++e) {
          const auto matrix = [&](int seed, int64_t rows, int64_t cols) {
            return ViewOf(guards.Copy(RandomFloats(e * 3 + seed, rows * cols)), rows, cols);
          };
          sources.push_back({.gate = matrix(1, width, hidden),
                             .up = matrix(2, width, hidden),
                             .down = matrix(3, hidden, width)});
        }
        const auto packed = *backend.PackExperts(sources, format);
        const auto guarded = backend.RestoreExperts(
            {.num_experts = kExperts, .hidden_size = hidden, .intermediate_size = width}, format,
            guards.CopyOf(packed->bytes()));
        const int64_t pairs = 2 * s.rows;
        float* out = guards.Copy(std::vector<float>(pairs * hidden, NAN));
        backend.BeginStep({});
        backend.ExpertFfn(
            {.x = {guards.Copy(RandomFloats(9, s.rows * hidden)), s.rows, hidden},
             .groups = {{guards.Copy(row_ids), row_ids.size()},
                        {guards.Copy(expert_begin), expert_begin.size()}},
             .experts = guarded.get(),
             .scratch = {guards.Copy(std::vector<float>(pairs * width)), pairs, width},
             .out = {out, pairs, hidden}});
        EXPECT_TRUE(backend.Finish().ok());
        return Values(out, pairs * hidden);
      });
    }
  }
}

TEST(GuardPageTest, AttentionOverEveryCache) {
  constexpr int64_t kTokens = 21, kBlockTokens = 8, kBlocks = 3;
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
    for (const auto& [heads, kv_heads, head_dim] :
         {std::array{3, 1, 6}, std::array{4, 2, 33}, std::array{2, 2, 64}}) {
      SCOPED_TRACE(testing::Message() << KvTypeName(type) << " " << heads << " " << head_dim);
      const KvShape shape{.num_kv_heads = kv_heads,
                          .head_dim = head_dim,
                          .block_tokens = kBlockTokens,
                          .type = type};
      const int64_t q_width = int64_t{heads} * head_dim;
      const int64_t width = q_width + 2 * int64_t{kv_heads} * head_dim;
      std::vector<int32_t> positions, tokens(kTokens), block_ids = {2, 1, 0};
      for (int32_t p = 0; p < kTokens; ++p) positions.push_back(p);
      ExpectTheSameBetweenGuards([&](Backend& backend, Guards& guards) {
        const size_t cache_bytes = kBlocks * backend.KvBlockBytes(shape);
        const Buffer cache = guards.CopyOf(std::vector<std::byte>(cache_bytes));
        const KvLayerView kv{cache.as<void>(), kBlocks, shape};
        const SequenceSpan span{.num_rows = kTokens,
                                .block_ids = {guards.Copy(block_ids), block_ids.size()}};
        const MatrixView<float> qkv(guards.Copy(RandomFloats(1, kTokens * width)), kTokens, width);
        float* out = guards.Copy(std::vector<float>(kTokens * q_width, NAN));
        backend.BeginStep({.token_ids = {guards.Copy(tokens), tokens.size()},
                           .positions = {guards.Copy(positions), positions.size()},
                           .sequences = {&span, 1}});
        backend.QkvToCache({.qkv = qkv, .num_heads = heads, .kv = kv});
        backend.Attention({.q = qkv.Cols(0, q_width),
                           .num_heads = heads,
                           .scale = 0.3f,
                           .sinks = guards.Copy(RandomFloats(2, heads)),
                           .kv = kv,
                           .out = {out, kTokens, q_width}});
        EXPECT_TRUE(backend.Finish().ok());
        return Values(out, kTokens * q_width);
      });
    }
  }
}

TEST(GuardPageTest, NormsSumsAndTheGate) {
  constexpr int kTopK = 2;
  for (const int64_t n : {3, 8, 17, 48, 100}) {
    SCOPED_TRACE(n);
    constexpr int64_t kRows = 5;
    ExpectTheSameBetweenGuards([&](Backend& backend, Guards& guards) {
      const MatrixView<float> x(guards.Copy(RandomFloats(1, kRows * n)), kRows, n);
      float* normed = guards.Copy(std::vector<float>(kRows * n));
      float* norms = guards.Copy(std::vector<float>(kRows));
      float* weights = guards.Copy(std::vector<float>(kRows * kTopK));
      auto* ids = guards.Copy(std::vector<int32_t>(kRows * kTopK));
      auto* failed = guards.Copy(std::vector<uint8_t>(kRows));
      backend.BeginStep({});
      backend.RmsNorm({.x = x,
                       .weight = guards.Copy(RandomFloats(2, n)),
                       .eps = 1e-6f,
                       .out = {normed, kRows, n}});
      backend.Add({.x = x, .scale = 0.5f, .out = {normed, kRows, n}});
      backend.RowNorms({.x = x, .out = {norms, kRows}});
      backend.Cosines(
          {.x = x, .norms = guards.Copy(RandomFloats(3, n)), .dots = {normed, kRows, n}});
      backend.GateTopK({.logits = x,
                        .recipe = {.top_k = kTopK},
                        .expert_ids = {ids, kRows, kTopK},
                        .weights = {weights, kRows, kTopK},
                        .row_failed = {failed, kRows}});
      EXPECT_TRUE(backend.Finish().ok());
      std::vector<float> results = Values(normed, kRows * n);
      const auto add = [&](const float* data, int64_t count) {
        results.insert(results.end(), data, data + count);
      };
      add(norms, kRows);
      add(weights, kRows * kTopK);
      return results;
    });
  }
}

TEST(GuardPageTest, EmbeddingCombiningAndSampling) {
  for (const int64_t n : {1, 7, 33, 517}) {
    SCOPED_TRACE(n);
    const std::vector<int32_t> tokens = {2, 0}, positions = {0, 1};
    const std::vector<int32_t> token_begin = {0, 2, 3}, assignments = {1, 2, 0};
    ExpectTheSameBetweenGuards([&](Backend& backend, Guards& guards) {
      const MatrixView<float> out(guards.Copy(std::vector<float>(2 * n)), 2, n);
      std::vector<RowSampling> rows(2, {.temperature = 0.7f, .top_p = 0.9f, .num_top_logprobs = 1});
      std::vector<RowSample> samples(2);
      const SequenceSpan span{.num_rows = 2};
      backend.BeginStep({.token_ids = {guards.Copy(tokens), tokens.size()},
                         .positions = {guards.Copy(positions), positions.size()},
                         .sequences = {&span, 1}});
      backend.Embed({.table = ViewOf(guards.Copy(RandomFloats(1, 3 * n)), 3, n), .out = out});
      std::vector<float> results = Values(out.data, 2 * n);
      backend.Combine({.expert_rows = {guards.Copy(RandomFloats(2, 3 * n)), 3, n},
                       .token_begin = {guards.Copy(token_begin), token_begin.size()},
                       .assignment_ids = {guards.Copy(assignments), assignments.size()},
                       .weights = {guards.Copy(RandomFloats(3, 3)), 3},
                       .out = out});
      results.insert(results.end(), out.data, out.data + 2 * n);
      backend.Sample({.logits = out, .rows = rows, .samples = samples});
      EXPECT_TRUE(backend.Finish().ok());
      for (const RowSample& sample : samples) {
        results.push_back(static_cast<float>(sample.token_id));
        results.push_back(sample.logprob);
      }
      return results;
    });
  }
}

// The guards work: what reads beyond dies.
TEST(GuardPageDeathTest, AStepBeyondEndsTheProgram) {
  const auto read = [](Side side, int offset) {
    Guards guards(side);
    const volatile float* values = guards.Copy(std::vector<float>(5));
    return values[offset];
  };
  EXPECT_DEATH(read(Side::kEnd, 5), "");
  EXPECT_DEATH(read(Side::kBegin, -1), "");
  EXPECT_EQ(read(Side::kEnd, 4), 0);
}

}  // namespace
}  // namespace gatehouse
