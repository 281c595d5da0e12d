#include "engine/chat_template/text.h"

#include <vector>

#include "gtest/gtest.h"

namespace gatehouse::jinja {
namespace {

using Ranges = std::vector<ByteRange>;

TEST(TextTest, PartsKeepTheirOrigin) {
  Text text(std::string("<"));
  text.Append(Text::FromClient("abc"));
  text.Append(">");
  EXPECT_EQ(text.client_ranges(), (Ranges{{1, 4}}));
  EXPECT_EQ(text.Part(2, 5).bytes(), "bc>");
  EXPECT_EQ(text.Part(2, 5).client_ranges(), (Ranges{{0, 2}}));
  EXPECT_EQ(text.Part(0, 1).client_ranges(), Ranges{});
}

TEST(TextTest, RangesThatTouchAreOne) {
  Text text = Text::FromClient("ab");
  text.Append(Text::FromClient("c"));
  EXPECT_EQ(text.client_ranges(), (Ranges{{0, 3}}));
}

TEST(TextTest, AnEmptyPartLeavesNoRange) {
  const Text client = Text::FromClient("abc");
  for (const size_t at : {0, 1, 3}) {
    Text text(std::string("<>"));
    text.AppendPart(client, at, at);
    EXPECT_EQ(text.bytes(), "<>");
    EXPECT_EQ(text.client_ranges(), Ranges{}) << at;
  }
}

}  // namespace
}  // namespace gatehouse::jinja
