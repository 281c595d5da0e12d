#include "server/placement_convert.h"

#include <algorithm>

namespace gatehouse {
namespace {

v1::RebalanceStatus::State ToState(RebalanceState state) {
  switch (state) {
    case RebalanceState::kIdle:
      return v1::RebalanceStatus::IDLE;
    case RebalanceState::kPlanned:
      return v1::RebalanceStatus::PLANNED;
    case RebalanceState::kMoving:
      return v1::RebalanceStatus::MOVING;
    case RebalanceState::kActive:
      return v1::RebalanceStatus::ACTIVE;
    case RebalanceState::kRolledBack:
      return v1::RebalanceStatus::ROLLED_BACK;
  }
  return v1::RebalanceStatus::STATE_UNSPECIFIED;
}

}  // namespace

v1::Placement ToProto(const std::vector<ExpertPlacement>& placements,
                      const std::vector<int32_t>& moe_layers,
                      const google::protobuf::RepeatedField<int32_t>& wanted) {
  v1::Placement message;
  for (size_t i = 0; i < placements.size(); ++i) {
    const ExpertPlacement& from = placements[i];
    message.set_ranks(from.num_devices);
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), moe_layers[i]) == wanted.end()) {
      continue;
    }
    v1::LayerPlacement& to = *message.add_layers();
    to.set_layer(moe_layers[i]);
    for (int e = 0; e < from.num_experts(); ++e) {
      const auto ranks = from.devices_of(e);
      to.add_experts()->mutable_ranks()->Add(ranks.begin(), ranks.end());
    }
  }
  return message;
}

v1::RebalanceStatus ToProto(const RebalanceStatus& status) {
  v1::RebalanceStatus message;
  message.set_state(ToState(status.state));
  message.set_id(status.id);
  message.set_layers(status.num_layers);
  message.set_layers_moved(status.num_moved);
  message.set_expert_copies(status.num_copies);
  message.set_imbalance(status.imbalance);
  message.set_planned_imbalance(status.planned_imbalance);
  message.set_obtained_imbalance(status.obtained_imbalance);
  message.set_reason(status.reason);
  return message;
}

void WriteCopies(const ExpertPlacement& placement, v1::LayerExpertLoad& load) {
  if (placement.num_devices == 1) return;
  for (int e = 0; e < placement.num_experts(); ++e) {
    const auto ranks = placement.devices_of(e);
    load.add_replicas(static_cast<int32_t>(ranks.size()));
    load.add_rank(ranks.front());
  }
}

}  // namespace gatehouse
