// Byte pair encoding of one word: starts from the tokens of its single bytes and joins, again and
// again, the neighbours whose merge has the lowest rank, the leftmost first.
//   merges: "t h", "h e", "th e";  word "the"
//   t h e   ->  th e  (rank 0)  ->  the  (rank 2)
// n log n in the length of the word. Immutable, any thread; keeps a reference to the vocabulary.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer_json.h"
#include "engine/tokenizer/vocabulary.h"

namespace gatehouse {

struct Merge {
  uint32_t rank;
  int32_t merged_id;
};

// Pair of ids -> merge: open addressing, two slots or more for each entry.
class MergeTable {
 public:
  explicit MergeTable(const std::vector<MergeSpec>& merges);
  const Merge* Find(int32_t left_id, int32_t right_id) const;

 private:
  struct Slot {
    uint64_t key;
    Merge merge;
  };
  size_t SlotOf(uint64_t key) const;

  std::vector<Slot> slots_;  // [a power of two]
  int shift_;                // takes the upper bits of the hash
};

// Buffers of one thread.
struct BpeScratch {
  struct Symbol {
    int32_t id;
    int32_t previous;  // -1: none
    int32_t next;      // -1: none
  };
  std::vector<int32_t> ids;
  std::vector<Symbol> symbols;
  std::vector<uint64_t> heap;  // rank << 32 | position, the smallest on top
};

class Bpe {
 public:
  Bpe(const BpeSpec& spec, const Vocabulary& vocabulary);

  // Appends the ids of `word`. Without allow_special no merge may make a special token, so that
  // text never turns into one. (A single byte that is a special token by itself remains: there is
  // no other way to write it.)
  void Encode(std::string_view word, bool allow_special, BpeScratch* scratch,
              std::vector<int32_t>* ids) const;

 private:
  void AddSingleBytes(std::string_view word, std::vector<int32_t>* ids) const;
  const Merge* FindMerge(int32_t left_id, int32_t right_id, bool allow_special) const;
  void MergeShort(bool allow_special, std::vector<int32_t>* ids) const;
  void MergeLong(bool allow_special, BpeScratch* scratch) const;
  void MergeWord(std::string_view word, bool allow_special, BpeScratch* scratch) const;
  void AddWholeWords(const BpeSpec& spec);
  size_t WordSlotOf(std::string_view word) const;

  const Vocabulary& vocabulary_;
  std::array<int32_t, 256> byte_to_id_;  // -1: no token
  MergeTable merges_;
  int32_t unk_id_;  // -1: bytes without a token are left out
  bool fuse_unk_;
  // Words that are one token: those that the merges join completely, or with ignore_merges all.
  // Computed once, it saves the merging for most words of a text. -1: empty slot.
  std::vector<int32_t> word_slots_;  // [a power of two]
};

}  // namespace gatehouse
