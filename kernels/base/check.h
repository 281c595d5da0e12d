// GATEHOUSE_CHECK(condition) << "why": for faults of our own, never of a caller or a machine.
// Aborts in every build with file, line, condition and message. Any thread.
#pragma once

#include <cstdlib>
#include <iostream>
#include <sstream>

namespace gatehouse {

class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition) {
    message_ << file << ":" << line << ": check failed: " << condition << " ";
  }
  [[noreturn]] ~CheckFailure() {
    std::cerr << message_.str() << std::endl;
    std::abort();
  }
  CheckFailure(const CheckFailure&) = delete;
  CheckFailure& operator=(const CheckFailure&) = delete;
  std::ostream& stream() { return message_; }

 private:
  std::ostringstream message_;
};

// Gives both branches of the ?: in GATEHOUSE_CHECK the type void; & binds looser than <<.
struct CheckVoidify {
  void operator&(std::ostream&) {}
};

}  // namespace gatehouse

#define GATEHOUSE_CHECK(condition)            \
  (condition) ? (void)0                       \
              : ::gatehouse::CheckVoidify() & \
                    ::gatehouse::CheckFailure(__FILE__, __LINE__, #condition).stream()
