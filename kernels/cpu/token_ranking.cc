#include "kernels/cpu/token_ranking.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace gatehouse::cpu {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 23;  // times 2^40 units: fits 63 bits

void SortByRank(std::span<RankedToken> tokens) {
  const auto before = [](const RankedToken& a, const RankedToken& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.idx < b.idx;
  };
  // Many equal logits come in order already.
  if (!std::is_sorted(tokens.begin(), tokens.end(), before)) {
    std::sort(tokens.begin(), tokens.end(), before);
  }
}

}  // namespace

TokenRanking::TokenRanking(const SampleKernels& kernels, std::span<const float> logits,
                           float temperature, RankedToken* scratch)
    : kernels_(kernels), logits_(logits), scratch_(scratch) {
  const int64_t num_tokens = static_cast<int64_t>(logits.size());
  GATEHOUSE_CHECK(num_tokens <= kMaxTokens) << num_tokens;
  const LogitRange range = kernels.range(logits.data(), num_tokens);
  distance_.largest = range.largest;
  distance_.inverse_temperature = 1 / std::max(temperature, 1e-30f);
  // Buckets cover what there is, so that a hot, flat distribution does not fall into a few.
  const float width = (range.largest - range.smallest) * distance_.inverse_temperature;
  distance_.buckets_per_unit = (kNumBuckets - 1) / std::clamp(width, 1e-6f, kMaxDistance);
  kernels.histogram(logits.data(), num_tokens, distance_, buckets_.data());
}

std::span<RankedToken> TokenRanking::Sorted(int bucket) {
  const std::span<RankedToken> tokens(scratch_, buckets_[bucket].count);
  if (sorted_bucket_ != bucket) {
    const int64_t count = kernels_.collect(logits_.data(), static_cast<int64_t>(logits_.size()),
                                           distance_, {bucket, bucket}, scratch_);
    GATEHOUSE_CHECK(count == buckets_[bucket].count) << count << " " << buckets_[bucket].count;
    SortByRank(tokens);
    sorted_bucket_ = bucket;
  }
  return tokens;
}

TokenRanking::Head TokenRanking::Extend(const Place& place, int64_t count) {
  Head head = place.before;
  for (const RankedToken& token : Sorted(place.bucket).first(count)) {
    head.mass += token.mass;
    head.last_idx = token.idx;
  }
  head.count += count;
  return head;
}

TokenRanking::Head TokenRanking::All() {
  Head head;
  for (const Bucket& bucket : buckets_) {
    head.count += bucket.count;
    head.mass += bucket.mass;
  }
  return head;
}

TokenRanking::Head TokenRanking::FirstTokens(int64_t count) {
  Place place;
  for (; place.bucket < kNumBuckets; ++place.bucket) {
    const Bucket& bucket = buckets_[place.bucket];
    if (place.before.count + bucket.count >= count) {
      return Extend(place, count - place.before.count);
    }
    place.before.count += bucket.count;
    place.before.mass += bucket.mass;
  }
  return place.before;
}

TokenRanking::Head TokenRanking::FirstMass(uint64_t mass) {
  Place place;
  for (; place.bucket < kNumBuckets; ++place.bucket) {
    const Bucket& bucket = buckets_[place.bucket];
    if (place.before.mass + bucket.mass >= mass) break;
    place.before.count += bucket.count;
    place.before.mass += bucket.mass;
  }
  GATEHOUSE_CHECK(place.bucket < kNumBuckets) << mass << " of " << place.before.mass;
  Head head = place.before;
  for (const RankedToken& token : Sorted(place.bucket)) {
    ++head.count;
    head.mass += token.mass;
    head.last_idx = token.idx;
    if (head.mass >= mass) break;
  }
  return head;
}

TokenRanking::Head TokenRanking::Within(float distance) {
  // Buckets are rounded: the limit's own bucket and its neighbour may hold both sides of it.
  Place place;
  for (; place.bucket < kNumBuckets; ++place.bucket) {
    const Bucket& bucket = buckets_[place.bucket];
    const float upper_end = (static_cast<float>(place.bucket) + 1) / distance_.buckets_per_unit;
    if (bucket.count > 0 && upper_end > distance) {
      const std::span<const RankedToken> tokens = Sorted(place.bucket);
      const auto end = std::find_if(tokens.begin(), tokens.end(), [&](const RankedToken& token) {
        return token.distance > distance;
      });
      if (end != tokens.end()) return Extend(place, end - tokens.begin());
    }
    place.before.count += bucket.count;
    place.before.mass += bucket.mass;
  }
  return place.before;
}

std::span<RankedToken> TokenRanking::Tokens(const Head& head) {
  int last = 0;
  for (int64_t count = buckets_[0].count; count < head.count; count += buckets_[last].count) ++last;
  sorted_bucket_ = -1;
  const int64_t count = kernels_.collect(logits_.data(), static_cast<int64_t>(logits_.size()),
                                         distance_, {0, last}, scratch_);
  SortByRank({scratch_, static_cast<size_t>(count)});
  return {scratch_, static_cast<size_t>(head.count)};
}

}  // namespace gatehouse::cpu
