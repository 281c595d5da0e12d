#include "kernels/cpu/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace gatehouse::cpu {
namespace {

TEST(AllocateZeroedTest, GivesAlignedZeroedMemoryOfAnySize) {
  for (const size_t size : {size_t{1}, size_t{63}, size_t{64}, size_t{4097}, (size_t{2} << 20) - 1,
                            size_t{2} << 20, (size_t{5} << 20) + 3}) {
    const auto buffer = AllocateZeroed(size);
    ASSERT_TRUE(buffer.ok()) << size;
    ASSERT_EQ(buffer->num_bytes(), size);
    char* data = buffer->as<char>();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u) << size;
    EXPECT_TRUE(std::all_of(data, data + size, [](char c) { return c == 0; })) << size;
    std::fill(data, data + size, 'x');  // all of it can be written
  }
}

TEST(AllocateZeroedTest, NothingIsNoMemory) {
  const auto buffer = AllocateZeroed(0);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(buffer->num_bytes(), 0u);
}

TEST(AllocateZeroedTest, NamesTheBytesItCannotGet) {
  for (const size_t size : {size_t{1} << 60, SIZE_MAX}) {
    const auto buffer = AllocateZeroed(size);
    ASSERT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(buffer.status().message().find(std::to_string(size)), absl::string_view::npos);
  }
}

}  // namespace
}  // namespace gatehouse::cpu
