// What became of a cache of packed weights at a start, to be logged. A value.
#pragma once

#include <string>

namespace gatehouse {

struct PackedCacheReport {
  std::string file;       // empty: none was asked for
  std::string not_read;   // why the weights were packed; empty: they were read
  std::string not_saved;  // why what was packed is not in the file; empty: it is
};

}  // namespace gatehouse
