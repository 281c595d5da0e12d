// One step's keys and values as attention reads them. Those of an f32 cache are read where they
// lie, but for keys that share their rows with the values; all others are widened or turned into
// the thread's scratch first, once for all queries of a unit. Included, after the header of V, by
// the files isa_*.cc only.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/vec_math.h"

namespace gatehouse::cpu {

constexpr int kGroupsPerStep = kKeysPerStep / 8;

namespace {

// Rows of values, and of sums of them, are whole registers.
inline int64_t PaddedDim(int64_t dim) { return (dim + 7) / 8 * 8; }

// By groups of eight tokens; a group lies in one block.
struct KeyStep {
  const float* keys[kGroupsPerStep];    // channel d of group g's keys: keys[g] + d * key_stride
  const float* values[kGroupsPerStep];  // token t of group g: values[g] + t * value_stride
  int64_t key_stride, value_stride;
  int head_dim, value_dim;
};

struct KeyRange {
  int begin, end;  // within the step
};

// Where a group's parts begin in the cache.
struct StoredGroup {
  const char *keys, *values;
  const float *key_scales, *value_scales;  // [8]; int8 only
};

inline StoredGroup FindGroup(const AttentionUnit& unit, int64_t position, int64_t element_bytes) {
  const char* block = unit.cache + unit.block_ids[position / unit.block_tokens] * unit.block_bytes;
  const int64_t token = position % unit.block_tokens;
  const auto scales = [&](int64_t offset) {
    return reinterpret_cast<const float*>(block + offset) + token;
  };
  return {.keys = block + unit.key_offset + token * element_bytes,
          .values = block + unit.value_offset + token * PaddedDim(unit.head_dim) * element_bytes,
          .key_scales = scales(unit.key_scale_offset),
          .value_scales = scales(unit.value_scale_offset)};
}

// Elements [i, i + 8).
template <typename V, KvType kType>
inline V LoadStored(const char* p, int64_t i) {
  if constexpr (kType == KvType::kF32) return V::Load(reinterpret_cast<const float*>(p) + i);
  if constexpr (kType == KvType::kBF16) {
    return V::LoadBF16(reinterpret_cast<const uint16_t*>(p) + i);
  }
  if constexpr (kType == KvType::kInt8) return V::LoadI8(reinterpret_cast<const int8_t*>(p) + i);
}

// Transposed keys: [head_dim][kKeysPerStep].
template <typename V, KvType kType>
void WidenKeys(const AttentionUnit& unit, const StoredGroup& group, float* keys) {
  const V scales = kType == KvType::kInt8 ? V::Load(group.key_scales) : V::Zero();
  for (int d = 0; d < unit.head_dim; ++d) {
    V channel = LoadStored<V, kType>(group.keys, int64_t{d} * unit.block_tokens);
    if constexpr (kType == KvType::kInt8) channel = Mul(channel, scales);
    channel.Store(keys + int64_t{d} * kKeysPerStep);
  }
}

template <typename V, KvType kType>
void WidenValues(const AttentionUnit& unit, const StoredGroup& group, float* values) {
  const int64_t stride = PaddedDim(unit.head_dim);
  for (int t = 0; t < 8; ++t) {
    const V scale = V::Broadcast(kType == KvType::kInt8 ? group.value_scales[t] : 1.0f);
    for (int64_t c = 0; c < stride; c += 8) {
      V part = LoadStored<V, kType>(group.values, t * stride + c);
      if constexpr (kType == KvType::kInt8) part = Mul(part, scale);
      part.Store(values + t * stride + c);
    }
  }
}

// Rows of eight tokens that are keys and values in one; `rows` as f32.
template <typename V>
void TurnRows(const AttentionUnit& unit, const float* rows, float* keys) {
  const int64_t stride = PaddedDim(unit.head_dim);
  for (int64_t c = 0; c < stride; c += 8) {
    V part[8];
    for (int t = 0; t < 8; ++t) part[t] = V::Load(rows + t * stride + c);
    Transpose(part);
    for (int d = 0; d < 8; ++d) part[d].Store(keys + (c + d) * kKeysPerStep);
  }
}

template <typename V, KvType kType>
KeyStep LoadKeyStepOf(const AttentionUnit& unit, int64_t first_key, KeyRange range,
                      float* scratch) {
  const int64_t stride = PaddedDim(unit.head_dim);
  const bool turn = unit.values_in_keys, widen = kType != KvType::kF32;
  constexpr int64_t kElementBytes = kType == KvType::kF32 ? 4 : kType == KvType::kBF16 ? 2 : 1;
  float* keys = scratch;
  float* values = scratch + stride * kKeysPerStep;
  KeyStep step;
  step.key_stride = turn || widen ? kKeysPerStep : unit.block_tokens;
  step.value_stride = stride;
  step.head_dim = unit.head_dim;
  step.value_dim = unit.value_dim;
  for (int g = range.begin / 8; g * 8 < range.end; ++g) {
    const StoredGroup group = FindGroup(unit, first_key + g * 8, kElementBytes);
    step.keys[g] = turn || widen ? keys + g * 8 : reinterpret_cast<const float*>(group.keys);
    step.values[g] = widen ? values + g * 8 * stride : reinterpret_cast<const float*>(group.values);
    if (widen) WidenValues<V, kType>(unit, group, values + g * 8 * stride);
    if (turn) {
      TurnRows<V>(unit, step.values[g], keys + g * 8);
    } else if (widen) {
      WidenKeys<V, kType>(unit, group, keys + g * 8);
    }
  }
  return step;
}

// The groups that hold keys [begin, end) of the step; the blocks of the others are not looked up.
template <typename V>
KeyStep LoadKeyStep(const AttentionUnit& unit, int64_t first_key, KeyRange range, float* scratch) {
  switch (unit.kv_type) {
    case KvType::kF32:
      return LoadKeyStepOf<V, KvType::kF32>(unit, first_key, range, scratch);
    case KvType::kBF16:
      return LoadKeyStepOf<V, KvType::kBF16>(unit, first_key, range, scratch);
    case KvType::kInt8:
      break;
  }
  return LoadKeyStepOf<V, KvType::kInt8>(unit, first_key, range, scratch);
}

}  // namespace
}  // namespace gatehouse::cpu
