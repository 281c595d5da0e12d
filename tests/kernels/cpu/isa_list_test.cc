#include "kernels/cpu/isa_list.h"

#include <gtest/gtest.h>

namespace gatehouse::cpu {
namespace {

TEST(FindIsaTest, FindsEachByNameAndTheBestForNoName) {
  const auto isas = SupportedIsas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(*FindIsa(""), isas.front());
  for (const IsaKernels* isa : isas) EXPECT_EQ(*FindIsa(isa->name), isa);
  EXPECT_EQ(*FindIsa("portable"), isas.back());
}

TEST(FindIsaTest, ListsWhatThereIsForAnUnknownName) {
  const auto isa = FindIsa("avx9");
  ASSERT_EQ(isa.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(isa.status().message().find("\"avx9\""), absl::string_view::npos);
  EXPECT_NE(isa.status().message().find("portable"), absl::string_view::npos);
}

}  // namespace
}  // namespace gatehouse::cpu
