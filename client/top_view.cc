#include "client/top_view.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_format.h"
#include "client/text.h"

namespace gatehouse {
namespace {

// Long enough that a decode step's few experts do not make every frame another picture.
constexpr std::chrono::seconds kWindow{10};
constexpr int kMaxBarColumns = 40;
constexpr int kColumnsBeforeBars = 31;  // of a layer's line

bool CountsOn(const v1::ExpertLoad& older, const v1::ExpertLoad& newer) {
  if (older.layers_size() != newer.layers_size()) return false;
  for (int i = 0; i < older.layers_size(); ++i) {
    const auto& before = older.layers(i).tokens();
    const auto& after = newer.layers(i).tokens();
    if (before.size() != after.size()) return false;
    for (int e = 0; e < before.size(); ++e) {
      if (after[e] < before[e]) return false;
    }
  }
  return true;
}

double Share(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

std::string RanksLine(const TopFrame& frame) {
  int num_serving = 0;
  std::string lost;
  for (const v1::RankStatus& rank : frame.status.ranks()) {
    num_serving += rank.serving() ? 1 : 0;
    if (!rank.serving())
      lost += absl::StrFormat("%s%d", lost.empty() ? "  not " : ", ", rank.rank());
  }
  return absl::StrFormat("ranks     %d of %d serving%s  epoch %d", num_serving,
                         frame.status.ranks_size(), lost, frame.status.epoch());
}

std::string RebalanceLine(const v1::RebalanceStatus& s) {
  if (s.id() == 0) return "rebalance none yet";
  std::string line = absl::StrFormat("rebalance %s", v1::RebalanceStatus::State_Name(s.state()));
  if (s.layers() > 0) absl::StrAppendFormat(&line, "  %d/%d layers", s.layers_moved(), s.layers());
  if (s.planned_imbalance() > 0) {
    absl::StrAppendFormat(&line, "  imbalance %.2f, planned %.2f", s.imbalance(),
                          s.planned_imbalance());
  }
  if (s.obtained_imbalance() > 0) {
    absl::StrAppendFormat(&line, ", obtained %.2f", s.obtained_imbalance());
  }
  if (!s.reason().empty()) line += "  " + TerminalSafe(s.reason());
  return line;
}

std::vector<std::string> Heading(const TopFrame& frame, int num_columns, Glyphs glyphs) {
  const v1::ServerStatus& s = frame.status;
  std::vector<std::string> lines;
  lines.push_back(absl::StrFormat("gatehouse %s  %s  %s  %s  up %s", TerminalSafe(s.version()),
                                  frame.target, v1::ServerStatus::State_Name(s.state()),
                                  TerminalSafe(s.model()), DescribeDuration(s.uptime_seconds())));
  if (!frame.problem.empty()) lines.push_back("! " + frame.problem);
  for (const std::string& reason : s.reasons()) lines.push_back("! " + TerminalSafe(reason));
  for (const std::string& reason : s.degraded()) {
    lines.push_back("! degraded: " + TerminalSafe(reason));
  }
  lines.push_back(absl::StrFormat("requests  %d running  %d waiting  %d ended",
                                  s.running_requests(), s.waiting_requests(),
                                  s.totals().ended_requests()));
  lines.push_back(absl::StrFormat("tokens/s  %.1f generated  %.1f prompt  %.1f steps/s",
                                  s.throughput().generated_tokens_per_second(),
                                  s.throughput().prompt_tokens_per_second(),
                                  s.throughput().steps_per_second()));
  const double used = Share(s.kv_blocks_used(), s.kv_blocks_total());
  lines.push_back(absl::StrFormat(
      "KV cache  %s  %.0f%%  %d of %d blocks",
      HorizontalBar(used, std::clamp(num_columns - kColumnsBeforeBars, 5, kMaxBarColumns), glyphs),
      100 * used, s.kv_blocks_used(), s.kv_blocks_total()));
  if (s.has_roofline()) {
    lines.push_back(absl::StrFormat("weights   %s/s  %s a token  busy %.0f%%",
                                    DescribeBytes(s.roofline().weight_bytes_per_second()),
                                    DescribeBytes(s.roofline().weight_bytes_per_token()),
                                    100 * s.roofline().step_share()));
  }
  if (s.ranks_size() > 1) {
    lines.push_back(RanksLine(frame));
    lines.push_back(RebalanceLine(frame.rebalance));
  }
  return lines;
}

std::string BarsTitle(const TopFrame& frame, int num_columns) {
  std::string title = "load of each expert";
  const int num_experts = frame.load.layers().empty() ? 0 : frame.load.layers(0).tokens_size();
  const int num_bars = std::max(1, num_columns - kColumnsBeforeBars);
  if (num_experts > num_bars) {
    title = absl::StrFormat("busiest of %d experts", (num_experts + num_bars - 1) / num_bars);
  }
  return title + (frame.load_seconds > 0 ? absl::StrFormat(", last %.0f s", frame.load_seconds)
                                         : " since the start");
}

std::string LayerLine(const v1::LayerExpertLoad& layer, double seconds, int num_columns,
                      Glyphs glyphs) {
  const int64_t tokens = std::accumulate(layer.tokens().begin(), layer.tokens().end(), int64_t{0});
  // Counts since the start make no rate.
  const std::string rate =
      seconds > 0 ? absl::StrFormat("%.0f", static_cast<double>(tokens) / seconds) : "-";
  return absl::StrFormat("%5d %9.2f %12s  %s", layer.layer(), layer.imbalance(), rate,
                         ColumnBars({layer.tokens().begin(), layer.tokens().end()},
                                    std::max(1, num_columns - kColumnsBeforeBars), glyphs));
}

}  // namespace

void LoadWindow::Add(TimePoint now, const v1::ExpertLoad& load) {
  if (!samples_.empty() && !CountsOn(samples_.back().load, load)) samples_.clear();
  samples_.push_back({now, load});
  // The oldest one goes when the one behind it is still old enough.
  while (samples_.size() > 2 && now - samples_[1].time >= kWindow) samples_.pop_front();
}

v1::ExpertLoad LoadWindow::Recent() const {
  if (samples_.empty()) return {};
  v1::ExpertLoad recent = samples_.back().load;
  if (samples_.size() == 1) return recent;
  const v1::ExpertLoad& oldest = samples_.front().load;
  for (int i = 0; i < recent.layers_size(); ++i) {
    auto& tokens = *recent.mutable_layers(i)->mutable_tokens();
    for (int e = 0; e < tokens.size(); ++e) tokens[e] -= oldest.layers(i).tokens(e);
  }
  return recent;
}

double LoadWindow::seconds() const {
  if (samples_.size() < 2) return 0;
  return std::chrono::duration<double>(samples_.back().time - samples_.front().time).count();
}

std::vector<std::string> DrawTop(const TopFrame& frame, const TopSize& size, Glyphs glyphs,
                                 int& first_layer) {
  std::vector<std::string> lines = Heading(frame, size.num_columns, glyphs);
  lines.emplace_back();
  lines.push_back(absl::StrFormat("%5s %9s %12s  %s", "layer", "imbalance", "assigned/s",
                                  BarsTitle(frame, size.num_columns)));
  const int num_layers = frame.load.layers_size();
  const int num_free = size.num_rows - static_cast<int>(lines.size()) - 1;  // but the last line
  const int num_shown = std::clamp(num_free, 0, num_layers);
  first_layer = std::clamp(first_layer, 0, num_layers - num_shown);
  for (int i = first_layer; i < first_layer + num_shown; ++i) {
    lines.push_back(LayerLine(frame.load.layers(i), frame.load_seconds, size.num_columns, glyphs));
  }
  if (num_shown < num_layers) {
    lines.push_back(absl::StrFormat("q quit  up/down: layers %d to %d of %d", first_layer + 1,
                                    first_layer + num_shown, num_layers));
  } else {
    lines.emplace_back("q quit");
  }
  if (static_cast<int>(lines.size()) > size.num_rows) lines.resize(std::max(0, size.num_rows));
  for (std::string& line : lines) line = Clip(line, size.num_columns);
  return lines;
}

}  // namespace gatehouse
