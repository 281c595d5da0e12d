// Experts as gpt-oss files hold them: fused, interleaved, on their side, with biases; every back
// end against the reference, and bit against bit. Plain experts are tested in
// cpu/grouped_gemm_test.cc.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

constexpr int kExperts = 3;
constexpr ActivationOptions kClamped = {
    .kind = ExpertActivation::kClampedSwiglu, .alpha = 1.702f, .limit = 1.5f};

// gate_up [experts, hidden, 2 intermediate] with gate in the even columns, down [experts,
// intermediate, hidden], and their biases.
struct FusedExperts {
  FusedExperts(int64_t hidden, int64_t intermediate)
      : hidden(hidden),
        intermediate(intermediate),
        gate_up(RandomFloats(1, kExperts * hidden * 2 * intermediate)),
        down(RandomFloats(2, kExperts * intermediate * hidden)),
        gate_up_bias(RandomFloats(3, kExperts * 2 * intermediate)),
        down_bias(RandomFloats(4, kExperts * hidden)) {}

  std::vector<ExpertSource> Sources() const {
    const auto view = [](const std::vector<float>& values, int64_t num_rows) {
      const auto num_cols = static_cast<int64_t>(values.size()) / num_rows;
      return WeightView{values.data(), DType::kF32, num_rows, num_cols};
    };
    std::vector<ExpertSource> sources;
    for (int e = 0; e < kExperts; ++e) {
      const WeightView both = view(gate_up, kExperts * hidden).Rows(e * hidden, hidden);
      const WeightView out =
          view(down, kExperts * intermediate).Rows(e * intermediate, intermediate);
      const WeightView bias = view(gate_up_bias, kExperts).Rows(e, 1);
      sources.push_back({.gate = both.Cols(0, intermediate, 2).Transposed(),
                         .up = both.Cols(1, intermediate, 2).Transposed(),
                         .down = out.Transposed(),
                         .gate_bias = bias.Cols(0, intermediate, 2),
                         .up_bias = bias.Cols(1, intermediate, 2),
                         .down_bias = view(down_bias, kExperts).Rows(e, 1)});
    }
    return sources;
  }

  int64_t hidden, intermediate;
  std::vector<float> gate_up, down, gate_up_bias, down_bias;
};

std::vector<float> RunFfn(Backend& backend, const FusedExperts& experts, WeightFormat format,
                          const std::vector<float>& x) {
  const std::vector<int32_t> row_ids = {4, 0, 1, 2, 3, 5, 6}, expert_begin = {0, 1, 1, 7};
  const auto num_rows = static_cast<int64_t>(x.size()) / experts.hidden;
  const auto packed = *backend.PackExperts(experts.Sources(), format);
  EXPECT_EQ(packed->num_bytes(),
            backend.PackedExpertsBytes({.num_experts = kExperts,
                                        .hidden_size = experts.hidden,
                                        .intermediate_size = experts.intermediate,
                                        .has_bias = true},
                                       format));
  const int64_t num_assignments = 7;
  std::vector<float> scratch(num_assignments * experts.intermediate, NAN);
  std::vector<float> out(num_assignments * experts.hidden, NAN);
  backend.ExpertFfn({.x = MatrixView<const float>(x.data(), num_rows, experts.hidden),
                     .groups = {row_ids, expert_begin},
                     .experts = packed.get(),
                     .activation = kClamped,
                     .scratch = {scratch.data(), num_assignments, experts.intermediate},
                     .out = {out.data(), num_assignments, experts.hidden}});
  return out;
}

TEST(ClampedExpertsTest, AgreeWithTheReferenceInEveryShapeAndFormat) {
  ReferenceBackend reference;
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    for (const auto& [hidden, intermediate] :
         {std::pair<int, int>{1, 1}, {7, 33}, {33, 16}, {64, 50}, {100, 17}}) {
      SCOPED_TRACE(testing::Message()
                   << WeightFormatName(format) << " " << hidden << " " << intermediate);
      const FusedExperts experts(hidden, intermediate);
      const std::vector<float> x = RandomFloats(5, int64_t{7} * hidden, 3);
      const std::vector<float> expected = RunFfn(reference, experts, format, x);
      const std::vector<float> first = RunFfn(*MakeCpu("portable"), experts, format, x);
      // An activation is at most (limit + 1) * limit and falls no faster than 2 per unit of gate;
      // gate's error is that of a chain of `hidden` products of 3 and 1 normal deviates.
      const double activation_error =
          2.5 * 2 * std::ldexp(12.0 * hidden, -24) + std::ldexp(16, -24);
      const double tolerance = 4.0 * intermediate * (activation_error + std::ldexp(4.0, -24));
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(first[i], expected[i], tolerance) << i;
      }
      for (const std::unique_ptr<Backend>& backend : AllCpuBackends()) {
        EXPECT_TRUE(SameBits(RunFfn(*backend, experts, format, x), first)) << backend->isa();
      }
    }
  }
}

// Both clamps, far out: 1.5 * sigmoid(1.702 * 1.5) times 1 + 1.5 or 1 - 1.5, and nothing on the
// left.
TEST(ClampedExpertsTest, HoldFarOut) {
  FusedExperts experts(1, 1);
  experts.gate_up = {1, 1, 1, 1, 1, 1};
  experts.down = {1, 1, 1};
  experts.gate_up_bias.assign(6, 0);
  experts.down_bias.assign(3, 0);
  const double top = 1.5 / (1 + std::exp(-1.702 * 1.5)) * 2.5;
  for (const std::unique_ptr<Backend>& backend : AllCpuBackends()) {
    const std::vector<float> out =
        RunFfn(*backend, experts, WeightFormat::kF32, {1e6f, 1e30f, -1e6f, -1e30f, 50, -50, 2});
    EXPECT_NEAR(out[0], top, 1e-6);  // row 4
    EXPECT_NEAR(out[1], top, 1e-6);
    EXPECT_NEAR(out[2], top, 1e-6);
    EXPECT_NEAR(out[5], 0, 1e-6);  // row 5
    for (const float value : out) EXPECT_TRUE(std::isfinite(value));
  }
}

}  // namespace
}  // namespace gatehouse
