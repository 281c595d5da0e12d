#include "tests/kernels/cpu/cpu_fixture.h"

namespace gatehouse::cpu {
namespace {

TEST(EmbedTest, CopiesTheRowsOfTheTokensInEveryTypeAndAlignment) {
  ThreadPool pool(1);
  OpScratch scratch;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const size_t misalignment : {0, 1, 3}) {
      const Tensor table(dtype, 20, 13, 1, misalignment);
      const std::vector<int32_t> tokens = {19, 0, 7, 7};
      Matrix out(4, 15, 99);
      Embed({PortableKernels(), pool, scratch}, {.token_ids = tokens},
            {.table = table.view(), .out = out.view().Cols(1, 13)});
      for (int64_t r = 0; r < 4; ++r) {
        EXPECT_EQ(out.at(r, 0), 99);
        EXPECT_EQ(out.at(r, 14), 99);
        for (int64_t c = 0; c < 13; ++c) {
          EXPECT_EQ(out.at(r, c + 1), table.at(tokens[r], c, WeightFormat::kF32));
        }
      }
    }
  }
}

TEST(EmbedTest, MultipliesEveryValueByTheScale) {
  ThreadPool pool(1);
  OpScratch scratch;
  const Tensor table(DType::kBF16, 5, 7, 1);
  const std::vector<int32_t> tokens = {4, 1};
  Matrix out(2, 7);
  Embed({PortableKernels(), pool, scratch}, {.token_ids = tokens},
        {.table = table.view(), .scale = 12, .out = out.view()});
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t c = 0; c < 7; ++c) {
      EXPECT_EQ(out.at(r, c), 12 * table.at(tokens[r], c, WeightFormat::kF32));
    }
  }
}

TEST(EmbedDeathTest, AbortsOnATokenOutsideTheTable) {
  ThreadPool pool(1);
  OpScratch scratch;
  const Tensor table(DType::kF32, 20, 4, 1);
  for (const int32_t token : {-1, 20}) {
    const std::vector<int32_t> tokens = {token};
    Matrix out(1, 4);
    EXPECT_DEATH(Embed({PortableKernels(), pool, scratch}, {.token_ids = tokens},
                       {.table = table.view(), .out = out.view()}),
                 "of 20");
  }
}

}  // namespace
}  // namespace gatehouse::cpu
