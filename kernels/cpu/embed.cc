// Rows of the embedding table, widened to f32. The table is the checkpoint's own bytes, at any
// address. Not split among threads: a row is one copy, and even 512 of them cost less than a
// region.
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_checks.h"

namespace gatehouse::cpu {
namespace {

void WidenRow(const char* source, DType dtype, int64_t count, float* out) {
  if (dtype == DType::kF32) {
    std::memcpy(out, source, static_cast<size_t>(count) * 4);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, source + i * 2, 2);
    out[i] = dtype == DType::kBF16 ? BF16ToF32(bits) : F16ToF32(bits);
  }
}

}  // namespace

void Embed(Machine /*machine*/, const BatchLayout& layout, const EmbedArgs& args) {
  const WeightView& table = args.table;
  CheckArgs(args, layout);
  for (int64_t r = 0; r < args.out.num_rows; ++r) {
    const int64_t id = layout.token_ids[r];
    float* out = args.out.row(r);
    WidenRow(static_cast<const char*>(table.At(id, 0)), table.dtype, table.num_cols, out);
    for (int64_t c = 0; args.scale != 1 && c < table.num_cols; ++c) out[c] *= args.scale;
  }
}

}  // namespace gatehouse::cpu
