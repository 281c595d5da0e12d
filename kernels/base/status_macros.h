// Early return for absl::Status and absl::StatusOr.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define GATEHOUSE_RETURN_IF_ERROR(expression)            \
  do {                                                   \
    absl::Status gatehouse_status = (expression);        \
    if (!gatehouse_status.ok()) return gatehouse_status; \
  } while (false)

#define GATEHOUSE_CONCAT_INNER(a, b) a##b
#define GATEHOUSE_CONCAT(a, b) GATEHOUSE_CONCAT_INNER(a, b)
#define GATEHOUSE_ASSIGN_OR_RETURN(declaration, expression)                               \
  GATEHOUSE_ASSIGN_OR_RETURN_IMPL(GATEHOUSE_CONCAT(gatehouse_or_, __LINE__), declaration, \
                                  expression)
#define GATEHOUSE_ASSIGN_OR_RETURN_IMPL(result, declaration, expression) \
  auto result = (expression);                                            \
  if (!result.ok()) return std::move(result).status();                   \
  declaration = *std::move(result)
