// What `gatehouse top` shows: one frame of text for a state of the server and a size of the
// terminal. Pure functions, any thread.
#pragma once

#include <chrono>
#include <deque>
#include <string>
#include <vector>

#include "client/text_chart.h"
#include "gatehouse/v1/admin.pb.h"

namespace gatehouse {

// The load of the last seconds, from answers that count since the start of the server.
class LoadWindow {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // Counts that went down are of a server that was started anew: the window then begins anew, too.
  void Add(TimePoint now, const v1::ExpertLoad& load);
  // Tokens by the difference to the oldest load of the window, or since the start if there is only
  // one; everything else as in the newest.
  v1::ExpertLoad Recent() const;
  // What Recent is of; 0: since the start.
  double seconds() const;

 private:
  struct Sample {
    TimePoint time;
    v1::ExpertLoad load;
  };
  std::deque<Sample> samples_;
};

struct TopFrame {
  std::string target;
  v1::ServerStatus status;
  v1::ExpertLoad load;  // LoadWindow::Recent
  double load_seconds = 0;
  v1::RebalanceStatus rebalance;  // shown where there are several ranks
  std::string problem;            // why what is shown is old; empty: it is not
};

struct TopSize {
  int num_rows = 24;
  int num_columns = 80;
};

// At most num_rows lines of at most num_columns characters. Layers from `first_layer` on, which is
// moved into range.
std::vector<std::string> DrawTop(const TopFrame& frame, const TopSize& size, Glyphs glyphs,
                                 int& first_layer);

}  // namespace gatehouse
