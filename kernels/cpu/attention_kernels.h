// Attention with a running softmax. For each step of 64 keys, and within it for each tile of up to
// six query vectors:
//   scores   lanes are keys; one chain of fused multiply-adds over the channels, ascending
//   softmax  m' = max(m, scores); p = exp(score - m'); f = exp(m - m'); l = l f + p
//   values   lanes are channels; sums = sums f, then one chain over the keys, ascending
// A query's chains do not know which tile or unit it stands in, so neither do its bits. Keys that a
// query does not see (behind its position or before its window) may hold anything: their lanes are
// overwritten before they meet other lanes, and their values are not read. Included, after the
// header of V, by the files isa_*.cc only.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/kv_step.h"
#include "kernels/cpu/vec_math.h"

namespace gatehouse::cpu {

namespace {

// The running state of some queries; the arrays lie in the unit's scratch.
struct QueryTile {
  const float* q;                                // [head_dim][number of queries], scaled
  float* sums;                                   // [queries][padded value_dim]
  float* totals;                                 // [queries][8]: l, in lanes by key mod 8
  float* maxima;                                 // [queries]
  float scores[kMaxTileQueries * kKeysPerStep];  // then p
  float factors[kMaxTileQueries];
};

// Scores of kGroups groups of keys from `group` on.
template <typename V, int kQueries, int kGroups>
inline void ScoreGroups(const KeyStep& step, int group, QueryTile& tile) {
  V sums[kQueries][kGroups];
  const float* keys[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    keys[g] = step.keys[group + g];
    for (int i = 0; i < kQueries; ++i) sums[i][g] = V::Zero();
  }
  const float* q = tile.q;
  for (int d = 0; d < step.head_dim; ++d, q += kQueries) {
    V key[kGroups];
    for (int g = 0; g < kGroups; ++g) key[g] = V::Load(keys[g] + d * step.key_stride);
    for (int i = 0; i < kQueries; ++i) {
      const V channel = V::Broadcast(q[i]);
      for (int g = 0; g < kGroups; ++g) sums[i][g] = Fma(channel, key[g], sums[i][g]);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int g = 0; g < kGroups; ++g) {
      sums[i][g].Store(tile.scores + i * kKeysPerStep + (group + g) * 8);
    }
  }
}

// As many groups at once as leave the sums in registers, then by halves.
template <typename V, int kQueries, int kGroups>
inline void Score(const KeyStep& step, int group, int num_groups, QueryTile& tile) {
  for (; group + kGroups <= num_groups; group += kGroups) {
    ScoreGroups<V, kQueries, kGroups>(step, group, tile);
  }
  if constexpr (kGroups > 1) Score<V, kQueries, kGroups / 2>(step, group, num_groups, tile);
}

// Turns query i's scores of the keys it sees into p and brings m, l and f up to date.
template <typename V>
inline __attribute__((always_inline)) void SoftmaxStep(QueryTile& tile, int i, KeyRange seen) {
  float* p = tile.scores + i * kKeysPerStep;
  const int first_group = seen.begin / 8, num_groups = (seen.end + 7) / 8;
  // Unseen keys get e^-87, which is lost beside the 1 of the largest score.
  for (int t = first_group * 8; t < seen.begin; ++t) p[t] = -3.4e38f;
  for (int t = seen.end; t < num_groups * 8; ++t) p[t] = -3.4e38f;
  V largest = V::Load(p + first_group * 8);
  for (int g = first_group + 1; g < num_groups; ++g) largest = Max(largest, V::Load(p + g * 8));
  const float step_maximum = ReduceMax(largest), before = tile.maxima[i];
  const float maximum = step_maximum > before ? step_maximum : before;
  float factor[8];
  Exp(V::Broadcast(before - maximum)).Store(factor);
  for (int g = first_group; g < num_groups; ++g) {
    Exp(Sub(V::Load(p + g * 8), V::Broadcast(maximum))).Store(p + g * 8);
  }
  V total = Mul(V::Load(tile.totals + i * 8), V::Broadcast(factor[0]));
  for (int g = first_group; g < num_groups; ++g) total = Add(total, V::Load(p + g * 8));
  total.Store(tile.totals + i * 8);
  tile.maxima[i] = maximum;
  tile.factors[i] = factor[0];
}

// Adds p times the values of a range of keys to kCols * 8 channels of queries [i0, i0 + kQueries).
template <typename V, int kQueries, int kCols>
inline void AddValueColumns(const KeyStep& step, KeyRange range, bool rescale, QueryTile& tile,
                            int i0, int col) {
  const int64_t stride = step.value_stride, sums_stride = PaddedDim(step.value_dim);
  V sums[kQueries][kCols];
  float* out = tile.sums + i0 * sums_stride + col * 8;
  for (int i = 0; i < kQueries; ++i) {
    const V factor = V::Broadcast(rescale ? tile.factors[i0 + i] : 1.0f);
    for (int c = 0; c < kCols; ++c)
      sums[i][c] = Mul(V::Load(out + i * sums_stride + c * 8), factor);
  }
  for (int t = range.begin; t < range.end;) {
    const int group_end = (t / 8 + 1) * 8, end = group_end < range.end ? group_end : range.end;
    const float* row = step.values[t / 8] + t % 8 * stride + col * 8;
    const float* p = tile.scores + i0 * kKeysPerStep + t;
    for (; t < end; ++t, ++p, row += stride) {
      V value[kCols];
      for (int c = 0; c < kCols; ++c) value[c] = V::Load(row + c * 8);
      for (int i = 0; i < kQueries; ++i) {
        const V weight = V::Broadcast(p[i * kKeysPerStep]);
        for (int c = 0; c < kCols; ++c) sums[i][c] = Fma(weight, value[c], sums[i][c]);
      }
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int c = 0; c < kCols; ++c) sums[i][c].Store(out + i * sums_stride + c * 8);
  }
}

template <typename V, int kQueries, int kCols>
inline void AddValues(const KeyStep& step, KeyRange range, bool rescale, QueryTile& tile, int i0,
                      int col = 0) {
  const int num_cols = static_cast<int>(PaddedDim(step.value_dim) / 8);
  for (; col + kCols <= num_cols; col += kCols) {
    AddValueColumns<V, kQueries, kCols>(step, range, rescale, tile, i0, col);
  }
  if constexpr (kCols > 1) {
    AddValues<V, kQueries, kCols / 2>(step, range, rescale, tile, i0, col);
  }
}

// Registers of sums a query may have: 8 chains at least hide the latency, 12 fit beside the rest.
constexpr int RegistersPerQuery(int num_queries) {
  return num_queries == 1 ? 8 : num_queries <= 3 ? 4 : 2;
}

// One step of one tile without a window. seen[i] are the step's keys that query i sees, none of
// them or more: they begin at 0, their ends ascend with i, and some query sees some key.
template <typename V, int kQueries>
void TileStep(const KeyStep& step, const KeyRange* seen, QueryTile& tile) {
  constexpr int kRegisters = RegistersPerQuery(kQueries);
  Score<V, kQueries, kRegisters>(step, 0, (seen[kQueries - 1].end + 7) / 8, tile);
  for (int i = 0; i < kQueries; ++i) {
    tile.factors[i] = 1;
    if (seen[i].end > 0) SoftmaxStep<V>(tile, i, {0, seen[i].end});
  }
  AddValues<V, kQueries, kRegisters>(step, {0, seen[0].end}, true, tile, 0);
  // On the diagonal later queries see more keys than the first.
  for (int i = 1; i < kQueries; ++i) {
    if (seen[i].end > seen[0].end) {
      AddValues<V, 1, RegistersPerQuery(1)>(step, {seen[0].end, seen[i].end}, false, tile, i);
    }
  }
}

// The same with a window: the beginnings ascend too.
template <typename V, int kQueries>
void WindowTileStep(const KeyStep& step, const KeyRange* seen, QueryTile& tile) {
  constexpr int kRegisters = RegistersPerQuery(kQueries);
  constexpr int kAlone = RegistersPerQuery(1);
  const KeyRange first = seen[0], last = seen[kQueries - 1];
  Score<V, kQueries, kRegisters>(step, first.begin / 8, (last.end + 7) / 8, tile);
  for (int i = 0; i < kQueries; ++i) {
    tile.factors[i] = 1;
    if (seen[i].begin < seen[i].end) SoftmaxStep<V>(tile, i, seen[i]);
  }
  // Keys in ascending order for each query: those before what all see, those, and those behind. At
  // the border of a window earlier queries see keys that the last does not.
  const bool at_border = last.begin > first.begin;
  for (int i = 0; at_border && i < kQueries; ++i) {
    const int end = seen[i].end < last.begin ? seen[i].end : last.begin;
    AddValues<V, 1, kAlone>(step, {seen[i].begin, end}, true, tile, i);
  }
  if (last.begin < first.end || !at_border) {
    AddValues<V, kQueries, kRegisters>(step, {last.begin, first.end}, !at_border, tile, 0);
  }
  // On the diagonal later queries see more keys than the first.
  for (int i = 1; i < kQueries; ++i) {
    const int begin = first.end > last.begin ? first.end : last.begin;
    if (seen[i].end > begin) AddValues<V, 1, kAlone>(step, {begin, seen[i].end}, false, tile, i);
  }
}

template <typename V>
using TileStepFn = void (*)(const KeyStep& step, const KeyRange* seen, QueryTile& tile);

template <typename V>
constexpr TileStepFn<V> kTileSteps[kMaxTileQueries] = {
    TileStep<V, 1>, TileStep<V, 2>, TileStep<V, 3>, TileStep<V, 4>, TileStep<V, 5>, TileStep<V, 6>};
template <typename V>
constexpr TileStepFn<V> kWindowTileSteps[kMaxTileQueries] = {
    WindowTileStep<V, 1>, WindowTileStep<V, 2>, WindowTileStep<V, 3>,
    WindowTileStep<V, 4>, WindowTileStep<V, 5>, WindowTileStep<V, 6>};

// Tiles of nearly equal size: a tile of one query reads all keys for itself.
struct TileSplit {
  explicit TileSplit(int num_queries)
      : num_queries(num_queries),
        num_tiles((num_queries + kMaxTileQueries - 1) / kMaxTileQueries) {}
  int begin(int tile) const { return num_queries * tile / num_tiles; }
  int num_queries, num_tiles;
};

// Where head (first_query + i) % heads_per_kv of row (first_query + i) / heads_per_kv begins.
inline int64_t QueryOffset(const AttentionUnit& unit, int i, int64_t stride, int64_t head_stride) {
  const int query = unit.first_query + i;
  return query / unit.heads_per_kv * stride + query % unit.heads_per_kv * head_stride;
}

// Scaled queries, transposed by tile so that a channel of all of them lies together.
inline void PackQueries(const AttentionUnit& unit, const TileSplit& split, float* packed) {
  // Rows lie a whole row of q apart, which no hardware prefetcher follows.
  for (int i = 0; i < unit.num_queries; ++i) {
    const float* q = unit.q + QueryOffset(unit, i, unit.q_stride, unit.head_dim);
    for (int d = 0; d < unit.head_dim; d += 16) __builtin_prefetch(q + d);
  }
  const int head_dim = unit.head_dim;
  const float scale = unit.scale;
  for (int tile = 0; tile < split.num_tiles; ++tile) {
    const int begin = split.begin(tile), count = split.begin(tile + 1) - begin;
    for (int i = 0; i < count; ++i) {
      const float* q = unit.q + QueryOffset(unit, begin + i, unit.q_stride, unit.head_dim);
      float* out = packed + begin * head_dim + i;
      for (int d = 0; d < head_dim; ++d) out[d * count] = q[d] * scale;
    }
  }
}

template <typename V>
void StoreQuery(const AttentionUnit& unit, int i, const float* sums, const float* totals) {
  float* out = unit.out + QueryOffset(unit, i, unit.out_stride, unit.value_dim);
  const V total = V::Broadcast(ReduceAdd(V::Load(totals)));
  for (int d = 0; d < unit.value_dim; d += 8) {
    const int count = unit.value_dim - d < 8 ? unit.value_dim - d : 8;
    Div(V::Load(sums + d), total).StoreFirst(out + d, count);
  }
}

// The keys that each query of a unit sees.
struct SeenKeys {
  explicit SeenKeys(const AttentionUnit& unit) {
    for (int i = 0; i < unit.num_queries; ++i) {
      ends[i] = unit.first_position + (unit.first_query + i) / unit.heads_per_kv + 1;
      begins[i] = unit.window > 0 && ends[i] > unit.window ? ends[i] - unit.window : 0;
    }
  }
  // Neither ever falls.
  int64_t begins[kMaxUnitQueries] = {}, ends[kMaxUnitQueries] = {};
};

// [begin, end) as far as it lies in the step that starts at first_key; an empty part keeps the
// order of the ends.
inline KeyRange WithinStep(int64_t begin, int64_t end, int64_t first_key) {
  const auto within = [&](int64_t key) {
    const int64_t offset = key - first_key;
    return static_cast<int>(offset < 0 ? 0 : offset < kKeysPerStep ? offset : kKeysPerStep);
  };
  return {within(begin), within(end)};
}

// Nothing summed yet, or the sink alone, whose value is 0.
inline void StartQueries(const AttentionUnit& unit, float* sums, float* totals, float* maxima) {
  for (float* p = sums; p < maxima; ++p) *p = 0;
  for (int i = 0; i < unit.num_queries; ++i) {
    maxima[i] = -__builtin_inff();
    if (unit.sinks == nullptr) continue;
    maxima[i] = unit.sinks[(unit.first_query + i) % unit.heads_per_kv];
    totals[int64_t{i} * 8] = 1;
  }
}

template <typename V>
void Attend(const AttentionUnit& unit) {
  const int64_t sums_stride = PaddedDim(unit.value_dim);
  float* packed = unit.scratch;
  float* sums = packed + int64_t{unit.num_queries} * unit.head_dim;
  float* totals = sums + unit.num_queries * sums_stride;
  float* maxima = totals + int64_t{unit.num_queries} * 8;
  float* widened = maxima + unit.num_queries;
  const TileSplit split(unit.num_queries);
  PackQueries(unit, split, packed);
  StartQueries(unit, sums, totals, maxima);
  const TileStepFn<V>* tile_steps = unit.window > 0 ? kWindowTileSteps<V> : kTileSteps<V>;
  const SeenKeys seen(unit);
  const int64_t first_seen = seen.begins[0], last_seen = seen.ends[unit.num_queries - 1];

  for (int64_t first_key = first_seen / kKeysPerStep * kKeysPerStep; first_key < last_seen;
       first_key += kKeysPerStep) {
    const KeyStep step =
        LoadKeyStep<V>(unit, first_key, WithinStep(first_seen, last_seen, first_key), widened);
    for (int t = 0; t < split.num_tiles; ++t) {
      const int begin = split.begin(t), count = split.begin(t + 1) - begin;
      KeyRange in_step[kMaxTileQueries];
      for (int i = 0; i < count; ++i) {
        in_step[i] = WithinStep(seen.begins[begin + i], seen.ends[begin + i], first_key);
      }
      if (in_step[0].begin >= in_step[count - 1].end) continue;  // no query sees any
      QueryTile tile;
      tile.q = packed + int64_t{begin} * unit.head_dim;
      tile.sums = sums + begin * sums_stride;
      tile.totals = totals + int64_t{begin} * 8;
      tile.maxima = maxima + begin;
      tile_steps[count - 1](step, in_step, tile);
    }
  }
  for (int i = 0; i < unit.num_queries; ++i) {
    StoreQuery<V>(unit, i, sums + i * sums_stride, totals + int64_t{i} * 8);
  }
}

template <typename V>
constexpr AttentionKernels MakeAttentionKernels() {
  return {.attend = Attend<V>};
}

}  // namespace
}  // namespace gatehouse::cpu
