#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/op_checks.h"
#include "kernels/reference/kv.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {
namespace {

double InverseRms(std::span<const double> x, float eps) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return 1 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
}

struct HeadRotation {
  const float* norm;  // [head_dim] or null
  float eps;
  RopeTable rope;
};

// Norm, then rotation of channel i with channel i + rotary_dim / 2:
//   a' = a cos - b sin     b' = b cos + a sin
void NormAndRotate(const HeadRotation& how, int32_t position, std::span<float> head) {
  std::vector<double> x(head.begin(), head.end());
  if (how.norm != nullptr) {
    const double inverse = InverseRms(x, how.eps);
    for (size_t i = 0; i < x.size(); ++i) x[i] *= inverse * how.norm[i];
  }
  const int half = how.rope.rotary_dim / 2;
  const float* cosines = how.rope.row(position);
  const float* sines = cosines + half;
  for (int i = 0; i < half; ++i) {
    const double a = x[i], b = x[i + half];
    x[i] = a * cosines[i] - b * sines[i];
    x[i + half] = b * cosines[i] + a * sines[i];
  }
  for (size_t i = 0; i < x.size(); ++i) head[i] = static_cast<float>(x[i]);
}

}  // namespace

void ReferenceBackend::RmsNorm(const RmsNormArgs& args) {
  CheckArgs(args);
  const int64_t n = args.x.num_cols;
  for (int64_t r = 0; r < args.x.num_rows; ++r) {
    const std::vector<double> x(args.x.row(r), args.x.row(r) + n);
    const double inverse = InverseRms(x, args.eps);
    for (int64_t c = 0; c < n; ++c) {
      args.out.row(r)[c] = static_cast<float>(x[c] * inverse * args.weight[c]);
    }
  }
}

void ReferenceBackend::RowNorms(const RowNormsArgs& args) {
  CheckArgs(args);
  for (int64_t r = 0; r < args.x.num_rows; ++r) {
    double sum = 0;
    for (int64_t c = 0; c < args.x.num_cols; ++c) {
      sum += double{args.x.row(r)[c]} * args.x.row(r)[c];
    }
    args.out[r] = static_cast<float>(std::sqrt(sum));
  }
}

void ReferenceBackend::QkvToCache(const QkvToCacheArgs& args) {
  CheckArgs(args, layout_);
  const KvShape& shape = args.kv.shape;
  const int head_dim = shape.head_dim;
  for (const SequenceSpan& sequence : layout_.sequences) {
    for (int r = sequence.first_row; r < sequence.first_row + sequence.num_rows; ++r) {
      const int32_t position = layout_.positions[r];
      const auto head = [&](int i) {
        return std::span<float>(args.qkv.row(r) + int64_t{i} * head_dim, head_dim);
      };
      for (int64_t i = 0; args.clip > 0 && i < args.qkv.num_cols; ++i) {
        args.qkv.row(r)[i] = std::clamp(args.qkv.row(r)[i], -args.clip, args.clip);
      }
      for (int h = 0; h < args.num_heads; ++h) {
        NormAndRotate({args.q_norm, args.norm_eps, args.rope}, position, head(h));
      }
      for (int h = 0; h < shape.num_kv_heads; ++h) {
        const std::span<float> key = head(args.num_heads + h);
        const std::span<float> value = head(args.num_heads + shape.num_kv_heads + h);
        NormAndRotate({args.k_norm, args.norm_eps, args.rope}, position, key);
        RoundToKvType(shape.type, key, KvRow(args.kv, sequence, position, KeyOrValue::kKey, h));
        RoundToKvType(shape.type, value, KvRow(args.kv, sequence, position, KeyOrValue::kValue, h));
      }
    }
  }
}

void ReferenceBackend::LatentToCache(const LatentToCacheArgs& args) {
  CheckArgs(args, layout_);
  const KvShape& shape = args.kv.shape;
  const int64_t rotary_dim = args.rope.rotary_dim, q_dim = args.q.num_cols / args.num_heads;
  const HeadRotation rotation{nullptr, 0, args.rope};
  for (const SequenceSpan& sequence : layout_.sequences) {
    for (int r = sequence.first_row; r < sequence.first_row + sequence.num_rows; ++r) {
      const int32_t position = layout_.positions[r];
      for (int64_t h = 0; h < args.num_heads; ++h) {
        const float* q_end = args.q.row(r) + (h + 1) * q_dim - rotary_dim;
        float* end = args.absorbed_q.row(r) + h * shape.head_dim + shape.value_prefix;
        for (int64_t i = 0; i < rotary_dim; ++i) end[i] = q_end[i];
        NormAndRotate(rotation, position, {end, static_cast<size_t>(rotary_dim)});
      }
      const std::span<float> latent(args.latent.row(r), shape.head_dim);
      NormAndRotate({args.norm, args.norm_eps, {}}, position, latent.first(shape.value_prefix));
      NormAndRotate(rotation, position, latent.subspan(shape.value_prefix));
      RoundToKvType(shape.type, latent, KvRow(args.kv, sequence, position, KeyOrValue::kKey, 0));
    }
  }
}

}  // namespace gatehouse
