// One HTTP GET over a plain socket, for tests of our own listeners.
#pragma once

#include <string>

namespace gatehouse {

struct HttpResult {
  int status = 0;  // 0: no answer
  std::string headers;
  std::string body;
};

// `address` is 127.0.0.1:port.
HttpResult HttpGet(const std::string& address, const std::string& path,
                   const std::string& method = "GET");

}  // namespace gatehouse
