// jinja2's filters, with transformers' tojson. Left out are those that make HTML or random
// choices: batch, center, filesizeformat, groupby, pprint, random, slice, striptags, truncate,
// urlencode, urlize, wordcount, wordwrap, xmlattr.
#pragma once

#include <string_view>

#include "engine/chat_template/interpreter.h"

namespace gatehouse::jinja {

bool IsFilter(std::string_view name);
// `name` passed IsFilter, or INVALID_ARGUMENT: `map` takes the name at run time.
absl::StatusOr<Value> CallFilter(Interpreter& run, std::string_view name, const Value& value,
                                 const Arguments& arguments);

}  // namespace gatehouse::jinja
