// Character (or byte) -> id: pages of 256 that exist only where there is an entry. Immutable once
// filled, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace gatehouse {

class CharTable {
 public:
  CharTable();
  void Set(char32_t code_point, int32_t id);
  // -1: none. `code_point` is at most U+10FFFF.
  int32_t Get(char32_t code_point) const {
    return pages_[page_of_[code_point >> 8]][code_point & 0xFF];
  }

 private:
  using Page = std::array<int32_t, 256>;

  std::vector<uint16_t> page_of_;  // [0x1100]
  std::vector<Page> pages_;        // the first one has no entry
};

}  // namespace gatehouse
