// The HTTP listener of operators: GET on a few fixed paths, each answered by a function. Owner: the
// server. The functions run on the listener's own two threads.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct mg_connection;
struct mg_context;

namespace gatehouse {

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
};

class MetricsHttp {
 public:
  using Handlers = std::map<std::string, std::function<HttpReply()>>;  // by path

  // UNAVAILABLE with the address when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<MetricsHttp>> Start(const std::string& address,
                                                            Handlers handlers);
  ~MetricsHttp();
  MetricsHttp(const MetricsHttp&) = delete;
  MetricsHttp& operator=(const MetricsHttp&) = delete;

  const std::string& address() const { return address_; }  // with the port that was picked

 private:
  explicit MetricsHttp(Handlers handlers) : handlers_(std::move(handlers)) {}
  static int Answer(mg_connection* connection, void* handler);

  const Handlers handlers_;
  mg_context* server_ = nullptr;
  std::string address_;
};

}  // namespace gatehouse
