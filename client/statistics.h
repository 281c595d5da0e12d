// Numbers of a load run: a histogram of fixed memory for latencies, and median and spread over
// repeats. Values, any thread.
#pragma once

#include <cstdint>
#include <vector>

namespace gatehouse {

// Counts durations in buckets that grow by a sixty-fourth of an octave, from 100 ns to 10^5 s: what
// Percentile returns is within 0.6 % of a value that was recorded. Least, greatest and mean are
// exact. 20 KiB, however long the run.
class LatencyHistogram {
 public:
  LatencyHistogram();
  // Negative values count as 0.
  void Record(double seconds, int64_t count = 1);
  void Merge(const LatencyHistogram& other);

  int64_t count() const { return count_; }
  double min() const { return count_ == 0 ? 0 : min_; }
  double max() const { return count_ == 0 ? 0 : max_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }
  // The value of rank ceil(percent / 100 * count) in ascending order; 0 without values.
  double Percentile(double percent) const;

 private:
  std::vector<int64_t> counts_;  // [num_buckets]
  int64_t count_ = 0;
  double sum_ = 0;
  double min_ = 0;
  double max_ = 0;
};

// Of an even number of values, the mean of the two in the middle; 0 of none.
double Median(std::vector<double> values);
// Median of the distances to the median.
double MedianAbsoluteDeviation(const std::vector<double>& values);

}  // namespace gatehouse
