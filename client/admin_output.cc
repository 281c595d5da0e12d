#include "client/admin_output.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "client/text.h"

namespace gatehouse {
namespace {

constexpr int kExpertBarColumns = 30;

std::string Row(const char* name, const std::string& value) {
  return absl::StrFormat("  %-20s %s\n", name, value);
}

double Share(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

int64_t Total(const google::protobuf::RepeatedField<int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

std::string DescribeLayers(const v1::ExpertLoad& load, int num_columns, Glyphs glyphs) {
  std::string text =
      absl::StrFormat("%6s %14s %10s  %s\n", "layer", "tokens", "imbalance", "load of each expert");
  constexpr int kColumnsBeforeBars = 34;
  for (const v1::LayerExpertLoad& layer : load.layers()) {
    text += absl::StrFormat("%6d %14d %10.2f  %s\n", layer.layer(), Total(layer.tokens()),
                            layer.imbalance(),
                            ColumnBars({layer.tokens().begin(), layer.tokens().end()},
                                       std::max(1, num_columns - kColumnsBeforeBars), glyphs));
  }
  return text;
}

std::string DescribeExperts(const v1::LayerExpertLoad& layer, Glyphs glyphs) {
  const int64_t total = Total(layer.tokens());
  const int64_t largest =
      layer.tokens().empty() ? 0 : *std::max_element(layer.tokens().begin(), layer.tokens().end());
  std::string text =
      absl::StrFormat("layer %d: %d tokens, imbalance %.2f\n%7s %14s %7s\n", layer.layer(), total,
                      layer.imbalance(), "expert", "tokens", "share");
  for (int i = 0; i < layer.tokens_size(); ++i) {
    const int64_t tokens = layer.tokens(i);
    text += absl::StrFormat("%7d %14d %6.2f%%  %s", i, tokens, 100 * Share(tokens, total),
                            HorizontalBar(Share(tokens, largest), kExpertBarColumns, glyphs));
    if (i < layer.capacity_size()) text += absl::StrFormat("  capacity %d", layer.capacity(i));
    if (i < layer.rerouted_size()) text += absl::StrFormat("  rerouted %d", layer.rerouted(i));
    if (i < layer.dropped_size()) text += absl::StrFormat("  dropped %d", layer.dropped(i));
    if (i < layer.replicas_size()) text += absl::StrFormat("  replicas %d", layer.replicas(i));
    if (i < layer.rank_size()) text += absl::StrFormat("  rank %d", layer.rank(i));
    text += "\n";
  }
  return text;
}

}  // namespace

std::string DescribeStatus(const v1::ServerStatus& s) {
  std::string text = absl::StrFormat("%s  %s %s, up %s\n", v1::ServerStatus::State_Name(s.state()),
                                     TerminalSafe(s.model()), TerminalSafe(s.version()),
                                     DescribeDuration(s.uptime_seconds()));
  for (const std::string& reason : s.reasons()) text += Row("not serving", TerminalSafe(reason));
  for (const std::string& reason : s.degraded()) text += Row("degraded", TerminalSafe(reason));
  text += Row("requests", absl::StrFormat("%d running, %d waiting (%d prompt tokens), %d ended",
                                          s.running_requests(), s.waiting_requests(),
                                          s.waiting_tokens(), s.totals().ended_requests()));
  text +=
      Row("KV cache", absl::StrFormat("%d of %d blocks of %d tokens (%.0f%%), %d preemptions",
                                      s.kv_blocks_used(), s.kv_blocks_total(), s.kv_block_tokens(),
                                      100 * Share(s.kv_blocks_used(), s.kv_blocks_total()),
                                      s.totals().preemptions()));
  text += Row("tokens per second",
              absl::StrFormat("%.1f generated, %.1f of prompts (%.1f steps, over %.1f s)",
                              s.throughput().generated_tokens_per_second(),
                              s.throughput().prompt_tokens_per_second(),
                              s.throughput().steps_per_second(), s.throughput().window_seconds()));
  text += Row("since the start", absl::StrFormat("%d tokens generated, %d of prompts, %d steps",
                                                 s.totals().generated_tokens(),
                                                 s.totals().prompt_tokens(), s.totals().steps()));
  text += Row("last step", DescribeDuration(s.last_step_age_seconds()) + " ago");
  text += Row("refused wait", DescribeDuration(s.retry_after_seconds()));
  if (s.has_roofline()) {
    text += Row("weights read",
                absl::StrFormat("%s/s while steps run, %s a token; steps run %.0f%% of the time",
                                DescribeBytes(s.roofline().weight_bytes_per_second()),
                                DescribeBytes(s.roofline().weight_bytes_per_token()),
                                100 * s.roofline().step_share()));
  }
  for (const v1::RankStatus& rank : s.ranks()) {
    text += Row(absl::StrFormat("rank %d", rank.rank()).c_str(),
                rank.serving() ? "serving" : "not serving");
  }
  return text;
}

std::string DescribeStatusLine(const v1::ServerStatus& s) {
  std::string line = absl::StrFormat(
      "%-8s running %d  waiting %d  generated/s %.1f  prompt/s %.1f  kv %.0f%%",
      v1::ServerStatus::State_Name(s.state()), s.running_requests(), s.waiting_requests(),
      s.throughput().generated_tokens_per_second(), s.throughput().prompt_tokens_per_second(),
      100 * Share(s.kv_blocks_used(), s.kv_blocks_total()));
  for (const std::string& reason : s.reasons()) line += "  " + TerminalSafe(reason);
  for (const std::string& reason : s.degraded()) line += "  degraded: " + TerminalSafe(reason);
  return line;
}

std::string DescribeExpertLoad(const v1::ExpertLoad& load, int num_columns, Glyphs glyphs) {
  if (load.layers_size() == 1) return DescribeExperts(load.layers(0), glyphs);
  return DescribeLayers(load, num_columns, glyphs);
}

std::string DescribePlacement(const v1::Placement& placement) {
  if (placement.layers().empty()) return "no experts\n";
  std::string text = "* : other ranks hold the expert, too\n";
  for (const v1::LayerPlacement& layer : placement.layers()) {
    std::vector<std::string> held(placement.ranks());
    for (int e = 0; e < layer.experts_size(); ++e) {
      const auto& ranks = layer.experts(e).ranks();
      for (const int32_t rank : ranks) {
        if (rank < 0 || rank >= placement.ranks()) continue;
        held[rank] += absl::StrFormat(" %d%s", e, ranks.size() > 1 ? "*" : "");
      }
    }
    for (int r = 0; r < placement.ranks(); ++r) {
      text += absl::StrFormat("layer %-3d rank %-3d%s\n", layer.layer(), r, held[r]);
    }
  }
  return text;
}

std::string DescribeRebalance(const v1::RebalanceStatus& s) {
  std::string line =
      absl::StrFormat("rebalance %d  %s", s.id(), v1::RebalanceStatus::State_Name(s.state()));
  if (s.layers() > 0) {
    line += absl::StrFormat("  %d of %d layers moved, %d experts copied", s.layers_moved(),
                            s.layers(), s.expert_copies());
  }
  if (s.planned_imbalance() > 0) {
    line += absl::StrFormat("  imbalance %.2f, planned %.2f", s.imbalance(), s.planned_imbalance());
  }
  if (s.obtained_imbalance() > 0)
    line += absl::StrFormat(", obtained %.2f", s.obtained_imbalance());
  if (!s.reason().empty()) line += "  " + TerminalSafe(s.reason());
  return line + "\n";
}

std::string DescribeRequests(const v1::GetRequestsResponse& response) {
  if (response.requests().empty()) return "no requests\n";
  std::string text = absl::StrFormat("%-36s %-12s %-8s %-7s %10s %10s %10s\n", "id", "tenant",
                                     "state", "prio", "age", "prompt", "generated");
  for (const v1::ActiveRequest& r : response.requests()) {
    std::string priority = v1::GenerateRequest::Priority_Name(r.priority());
    if (r.priority() == 0) priority = "NORMAL";  // not said
    text += absl::StrFormat("%-36s %-12s %-8s %-7s %10s %10d %10d\n", TerminalSafe(r.request_id()),
                            TerminalSafe(r.tenant()), v1::ActiveRequest::State_Name(r.state()),
                            priority, DescribeDuration(r.age_seconds()), r.prompt_tokens(),
                            r.generated_tokens());
  }
  if (response.total() > response.requests_size()) {
    text += absl::StrFormat("and %d more (--max)\n", response.total() - response.requests_size());
  }
  return text;
}

}  // namespace gatehouse
