#include "client/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace gatehouse {
namespace {

constexpr double kLeastSeconds = 1e-7;
constexpr int kBucketsPerOctave = 64;
constexpr int kNumBuckets = 40 * kBucketsPerOctave;  // 2^40 * 1e-7 s = 1.1e5 s

int BucketOf(double seconds) {
  if (!(seconds > kLeastSeconds)) return 0;
  const double position = std::log2(seconds / kLeastSeconds) * kBucketsPerOctave;
  return static_cast<int>(std::min<double>(position, kNumBuckets - 1));
}

double MiddleOf(int bucket) {
  return kLeastSeconds * std::exp2((bucket + 0.5) / kBucketsPerOctave);
}

}  // namespace

LatencyHistogram::LatencyHistogram() : counts_(kNumBuckets) {}

void LatencyHistogram::Record(double seconds, int64_t count) {
  if (count <= 0) return;
  seconds = seconds > 0 ? seconds : 0;
  min_ = count_ == 0 ? seconds : std::min(min_, seconds);
  max_ = count_ == 0 ? seconds : std::max(max_, seconds);
  sum_ += seconds * static_cast<double>(count);
  count_ += count;
  counts_[static_cast<size_t>(BucketOf(seconds))] += count;
}

void LatencyHistogram::Merge(const LatencyHistogram& other) {
  if (other.count_ == 0) return;
  min_ = count_ == 0 ? other.min_ : std::min(min_, other.min_);
  max_ = count_ == 0 ? other.max_ : std::max(max_, other.max_);
  sum_ += other.sum_;
  count_ += other.count_;
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
}

double LatencyHistogram::Percentile(double percent) const {
  if (count_ == 0) return 0;
  const double wanted = std::ceil(percent / 100 * static_cast<double>(count_));
  const int64_t rank = std::clamp<int64_t>(static_cast<int64_t>(wanted), 1, count_);
  int64_t num_seen = 0;
  for (int bucket = 0; bucket < kNumBuckets; ++bucket) {
    num_seen += counts_[static_cast<size_t>(bucket)];
    if (num_seen >= rank) return std::clamp(MiddleOf(bucket), min_, max_);
  }
  return max_;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double MedianAbsoluteDeviation(const std::vector<double>& values) {
  const double median = Median(values);
  std::vector<double> distances;
  distances.reserve(values.size());
  for (const double value : values) distances.push_back(std::abs(value - median));
  return Median(std::move(distances));
}

}  // namespace gatehouse
