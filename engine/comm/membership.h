// Who takes part in the exchanges of an epoch: a value, the same on every member. Ranks keep their
// numbers for the life of the deployment; one that is lost is in no group until it comes back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace gatehouse {

struct Membership {
  int64_t epoch = 0;         // rises with every group
  int num_ranks = 1;         // of the deployment, those that are lost counted
  std::vector<int> members;  // ascending

  bool has(int rank) const { return std::binary_search(members.begin(), members.end(), rank); }
};

// Nobody is lost.
inline Membership AllRanks(int num_ranks, int64_t epoch = 0) {
  Membership all{.epoch = epoch, .num_ranks = num_ranks, .members = {}};
  for (int r = 0; r < num_ranks; ++r) all.members.push_back(r);
  return all;
}

}  // namespace gatehouse
