#include "engine/route_recorder.h"

#include <utility>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxPendingBytes = size_t{32} << 20;  // some hundred steps of a large model

}  // namespace

absl::StatusOr<std::unique_ptr<RouteRecorder>> RouteRecorder::Create(const TraceOptions& options,
                                                                     const TraceHeader& header) {
  std::ofstream file(options.file, std::ios::binary | std::ios::trunc);
  const std::string bytes = EncodeTraceHeader(header);
  if (!file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: cannot be written, expected a place for the route trace", options.file));
  }
  return std::unique_ptr<RouteRecorder>(
      new RouteRecorder(std::move(file), options.max_bytes, header));
}

RouteRecorder::RouteRecorder(std::ofstream file, int64_t max_bytes, const TraceHeader& header)
    : header_(header),
      max_bytes_(max_bytes),
      file_(std::move(file)),
      num_bytes_(static_cast<int64_t>(EncodeTraceHeader(header).size())),
      writer_([this] { WriteUntilClosed(); }) {}

RouteRecorder::~RouteRecorder() {
  {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  changed_.NotifyAll();
  writer_.join();
}

bool RouteRecorder::BeginStep(const StepPlan& plan) {
  if (num_bytes_ >= max_bytes_) return false;
  step_ = TraceStep();
  step_.rows.resize(plan.token_ids.size());
  for (size_t s = 0; s < plan.spans.size(); ++s) {
    const SequenceSpan& span = plan.spans[s];
    for (int32_t r = span.first_row; r < span.first_row + span.num_rows; ++r) {
      step_.rows[r] = {.request = static_cast<uint32_t>(plan.span_sequences[s]),
                       .position = static_cast<uint32_t>(plan.positions[r]),
                       .decode = r < plan.num_decode_tokens};  // decodes come first
    }
  }
  return true;
}

void RouteRecorder::OnLayer(int /*moe_layer_idx*/, const GateScores& scores,
                            const RouteDecision& /*decision*/) {
  for (int row = 0; row < scores.num_rows; ++row) {
    for (int rank = 0; rank < header_.num_ranked; ++rank) {
      const bool known = rank < scores.num_ranked && scores.row_failed[row] == 0;
      step_.ranked_ids.push_back(known ? scores.ranked_ids[scores.At(row, rank)] : -1);
      step_.gate.push_back(known ? scores.gate[scores.At(row, rank)] : 0);
    }
  }
}

void RouteRecorder::EndStep() {
  const std::string bytes = EncodeTraceStep(step_);
  if (num_bytes_ + static_cast<int64_t>(bytes.size()) > max_bytes_) {
    num_bytes_ = max_bytes_;  // only whole steps
    return;
  }
  {
    MutexLock lock(mutex_);
    if (pending_.size() + bytes.size() > kMaxPendingBytes) return;
    pending_ += bytes;
  }
  num_bytes_ += static_cast<int64_t>(bytes.size());
  changed_.NotifyAll();
}

void RouteRecorder::WriteUntilClosed() {
  for (bool closed = false; !closed;) {
    std::string bytes;
    {
      MutexLock lock(mutex_);
      while (pending_.empty() && !closed_) changed_.Wait(mutex_);
      bytes.swap(pending_);
      closed = closed_;
    }
    file_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file_.flush();
  }
}

}  // namespace gatehouse
