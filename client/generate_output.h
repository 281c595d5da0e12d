// Turns the events of one Generate call into what the user sees: text as it comes, or JSON lines;
// and at the end the counts and times of --stats. One thread.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gatehouse/v1/inference.pb.h"

namespace gatehouse {

struct GenerateOutputOptions {
  bool json = false;
  bool terminal = false;  // make control characters visible, end with a line break
  int num_outputs = 1;    // several are kept apart: each is printed whole when it is finished
};

class GenerateOutput {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  GenerateOutput(const GenerateOutputOptions& options, TimePoint start)
      : options_(options), start_(start) {}

  // What to write to standard output for `event`; may be empty.
  std::string OnEvent(const v1::GenerateResponse& event, TimePoint now);
  // What is still due when the stream ends, however it ends.
  std::string OnEnd();
  // Lines for people; empty before the first token.
  std::string Stats(TimePoint now) const;
  bool finished() const { return static_cast<int>(finished_.size()) == options_.num_outputs; }

 private:
  std::string Show(const std::string& text);

  const GenerateOutputOptions options_;
  const TimePoint start_;
  TimePoint first_token_;
  TimePoint last_token_;
  int num_tokens_ = 0;
  bool open_line_ = false;  // the terminal's cursor stands behind text
  std::vector<std::string> texts_;
  std::vector<v1::Finished> finished_;
  v1::Started started_;
};

}  // namespace gatehouse
