#include "tests/testing/http_get.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace gatehouse {

HttpResult HttpGet(const std::string& address, const std::string& path, const std::string& method) {
  HttpResult result;
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port =
      htons(static_cast<uint16_t>(std::atoi(address.substr(address.rfind(':') + 1).c_str())));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) {
    const std::string request = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
    if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) ==
        static_cast<ssize_t>(request.size())) {
      std::string answer;
      char buffer[4096];
      ssize_t num_bytes = 0;
      while ((num_bytes = recv(fd, buffer, sizeof buffer, 0)) > 0) {
        answer.append(buffer, static_cast<size_t>(num_bytes));
      }
      const size_t end = answer.find("\r\n\r\n");
      if (answer.starts_with("HTTP/1.1 ") && end != std::string::npos) {
        result = {.status = std::atoi(answer.c_str() + 9),
                  .headers = answer.substr(0, end),
                  .body = answer.substr(end + 4)};
      }
    }
  }
  close(fd);
  return result;
}

}  // namespace gatehouse
