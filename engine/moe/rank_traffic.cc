#include "engine/moe/rank_traffic.h"

#include <algorithm>

namespace gatehouse {
namespace {

int32_t RankFor(std::span<const int32_t> copies, int32_t row, int32_t row_rank) {
  if (copies.size() == 1) return copies[0];
  if (std::binary_search(copies.begin(), copies.end(), row_rank)) return row_rank;
  return copies[row % copies.size()];
}

// [counts.size() + 1] where each begins if all stand one after another.
std::vector<int32_t> BeginsOf(const std::vector<int32_t>& counts) {
  std::vector<int32_t> begins(1, 0);
  for (const int32_t count : counts) begins.push_back(begins.back() + count);
  return begins;
}

class TrafficBuilder {
 public:
  TrafficBuilder(const RoutePlan& plan, const StepRows& rows, const ExpertPlacement& experts,
                 int rank)
      : plan_(plan), rows_(rows), experts_(experts), rank_(rank), num_ranks_(rows.num_ranks()) {}

  RankTraffic Build() {
    AssignPairs();
    ListRows();
    ListPairs();
    ListSums();
    return std::move(traffic_);
  }

 private:
  // Who computes each pair.
  void AssignPairs() {
    pair_ranks_.resize(plan_.num_pairs());
    for (int e = 0; e < plan_.num_experts; ++e) {
      const auto copies = experts_.devices_of(e);
      for (int32_t pair = plan_.expert_begin[e]; pair < plan_.expert_begin[e + 1]; ++pair) {
        const int32_t row = plan_.row_ids[pair];
        pair_ranks_[pair] = RankFor(copies, row, rows_.row_ranks[row]);
      }
    }
  }

  // Rows that go from here and that come here, each once.
  void ListRows() {
    const auto own_rows = rows_.rows_of(rank_);
    std::vector<uint8_t> goes_to(own_rows.size() * num_ranks_);  // [own rows, num_ranks]
    std::vector<uint8_t> comes(plan_.num_rows);
    std::vector<int32_t> own_row(plan_.num_rows, -1);
    for (size_t i = 0; i < own_rows.size(); ++i) own_row[own_rows[i]] = static_cast<int32_t>(i);
    for (int pair = 0; pair < plan_.num_pairs(); ++pair) {
      const int32_t row = plan_.row_ids[pair];
      if (own_row[row] >= 0) goes_to[own_row[row] * num_ranks_ + pair_ranks_[pair]] = 1;
      if (pair_ranks_[pair] == rank_) comes[row] = 1;
    }
    traffic_.sent_begin = {0};
    traffic_.received_begin = {0};
    received_row_.assign(plan_.num_rows, -1);
    int32_t num_received = 0;
    for (int r = 0; r < num_ranks_; ++r) {
      for (size_t i = 0; i < own_rows.size(); ++i) {
        if (goes_to[i * num_ranks_ + r] != 0) traffic_.sent_rows.push_back(static_cast<int32_t>(i));
      }
      traffic_.sent_begin.push_back(static_cast<int32_t>(traffic_.sent_rows.size()));
      for (const int32_t row : rows_.rows_of(r)) {
        if (comes[row] != 0) received_row_[row] = num_received++;
      }
      traffic_.received_begin.push_back(num_received);
    }
  }

  // What is computed here, and where the results go and come from.
  void ListPairs() {
    std::vector<int32_t> num_results(num_ranks_), num_returned(num_ranks_);
    for (int pair = 0; pair < plan_.num_pairs(); ++pair) {
      const int32_t row_rank = rows_.row_ranks[plan_.row_ids[pair]];
      if (pair_ranks_[pair] == rank_) ++num_results[row_rank];
      if (row_rank == rank_) ++num_returned[pair_ranks_[pair]];
    }
    traffic_.result_begin = BeginsOf(num_results);
    traffic_.returned_begin = BeginsOf(num_returned);
    traffic_.result_ids.resize(traffic_.result_begin.back());
    returned_pair_.assign(plan_.num_pairs(), -1);
    std::vector<int32_t> next_result = traffic_.result_begin;
    std::vector<int32_t> next_returned = traffic_.returned_begin;
    traffic_.expert_begin = {0};
    for (int e = 0; e < plan_.num_experts; ++e) {
      for (int32_t pair = plan_.expert_begin[e]; pair < plan_.expert_begin[e + 1]; ++pair) {
        const int32_t row = plan_.row_ids[pair];
        const int32_t row_rank = rows_.row_ranks[row];
        if (pair_ranks_[pair] == rank_) {
          traffic_.result_ids[next_result[row_rank]++] =
              static_cast<int32_t>(traffic_.row_ids.size());
          traffic_.row_ids.push_back(received_row_[row]);
        }
        if (row_rank == rank_) returned_pair_[pair] = next_returned[pair_ranks_[pair]]++;
      }
      traffic_.expert_begin.push_back(static_cast<int32_t>(traffic_.row_ids.size()));
    }
  }

  // The plan's sums, of own rows.
  void ListSums() {
    traffic_.token_begin = {0};
    for (const int32_t row : rows_.rows_of(rank_)) {
      for (int32_t i = plan_.token_begin[row]; i < plan_.token_begin[row + 1]; ++i) {
        traffic_.assignment_ids.push_back(returned_pair_[plan_.assignment_ids[i]]);
        traffic_.weights.push_back(plan_.weights[i]);
      }
      traffic_.token_begin.push_back(static_cast<int32_t>(traffic_.assignment_ids.size()));
    }
  }

  const RoutePlan& plan_;
  const StepRows& rows_;
  const ExpertPlacement& experts_;
  const int rank_;
  const int num_ranks_;
  std::vector<int32_t> pair_ranks_;     // [num_pairs]
  std::vector<int32_t> received_row_;   // [num_rows] where a row stands here, or -1
  std::vector<int32_t> returned_pair_;  // [num_pairs] where an own row's result stands, or -1
  RankTraffic traffic_;
};

}  // namespace

RankTraffic TrafficOf(const RoutePlan& plan, const StepRows& rows, const ExpertPlacement& experts,
                      int rank) {
  return TrafficBuilder(plan, rows, experts, rank).Build();
}

}  // namespace gatehouse
