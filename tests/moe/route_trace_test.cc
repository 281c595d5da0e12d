#include "engine/moe/route_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const TraceHeader kHeader = {.model_hash = "0123456789abcdef",
                             .num_experts = 5,
                             .num_moe_layers = 2,
                             .top_k = 1,
                             .num_ranked = 2};
constexpr int kHeaderBytes = 8 + 16 + 16;

TraceStep Step() {
  return {.rows = {{.request = 7, .position = 300, .decode = true}, {.request = 9}},
          .ranked_ids = {4, 0, 1, -1, 2, 3, 0, 1},
          .gate = {0.5f, 0.25f, 1, 0, 0.75f, 0, 0.5f, 0.5f}};
}

// The message for a file whose bytes were spoilt, or cut.
std::string Refusal(std::string bytes) {
  std::istringstream stream(bytes);
  auto reader = TraceReader::Open(stream, "t");
  if (!reader.ok()) return std::string(reader.status().message());
  TraceStep step;
  for (;;) {
    const absl::StatusOr<bool> more = reader->Next(step);
    if (!more.ok()) return std::string(more.status().message());
    if (!*more) return "";
  }
}

std::string File() { return EncodeTraceHeader(kHeader) + EncodeTraceStep(Step()); }

TEST(RouteTraceTest, IsReadAsItWasWritten) {
  std::istringstream stream(File() + EncodeTraceStep(Step()));
  auto reader = TraceReader::Open(stream, "t");
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->header().model_hash, kHeader.model_hash);
  EXPECT_EQ(reader->header().num_experts, 5);
  EXPECT_EQ(reader->header().num_ranked, 2);
  for (int i = 0; i < 2; ++i) {
    TraceStep step;
    ASSERT_TRUE(*reader->Next(step));
    ASSERT_EQ(step.rows.size(), 2u);
    EXPECT_EQ(step.rows[0].request, 7u);
    EXPECT_EQ(step.rows[0].position, 300u);
    EXPECT_TRUE(step.rows[0].decode);
    EXPECT_FALSE(step.rows[1].decode);
    EXPECT_THAT(step.ranked_ids, ElementsAre(4, 0, 1, -1, 2, 3, 0, 1));
    EXPECT_THAT(step.gate, ElementsAre(0.5f, 0.25f, 1, 0, 0.75f, 0, 0.5f, 0.5f));
  }
  TraceStep step;
  EXPECT_FALSE(*reader->Next(step));
}

TEST(RouteTraceTest, EveryCutIsRefusedWithTheOffset) {
  const std::string file = File();
  for (size_t size = 0; size < file.size(); ++size) {
    const std::string refusal = Refusal(file.substr(0, size));
    if (size == kHeaderBytes) {
      EXPECT_EQ(refusal, "");
      continue;
    }
    EXPECT_THAT(refusal, HasSubstr("the file ends")) << size;
    EXPECT_THAT(refusal, HasSubstr("t: byte ")) << size;
  }
}

TEST(RouteTraceTest, DamageIsRefusedWithTheOffset) {
  const auto spoilt = [](size_t at, char value) {
    std::string file = File();
    file[at] = value;
    return Refusal(file);
  };
  EXPECT_THAT(spoilt(0, 'X'), HasSubstr("byte 0: got no route trace"));
  EXPECT_THAT(spoilt(24, 0), HasSubstr("byte 24: got 0 experts"));
  EXPECT_THAT(spoilt(36, 6), HasSubstr("top 1 of 6 ranks"));
  EXPECT_THAT(spoilt(kHeaderBytes, 0), HasSubstr("byte 40: got a step of 0 rows"));
  EXPECT_THAT(spoilt(kHeaderBytes + 3, 0x7f), HasSubstr("byte 40: got a step of"));
  const int first_rank = kHeaderBytes + 4 + 2 * 9;
  EXPECT_THAT(spoilt(first_rank, 5), HasSubstr("byte 62: got expert 5 with P 0.5"));
  EXPECT_THAT(spoilt(first_rank + 3, static_cast<char>(0xff)), HasSubstr("byte 62: got expert 4"));
}

}  // namespace
}  // namespace gatehouse
