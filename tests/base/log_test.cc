#include "kernels/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

namespace gatehouse {
namespace {

using ::testing::EndsWith;

// A pipe whose other end is read only when asked for.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(pipe(ends_.data()), 0); }
  ~Pipe() {
    close(ends_[0]);
    CloseWriteEnd();
  }
  int write_end() const { return ends_[1]; }
  void CloseWriteEnd() {
    if (ends_[1] >= 0) close(ends_[1]);
    ends_[1] = -1;
  }
  // To the end, or until `is_enough` of what came so far.
  std::string Read(const std::function<bool(const std::string&)>& is_enough = nullptr) const {
    std::string text;
    std::array<char, 65536> buffer;
    while (is_enough == nullptr || !is_enough(text)) {
      const ssize_t n = read(ends_[0], buffer.data(), buffer.size());
      if (n <= 0) break;
      text.append(buffer.data(), static_cast<size_t>(n));
    }
    return text;
  }

 private:
  std::array<int, 2> ends_{};
};

std::vector<std::string> LinesOf(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST(LoggerTest, WritesOneLineAnEventInEitherForm) {
  Pipe pipe;
  {
    const Logger text(LogFormat::kText, LogLevel::kInfo, pipe.write_end());
    text.Log(LogLevel::kInfo, "state", {{"a", "1"}, {"b", "two \"words\"\n"}});
    text.Log(LogLevel::kDebug, "not this one");
    text.Flush();
    const Logger json(LogFormat::kJson, LogLevel::kInfo, pipe.write_end());
    json.Log(LogLevel::kError, "state", {{"a", "1"}});
  }
  pipe.CloseWriteEnd();
  const std::vector<std::string> lines = LinesOf(pipe.Read());
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines[0], EndsWith(R"(Z info state a=1 b="two \"words\"\u000a")"));
  EXPECT_THAT(lines[1], EndsWith(R"(Z","level":"error","message":"state","a":"1"})"));
}

TEST(LoggerTest, LinesOfOneThreadStayInOrderAndWhole) {
  Pipe pipe;
  std::string text;
  std::thread reader([&] { text = pipe.Read(); });
  {
    const Logger logger(LogFormat::kText, LogLevel::kInfo, pipe.write_end());
    std::vector<std::thread> writers;
    for (int t = 0; t < 4; ++t) {
      writers.emplace_back([&logger, t] {
        for (int i = 0; i < 500; ++i) {
          logger.Log(LogLevel::kInfo, "event",
                     {{"thread", std::to_string(t)}, {"i", std::to_string(i)}});
        }
      });
    }
    for (std::thread& writer : writers) writer.join();
  }
  pipe.CloseWriteEnd();
  reader.join();
  const std::vector<std::string> lines = LinesOf(text);
  ASSERT_EQ(lines.size(), 2000u);
  std::array<int, 4> next{};
  for (const std::string& line : lines) {
    const size_t thread = line.at(line.find("thread=") + 7) - '0';
    EXPECT_THAT(line, EndsWith("i=" + std::to_string(next.at(thread)++)));
  }
}

struct Tally {
  int num_events = 0;  // whole lines
  int num_lost = 0;    // as reported
};
Tally TallyOf(const std::string& text) {
  Tally tally;
  for (const std::string& line : LinesOf(text.substr(0, text.rfind('\n') + 1))) {
    const size_t at = line.find("warning log lines lost lines=");
    if (at != std::string::npos) {
      tally.num_lost += std::stoi(line.substr(line.find("lines=") + 6));
    } else {
      ++tally.num_events;
    }
  }
  return tally;
}

// Would hang if a line waited for the reader.
TEST(LoggerTest, AReaderWhoDoesNotReadHoldsNobodyUpAndLearnsWhatItMissed) {
  constexpr int kNumLines = 4000;
  const std::string kilobyte(1000, 'x');
  Pipe pipe;
  const Logger logger(LogFormat::kText, LogLevel::kInfo, pipe.write_end());
  for (int i = 0; i < kNumLines; ++i) logger.Log(LogLevel::kInfo, "event", {{"x", kilobyte}});
  const auto all_told = [](const std::string& text) {
    const Tally tally = TallyOf(text);
    return tally.num_events + tally.num_lost == kNumLines;
  };
  EXPECT_GT(TallyOf(pipe.Read(all_told)).num_lost, 0);
  logger.Log(LogLevel::kInfo, "last");
  EXPECT_THAT(pipe.Read([](const std::string& text) { return text.ends_with('\n'); }),
              EndsWith("info last\n"));
}

TEST(LoggerTest, ItsEndDoesNotWaitForeverForAReader) {
  Pipe pipe;
  const std::string kilobyte(1000, 'x');
  {
    const Logger logger(LogFormat::kText, LogLevel::kInfo, pipe.write_end());
    for (int i = 0; i < 200; ++i) logger.Log(LogLevel::kInfo, "event", {{"x", kilobyte}});
  }
  pipe.CloseWriteEnd();
  EXPECT_GT(LinesOf(pipe.Read()).size(), 10u) << "what the pipe had room for";
}

}  // namespace
}  // namespace gatehouse
