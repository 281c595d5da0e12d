#include <cmath>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {

void ReferenceBackend::Embed(const EmbedArgs& args) {
  CheckArgs(args, layout_);
  for (int64_t r = 0; r < args.out.num_rows; ++r) {
    for (int64_t c = 0; c < args.out.num_cols; ++c) {
      args.out.row(r)[c] = args.table.at(layout_.token_ids[r], c) * args.scale;
    }
  }
}

// Rule R17 fixes the bits, so this one is in f32 here too.
void ReferenceBackend::Combine(const CombineArgs& args) {
  CheckArgs(args);
  for (int64_t r = 0; r < args.out.num_rows; ++r) {
    for (int64_t c = 0; c < args.out.num_cols; ++c) {
      float y = 0;
      for (int32_t i = args.token_begin[r]; i < args.token_begin[r + 1]; ++i) {
        y = std::fma(args.weights[i], args.expert_rows.row(args.assignment_ids[i])[c], y);
      }
      args.out.row(r)[c] = y;
    }
  }
}

void ReferenceBackend::Add(const AddArgs& args) {
  CheckArgs(args);
  for (int64_t r = 0; r < args.out.num_rows; ++r) {
    double scale = args.scale;
    if (args.gates != nullptr) scale /= 1 + std::exp(-double{args.gates[r]});
    for (int64_t c = 0; c < args.out.num_cols; ++c) {
      args.out.row(r)[c] = static_cast<float>(scale * args.x.row(r)[c] + args.out.row(r)[c]);
    }
  }
}

}  // namespace gatehouse
