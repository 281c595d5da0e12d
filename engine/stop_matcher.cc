#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "kernels/base/check.h"

namespace gatehouse {

std::string StopMatcher::Append(std::string_view piece, bool may_stop) {
  GATEHOUSE_CHECK(!matched_.has_value()) << "text after its end";
  const size_t num_old_bytes = held_.size();
  held_.append(piece);
  if (may_stop) {
    if (const std::optional<Match> match = FindMatch(num_old_bytes + 1)) {
      matched_ = strings_[match->string_idx];
      held_.resize(include_stop_ ? match->end : match->begin);
      return std::exchange(held_, {});
    }
  }
  const size_t num_sent_bytes = held_.size() - PossibleMatchLength();
  std::string sent = held_.substr(0, num_sent_bytes);
  held_.erase(0, num_sent_bytes);
  return sent;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

// Among the matches that end at `first_end` or later: earlier ones ended while they might not stop.
std::optional<StopMatcher::Match> StopMatcher::FindMatch(size_t first_end) const {
  std::optional<Match> best;
  for (size_t i = 0; i < strings_.size(); ++i) {
    const size_t length = strings_[i].size();
    const size_t begin = held_.find(strings_[i], first_end > length ? first_end - length : 0);
    if (begin == std::string::npos) continue;
    const size_t end = begin + length;
    if (!best || end < best->end || (end == best->end && begin < best->begin)) {
      best = Match{begin, end, i};
    }
  }
  return best;
}

// The longest end of the text that is a beginning, and not the whole, of a stop string.
size_t StopMatcher::PossibleMatchLength() const {
  const std::string_view held = held_;
  size_t longest = 0;
  for (const std::string& text : strings_) {
    for (size_t n = std::min(text.size() - 1, held.size()); n > longest; --n) {
      if (held.substr(held.size() - n) == std::string_view(text).substr(0, n)) longest = n;
    }
  }
  return longest;
}

}  // namespace gatehouse
