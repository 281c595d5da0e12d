// Byte pair encoding of one word: starts from the tokens of its single bytes or characters and
// joins, again and again, the neighbours whose merge has the lowest rank, the leftmost first.
//   merges: "t h", "h e", "th e";  word "the"
//   t h e   ->  th e  (rank 0)  ->  the  (rank 2)
// n log n in the length of the word. Immutable, any thread; keeps a reference to the vocabulary.
//
// Where no merge has the two neighbours at its seam, none ever crosses them: a long word is cut
// there, and its pieces are words of their own. A tokenizer without a pre-tokenizer sees a whole
// text as one word, which this cuts in front of (nearly) every mark of a space.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/tokenizer/char_table.h"
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
  std::vector<int32_t> ids;    // of the word's symbols
  std::vector<size_t> ends;    // [ids] byte of the word where each symbol ends
  std::vector<int32_t> piece;  // ids of one piece, joined in place
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
  struct WordSlot {
    int32_t id = -1;         // -1: empty
    bool is_joined = false;  // the merges make it from its symbols
  };

  void AddByteTokens(std::string_view character, size_t end, BpeScratch* scratch) const;
  void AddSymbols(std::string_view word, BpeScratch* scratch) const;
  const Merge* FindMerge(int32_t left_id, int32_t right_id, bool allow_special) const;
  void MergeShort(bool allow_special, std::vector<int32_t>* ids) const;
  void MergeLong(bool allow_special, BpeScratch* scratch) const;
  void MergePiece(bool allow_special, BpeScratch* scratch) const;
  void EncodePieces(std::string_view word, bool allow_special, BpeScratch* scratch,
                    std::vector<int32_t>* ids) const;
  void AddSeams(const BpeSpec& spec);
  void AddWholeWords(const BpeSpec& spec);
  int32_t SymbolOf(std::string_view word, size_t* offset) const;
  const WordSlot& FindWord(std::string_view word) const;
  size_t WordSlotOf(std::string_view word) const;

  const Vocabulary& vocabulary_;
  const bool is_byte_level_;
  CharTable symbol_to_id_;         // by byte or by character; -1: no token
  std::vector<int32_t> byte_ids_;  // [256] or none: for the bytes of a character without a token
  MergeTable merges_;
  MergeTable seams_;  // the pairs of symbols at which some merge joins two tokens
  bool can_cut_ = true;
  int32_t unk_id_;  // -1: symbols without a token are left out
  bool fuse_unk_;
  // Words that are one token: those that the merges join completely, with ignore_merges all.
  // Computed once, it saves the merging for most words of a text.
  std::vector<WordSlot> word_slots_;  // [a power of two]
};

}  // namespace gatehouse
