// The filters over sequences; filters.h has them by name.
#pragma once

#include "engine/chat_template/call.h"

namespace gatehouse::jinja {

absl::StatusOr<Value> Length(Interpreter& run, const Value& value, const Bound& bound);
absl::StatusOr<Value> First(Interpreter& run, const Value& value, const Bound& bound);
absl::StatusOr<Value> Last(Interpreter& run, const Value& value, const Bound& bound);
absl::StatusOr<Value> List(Interpreter& run, const Value& value, const Bound& bound);
absl::StatusOr<Value> ItemsOf(Interpreter& run, const Value& value, const Bound& bound);
absl::StatusOr<Value> Reverse(Interpreter& run, const Value& value, const Bound& bound);
// Bound: d attribute.
absl::StatusOr<Value> Join(Interpreter& run, const Value& value, const Bound& bound);
// Bound: case_sensitive attribute.
absl::StatusOr<Value> Min(Interpreter& run, const Value& value, const Bound& bound);
absl::StatusOr<Value> Max(Interpreter& run, const Value& value, const Bound& bound);
absl::StatusOr<Value> Unique(Interpreter& run, const Value& value, const Bound& bound);
// Bound: reverse case_sensitive attribute.
absl::StatusOr<Value> Sort(Interpreter& run, const Value& value, const Bound& bound);
// Bound: case_sensitive by reverse.
absl::StatusOr<Value> DictSort(Interpreter& run, const Value& value, const Bound& bound);
// Bound: attribute start.
absl::StatusOr<Value> Sum(Interpreter& run, const Value& value, const Bound& bound);

// jinja2 makes these lazily. Here all is done at once: only what fails, or changes a namespace, in
// an item that nobody would have read comes out different.
absl::StatusOr<Value> Map(Interpreter& run, const Value& value, const Arguments& arguments);
absl::StatusOr<Value> Select(Interpreter& run, const Value& value, const Arguments& arguments);
absl::StatusOr<Value> Reject(Interpreter& run, const Value& value, const Arguments& arguments);
absl::StatusOr<Value> SelectByAttribute(Interpreter& run, const Value& value,
                                        const Arguments& arguments);
absl::StatusOr<Value> RejectByAttribute(Interpreter& run, const Value& value,
                                        const Arguments& arguments);

}  // namespace gatehouse::jinja
