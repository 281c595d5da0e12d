// W3C trace context, as it reaches the log. Pure.
#pragma once

#include <string>
#include <string_view>

namespace gatehouse {

// The first 55 characters of a valid `traceparent` (of a later version than 00, too, as the
// specification asks); empty for anything else: nothing a client sends reaches the log unchecked.
std::string ReadTraceparent(std::string_view header);

}  // namespace gatehouse
