#include "client/generate_output.h"

#include "absl/strings/str_format.h"
#include "client/json_output.h"
#include "client/text.h"

namespace gatehouse {
namespace {

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

std::string DescribeFinish(const v1::Finished& finished) {
  std::string text = v1::Finished::Reason_Name(finished.reason());
  if (finished.has_matched_stop()) {
    text += absl::StrFormat(" '%s'", TerminalSafe(finished.matched_stop()));
  }
  if (finished.has_matched_stop_token_id()) {
    text += absl::StrFormat(" (token %d)", finished.matched_stop_token_id());
  }
  text = absl::StrFormat("%d tokens generated, ended by %s; waited %.3f s",
                         finished.usage().generated_tokens(), text,
                         finished.timings().queue_seconds());
  if (finished.timings().preemptions() > 0) {
    text += absl::StrFormat(", preempted %d times", finished.timings().preemptions());
  }
  if (finished.has_moe_report()) {
    const v1::MoeReport& report = finished.moe_report();
    text += absl::StrFormat(
        "\nrouting %s, policy %d: %d assignments, %d kept, %d rerouted, %d dropped, %.4f of the "
        "gate's weight kept%s",
        v1::Routing::Mode_Name(report.mode()), report.policy_version(), report.assignments(),
        report.kept(), report.rerouted(), report.dropped(), report.gate_mass_kept(),
        report.exact() ? " (exact)" : "");
  }
  return text + "\n";
}

}  // namespace

std::string GenerateOutput::Show(const std::string& text) {
  if (text.empty()) return "";
  open_line_ = text.back() != '\n';
  return options_.terminal ? TerminalSafe(text) : text;
}

std::string GenerateOutput::OnEvent(const v1::GenerateResponse& event, TimePoint now) {
  std::string shown;
  if (event.has_started()) started_ = event.started();
  if (event.has_delta()) {
    const v1::Delta& delta = event.delta();
    if (delta.tokens_size() > 0) {
      if (num_tokens_ == 0) first_token_ = now;
      last_token_ = now;
      num_tokens_ += delta.tokens_size();
    }
    const size_t output_idx = delta.output_index() < 0 ? 0 : delta.output_index();
    if (options_.num_outputs == 1) {
      shown = Show(delta.text());
    } else if (output_idx < static_cast<size_t>(options_.num_outputs)) {
      if (texts_.size() <= output_idx) texts_.resize(output_idx + 1);
      texts_[output_idx] += delta.text();
    }
  }
  if (event.has_finished()) {
    finished_.push_back(event.finished());
    const size_t output_idx = static_cast<size_t>(event.finished().output_index());
    if (options_.num_outputs > 1 && output_idx < texts_.size()) {
      shown = Show(absl::StrFormat("--- output %d\n%s\n", output_idx, texts_[output_idx]));
    }
  }
  return options_.json ? ToJsonLine(event) : shown;
}

std::string GenerateOutput::OnEnd() {
  if (!options_.terminal || options_.json || !open_line_) return "";
  open_line_ = false;
  return "\n";
}

std::string GenerateOutput::Stats(TimePoint now) const {
  // Where output and errors share a log, the text has not ended its line.
  std::string text = absl::StrFormat("%s%d prompt tokens (%d cached); ", open_line_ ? "\n" : "",
                                     started_.prompt_tokens(), started_.cached_prompt_tokens());
  if (num_tokens_ == 0) {
    return text + absl::StrFormat("no token in %.3f s\n", Seconds(now - start_));
  }
  text += absl::StrFormat("%d tokens received, the first after %.3f s", num_tokens_,
                          Seconds(first_token_ - start_));
  const double decode_seconds = Seconds(last_token_ - first_token_);
  if (num_tokens_ > 1 && decode_seconds > 0) {
    text += absl::StrFormat(", then %.1f tokens/s", (num_tokens_ - 1) / decode_seconds);
  }
  text += absl::StrFormat("; %.3f s in all\n", Seconds(now - start_));
  for (const v1::Finished& finished : finished_) text += DescribeFinish(finished);
  return text;
}

}  // namespace gatehouse
