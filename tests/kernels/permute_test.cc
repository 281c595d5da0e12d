#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

// Tokens of 0 to 8 experts each, their rows scattered.
TEST(CombineTest, HasTheBitsOfRuleR17AtEveryWidth) {
  constexpr int kNumTokens = 37;
  std::vector<int32_t> token_begin = {0}, assignment_ids;
  for (int t = 0; t < kNumTokens; ++t) token_begin.push_back(token_begin.back() + t * 5 % 9);
  for (int i = 0; i < token_begin.back(); ++i) assignment_ids.push_back(i);
  std::shuffle(assignment_ids.begin(), assignment_ids.end(), std::mt19937(1));
  const std::vector<float> weights = RandomFloats(2, token_begin.back());
  ReferenceBackend reference;
  for (const int width : {1, 6, 8, 20, 100, 256}) {
    std::vector<float> rows = RandomFloats(width, int64_t{token_begin.back()} * width);
    const auto combine = [&](Backend& backend) {
      std::vector<float> out(kNumTokens * width, -1);
      backend.Combine({.expert_rows = MatrixView<float>(rows.data(), token_begin.back(), width),
                       .token_begin = token_begin,
                       .assignment_ids = assignment_ids,
                       .weights = weights,
                       .out = {out.data(), kNumTokens, width}});
      return out;
    };
    const std::vector<float> expected = combine(reference);
    for (const std::unique_ptr<Backend>& backend : AllCpuBackends()) {
      EXPECT_TRUE(SameBits(combine(*backend), expected)) << width << " " << backend->isa();
    }
  }
}

}  // namespace
}  // namespace gatehouse
