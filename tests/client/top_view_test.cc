#include "client/top_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

v1::ExpertLoad Load(const std::vector<std::vector<int64_t>>& tokens_of_layers) {
  v1::ExpertLoad load;
  for (const std::vector<int64_t>& tokens : tokens_of_layers) {
    v1::LayerExpertLoad& layer = *load.add_layers();
    layer.set_layer(load.layers_size() - 1);
    layer.mutable_tokens()->Assign(tokens.begin(), tokens.end());
  }
  return load;
}

TopFrame Frame(int num_layers, int num_experts) {
  TopFrame frame{.target = "127.0.0.1:50052", .load_seconds = 2};
  frame.status.set_state(v1::ServerStatus::SERVING);
  frame.status.set_model("demo");
  frame.status.set_version("0.1.0");
  frame.status.set_running_requests(3);
  frame.status.set_kv_blocks_used(25);
  frame.status.set_kv_blocks_total(100);
  frame.load = Load(std::vector<std::vector<int64_t>>(
      static_cast<size_t>(num_layers), std::vector<int64_t>(static_cast<size_t>(num_experts), 8)));
  return frame;
}

std::string Joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST(LoadWindowTest, IsTheDifferenceToTheOldestLoad) {
  LoadWindow window;
  const LoadWindow::TimePoint start{};
  EXPECT_EQ(window.Recent().layers_size(), 0);
  window.Add(start, Load({{100, 5}}));
  EXPECT_THAT(window.Recent().layers(0).tokens(), ElementsAre(100, 5));
  EXPECT_EQ(window.seconds(), 0);  // since the start
  window.Add(start + seconds(1), Load({{101, 5}}));
  window.Add(start + seconds(2), Load({{103, 6}}));
  EXPECT_THAT(window.Recent().layers(0).tokens(), ElementsAre(3, 1));
  EXPECT_EQ(window.seconds(), 2);
  window.Add(start + seconds(11), Load({{104, 6}}));
  EXPECT_THAT(window.Recent().layers(0).tokens(), ElementsAre(3, 1));  // to the one of 1 s
  EXPECT_EQ(window.seconds(), 10);
}

TEST(LoadWindowTest, BeginsAnewWithTheServer) {
  LoadWindow window;
  const LoadWindow::TimePoint start{};
  window.Add(start, Load({{100, 5}}));
  window.Add(start + seconds(1), Load({{7, 9}}));
  EXPECT_THAT(window.Recent().layers(0).tokens(), ElementsAre(7, 9));
  window.Add(start + seconds(2), Load({{8, 9, 1}}));  // another model
  EXPECT_THAT(window.Recent().layers(0).tokens(), ElementsAre(8, 9, 1));
  window.Add(start + seconds(3), Load({}));
  EXPECT_EQ(window.Recent().layers_size(), 0);
}

TEST(DrawTopTest, ShowsTheServerAndALineForEachLayer) {
  int first_layer = 0;
  const std::string text = Joined(
      DrawTop(Frame(2, 4), {.num_rows = 24, .num_columns = 80}, Glyphs::kAscii, first_layer));
  EXPECT_THAT(text, HasSubstr("gatehouse 0.1.0  127.0.0.1:50052  SERVING  demo"));
  EXPECT_THAT(text, HasSubstr("3 running"));
  EXPECT_THAT(text, HasSubstr("25%  25 of 100 blocks"));
  EXPECT_THAT(text, HasSubstr("    0      0.00           16  @@ @@ @@ @@ \n"));  // 32 in 2 s
  EXPECT_THAT(text, HasSubstr("    1      0.00           16  @@ @@ @@ @@ \n"));
  EXPECT_THAT(text, Not(HasSubstr("!")));
}

TEST(DrawTopTest, SaysWhatAColumnIs) {
  int first_layer = 0;
  const TopSize size{.num_rows = 24, .num_columns = 80};
  EXPECT_THAT(Joined(DrawTop(Frame(1, 49), size, Glyphs::kAscii, first_layer)),
              HasSubstr("load of each expert, last 2 s"));
  EXPECT_THAT(Joined(DrawTop(Frame(1, 128), size, Glyphs::kAscii, first_layer)),
              HasSubstr("busiest of 3 experts, last 2 s"));
}

TEST(DrawTopTest, SaysWhatIsWrong) {
  TopFrame frame = Frame(1, 1);
  frame.problem = "no answer";
  frame.status.set_state(v1::ServerStatus::STALLED);
  frame.status.add_reasons("no step for 5 s");
  int first_layer = 0;
  const std::string text = Joined(DrawTop(frame, {}, Glyphs::kAscii, first_layer));
  EXPECT_THAT(text, HasSubstr("! no answer\n"));
  EXPECT_THAT(text, HasSubstr("! no step for 5 s\n"));
}

TEST(DrawTopTest, ShowsRanksAndTheLastRebalanceWhereThereAreSeveral) {
  TopFrame frame = Frame(2, 4);
  frame.status.add_ranks()->set_serving(true);
  int first_layer = 0;
  EXPECT_THAT(Joined(DrawTop(frame, {}, Glyphs::kAscii, first_layer)), Not(HasSubstr("ranks ")));
  for (int r = 1; r < 3; ++r) frame.status.add_ranks()->set_rank(r);
  frame.status.set_epoch(2);
  std::string text = Joined(DrawTop(frame, {}, Glyphs::kAscii, first_layer));
  EXPECT_THAT(text, HasSubstr("ranks     1 of 3 serving  not 1, 2  epoch 2\n"));
  EXPECT_THAT(text, HasSubstr("rebalance none yet\n"));
  frame.rebalance.set_id(4);
  frame.rebalance.set_reason("too little");
  EXPECT_THAT(Joined(DrawTop(frame, {}, Glyphs::kAscii, first_layer)),
              HasSubstr("rebalance STATE_UNSPECIFIED  too little\n"));
  frame.rebalance.clear_reason();
  frame.rebalance.set_state(v1::RebalanceStatus::ROLLED_BACK);
  frame.rebalance.set_layers(61);
  frame.rebalance.set_imbalance(1.5);
  frame.rebalance.set_planned_imbalance(1.25);
  frame.rebalance.set_obtained_imbalance(10.75);
  text = Joined(DrawTop(frame, {}, Glyphs::kAscii, first_layer));
  EXPECT_THAT(text, HasSubstr("rebalance ROLLED_BACK  0/61 layers  imbalance 1.50, planned 1.25, "
                              "obtained 10.75\n"));
}

TEST(DrawTopTest, FitsEveryTerminal) {
  for (const int num_layers : {0, 1, 61}) {
    for (const TopSize size : {TopSize{1, 1}, {2, 10}, {24, 80}, {50, 200}, {8, 40}, {200, 300}}) {
      for (const int wanted : {-100, 0, 7, 1000}) {
        int first_layer = wanted;
        const auto lines = DrawTop(Frame(num_layers, 256), size, Glyphs::kUnicode, first_layer);
        EXPECT_LE(lines.size(), static_cast<size_t>(size.num_rows));
        for (const std::string& line : lines) EXPECT_EQ(line, Clip(line, size.num_columns));
        EXPECT_GE(first_layer, 0);
        EXPECT_LE(first_layer, num_layers);
      }
    }
  }
}

TEST(DrawTopTest, ScrollsToTheLastLayer) {
  int first_layer = 1000;
  const std::string text = Joined(
      DrawTop(Frame(61, 8), {.num_rows = 24, .num_columns = 80}, Glyphs::kAscii, first_layer));
  EXPECT_THAT(text, HasSubstr("\n   60 "));
  EXPECT_THAT(text, HasSubstr("of 61"));
}

}  // namespace
}  // namespace gatehouse
