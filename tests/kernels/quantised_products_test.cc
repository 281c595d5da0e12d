// Products of quantised weights on every instruction set, against the reference, which knows no
// layout: it multiplies the values that the definition leaves, in double.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernels/quantise.h"
#include "kernels/reference/packed.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

constexpr WeightFormat kQuantised[] = {WeightFormat::kInt8, WeightFormat::kInt4};
constexpr int64_t kAwkward[] = {1, 2, 31, 32, 33, 48, 96, 100, 129, 1000};

WeightView ViewOf(const std::vector<float>& values, int64_t num_rows) {
  const auto num_cols = static_cast<int64_t>(values.size()) / num_rows;
  return {values.data(), DType::kF32, num_rows, num_cols};
}

struct Case {
  int64_t num_rows, num_outputs, num_inputs;
  std::vector<float> x, weights;
};

Case RandomCase(int64_t num_rows, int64_t num_outputs, int64_t num_inputs) {
  return {num_rows, num_outputs, num_inputs, RandomFloats(1, num_rows * num_inputs, 2),
          RandomFloats(2, num_outputs * num_inputs, 0.05f)};
}

std::vector<float> Product(Backend& backend, WeightFormat format, const Case& c) {
  const WeightView view = ViewOf(c.weights, c.num_outputs);
  const auto packed = *backend.PackMatrix({&view, 1}, format);
  EXPECT_EQ(packed->num_bytes(), backend.PackedMatrixBytes(c.num_outputs, c.num_inputs, format));
  std::vector<float> out(c.num_rows * c.num_outputs, NAN);
  backend.Gemm({.x = MatrixView<const float>(c.x.data(), c.num_rows, c.num_inputs),
                .weights = packed.get(),
                .out = {out.data(), c.num_rows, c.num_outputs}});
  return out;
}

// Each group rounds the product of scales, the exact sum being a whole number, and the running sum:
// (groups + 2) * 2^-24 of sum |x w|, of the rounded values. The reference's own rounding to f32 is
// one more of 2^-24.
std::vector<double> Tolerances(WeightFormat format, const Case& c) {
  ReferenceBackend reference;
  const WeightView view = ViewOf(c.weights, c.num_outputs);
  const auto packed = *reference.PackMatrix({&view, 1}, format);
  const auto& values = static_cast<const ReferenceMatrix&>(*packed).values;
  std::vector<double> tolerances;
  for (int64_t r = 0; r < c.num_rows; ++r) {
    const std::vector<double> x =
        ActivationsFor(format, c.x.data() + r * c.num_inputs, c.num_inputs);
    for (int64_t n = 0; n < c.num_outputs; ++n) {
      double magnitude = 0;
      for (int64_t k = 0; k < c.num_inputs; ++k) {
        magnitude += std::fabs(x[k] * values[n * c.num_inputs + k]);
      }
      tolerances.push_back(static_cast<double>(NumQuantGroups(c.num_inputs) + 3) * 0x1p-24 *
                           magnitude);
    }
  }
  return tolerances;
}

TEST(QuantisedGemmTest, EqualsTheDefinitionForAwkwardShapesOnEveryInstructionSet) {
  ReferenceBackend reference;
  for (const WeightFormat format : kQuantised) {
    for (const int64_t num_inputs : kAwkward) {
      for (const int64_t num_outputs : {1, 17, 32, 70}) {
        for (const int64_t num_rows : {1, 6, 67}) {
          SCOPED_TRACE(testing::Message() << WeightFormatName(format) << " [" << num_rows << ", "
                                          << num_inputs << "] to " << num_outputs);
          const Case c = RandomCase(num_rows, num_outputs, num_inputs);
          const std::vector<float> expected = Product(reference, format, c);
          const std::vector<double> tolerances = Tolerances(format, c);
          const std::vector<float> first = Product(*MakeCpu("portable"), format, c);
          for (size_t i = 0; i < expected.size(); ++i) {
            ASSERT_NEAR(first[i], expected[i], tolerances[i]) << i;
          }
          for (const std::string& isa : Isas()) {
            ASSERT_TRUE(SameBits(Product(*MakeCpu(isa, 2), format, c), first)) << isa;
          }
        }
      }
    }
  }
}

// With codes at both ends and scales of 1 every sum is a whole number below 2^24: nothing rounds.
TEST(QuantisedGemmTest, IsExactAtTheEndsOfTheCodes) {
  constexpr int64_t kInputs = 96, kOutputs = 40, kRows = 9;
  for (const WeightFormat format : kQuantised) {
    const float low = format == WeightFormat::kInt8 ? -127 : -8;
    const float high = format == WeightFormat::kInt8 ? 127 : 7;
    Case c{kRows, kOutputs, kInputs, {}, {}};
    std::mt19937 random(3);
    for (int64_t i = 0; i < kRows * kInputs; ++i) c.x.push_back(random() % 2 == 0 ? 127 : -127);
    for (int64_t i = 0; i < kOutputs * kInputs; ++i) {
      c.weights.push_back(i % kQuantGroup == 0 || random() % 2 == 0 ? low : high);
    }
    // All of one sign too: the largest sums there are.
    std::fill_n(c.x.begin(), kInputs, 127.0f);
    std::fill_n(c.weights.begin(), kInputs, low);
    for (const std::string& isa : Isas()) {
      const std::vector<float> out = Product(*MakeCpu(isa), format, c);
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t n = 0; n < kOutputs; ++n) {
          double sum = 0;
          for (int64_t k = 0; k < kInputs; ++k) {
            sum += double{c.x[r * kInputs + k]} * c.weights[n * kInputs + k];
          }
          ASSERT_EQ(out[r * kOutputs + n], sum) << isa << " " << r << " " << n;
        }
      }
    }
  }
}

TEST(QuantisedGemmTest, ARowThatIsNotFiniteIsNanAndNoOther) {
  for (const WeightFormat format : kQuantised) {
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      Case c = RandomCase(5, 33, 70);
      c.x[2 * 70 + 66] = bad;
      for (const std::string& isa : Isas()) {
        const std::vector<float> out = Product(*MakeCpu(isa), format, c);
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_EQ(std::isnan(out[i]), i / 33 == 2) << isa << " " << i;
        }
      }
    }
  }
}

// x of any size, zero rows and groups of nothing, bits on every instruction set.
TEST(QuantisedGemmTest, HasTheSameBitsForSmallAndLargeActivations) {
  for (const WeightFormat format : kQuantised) {
    Case c = RandomCase(12, 40, 100);
    const float factors[] = {0,      1e-38f, 0x1p-101f, 0x1p-100f, 1e-30f, 1e-20f,
                             1e-10f, 1,      1e10f,     1e20f,     1e30f,  1e37f};
    for (size_t i = 0; i < c.x.size(); ++i) c.x[i] *= factors[i / 100];
    std::fill_n(c.x.begin() + 7 * 100 + 32, 32, 0.0f);
    const std::vector<float> first = Product(*MakeCpu("portable"), format, c);
    for (int n = 0; n < 40; ++n) EXPECT_EQ(first[n], 0);
    for (const float value : first) ASSERT_TRUE(std::isfinite(value));
    for (const std::string& isa : Isas()) {
      EXPECT_TRUE(SameBits(Product(*MakeCpu(isa), format, c), first)) << isa;
    }
  }
}

struct FfnCase {
  int64_t hidden, intermediate;
  std::vector<std::vector<float>> gate, up, down;  // [expert]
  std::vector<int32_t> row_ids, expert_begin;

  std::vector<ExpertSource> Sources() const {
    std::vector<ExpertSource> sources;
    for (size_t e = 0; e < gate.size(); ++e) {
      sources.push_back({.gate = ViewOf(gate[e], intermediate),
                         .up = ViewOf(up[e], intermediate),
                         .down = ViewOf(down[e], hidden)});
    }
    return sources;
  }
};

FfnCase RandomFfn(int64_t hidden, int64_t intermediate,
                  const std::vector<std::vector<int32_t>>& rows) {
  FfnCase c{.hidden = hidden, .intermediate = intermediate, .expert_begin = {0}};
  for (size_t e = 0; e < rows.size(); ++e) {
    const auto seed = static_cast<uint32_t>(10 * e);
    c.gate.push_back(RandomFloats(seed + 1, hidden * intermediate, 0.2f));
    c.up.push_back(RandomFloats(seed + 2, hidden * intermediate, 0.2f));
    c.down.push_back(RandomFloats(seed + 3, hidden * intermediate, 0.2f));
    c.row_ids.insert(c.row_ids.end(), rows[e].begin(), rows[e].end());
    c.expert_begin.push_back(static_cast<int32_t>(c.row_ids.size()));
  }
  return c;
}

struct FfnResult {
  std::vector<float> hidden, out;
};

FfnResult RunFfn(Backend& backend, WeightFormat format, const FfnCase& c,
                 const std::vector<float>& x) {
  const auto packed = *backend.PackExperts(c.Sources(), format);
  const auto num_assignments = static_cast<int64_t>(c.row_ids.size());
  FfnResult result{std::vector<float>(num_assignments * c.intermediate, NAN),
                   std::vector<float>(num_assignments * c.hidden, NAN)};
  const auto num_rows = static_cast<int64_t>(x.size()) / c.hidden;
  backend.ExpertFfn({.x = MatrixView<const float>(x.data(), num_rows, c.hidden),
                     .groups = {c.row_ids, c.expert_begin},
                     .experts = packed.get(),
                     .scratch = {result.hidden.data(), num_assignments, c.intermediate},
                     .out = {result.out.data(), num_assignments, c.hidden}});
  return result;
}

// Gate and up first; then down from the hidden values that came out, as one that lies on the border
// between two codes may be rounded either way.
void ExpectFfn(WeightFormat format, const FfnCase& c, const std::vector<float>& x,
               const FfnResult& result) {
  ReferenceBackend reference;
  const FfnResult expected = RunFfn(reference, format, c, x);
  for (size_t i = 0; i < expected.hidden.size(); ++i) {
    const double magnitude = 8 + std::fabs(expected.hidden[i]);
    ASSERT_NEAR(result.hidden[i], expected.hidden[i], 0x1p-18 * magnitude) << i;
  }
  for (size_t e = 0; e < c.down.size(); ++e) {
    const int32_t begin = c.expert_begin[e], end = c.expert_begin[e + 1];
    if (begin == end) continue;
    const Case down{end - begin,
                    c.hidden,
                    c.intermediate,
                    {result.hidden.begin() + begin * c.intermediate,
                     result.hidden.begin() + end * c.intermediate},
                    c.down[e]};
    const std::vector<float> out = Product(reference, format, down);
    const std::vector<double> tolerances = Tolerances(format, down);
    for (size_t i = 0; i < out.size(); ++i) {
      ASSERT_NEAR(result.out[begin * c.hidden + i], out[i], tolerances[i]) << e << " " << i;
    }
  }
}

TEST(QuantisedExpertFfnTest, EqualsTheDefinitionForAwkwardShapes) {
  for (const WeightFormat format : kQuantised) {
    for (const int64_t hidden : {1, 31, 33, 96}) {
      for (const int64_t intermediate : {1, 15, 16, 17, 32, 48, 50, 100}) {
        SCOPED_TRACE(testing::Message()
                     << WeightFormatName(format) << " " << hidden << " " << intermediate);
        const FfnCase c = RandomFfn(hidden, intermediate, {{2}, {}, {0, 1, 3}});
        const std::vector<float> x = RandomFloats(5, 4 * hidden);
        const FfnResult first = RunFfn(*MakeCpu("portable"), format, c, x);
        ExpectFfn(format, c, x, first);
        for (const std::string& isa : Isas()) {
          ASSERT_TRUE(SameBits(RunFfn(*MakeCpu(isa, 2), format, c, x).out, first.out)) << isa;
        }
      }
    }
  }
}

TEST(QuantisedExpertFfnTest, TakesOneRowAnExpertAndAllRowsOnOne) {
  constexpr int64_t kHidden = 96, kRows = 150;
  std::vector<int32_t> all(kRows);
  std::iota(all.begin(), all.end(), 0);
  const std::vector<float> x = RandomFloats(6, kRows * kHidden);
  for (const WeightFormat format : kQuantised) {
    for (const auto& rows : {std::vector<std::vector<int32_t>>{{149}, {0}, {7}, {7}, {80}},
                             std::vector<std::vector<int32_t>>{{}, all, {}},
                             std::vector<std::vector<int32_t>>{{}, {}}}) {
      const FfnCase c = RandomFfn(kHidden, 80, rows);
      for (const std::string& isa : Isas()) {
        ExpectFfn(format, c, x, RunFfn(*MakeCpu(isa, 3), format, c, x));
      }
    }
  }
}

TEST(ScratchTest, OnlyQuantisedProductsTakeAny) {
  const std::unique_ptr<Backend> backend = MakeCpu("");
  const ExpertFfnShape shape{
      .num_rows = 10, .num_assignments = 20, .hidden_size = 64, .intermediate_size = 32};
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    EXPECT_EQ(backend->GemmScratchBytes(10, 64, format), 0);
    EXPECT_EQ(backend->ExpertFfnScratchBytes(shape, format), 0);
  }
  for (const WeightFormat format : kQuantised) {
    // 80 and 40 bytes of codes, scales and sums, in 3 lines and 1.
    EXPECT_EQ(backend->GemmScratchBytes(10, 64, format), 10 * 192);
    EXPECT_EQ(backend->ExpertFfnScratchBytes(shape, format), 10 * 192 + 20 * 64);
  }
}

}  // namespace
}  // namespace gatehouse
