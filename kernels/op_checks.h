// What every back end demands of an operation's shapes before it touches memory. A wrong shape is a
// fault of ours and aborts (backend.h), so the checks run in all builds; they cost nanoseconds.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/base/check.h"

namespace gatehouse {

template <typename T>
void CheckView(const MatrixView<T>& view, int64_t num_rows, int64_t num_cols) {
  GATEHOUSE_CHECK(view.num_rows == num_rows && view.num_cols == num_cols && view.stride >= num_cols)
      << "[" << view.num_rows << ", " << view.num_cols << "] stride " << view.stride
      << ", expected [" << num_rows << ", " << num_cols << "]";
}

inline void CheckLayout(const BatchLayout& layout) {
  const int64_t num_rows = static_cast<int64_t>(layout.token_ids.size());
  GATEHOUSE_CHECK(layout.positions.size() == layout.token_ids.size()) << layout.positions.size();
  int64_t next_row = 0;
  for (const SequenceSpan& sequence : layout.sequences) {
    GATEHOUSE_CHECK(sequence.first_row == next_row && sequence.num_rows >= 1 &&
                    sequence.first_position >= 0)
        << sequence.first_row << " " << sequence.num_rows << " " << sequence.first_position;
    for (int32_t i = 0; i < sequence.num_rows && next_row + i < num_rows; ++i) {
      GATEHOUSE_CHECK(layout.positions[next_row + i] == sequence.first_position + i)
          << "row " << next_row + i << ": position " << layout.positions[next_row + i];
    }
    next_row += sequence.num_rows;
  }
  GATEHOUSE_CHECK(next_row == num_rows) << next_row << " of " << num_rows;
}

inline void CheckKv(const KvLayerView& kv, const BatchLayout& layout) {
  const KvShape& shape = kv.shape;
  GATEHOUSE_CHECK(shape.num_kv_heads >= 1 && shape.head_dim >= 1 && shape.block_tokens >= 8 &&
                  shape.block_tokens % 8 == 0)
      << shape.num_kv_heads << " " << shape.head_dim << " " << shape.block_tokens;
  GATEHOUSE_CHECK(shape.value_prefix >= 0 && shape.value_prefix <= shape.head_dim)
      << shape.value_prefix;
  for (const SequenceSpan& sequence : layout.sequences) {
    const int64_t num_tokens = int64_t{sequence.first_position} + sequence.num_rows;
    const int64_t num_blocks = (num_tokens + shape.block_tokens - 1) / shape.block_tokens;
    GATEHOUSE_CHECK(static_cast<int64_t>(sequence.block_ids.size()) >= num_blocks)
        << sequence.block_ids.size() << " blocks for " << num_tokens << " tokens";
    // Earlier ones were checked when their positions were written.
    for (int64_t b = sequence.first_position / shape.block_tokens; b < num_blocks; ++b) {
      GATEHOUSE_CHECK(sequence.block_ids[b] >= 0 && sequence.block_ids[b] < kv.num_blocks)
          << sequence.block_ids[b] << " of " << kv.num_blocks;
    }
  }
}

inline void CheckArgs(const EmbedArgs& args, const BatchLayout& layout) {
  CheckView(args.out, static_cast<int64_t>(layout.token_ids.size()), args.table.num_cols);
  GATEHOUSE_CHECK(args.table.col_stride == 1) << args.table.col_stride;
  for (const int32_t id : layout.token_ids) {
    GATEHOUSE_CHECK(id >= 0 && id < args.table.num_rows) << id << " of " << args.table.num_rows;
  }
}

inline void CheckArgs(const RmsNormArgs& args) {
  CheckView(args.out, args.x.num_rows, args.x.num_cols);
  GATEHOUSE_CHECK(args.x.num_cols >= 1 && args.weight != nullptr);
}

inline void CheckRowIds(std::span<const int32_t> row_ids, int64_t num_rows) {
  for (const int32_t id : row_ids) {
    GATEHOUSE_CHECK(id >= 0 && id < num_rows) << "row " << id << " of " << num_rows;
  }
}

inline void CheckArgs(const GemmArgs& args) {
  const int64_t num_rows = args.out.num_rows;
  CheckView(args.x, args.x.num_rows, args.weights->num_inputs());
  CheckView(args.out, num_rows, args.weights->num_outputs());
  GATEHOUSE_CHECK(args.row_ids.empty() ? num_rows <= args.x.num_rows
                                       : num_rows == static_cast<int64_t>(args.row_ids.size()))
      << num_rows << " of " << args.x.num_rows << " rows, " << args.row_ids.size() << " row ids";
  CheckRowIds(args.row_ids, args.x.num_rows);
}

inline void CheckArgs(const ExpertFfnArgs& args) {
  const PackedExperts& experts = *args.experts;
  const std::span<const int32_t> begin = args.groups.expert_begin;
  const int64_t num_assignments = static_cast<int64_t>(args.groups.row_ids.size());
  CheckView(args.x, args.x.num_rows, experts.hidden_size());
  CheckView(args.scratch, num_assignments, experts.intermediate_size());
  CheckView(args.out, num_assignments, experts.hidden_size());
  GATEHOUSE_CHECK(static_cast<int>(begin.size()) == experts.num_experts() + 1)
      << begin.size() << " for " << experts.num_experts() << " experts";
  GATEHOUSE_CHECK(begin.front() == 0 && begin.back() == num_assignments)
      << begin.front() << " .. " << begin.back() << " of " << num_assignments;
  for (size_t e = 1; e < begin.size(); ++e) {
    GATEHOUSE_CHECK(begin[e - 1] <= begin[e]) << "expert " << e - 1;
  }
  CheckRowIds(args.groups.row_ids, args.x.num_rows);
}

inline void CheckRope(const RopeTable& rope, int head_dim, const BatchLayout& layout) {
  GATEHOUSE_CHECK(rope.rotary_dim >= 0 && rope.rotary_dim <= head_dim && rope.rotary_dim % 2 == 0)
      << rope.rotary_dim;
  for (const int32_t position : layout.positions) {
    GATEHOUSE_CHECK(position >= 0 && (rope.rotary_dim == 0 || position < rope.num_positions))
        << position << " of " << rope.num_positions;
  }
}

inline void CheckArgs(const QkvToCacheArgs& args, const BatchLayout& layout) {
  const KvShape& shape = args.kv.shape;
  CheckKv(args.kv, layout);
  CheckView(args.qkv, static_cast<int64_t>(layout.positions.size()),
            int64_t{args.num_heads + 2 * shape.num_kv_heads} * shape.head_dim);
  CheckRope(args.rope, shape.head_dim, layout);
  GATEHOUSE_CHECK(shape.value_prefix == 0) << shape.value_prefix;
}

inline void CheckArgs(const LatentToCacheArgs& args, const BatchLayout& layout) {
  const KvShape& shape = args.kv.shape;
  const auto num_rows = static_cast<int64_t>(layout.positions.size());
  CheckKv(args.kv, layout);
  CheckView(args.latent, num_rows, shape.head_dim);
  CheckView(args.absorbed_q, num_rows, int64_t{args.num_heads} * shape.head_dim);
  CheckView(args.q, num_rows, args.q.num_cols);
  CheckRope(args.rope, shape.head_dim, layout);
  GATEHOUSE_CHECK(shape.num_kv_heads == 1 && shape.value_prefix >= 1 &&
                  args.rope.rotary_dim == shape.head_dim - shape.value_prefix)
      << shape.num_kv_heads << " " << shape.value_prefix << " " << args.rope.rotary_dim;
  GATEHOUSE_CHECK(args.q.num_cols % args.num_heads == 0 &&
                  args.q.num_cols / args.num_heads >= args.rope.rotary_dim)
      << args.q.num_cols << " of " << args.num_heads << " heads";
}

inline void CheckArgs(const HeadGemmArgs& args) {
  const auto num_heads = static_cast<int64_t>(args.weights.size());
  GATEHOUSE_CHECK(num_heads >= 1 && args.x.num_cols % num_heads == 0 &&
                  args.out.num_cols % num_heads == 0)
      << args.x.num_cols << " to " << args.out.num_cols << " in " << num_heads << " heads";
  CheckView(args.x, args.out.num_rows, args.x.num_cols);
  for (const auto& weights : args.weights) {
    GATEHOUSE_CHECK(weights->num_inputs() == args.weights[0]->num_inputs() &&
                    weights->num_outputs() == args.weights[0]->num_outputs() &&
                    weights->num_inputs() <= args.x.num_cols / num_heads &&
                    weights->num_outputs() <= args.out.num_cols / num_heads)
        << weights->num_inputs() << " " << weights->num_outputs();
  }
}

inline void CheckArgs(const AttentionArgs& args, const BatchLayout& layout) {
  const KvShape& shape = args.kv.shape;
  CheckKv(args.kv, layout);
  GATEHOUSE_CHECK(args.num_heads >= 1 && args.num_heads % shape.num_kv_heads == 0)
      << args.num_heads << " heads, " << shape.num_kv_heads << " kv heads";
  GATEHOUSE_CHECK(args.window >= 0) << args.window;
  const int64_t num_rows = static_cast<int64_t>(layout.token_ids.size());
  CheckView(args.q, num_rows, int64_t{args.num_heads} * shape.head_dim);
  CheckView(args.out, num_rows, int64_t{args.num_heads} * shape.value_dim());
}

inline void CheckArgs(const RowNormsArgs& args) {
  GATEHOUSE_CHECK(static_cast<int64_t>(args.out.size()) == args.x.num_rows)
      << args.out.size() << " and " << args.x.num_rows;
}

inline void CheckArgs(const BlockMeansArgs& args) {
  GATEHOUSE_CHECK(args.out.num_cols >= 1 && args.x.num_cols % args.out.num_cols == 0)
      << args.x.num_cols << " in " << args.out.num_cols << " parts";
  CheckView(args.x, args.out.num_rows, args.x.num_cols);
}

inline void CheckArgs(const CosinesArgs& args) {
  CheckView(args.x, args.dots.num_rows, args.x.num_cols);
  GATEHOUSE_CHECK(args.norms != nullptr);
}

inline void CheckArgs(const GateTopKArgs& args) {
  const GateRecipe& recipe = args.recipe;
  const int64_t num_experts = args.logits.num_cols, top_k = recipe.top_k;
  GATEHOUSE_CHECK(recipe.num_groups >= 1 && num_experts % recipe.num_groups == 0 &&
                  recipe.num_open_groups >= 1 && recipe.num_open_groups <= recipe.num_groups)
      << recipe.num_open_groups << " of " << recipe.num_groups << " groups of " << num_experts;
  const int64_t group_size = num_experts / recipe.num_groups;
  GATEHOUSE_CHECK(recipe.group_score == GroupScore::kLargest || group_size >= 2) << group_size;
  GATEHOUSE_CHECK(top_k >= 1 && top_k <= group_size * recipe.num_open_groups)
      << top_k << " of " << recipe.num_open_groups << " groups of " << group_size;
  GATEHOUSE_CHECK(args.choice_bias == nullptr || recipe.score != GateScore::kSoftmaxOfChosen);
  // Softmax over the chosen alone has no use for it.
  GATEHOUSE_CHECK(recipe.logit_scale > 0 &&
                  (recipe.logit_scale == 1 || recipe.score != GateScore::kSoftmaxOfChosen))
      << recipe.logit_scale;
  const int64_t num_ranked = args.expert_ids.num_cols;
  GATEHOUSE_CHECK(num_ranked >= top_k && num_ranked <= num_experts)
      << num_ranked << " ranks of " << num_experts << ", top " << top_k;
  CheckView(args.expert_ids, args.logits.num_rows, num_ranked);
  CheckView(args.weights, args.logits.num_rows, num_ranked);
  if (args.gate.data != nullptr) CheckView(args.gate, args.logits.num_rows, num_ranked);
  GATEHOUSE_CHECK(args.mass.empty() ||
                  static_cast<int64_t>(args.mass.size()) == args.logits.num_rows)
      << args.mass.size();
  GATEHOUSE_CHECK(static_cast<int64_t>(args.row_failed.size()) == args.logits.num_rows)
      << args.row_failed.size();
}

inline void CheckArgs(const CombineArgs& args) {
  GATEHOUSE_CHECK(static_cast<int64_t>(args.token_begin.size()) == args.out.num_rows + 1)
      << args.token_begin.size();
  GATEHOUSE_CHECK(args.expert_rows.num_cols == args.out.num_cols)
      << args.expert_rows.num_cols << " and " << args.out.num_cols;
  GATEHOUSE_CHECK(args.assignment_ids.size() == args.weights.size()) << args.weights.size();
  GATEHOUSE_CHECK(args.token_begin.front() == 0 &&
                  args.token_begin.back() == static_cast<int64_t>(args.weights.size()))
      << args.token_begin.back();
}

inline void CheckArgs(const AddArgs& args) {
  CheckView(args.x, args.out.num_rows, args.out.num_cols);
}

inline void CheckArgs(const SampleArgs& args) {
  const int64_t num_rows = args.logits.num_rows, vocab = args.logits.num_cols;
  GATEHOUSE_CHECK(static_cast<int64_t>(args.rows.size()) == num_rows &&
                  static_cast<int64_t>(args.samples.size()) == num_rows && vocab >= 1)
      << args.rows.size() << " " << args.samples.size();
  for (const RowSampling& row : args.rows) {
    GATEHOUSE_CHECK(row.forced_id < vocab) << row.forced_id << " of " << vocab;
    GATEHOUSE_CHECK(row.temperature >= 0 && row.repetition_penalty > 0)
        << row.temperature << " " << row.repetition_penalty;
    for (const int32_t id : row.repeated_ids) GATEHOUSE_CHECK(id >= 0 && id < vocab) << id;
    for (const auto& [id, bias] : row.bias) GATEHOUSE_CHECK(id >= 0 && id < vocab) << id;
    for (const int32_t id : row.wanted_ids) GATEHOUSE_CHECK(id >= 0 && id < vocab) << id;
    int32_t previous = -1;
    for (const int32_t id : row.allowed_ids) {
      GATEHOUSE_CHECK(id > previous && id < vocab) << id << " after " << previous;
      previous = id;
    }
  }
}

}  // namespace gatehouse
