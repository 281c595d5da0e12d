// Where experts lie and how they are moved, as the operators' messages. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/moe/expert_placement.h"
#include "engine/rebalance_status.h"
#include "gatehouse/v1/admin.pb.h"

namespace gatehouse {

// `moe_layers` [placements.size()] are the layers' numbers in the model; `wanted` of them, or all
// where that is empty.
v1::Placement ToProto(const std::vector<ExpertPlacement>& placements,
                      const std::vector<int32_t>& moe_layers,
                      const google::protobuf::RepeatedField<int32_t>& wanted);
v1::RebalanceStatus ToProto(const RebalanceStatus& status);
// Copies and first rank of each expert, where there are several ranks.
void WriteCopies(const ExpertPlacement& placement, v1::LayerExpertLoad& load);

}  // namespace gatehouse
