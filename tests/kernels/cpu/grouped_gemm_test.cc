#include <cmath>
#include <numeric>

#include "kernels/cpu/work_split.h"
#include "tests/kernels/cpu/cpu_fixture.h"

namespace gatehouse::cpu {
namespace {

using ExpertFfnTest = IsaTest;
GATEHOUSE_FOR_EACH_ISA(ExpertFfnTest);

// Experts of random weights with the views that packing takes.
struct Experts {
  Experts(int num_experts, int64_t hidden, int64_t intermediate, DType dtype = DType::kF32)
      : num_experts(num_experts), hidden(hidden), intermediate(intermediate) {
    for (int e = 0; e < num_experts; ++e) {
      gate.emplace_back(dtype, intermediate, hidden, 100 + e);
      up.emplace_back(dtype, intermediate, hidden, 200 + e);
      down.emplace_back(dtype, hidden, intermediate, 300 + e);
    }
  }
  std::unique_ptr<CpuPackedExperts> Packed(WeightFormat format) const {
    std::vector<ExpertSource> sources;
    for (int e = 0; e < num_experts; ++e) {
      sources.push_back({gate[e].view(), up[e].view(), down[e].view()});
    }
    ThreadPool pool(1);
    return *Pack(pool, sources, format);
  }

  int num_experts;
  int64_t hidden, intermediate;
  std::vector<Tensor> gate, up, down;
};

struct Routing {
  std::vector<int32_t> row_ids, expert_begin{0};

  void AddExpert(std::vector<int32_t> rows) {
    row_ids.insert(row_ids.end(), rows.begin(), rows.end());
    expert_begin.push_back(static_cast<int32_t>(row_ids.size()));
  }
};

Matrix RunFfn(const IsaKernels& isa, const Matrix& x, const Routing& routing,
              const CpuPackedExperts& experts, int num_threads = 1) {
  const auto num_assignments = static_cast<int64_t>(routing.row_ids.size());
  Matrix scratch(num_assignments, experts.intermediate_size(), NAN);
  Matrix out(num_assignments, experts.hidden_size(), NAN);
  ThreadPool pool(num_threads);
  OpScratch op_scratch;
  ExpertFfn({isa, pool, op_scratch}, {.x = x.view(),
                                      .groups = {routing.row_ids, routing.expert_begin},
                                      .experts = &experts,
                                      .scratch = scratch.view(),
                                      .out = out.view()});
  return out;
}

// A value and a bound of its rounding error.
struct Bounded {
  double value = 0, error = 0;
};

// sum x w of exact weights and inputs with an error: a chain of K fused multiply-adds.
template <typename Input, typename Weight>
Bounded Dot(int64_t count, const Input& input, const Weight& weight) {
  Bounded sum;
  double magnitude = 0;
  for (int64_t k = 0; k < count; ++k) {
    const Bounded x = input(k);
    const double w = weight(k);
    sum.value += x.value * w;
    sum.error += x.error * std::fabs(w);
    magnitude += (std::fabs(x.value) + x.error) * std::fabs(w);
  }
  sum.error += static_cast<double>(count + 2) * 0x1p-24 * magnitude;
  return sum;
}

// silu(gate) * up. |silu'| < 1.1; exp is within 2 ulp (2^-22), and sum, quotient and product round
// once each: 8 * 2^-24 of the result covers them.
Bounded Swiglu(Bounded gate, Bounded up) {
  const double silu = gate.value / (1 + std::exp(-gate.value));
  const double silu_error = 1.1 * gate.error + 8 * 0x1p-24 * std::fabs(silu);
  Bounded out{silu * up.value, 0};
  out.error = silu_error * (std::fabs(up.value) + up.error) + std::fabs(silu) * up.error +
              0x1p-24 * std::fabs(out.value);
  return out;
}

void ExpectFfn(const Experts& experts, WeightFormat format, const Matrix& x, const Routing& routing,
               const Matrix& out) {
  for (int e = 0; e < experts.num_experts; ++e) {
    for (int32_t a = routing.expert_begin[e]; a < routing.expert_begin[e + 1]; ++a) {
      const auto input = [&](int64_t k) { return Bounded{x.at(routing.row_ids[a], k), 0}; };
      std::vector<Bounded> hidden;
      for (int64_t i = 0; i < experts.intermediate; ++i) {
        hidden.push_back(Swiglu(
            Dot(experts.hidden, input, [&](int64_t k) { return experts.gate[e].at(i, k, format); }),
            Dot(experts.hidden, input, [&](int64_t k) { return experts.up[e].at(i, k, format); })));
      }
      for (int64_t n = 0; n < experts.hidden; ++n) {
        const Bounded want = Dot(
            experts.intermediate, [&](int64_t i) { return hidden[static_cast<size_t>(i)]; },
            [&](int64_t i) { return experts.down[e].at(n, i, format); });
        ASSERT_NEAR(out.at(a, n), want.value, want.error) << "expert " << e << " output " << n;
      }
    }
  }
}

TEST_P(ExpertFfnTest, EqualsDoubleLoopsForAwkwardShapesAndFormats) {
  constexpr int64_t kSizes[] = {1, 2, 3, 31, 32, 33, 96, 100, 129};
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    for (const int64_t hidden : kSizes) {
      for (const int64_t intermediate : kSizes) {
        SCOPED_TRACE(testing::Message() << WeightFormatName(format) << " hidden " << hidden
                                        << " intermediate " << intermediate);
        const Experts experts(2, hidden, intermediate);
        const Matrix x = RandomMatrix(4, hidden, hidden + intermediate);
        Routing routing;
        routing.AddExpert({2});
        routing.AddExpert({0, 1, 3});
        ExpectFfn(experts, format, x, routing, RunFfn(isa(), x, routing, *experts.Packed(format)));
      }
    }
  }
}

TEST_P(ExpertFfnTest, SkipsExpertsWithoutRowsAndTakesSkewedLoads) {
  const Experts experts(6, 40, 24, DType::kBF16);
  const Matrix x = RandomMatrix(50, 40, 1);
  Routing routing;
  std::vector<int32_t> all(50);
  std::iota(all.begin(), all.end(), 0);
  routing.AddExpert({});
  routing.AddExpert({49});
  routing.AddExpert(all);
  routing.AddExpert({});
  routing.AddExpert({0, 7, 7, 8, 31, 48, 49});
  routing.AddExpert({});
  for (const int num_threads : {1, 3}) {
    ExpectFfn(experts, WeightFormat::kBF16, x, routing,
              RunFfn(isa(), x, routing, *experts.Packed(WeightFormat::kBF16), num_threads));
  }
}

// Rows so long that an expert's do not stay in the cache together: they are cut into ranges.
TEST_P(ExpertFfnTest, TakesMoreRowsThanTheCacheHolds) {
  constexpr int64_t kHidden = 3001;
  const Experts experts(2, kHidden, 5);
  const Matrix x = RandomMatrix(10, kHidden, 1);
  Routing routing;
  std::vector<int32_t> rows(MaxRangeRows(kHidden) * 2 + 1);
  for (size_t a = 0; a < rows.size(); ++a) rows[a] = static_cast<int32_t>(a * 7 % 10);
  routing.AddExpert({3});
  routing.AddExpert(rows);
  ExpectFfn(experts, WeightFormat::kF32, x, routing,
            RunFfn(isa(), x, routing, *experts.Packed(WeightFormat::kF32), 2));
}

TEST_P(ExpertFfnTest, NoRowsIsNoWork) {
  const Experts experts(2, 8, 8);
  Routing routing;
  routing.AddExpert({});
  routing.AddExpert({});
  EXPECT_TRUE(
      RunFfn(isa(), Matrix(0, 8), routing, *experts.Packed(WeightFormat::kF32)).values.empty());
}

TEST_P(ExpertFfnTest, KeepsARowsBitsWhateverItsNeighboursAndThreads) {
  const Experts experts(4, 65, 50);
  const Matrix x = RandomMatrix(64, 65, 2);
  std::mt19937 random(3);
  for (const WeightFormat format : kWeightFormats) {
    const auto packed = experts.Packed(format);
    std::vector<Matrix> alone;  // [expert] of all rows, one by one
    for (int e = 0; e < 4; ++e) {
      alone.emplace_back(64, 65);
      for (int32_t r = 0; r < 64; ++r) {
        Routing one;
        for (int other = 0; other < 4; ++other) one.AddExpert({});
        one.row_ids = {r};
        for (int other = e + 1; other <= 4; ++other) one.expert_begin[other] = 1;
        const Matrix out = RunFfn(isa(), x, one, *packed);
        std::copy(out.values.begin(), out.values.end(), &alone[e].at(r, 0));
      }
    }
    for (int round = 0; round < 30; ++round) {
      Routing routing;
      for (int e = 0; e < 4; ++e) {
        std::vector<int32_t> rows(random() % 40);
        for (int32_t& row : rows) row = random() % 64;
        routing.AddExpert(rows);
      }
      const Matrix out = RunFfn(isa(), x, routing, *packed, 1 << (round % 3));
      for (int e = 0; e < 4; ++e) {
        for (int32_t a = routing.expert_begin[e]; a < routing.expert_begin[e + 1]; ++a) {
          ASSERT_EQ(std::memcmp(&out.at(a, 0), &alone[e].at(routing.row_ids[a], 0), 65 * 4), 0)
              << "round " << round << " expert " << e << " assignment " << a;
        }
      }
    }
  }
}

TEST_P(ExpertFfnTest, HasTheBitsOfThePortableInstructionSet) {
  const Experts experts(3, 65, 50);
  Matrix x = RandomMatrix(20, 65, 4);
  for (int64_t r = 10; r < 20; ++r) {  // large: both ends of exp
    for (int64_t c = 0; c < 65; ++c) x.at(r, c) *= 100;
  }
  Routing routing;
  routing.AddExpert({0, 1, 2, 3, 4, 10, 11, 12, 13});
  routing.AddExpert({19});
  routing.AddExpert({5, 6, 7, 8, 9, 14, 15, 16, 17, 18});
  for (const WeightFormat format : kWeightFormats) {
    const auto packed = experts.Packed(format);
    const Matrix ours = RunFfn(isa(), x, routing, *packed);
    const Matrix portable = RunFfn(PortableKernels(), x, routing, *packed);
    for (const float value : ours.values) ASSERT_TRUE(std::isfinite(value));
    ASSERT_EQ(std::memcmp(ours.values.data(), portable.values.data(), ours.values.size() * 4), 0)
        << WeightFormatName(format);
  }
}

// A row of one expert whose input is NaN spoils that row and no other.
TEST_P(ExpertFfnTest, KeepsNanInItsRow) {
  const Experts experts(1, 8, 8);
  Matrix x = RandomMatrix(5, 8, 5);
  x.at(2, 3) = NAN;
  Routing routing;
  routing.AddExpert({0, 1, 2, 3, 4});
  const Matrix out = RunFfn(isa(), x, routing, *experts.Packed(WeightFormat::kF32));
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t c = 0; c < 8; ++c) ASSERT_EQ(std::isnan(out.at(r, c)), r == 2) << r;
  }
}

}  // namespace
}  // namespace gatehouse::cpu
