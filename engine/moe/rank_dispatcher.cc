#include "engine/moe/rank_dispatcher.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// Numbers of four bytes into a record and out again.
class RecordWriter {
 public:
  explicit RecordWriter(size_t num_words) { words_.reserve(num_words); }
  template <typename T>
  void Put(std::span<const T> values) {
    static_assert(sizeof(T) == sizeof(uint32_t));
    const size_t at = words_.size();
    words_.resize(at + values.size());
    if (!values.empty()) std::memcpy(words_.data() + at, values.data(), values.size_bytes());
  }
  void Put(uint32_t value) { words_.push_back(value); }
  const std::vector<uint32_t>& words() const { return words_; }

 private:
  std::vector<uint32_t> words_;
};

class RecordReader {
 public:
  explicit RecordReader(const std::vector<uint32_t>& words) : words_(words) {}
  template <typename T>
  void Take(std::span<T> values) {
    static_assert(sizeof(T) == sizeof(uint32_t));
    if (!values.empty()) std::memcpy(values.data(), words_.data() + at_, values.size_bytes());
    at_ += values.size();
  }
  uint32_t Take() { return words_[at_++]; }

 private:
  const std::vector<uint32_t>& words_;
  size_t at_ = 0;
};

template <typename T>
std::span<const T> RowOf(const std::vector<T>& values, int64_t row, int64_t width) {
  return std::span(values).subspan(row * width, width);
}
template <typename T>
std::span<T> RowOf(std::vector<T>& values, int64_t row, int64_t width) {
  return std::span(values).subspan(row * width, width);
}

RowsView BytesOf(MatrixView<const float> rows) {
  return {reinterpret_cast<const std::byte*>(rows.data), rows.num_cols * sizeof(float),
          rows.stride * sizeof(float)};
}
MutableRowsView BytesOf(MatrixView<float> rows) {
  return {reinterpret_cast<std::byte*>(rows.data), rows.num_cols * sizeof(float),
          rows.stride * sizeof(float)};
}

}  // namespace

void RankDispatcher::BeginStep(const StepRows& rows, std::span<const ExpertPlacement> placements) {
  rows_ = &rows;
  exchanges_ = {};
  placements_ = placements;
}

absl::StatusOr<std::vector<uint32_t>> RankDispatcher::GatherRecords(
    const std::vector<uint32_t>& own, int record_words) {
  const int64_t record_bytes = record_words * int64_t{sizeof(uint32_t)};
  std::vector<int64_t> begin;
  for (const int32_t row : rows_->rank_begin) begin.push_back(row * record_bytes);
  std::vector<uint32_t> by_rank(int64_t{num_rows()} * record_words);
  const CommStats before = comm_.stats();
  GATEHOUSE_RETURN_IF_ERROR(comm_.AllGather({.send = std::as_bytes(std::span(own)),
                                             .receive = std::as_writable_bytes(std::span(by_rank)),
                                             .receive_begin = begin}));
  exchanges_.calls.push_back({ExchangePhase::kGather, comm_.stats() - before});
  std::vector<uint32_t> by_row(by_rank.size());
  for (int i = 0; i < num_rows(); ++i) {
    const auto record = RowOf(std::as_const(by_rank), i, record_words);
    std::copy(record.begin(), record.end(),
              by_row.begin() + int64_t{rows_->rank_rows[i]} * record_words);
  }
  return by_row;
}

absl::StatusOr<GateChoice> RankDispatcher::Gather(GateChoice own) {
  const int k = own.top_k, record_words = 2 * k + 2;
  RecordWriter writer(int64_t{own.num_rows} * record_words);
  for (int row = 0; row < own.num_rows; ++row) {
    writer.Put(RowOf(std::as_const(own.expert_ids), row, k));
    writer.Put(RowOf(std::as_const(own.weights), row, k));
    writer.Put(RowOf(std::as_const(own.mass), row, 1));
    writer.Put(own.row_failed[row]);
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<uint32_t> records,
                             GatherRecords(writer.words(), record_words));
  const int64_t num_pairs = int64_t{num_rows()} * k;
  GateChoice all{.num_rows = num_rows(),
                 .num_experts = own.num_experts,
                 .top_k = k,
                 .expert_ids = std::vector<int32_t>(num_pairs),
                 .weights = std::vector<float>(num_pairs),
                 .mass = std::vector<float>(num_rows()),
                 .row_failed = std::vector<uint8_t>(num_rows())};
  RecordReader reader(records);
  for (int row = 0; row < num_rows(); ++row) {
    reader.Take(RowOf(all.expert_ids, row, k));
    reader.Take(RowOf(all.weights, row, k));
    reader.Take(RowOf(all.mass, row, 1));
    all.row_failed[row] = static_cast<uint8_t>(reader.Take());
  }
  return all;
}

absl::StatusOr<GateScores> RankDispatcher::Gather(GateScores own) {
  const int n = own.num_ranked, record_words = 4 * n + 2;
  RecordWriter writer(int64_t{own.num_rows} * record_words);
  for (int row = 0; row < own.num_rows; ++row) {
    writer.Put(RowOf(std::as_const(own.num_chosen), row, 1));
    writer.Put(own.row_failed[row]);
    writer.Put(RowOf(std::as_const(own.ranked_ids), row, n));
    writer.Put(RowOf(std::as_const(own.gate), row, n));
    writer.Put(RowOf(std::as_const(own.affinity), row, n));
    writer.Put(RowOf(std::as_const(own.weight), row, n));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<uint32_t> records,
                             GatherRecords(writer.words(), record_words));
  const int64_t num_ranks = int64_t{num_rows()} * n;
  GateScores all{.num_rows = num_rows(),
                 .num_experts = own.num_experts,
                 .top_k = own.top_k,
                 .num_ranked = n,
                 .num_chosen = std::vector<int32_t>(num_rows()),
                 .ranked_ids = std::vector<int32_t>(num_ranks),
                 .gate = std::vector<float>(num_ranks),
                 .affinity = std::vector<float>(num_ranks),
                 .weight = std::vector<float>(num_ranks),
                 .row_failed = std::vector<uint8_t>(num_rows())};
  RecordReader reader(records);
  for (int row = 0; row < num_rows(); ++row) {
    reader.Take(RowOf(all.num_chosen, row, 1));
    all.row_failed[row] = static_cast<uint8_t>(reader.Take());
    reader.Take(RowOf(all.ranked_ids, row, n));
    reader.Take(RowOf(all.gate, row, n));
    reader.Take(RowOf(all.affinity, row, n));
    reader.Take(RowOf(all.weight, row, n));
  }
  return all;
}

absl::Status RankDispatcher::AllToAll(ExchangePhase phase, const AllToAllArgs& args) {
  const CommStats before = comm_.stats();
  GATEHOUSE_RETURN_IF_ERROR(comm_.AllToAll(args));
  exchanges_.calls.push_back({phase, comm_.stats() - before});
  return absl::OkStatus();
}

absl::StatusOr<Dispatcher::Dispatched> RankDispatcher::Dispatch(MatrixView<const float> x,
                                                                const RoutePlan& plan,
                                                                int moe_layer_idx,
                                                                const MoeWorkspace& workspace) {
  Dispatched dispatched;
  DispatchHandle& handle = dispatched.handle;
  handle.plan = &plan;
  handle.traffic = TrafficOf(plan, *rows_, placements_[moe_layer_idx], comm_.rank());
  const RankTraffic& traffic = handle.traffic;
  const auto num_assignments = static_cast<int64_t>(traffic.row_ids.size());
  exchanges_.num_computed += num_assignments;
  const int32_t num_received = traffic.received_begin.back();
  const int32_t num_returned = traffic.returned_begin.back();
  GATEHOUSE_CHECK(num_received <= workspace.received_rows.num_rows &&
                  num_assignments <= workspace.expert_rows.num_rows &&
                  num_returned <= workspace.returned_rows.num_rows)
      << num_received << " rows, " << num_assignments << " and " << num_returned << " pairs";
  const MatrixView<float> received = workspace.received_rows.FirstRows(num_received);
  GATEHOUSE_RETURN_IF_ERROR(
      AllToAll(ExchangePhase::kDispatch, {.send = BytesOf(x),
                                          .row_ids = traffic.sent_rows,
                                          .send_begin = traffic.sent_begin,
                                          .receive = BytesOf(received),
                                          .receive_begin = traffic.received_begin}));
  const MatrixView<float> rows = workspace.expert_rows.FirstRows(num_assignments);
  handle.expert_rows = rows;
  handle.returned_rows = workspace.returned_rows.FirstRows(num_returned);
  dispatched.batch = {.x = received,
                      .groups = {traffic.row_ids, traffic.expert_begin},
                      .hidden = workspace.hidden.FirstRows(num_assignments),
                      .out = rows};
  return dispatched;
}

absl::Status RankDispatcher::Combine(DispatchHandle handle, MatrixView<float> out) {
  const RankTraffic& traffic = handle.traffic;
  GATEHOUSE_RETURN_IF_ERROR(
      AllToAll(ExchangePhase::kCombine, {.send = BytesOf(handle.expert_rows),
                                         .row_ids = traffic.result_ids,
                                         .send_begin = traffic.result_begin,
                                         .receive = BytesOf(handle.returned_rows),
                                         .receive_begin = traffic.returned_begin}));
  backend_.Combine({.expert_rows = handle.returned_rows,
                    .token_begin = traffic.token_begin,
                    .assignment_ids = traffic.assignment_ids,
                    .weights = traffic.weights,
                    .out = out});
  return absl::OkStatus();
}

}  // namespace gatehouse
