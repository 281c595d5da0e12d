#include "tests/kernels/cpu/cpu_fixture.h"

namespace gatehouse::cpu {
namespace {

using AddTest = IsaTest;
GATEHOUSE_FOR_EACH_ISA(AddTest);

TEST_P(AddTest, AddsEveryElementAndNoOther) {
  for (const int num_threads : {1, 3}) {
    for (const int64_t num_rows : {0, 1, 16, 17, 40}) {
      for (const int64_t num_cols : {1, 7, 8, 29}) {
        ThreadPool pool(num_threads);
        OpScratch scratch;
        const Matrix x = RandomMatrix(num_rows, num_cols, 1);
        const Matrix before = RandomMatrix(num_rows, num_cols + 2, 2);
        Matrix out = before;
        Add({isa(), pool, scratch}, {.x = x.view(), .out = out.view().Cols(1, num_cols)});
        for (int64_t r = 0; r < num_rows; ++r) {
          for (int64_t c = 0; c < num_cols + 2; ++c) {
            const bool inside = c >= 1 && c <= num_cols;
            ASSERT_EQ(out.at(r, c), before.at(r, c) + (inside ? x.at(r, c - 1) : 0.0f));
          }
        }
      }
    }
  }
}

TEST_P(AddTest, ScalesEachRowByItsGate) {
  for (const int64_t num_cols : {1, 8, 29}) {
    ThreadPool pool(2);
    OpScratch scratch;
    const Matrix x = RandomMatrix(20, num_cols, 1), before = RandomMatrix(20, num_cols, 2);
    Matrix gates = RandomMatrix(20, 1, 3);
    for (int64_t r = 0; r < 20; ++r) gates.at(r, 0) *= 30;
    Matrix out = before, portable = before;
    Add({isa(), pool, scratch},
        {.x = x.view(), .scale = 0.3f, .gates = gates.view().data, .out = out.view()});
    Add({PortableKernels(), pool, scratch},
        {.x = x.view(), .scale = 0.3f, .gates = gates.view().data, .out = portable.view()});
    for (int64_t r = 0; r < 20; ++r) {
      for (int64_t c = 0; c < num_cols; ++c) {
        const double scale = double{0.3f} / (1 + std::exp(-double{gates.at(r, 0)}));
        const double want = scale * x.at(r, c) + before.at(r, c);
        // exp within 2 ulp, then quotient, product and sum.
        ASSERT_NEAR(out.at(r, c), want, 0x1p-24 * (8 * std::fabs(scale * x.at(r, c)) + 2));
        ASSERT_EQ(out.at(r, c), portable.at(r, c));
      }
    }
  }
}

}  // namespace
}  // namespace gatehouse::cpu
