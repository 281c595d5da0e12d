#include "server/metrics_http.h"

#include <civetweb.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

int IgnoreLog(const mg_connection*, const char*) { return 1; }  // "handled": its lines are not ours

}  // namespace

int MetricsHttp::Answer(mg_connection* connection, void* handler) {
  const mg_request_info* request = mg_get_request_info(connection);
  const std::string_view method = request->request_method;
  HttpReply reply{.status = 405, .content_type = "text/plain", .body = "only GET and HEAD\n"};
  if (method == "GET" || method == "HEAD") {
    reply = (*static_cast<const std::function<HttpReply()>*>(handler))();
  }
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: "
            "no-store\r\nConnection: close\r\n\r\n",
            reply.status, mg_get_response_code_text(connection, reply.status),
            reply.content_type.c_str(), reply.body.size());
  if (method != "HEAD") mg_write(connection, reply.body.data(), reply.body.size());
  return reply.status;
}

absl::StatusOr<std::unique_ptr<MetricsHttp>> MetricsHttp::Start(const std::string& address,
                                                                Handlers handlers) {
  auto http = std::unique_ptr<MetricsHttp>(new MetricsHttp(std::move(handlers)));
  const size_t colon = address.rfind(':');
  const std::string host = address.substr(0, colon);
  // The library binds numbers only.
  const std::string numeric =
      (host == "localhost" ? std::string("127.0.0.1") : host) + address.substr(colon);
  // A connection that says nothing holds a thread for the timeout, and a probe must not wait for
  // it.
  const char* options[] = {"listening_ports",
                           numeric.c_str(),
                           "num_threads",
                           "16",
                           "request_timeout_ms",
                           "1000",
                           "enable_keep_alive",
                           "no",
                           nullptr};
  mg_callbacks callbacks{};
  callbacks.log_message = IgnoreLog;
  http->server_ = mg_start(&callbacks, nullptr, options);
  if (http->server_ == nullptr) {
    return absl::UnavailableError(absl::StrFormat(
        "cannot listen on %s for metrics: the port is taken or the address is not this machine's",
        address));
  }
  mg_server_port port{};
  mg_get_server_ports(http->server_, 1, &port);
  http->address_ = absl::StrFormat("%s:%d", host, port.port);
  for (const auto& [path, handler] : http->handlers_) {
    mg_set_request_handler(http->server_, path.c_str(), &MetricsHttp::Answer,
                           const_cast<void*>(static_cast<const void*>(&handler)));
  }
  return http;
}

MetricsHttp::~MetricsHttp() {
  if (server_ == nullptr) return;
  // The library looks at its stop flag only when a poll of two seconds ends: end it with a
  // connection.
  std::atomic<bool> stopped = false;
  std::thread stop([&] {
    mg_stop(server_);
    stopped = true;
  });
  const size_t colon = address_.rfind(':');
  std::string host = address_.substr(0, colon);
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  while (!stopped) {
    char error[128];
    mg_connection* wake = mg_connect_client(host.c_str(), std::atoi(address_.c_str() + colon + 1),
                                            0, error, sizeof error);
    if (wake != nullptr) mg_close_connection(wake);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  stop.join();
}

}  // namespace gatehouse
