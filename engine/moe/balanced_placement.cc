#include "engine/moe/balanced_placement.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// Steps differ from their mean, and copies even that out as well, which the loads do not show: on
// recorded traces, on devices alike, placements with fewer copies lost by up to 4% what they were
// predicted to gain.
constexpr double kWorthFewerCopies = 0.95;

// One of the busiest device's experts goes to another device, instead of its copy or beside it, or
// is given up.
struct Step {
  int32_t expert = -1;
  int32_t to = -1;       // device; -1: the copy is given up
  int32_t against = -1;  // expert that comes back for it; -1: none
  bool keeps = false;    // a copy more
  double busiest = 0;    // of the devices that it changes, thereafter
};

class Refinement {
 public:
  Refinement(const PlacementProblem& problem, const ExpertPlacement& placement)
      : problem_(problem), experts_(placement.num_devices), loads_(placement.num_devices, 0) {
    for (int e = 0; e < placement.num_experts(); ++e) {
      const auto devices = placement.devices_of(e);
      devices_.emplace_back(devices.begin(), devices.end());
      for (const int32_t d : devices) experts_[d].insert(e);
      AddLoad(e, +1);
    }
    num_copies_ = placement.num_copies();
  }

  // Each step makes the busiest device less busy, so that none comes twice; yet their number has no
  // useful bound, hence the limit.
  ExpertPlacement Run() {
    for (int i = 0, limit = 4 * num_copies_; i < limit; ++i) {
      const std::optional<Step> step = BestStep();
      if (!step.has_value()) break;
      Take(*step);
    }
    while (num_copies_ < MostCopies() && AddCopy()) {
    }
    std::vector<std::vector<int32_t>> devices;
    for (const std::set<int32_t>& of_expert : devices_) {
      devices.emplace_back(of_expert.begin(), of_expert.end());
    }
    return PlacementOf(devices, problem_.throughput);
  }

 private:
  int32_t num_devices() const { return static_cast<int32_t>(experts_.size()); }
  double Share(int32_t expert, int more = 0) const {
    return problem_.loads[expert] / (static_cast<int>(devices_[expert].size()) + more);
  }
  double Busy(int32_t device, double more) const {
    return (loads_[device] + more) / problem_.throughput[device];
  }
  bool SameNode(int32_t a, int32_t b) const {
    return problem_.nodes.empty() || problem_.nodes[a] == problem_.nodes[b];
  }
  bool HasRoom(int32_t device) const {
    return static_cast<int64_t>(experts_[device].size()) < problem_.slots[device];
  }
  bool Holds(int32_t device, int32_t expert) const { return devices_[expert].count(device) > 0; }
  int32_t BusiestDevice() const {
    int32_t busiest = 0;
    for (int32_t d = 1; d < num_devices(); ++d) {
      if (Busy(d, 0) > Busy(busiest, 0)) busiest = d;
    }
    return busiest;
  }
  void AddLoad(int32_t expert, double sign) {
    for (const int32_t d : devices_[expert]) loads_[d] += sign * Share(expert);
  }

  // The busiest of an expert's other holders than `without`, when they share its load with `more`.
  double HoldersBusy(int32_t expert, int32_t without, int more) const {
    double busiest = 0;
    for (const int32_t d : devices_[expert]) {
      if (d == without) continue;
      busiest = std::max(busiest, Busy(d, Share(expert, more) - Share(expert)));
    }
    return busiest;
  }

  std::optional<Step> BestStep() const {
    const int32_t from = BusiestDevice();
    // Rounding shall not make a step out of nothing.
    Step best{.busiest = Busy(from, 0) * (1 - 1e-9)};
    const auto consider = [&](const Step& step) {
      if (step.busiest < best.busiest) best = step;
    };
    for (const int32_t expert : experts_[from]) {
      const double share = Share(expert);
      if (devices_[expert].size() > 1) {
        consider({.expert = expert,
                  .busiest = std::max(Busy(from, -share), HoldersBusy(expert, from, -1))});
      }
      for (int32_t to = 0; to < num_devices(); ++to) {
        if (!SameNode(from, to) || Holds(to, expert)) continue;
        if (HasRoom(to)) {
          consider({.expert = expert,
                    .to = to,
                    .busiest = std::max(Busy(from, -share), Busy(to, share))});
        }
        if (HasRoom(to) && num_copies_ < MostCopies()) {
          const double busiest = std::max(HoldersBusy(expert, -1, 1), Busy(to, Share(expert, 1)));
          consider({.expert = expert, .to = to, .keeps = true, .busiest = busiest});
        }
        for (const int32_t against : experts_[to]) {
          if (Holds(from, against)) continue;
          const double less = share - Share(against);
          consider({.expert = expert,
                    .to = to,
                    .against = against,
                    .busiest = std::max(Busy(from, -less), Busy(to, less))});
        }
      }
    }
    if (best.expert < 0) return std::nullopt;
    return best;
  }

  // The expert whose copies have most to do, on the least busy device that it may join without
  // becoming the busiest. Steps differ from their mean: two copies share what is in one step, too.
  bool AddCopy() {
    const double most = Busy(BusiestDevice(), 0);
    int32_t best = -1, best_device = -1;
    for (int32_t expert = 0; expert < static_cast<int32_t>(devices_.size()); ++expert) {
      if (best >= 0 && Share(expert) <= Share(best)) continue;
      int32_t least = -1;
      for (int32_t to = 0; to < num_devices(); ++to) {
        if (!HasRoom(to) || Holds(to, expert) || !SameNode(to, *devices_[expert].begin())) continue;
        if (Busy(to, Share(expert, 1)) > most) continue;
        if (least < 0 || Busy(to, 0) < Busy(least, 0)) least = to;
      }
      if (least < 0) continue;
      best = expert;
      best_device = least;
    }
    if (best < 0) return false;
    AddLoad(best, -1);
    Insert(best, best_device);
    AddLoad(best, +1);
    return true;
  }

  int MostCopies() const { return static_cast<int>(problem_.loads.size()) + problem_.num_replicas; }

  void Take(const Step& step) {
    const int32_t from = BusiestDevice();
    AddLoad(step.expert, -1);
    if (!step.keeps) Remove(step.expert, from);
    if (step.to >= 0) Insert(step.expert, step.to);
    AddLoad(step.expert, +1);
    if (step.against < 0) return;
    AddLoad(step.against, -1);
    Remove(step.against, step.to);
    Insert(step.against, from);
    AddLoad(step.against, +1);
  }
  void Remove(int32_t expert, int32_t device) {
    experts_[device].erase(expert);
    devices_[expert].erase(device);
    --num_copies_;
  }
  void Insert(int32_t expert, int32_t device) {
    experts_[device].insert(expert);
    devices_[expert].insert(device);
    ++num_copies_;
  }

  const PlacementProblem& problem_;
  std::vector<std::set<int32_t>> devices_;  // [num_experts]
  std::vector<std::set<int32_t>> experts_;  // [num_devices]
  std::vector<double> loads_;               // [num_devices]
  int num_copies_ = 0;
};

}  // namespace

ExpertPlacement RefinePlacement(const PlacementProblem& problem, const ExpertPlacement& placement) {
  GATEHOUSE_CHECK(placement.num_experts() == static_cast<int>(problem.loads.size()));
  return Refinement(problem, placement).Run();
}

absl::StatusOr<ExpertPlacement> BalancedPlacement(const PlacementProblem& problem) {
  PlacementProblem fewer = problem;
  std::optional<ExpertPlacement> best;
  for (;;) {
    GATEHOUSE_ASSIGN_OR_RETURN(const ExpertPlacement packed, EplbPlacement(fewer));
    ExpertPlacement refined = RefinePlacement(problem, packed);
    const double imbalance = PredictedImbalance(refined, problem.loads);
    if (!best.has_value() ||
        imbalance < kWorthFewerCopies * PredictedImbalance(*best, problem.loads)) {
      best = std::move(refined);
    }
    if (fewer.num_replicas == 0) return *std::move(best);
    fewer.num_replicas /= 2;
  }
}

}  // namespace gatehouse
