// Attention over the paged cache. A unit is some query vectors (rows x heads of a group) of one kv
// head of one sequence; units with the most work go first, so that none is left alone at the end.
#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

// Enough units that the last one to finish costs little.
constexpr int64_t kUnitsPerThread = 4;

struct UnitPlan {
  int32_t sequence_idx;
  int32_t kv_head;
  int32_t first_query;
  int32_t num_queries;
  int64_t cost;  // keys times queries
};

int64_t CountUnits(const AttentionArgs& args, const BatchLayout& layout, int64_t unit_queries) {
  const int64_t heads_per_kv = args.num_heads / args.kv.shape.num_kv_heads;
  int64_t num_units = 0;
  for (const SequenceSpan& sequence : layout.sequences) {
    const int64_t num_queries = sequence.num_rows * heads_per_kv;
    num_units += (num_queries + unit_queries - 1) / unit_queries * args.kv.shape.num_kv_heads;
  }
  return num_units;
}

std::vector<UnitPlan> PlanUnits(const AttentionArgs& args, const BatchLayout& layout,
                                int num_threads) {
  int64_t unit_queries = kMaxUnitQueries;
  while (unit_queries > kMaxTileQueries &&
         CountUnits(args, layout, unit_queries) < kUnitsPerThread * num_threads) {
    unit_queries /= 2;
  }
  const int64_t heads_per_kv = args.num_heads / args.kv.shape.num_kv_heads;
  std::vector<UnitPlan> units;
  units.reserve(CountUnits(args, layout, unit_queries));
  for (size_t s = 0; s < layout.sequences.size(); ++s) {
    const SequenceSpan& sequence = layout.sequences[s];
    const int64_t num_queries = sequence.num_rows * heads_per_kv;
    for (int64_t first = 0; first < num_queries; first += unit_queries) {
      const int64_t count = std::min(unit_queries, num_queries - first);
      const int64_t first_row = first / heads_per_kv, last_row = (first + count - 1) / heads_per_kv;
      int64_t num_keys = sequence.first_position + last_row + 1;
      if (args.window > 0) num_keys = std::min(num_keys, args.window + last_row - first_row);
      for (int h = 0; h < args.kv.shape.num_kv_heads; ++h) {
        units.push_back({.sequence_idx = static_cast<int32_t>(s),
                         .kv_head = h,
                         .first_query = static_cast<int32_t>(first),
                         .num_queries = static_cast<int32_t>(count),
                         .cost = num_keys * count});
      }
    }
  }
  std::sort(units.begin(), units.end(),
            [](const UnitPlan& a, const UnitPlan& b) { return a.cost > b.cost; });
  return units;
}

AttentionUnit MakeUnit(const AttentionArgs& args, const SequenceSpan& sequence,
                       const UnitPlan& plan) {
  const KvShape& shape = args.kv.shape;
  const KvLayout layout(shape);
  const int heads_per_kv = args.num_heads / shape.num_kv_heads;
  const int64_t first_head = int64_t{plan.kv_head} * heads_per_kv;
  return {.q = args.q.row(sequence.first_row) + first_head * shape.head_dim,
          .q_stride = args.q.stride,
          .out = args.out.row(sequence.first_row) + first_head * shape.value_dim(),
          .out_stride = args.out.stride,
          .scale = args.scale,
          .sinks = args.sinks == nullptr ? nullptr : args.sinks + plan.kv_head * heads_per_kv,
          .window = args.window,
          .heads_per_kv = heads_per_kv,
          .first_query = plan.first_query,
          .num_queries = plan.num_queries,
          .first_position = sequence.first_position,
          .cache = static_cast<const char*>(args.kv.data),
          .block_bytes = layout.block_bytes(),
          .key_offset = layout.key_offset(plan.kv_head),
          .value_offset = layout.value_offset(plan.kv_head),
          .key_scale_offset = layout.key_scale_offset(plan.kv_head),
          .value_scale_offset = layout.value_scale_offset(plan.kv_head),
          .kv_type = shape.type,
          .values_in_keys = shape.value_prefix > 0,
          .block_ids = sequence.block_ids.data(),
          .block_tokens = shape.block_tokens,
          .head_dim = shape.head_dim,
          .value_dim = shape.value_dim()};
}

}  // namespace

size_t KvBlockBytes(const KvShape& shape) {
  return static_cast<size_t>(KvLayout(shape).block_bytes());
}

void Attention(Machine machine, const BatchLayout& layout, const AttentionArgs& args) {
  CheckArgs(args, layout);
  const std::vector<UnitPlan> units = PlanUnits(args, layout, machine.pool.num_threads());
  const int64_t scratch_floats = AttentionScratchFloats(args.kv.shape.head_dim);
  const auto scratch =
      std::make_unique_for_overwrite<float[]>(machine.pool.num_threads() * scratch_floats);
  machine.pool.Run(static_cast<int>(units.size()), [&](int thread, int u) {
    AttentionUnit unit = MakeUnit(args, layout.sequences[units[u].sequence_idx], units[u]);
    unit.scratch = scratch.get() + thread * scratch_floats;
    machine.isa.attention.attend(unit);
  });
}

}  // namespace gatehouse::cpu
