#include "client/json_output.h"

#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <nlohmann/json.hpp>

#include "client/rpc_error.h"

namespace gatehouse {

std::string ToJsonLine(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;  // a reader should find token 0, not its absence
  std::string line;
  // Fails only on a malformed Any or Struct, which no answer of the server holds.
  const auto status = google::protobuf::util::MessageToJsonString(message, &line, options);
  if (!status.ok()) return ToJsonLine(absl::InternalError("an answer has no JSON form"));
  return line + "\n";
}

std::string ToJsonLine(const absl::Status& error) {
  const RpcError decoded = DecodeError(error);
  nlohmann::json body = {{"code", decoded.code}, {"message", decoded.message}};
  for (const FieldViolation& violation : decoded.violations) {
    body["violations"].push_back(
        {{"field", violation.field}, {"description", violation.description}});
  }
  if (decoded.retry_delay_seconds.has_value()) {
    body["retry_delay_seconds"] = *decoded.retry_delay_seconds;
  }
  // A server's message may hold anything: replace what is not UTF-8 instead of throwing.
  return nlohmann::json({{"error", body}})
             .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

}  // namespace gatehouse
