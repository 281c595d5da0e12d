#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <array>
#include <functional>
#include <unordered_set>

#include "engine/tokenizer/byte_alphabet.h"
#include "kernels/base/check.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

// Up to here, looking at all pairs for the lowest rank beats a heap.
constexpr size_t kMaxShortWord = 40;
constexpr uint64_t kNoPair = ~uint64_t{0};  // ids are below 2^22

uint64_t KeyOf(int32_t left_id, int32_t right_id) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left_id)) << 32 |
         static_cast<uint32_t>(right_id);
}

size_t TableSize(size_t num_entries) {
  size_t size = 16;
  while (size < 2 * num_entries) size *= 2;
  return size;
}

}  // namespace

MergeTable::MergeTable(const std::vector<MergeSpec>& merges)
    : slots_(TableSize(merges.size()), Slot{kNoPair, {0, -1}}), shift_(64) {
  for (size_t size = slots_.size(); size > 1; size /= 2) --shift_;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const MergeSpec& merge = merges[rank];
    const uint64_t key = KeyOf(merge.left_id, merge.right_id);
    // A pair that is listed twice has its last rank, as in Hugging Face.
    slots_[SlotOf(key)] = {key, {static_cast<uint32_t>(rank), merge.merged_id}};
  }
}

size_t MergeTable::SlotOf(uint64_t key) const {
  size_t slot = static_cast<size_t>(key * 0x9E3779B97F4A7C15u >> shift_);
  while (slots_[slot].key != key && slots_[slot].key != kNoPair) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return slot;
}

const Merge* MergeTable::Find(int32_t left_id, int32_t right_id) const {
  const Slot& slot = slots_[SlotOf(KeyOf(left_id, right_id))];
  return slot.key == kNoPair ? nullptr : &slot.merge;
}

Bpe::Bpe(const BpeSpec& spec, const Vocabulary& vocabulary)
    : vocabulary_(vocabulary),
      is_byte_level_(spec.is_byte_level),
      byte_ids_(spec.byte_ids),
      merges_(spec.merges),
      seams_({}),
      unk_id_(spec.unk_id.value_or(-1)),
      fuse_unk_(spec.fuse_unk) {
  for (const auto& [text, id] : spec.vocab) {
    size_t end = 0;
    if (!text.empty()) NextCodePoint(text, &end);
    if (text.empty() || end != text.size()) continue;
    if (!is_byte_level_) {
      size_t offset = 0;
      symbol_to_id_.Set(NextCodePoint(text, &offset), id);
    } else if (const std::optional<std::string> byte = LettersToBytes(text)) {
      symbol_to_id_.Set(static_cast<unsigned char>((*byte)[0]), id);
    }
  }
  AddSeams(spec);
  AddWholeWords(spec);
}

// The token of the symbol at word[*offset], which is moved behind it; -1: none.
int32_t Bpe::SymbolOf(std::string_view word, size_t* offset) const {
  if (is_byte_level_) return symbol_to_id_.Get(static_cast<unsigned char>(word[(*offset)++]));
  return symbol_to_id_.Get(NextCodePoint(word, offset));
}

// A merge of tokens that stand for unknown symbols could join what their texts do not show.
void Bpe::AddSeams(const BpeSpec& spec) {
  std::unordered_set<int32_t> stand_ins(spec.byte_ids.begin(), spec.byte_ids.end());
  if (unk_id_ >= 0) stand_ins.insert(unk_id_);
  std::vector<MergeSpec> seams;
  for (const MergeSpec& merge : spec.merges) {
    if (stand_ins.count(merge.left_id) > 0 || stand_ins.count(merge.right_id) > 0) can_cut_ = false;
    const std::string_view left = vocabulary_.Word(merge.left_id);
    const std::string_view right = vocabulary_.Word(merge.right_id);
    if (left.empty() || right.empty()) continue;
    size_t last = left.size() - 1;
    while (!is_byte_level_ && last > 0 && (static_cast<unsigned char>(left[last]) & 0xC0) == 0x80) {
      --last;
    }
    size_t first = 0;
    seams.push_back({.left_id = SymbolOf(left, &last), .right_id = SymbolOf(right, &first)});
  }
  seams_ = MergeTable(seams);
}

void Bpe::AddWholeWords(const BpeSpec& spec) {
  word_slots_.assign(TableSize(spec.vocab.size()), {});
  BpeScratch scratch;
  for (const auto& [text, id] : spec.vocab) {
    if (is_byte_level_ && !LettersToBytes(text).has_value()) continue;
    const std::string_view word = vocabulary_.Word(id);
    if (word.empty()) continue;
    AddSymbols(word, &scratch);
    scratch.piece = scratch.ids;
    MergePiece(/*allow_special=*/true, &scratch);
    const bool is_joined = scratch.piece.size() == 1 && scratch.piece[0] == id;
    if (is_joined || spec.ignore_merges) word_slots_[WordSlotOf(word)] = {id, is_joined};
  }
}

size_t Bpe::WordSlotOf(std::string_view word) const {
  size_t slot = std::hash<std::string_view>()(word) & (word_slots_.size() - 1);
  while (word_slots_[slot].id >= 0 && vocabulary_.Word(word_slots_[slot].id) != word) {
    slot = (slot + 1) & (word_slots_.size() - 1);
  }
  return slot;
}

const Bpe::WordSlot& Bpe::FindWord(std::string_view word) const {
  return word_slots_[WordSlotOf(word)];
}

void Bpe::Encode(std::string_view word, bool allow_special, BpeScratch* scratch,
                 std::vector<int32_t>* ids) const {
  const int32_t whole_id = FindWord(word).id;
  if (whole_id >= 0 && (allow_special || !vocabulary_.IsSpecial(whole_id))) {
    ids->push_back(whole_id);
    return;
  }
  AddSymbols(word, scratch);
  if (can_cut_ && scratch->ids.size() > kMaxShortWord) {
    EncodePieces(word, allow_special, scratch, ids);
    return;
  }
  scratch->piece = scratch->ids;
  MergePiece(allow_special, scratch);
  ids->insert(ids->end(), scratch->piece.begin(), scratch->piece.end());
}

void Bpe::EncodePieces(std::string_view word, bool allow_special, BpeScratch* scratch,
                       std::vector<int32_t>* ids) const {
  const std::vector<int32_t>& symbols = scratch->ids;
  size_t first = 0;  // symbol of the piece
  for (size_t end = 1; end <= symbols.size(); ++end) {
    if (end < symbols.size() && seams_.Find(symbols[end - 1], symbols[end]) != nullptr) continue;
    const size_t begin_byte = first == 0 ? 0 : scratch->ends[first - 1];
    const WordSlot whole =
        end - first == 1 ? WordSlot{symbols[first], true}
                         : FindWord(word.substr(begin_byte, scratch->ends[end - 1] - begin_byte));
    // A single symbol is what it is: there is no other way to write it.
    if (end - first == 1 ||
        (whole.id >= 0 && whole.is_joined && (allow_special || !vocabulary_.IsSpecial(whole.id)))) {
      ids->push_back(whole.id);
    } else {
      scratch->piece.assign(symbols.begin() + static_cast<std::ptrdiff_t>(first),
                            symbols.begin() + static_cast<std::ptrdiff_t>(end));
      MergePiece(allow_special, scratch);
      ids->insert(ids->end(), scratch->piece.begin(), scratch->piece.end());
    }
    first = end;
  }
}

void Bpe::MergePiece(bool allow_special, BpeScratch* scratch) const {
  if (scratch->piece.size() <= kMaxShortWord) {
    MergeShort(allow_special, &scratch->piece);
  } else {
    MergeLong(allow_special, scratch);
  }
}

void Bpe::AddByteTokens(std::string_view character, size_t end, BpeScratch* scratch) const {
  for (const char byte : character) {
    scratch->ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    scratch->ends.push_back(end);
  }
}

void Bpe::AddSymbols(std::string_view word, BpeScratch* scratch) const {
  scratch->ids.clear();
  scratch->ends.clear();
  bool last_was_unknown = false;
  for (size_t offset = 0; offset < word.size();) {
    const size_t begin = offset;
    const int32_t id = SymbolOf(word, &offset);
    const bool is_fused = last_was_unknown && fuse_unk_;
    last_was_unknown = id < 0 && byte_ids_.empty();
    if (id < 0 && !byte_ids_.empty()) {
      AddByteTokens(word.substr(begin, offset - begin), offset, scratch);
    } else if (id >= 0 || (unk_id_ >= 0 && !is_fused)) {
      scratch->ids.push_back(id >= 0 ? id : unk_id_);
      scratch->ends.push_back(offset);
    } else if (unk_id_ >= 0) {
      scratch->ends.back() = offset;
    }
  }
}

const Merge* Bpe::FindMerge(int32_t left_id, int32_t right_id, bool allow_special) const {
  const Merge* merge = merges_.Find(left_id, right_id);
  if (merge == nullptr || allow_special || !vocabulary_.IsSpecial(merge->merged_id)) return merge;
  return nullptr;
}

void Bpe::MergeShort(bool allow_special, std::vector<int32_t>* ids) const {
  constexpr Merge kNone = {UINT32_MAX, -1};
  std::array<Merge, kMaxShortWord> merges;  // merges[i] joins ids[i] and ids[i + 1]
  size_t num_ids = ids->size();
  const auto look_up = [&](size_t i) {
    const Merge* merge = FindMerge((*ids)[i], (*ids)[i + 1], allow_special);
    merges[i] = merge == nullptr ? kNone : *merge;
  };
  for (size_t i = 0; i + 1 < num_ids; ++i) look_up(i);
  while (num_ids > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < num_ids; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNone.rank) break;
    (*ids)[best] = merges[best].merged_id;
    for (size_t i = best + 1; i + 1 < num_ids; ++i) {
      (*ids)[i] = (*ids)[i + 1];
      merges[i - 1] = merges[i];
    }
    --num_ids;
    if (best > 0) look_up(best - 1);
    if (best + 1 < num_ids) look_up(best);
  }
  ids->resize(num_ids);
}

// A linked list of symbols, and a heap of the pairs that can be joined. An entry of the heap is
// stale when its pair has changed since; its rank then differs from what the table says now.
void Bpe::MergeLong(bool allow_special, BpeScratch* scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch->symbols;
  std::vector<uint64_t>& heap = scratch->heap;
  const auto num_symbols = static_cast<int32_t>(scratch->piece.size());
  symbols.clear();
  heap.clear();
  for (int32_t i = 0; i < num_symbols; ++i) {
    symbols.push_back({scratch->piece[i], i - 1, i + 1 < num_symbols ? i + 1 : -1});
  }
  const auto merge_at = [&](int32_t at) {
    const int32_t next = symbols[at].next;
    return next < 0 ? nullptr : FindMerge(symbols[at].id, symbols[next].id, allow_special);
  };
  const auto entry_of = [](const Merge& merge, int32_t at) {
    return static_cast<uint64_t>(merge.rank) << 32 | static_cast<uint32_t>(at);
  };
  for (int32_t i = 0; i < num_symbols; ++i) {
    if (const Merge* merge = merge_at(i)) heap.push_back(entry_of(*merge, i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto push = [&](int32_t at) {
    const Merge* merge = merge_at(at);
    if (merge == nullptr) return;
    heap.push_back(entry_of(*merge, at));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t entry = heap.back();
    heap.pop_back();
    const auto at = static_cast<int32_t>(entry & UINT32_MAX);
    if (symbols[at].id < 0) continue;  // joined to its left neighbour
    const Merge* merge = merge_at(at);
    if (merge == nullptr || entry_of(*merge, at) != entry) continue;
    const int32_t right = symbols[at].next;
    symbols[at].id = merge->merged_id;
    symbols[at].next = symbols[right].next;
    symbols[right].id = -1;
    if (symbols[right].next >= 0) symbols[symbols[right].next].previous = at;
    if (symbols[at].previous >= 0) push(symbols[at].previous);
    push(at);
  }
  scratch->piece.clear();
  for (const BpeScratch::Symbol& symbol : symbols) {
    if (symbol.id >= 0) scratch->piece.push_back(symbol.id);
  }
}

}  // namespace gatehouse
