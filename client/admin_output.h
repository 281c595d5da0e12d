// What the operators' service answers, as text for people. Pure functions, any thread.
#pragma once

#include <string>

#include "client/text_chart.h"
#include "gatehouse/v1/admin.pb.h"

namespace gatehouse {

std::string DescribeStatus(const v1::ServerStatus& status);
// One line without its end, for `admin watch` and for `top` where there is no terminal.
std::string DescribeStatusLine(const v1::ServerStatus& status);

// A line for each layer; of a single layer, a line for each expert.
std::string DescribeExpertLoad(const v1::ExpertLoad& load, int num_columns, Glyphs glyphs);

// A line for each layer and rank: the experts that it holds, copies marked.
std::string DescribePlacement(const v1::Placement& placement);
// One line.
std::string DescribeRebalance(const v1::RebalanceStatus& status);

std::string DescribeRequests(const v1::GetRequestsResponse& response);

}  // namespace gatehouse
