// A wrong shape aborts in every back end before it touches memory.
#include "kernels/op_checks.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

std::vector<std::unique_ptr<Backend>> EveryBackend() {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(std::make_unique<ReferenceBackend>());
  backends.push_back(MakeCpu(""));
  return backends;
}

TEST(OpChecksDeathTest, LayoutsMustCoverTheRowsInOrderOfPosition) {
  const std::vector<int32_t> token_ids(3), positions = {4, 5, 6}, jump = {4, 6, 7};
  const std::vector<SequenceSpan> whole = {{.num_rows = 3, .first_position = 4}};
  const std::vector<SequenceSpan> part = {{.num_rows = 2, .first_position = 4}};
  const std::vector<SequenceSpan> twice = {{.num_rows = 3, .first_position = 4},
                                           {.num_rows = 1, .first_position = 4}};
  for (const std::unique_ptr<Backend>& backend : EveryBackend()) {
    backend->BeginStep({token_ids, positions, whole});
    EXPECT_DEATH(backend->BeginStep({token_ids, jump, whole}), "row 1: position 6");
    EXPECT_DEATH(backend->BeginStep({token_ids, positions, part}), "2 of 3");
    EXPECT_DEATH(backend->BeginStep({token_ids, positions, twice}), "check failed");
  }
}

TEST(OpChecksDeathTest, BlocksMustReachAsFarAsThePositionsAndExist) {
  const KvShape shape{.num_kv_heads = 1, .head_dim = 2, .block_tokens = 8};
  const std::vector<int32_t> token_ids(1), positions = {8}, one = {0}, beyond = {0, 2};
  std::vector<float> cache(256), rows(6), out(2);
  const auto attend = [&](Backend& backend, const std::vector<int32_t>& block_ids) {
    const SequenceSpan span{.num_rows = 1, .first_position = 8, .block_ids = block_ids};
    backend.BeginStep({token_ids, positions, {&span, 1}});
    backend.Attention({.q = MatrixView<float>(rows.data(), 1, 2),
                       .num_heads = 1,
                       .kv = {cache.data(), 2, shape},
                       .out = {out.data(), 1, 2}});
  };
  for (const std::unique_ptr<Backend>& backend : EveryBackend()) {
    EXPECT_DEATH(attend(*backend, one), "1 blocks for 9 tokens");
    EXPECT_DEATH(attend(*backend, beyond), "2 of 2");
  }
}

TEST(OpChecksDeathTest, IdsMustLieInTheVocabularyAndTopKAmongTheExperts) {
  std::vector<float> logits(4), weights(5);
  std::vector<int32_t> expert_ids(5);
  std::vector<uint8_t> failed(1);
  RowSample sample;
  const std::vector<std::vector<int32_t>> wrong = {{4}, {2, 1}, {1, 1}};
  for (const std::unique_ptr<Backend>& backend : EveryBackend()) {
    for (const std::vector<int32_t>& allowed : wrong) {
      const RowSampling row{.allowed_ids = allowed};
      EXPECT_DEATH(backend->Sample({.logits = MatrixView<float>(logits.data(), 1, 4),
                                    .rows = {&row, 1},
                                    .samples = {&sample, 1}}),
                   "check failed");
    }
    EXPECT_DEATH(backend->GateTopK({.logits = MatrixView<float>(logits.data(), 1, 4),
                                    .recipe = {.top_k = 5},
                                    .expert_ids = {expert_ids.data(), 1, 5},
                                    .weights = {weights.data(), 1, 5},
                                    .row_failed = failed}),
                 "5 of 1 groups of 4");
  }
}

}  // namespace
}  // namespace gatehouse
