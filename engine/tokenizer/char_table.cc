#include "engine/tokenizer/char_table.h"

namespace gatehouse {

CharTable::CharTable() : page_of_(0x1100), pages_(1) { pages_[0].fill(-1); }

void CharTable::Set(char32_t code_point, int32_t id) {
  uint16_t& page = page_of_[code_point >> 8];
  if (page == 0) {
    page = static_cast<uint16_t>(pages_.size());
    pages_.emplace_back().fill(-1);
  }
  pages_[page][code_point & 0xFF] = id;
}

}  // namespace gatehouse
