#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace gatehouse {
namespace {

TEST(MakeBackendTest, MakesEveryCompiledBackEndUnderItsName) {
  ASSERT_FALSE(CompiledBackends().empty());
  for (const std::string_view name : CompiledBackends()) {
    const auto backend = MakeBackend(name, {});
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    EXPECT_EQ((*backend)->name(), name);
    EXPECT_FALSE((*backend)->isa().empty());
  }
}

TEST(MakeBackendTest, TakesTheInstructionSetByName) {
  const auto backend = MakeBackend("cpu", {.isa = "portable"});
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ((*backend)->isa(), "portable");
}

TEST(MakeBackendTest, RefusesWhatItHasNotAndSaysWhatItHas) {
  const auto name = MakeBackend("abacus", {});
  EXPECT_EQ(name.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(name.status().message()), testing::HasSubstr("cpu"));
  const auto isa = MakeBackend("cpu", {.isa = "abacus"});
  EXPECT_EQ(isa.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(isa.status().message()), testing::HasSubstr("portable"));
  for (const int num_threads : {0, -1}) {
    const auto threads = MakeBackend("cpu", {.num_threads = num_threads});
    EXPECT_EQ(threads.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(CpuBackendTest, PacksExactlyTheBytesItAnnounced) {
  const auto backend = *MakeBackend("cpu", {});
  const std::vector<float> ones(40 * 33, 1);
  const WeightView wide{ones.data(), DType::kF32, 40, 33}, tall{ones.data(), DType::kF32, 33, 40};
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    const std::vector<WeightView> stacked(3, wide);
    const auto matrix = *backend->PackMatrix(stacked, format);
    EXPECT_EQ(matrix->num_outputs(), 120);
    EXPECT_EQ(matrix->num_inputs(), 33);
    EXPECT_EQ(matrix->num_bytes(), backend->PackedMatrixBytes(120, 33, format));
    const std::vector<ExpertSource> sources(5, {wide, wide, tall});
    const auto experts = *backend->PackExperts(sources, format);
    EXPECT_EQ(experts->num_experts(), 5);
    EXPECT_EQ(experts->num_bytes(), backend->PackedExpertsBytes({5, 33, 40}, format));
  }
}

TEST(CpuBackendTest, AllocatesCopiesAndRefuses) {
  const auto backend = *MakeBackend("cpu", {});
  EXPECT_EQ(backend->Allocate(size_t{1} << 60).status().code(),
            absl::StatusCode::kResourceExhausted);
  const std::vector<char> source(100, 'x');
  auto buffer = backend->Allocate(100);
  ASSERT_TRUE(buffer.ok());
  backend->CopyFromHost(buffer->as<char>(), source.data(), 100);
  EXPECT_EQ(std::memcmp(buffer->as<char>(), source.data(), 100), 0);
}

TEST(CpuBackendTest, RunsAStepOfItsOwnOperations) {
  for (const int num_threads : {1, 2}) {
    const auto backend = *MakeBackend("cpu", {.num_threads = num_threads});
    const std::vector<float> table = {1, 2, 3, 4, 5, 6}, identity = {1, 0, 0, 1};
    const WeightView weights{identity.data(), DType::kF32, 2, 2};
    const auto packed = *backend->PackMatrix({&weights, 1}, WeightFormat::kF32);
    const std::vector<int32_t> tokens = {2, 0}, positions = {0, 0};
    const std::vector<SequenceSpan> sequences = {{.first_row = 0, .num_rows = 1},
                                                 {.first_row = 1, .num_rows = 1}};
    std::vector<float> x(4), out(4);
    backend->BeginStep({.token_ids = tokens, .positions = positions, .sequences = sequences});
    backend->Embed({.table = {table.data(), DType::kF32, 3, 2}, .out = {x.data(), 2, 2}});
    backend->Gemm({.x = {x.data(), 2, 2}, .weights = packed.get(), .out = {out.data(), 2, 2}});
    backend->Add({.x = {x.data(), 2, 2}, .out = {out.data(), 2, 2}});
    EXPECT_TRUE(backend->Finish().ok());
    EXPECT_THAT(out, testing::ElementsAre(10, 12, 2, 4));
  }
}

}  // namespace
}  // namespace gatehouse
