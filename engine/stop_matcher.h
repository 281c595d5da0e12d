// Finds stop strings in text that comes in pieces, wherever they cross a border, and keeps back
// what may still become one: text that was given out never holds a part of a stop string matched
// later.
//
// The match that ends first wins, of those the longest: so the outcome depends on the text alone,
// not on how it was cut. Owned by one request's stream; one thread. Pieces and stop strings are
// UTF-8, so what comes out is cut at character borders too.
//
//   StopMatcher matcher({"\n\n"}, /*include_stop=*/false);
//   matcher.Append("one\n", true);   // "one"
//   matcher.Append("two\n", true);   // "\ntwo"
//   matcher.Append("\nxyz", true);   // "": and matched() is "\n\n", nothing more may come
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gatehouse {

class StopMatcher {
 public:
  StopMatcher(std::vector<std::string> strings, bool include_stop)
      : strings_(std::move(strings)), include_stop_(include_stop) {}

  // What may be sent now. While `may_stop` is false no stop string ends the text.
  std::string Append(std::string_view piece, bool may_stop);
  // What was kept back, at the end of a text without a match.
  std::string Flush();
  // The stop string that ended the text, if one has.
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    size_t string_idx = 0;
  };
  std::optional<Match> FindMatch(size_t first_end) const;
  size_t PossibleMatchLength() const;

  const std::vector<std::string> strings_;
  const bool include_stop_;
  std::string held_;
  std::optional<std::string> matched_;
};

}  // namespace gatehouse
