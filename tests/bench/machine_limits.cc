#include "tests/bench/machine_limits.h"

#include <atomic>

#include "kernels/base/check.h"
#include "kernels/base/clock.h"
#include "kernels/cpu/peak.h"

namespace gatehouse::bench {
namespace {

constexpr int kSamples = 3;

template <typename Work>  // does it once and returns the amount
double BestRate(const Work& work) {
  const SteadyClock clock;
  double best = 0;
  for (int i = 0; i < kSamples; ++i) {
    const TimePoint start = clock.Now();
    const double amount = work();
    best = std::max(best, amount / ToSeconds(clock.Now() - start));
  }
  return best;
}

}  // namespace

double MachineLimits::FlopsPerSecond(ThreadPool& pool) {
  GATEHOUSE_CHECK(pool.num_threads() <= kMaxThreads);
  constexpr int kUnitsPerThread = 32;
  constexpr int64_t kRounds = 20'000;  // some 50 us a unit
  const cpu::PeakLoops loops = cpu::PeakLoopsOf("avx2");
  double& best = flops_[pool.num_threads()];
  return best = std::max(best, BestRate([&] {
                           const int num_units = kUnitsPerThread * pool.num_threads();
                           double each = 0;
                           pool.Run(num_units, [&](int thread, int) {
                             const double operations = loops.float_operations(kRounds);
                             if (thread == 0) each = operations;
                           });
                           return each * num_units;
                         }));
}

double MachineLimits::ReadBytesPerSecond(ThreadPool& pool, const char* data, size_t num_bytes) {
  GATEHOUSE_CHECK(pool.num_threads() <= kMaxThreads);
  constexpr size_t kPiece = size_t{1} << 20;
  const cpu::PeakLoops loops = cpu::PeakLoopsOf("avx2");
  double& best = bytes_[pool.num_threads()];
  return best = std::max(best, BestRate([&] {
                           const int num_units = static_cast<int>(num_bytes / kPiece);
                           pool.Run(num_units, [&](int, int unit) {
                             loops.read(data + unit * kPiece, kPiece);
                           });
                           return static_cast<double>(num_units) * kPiece;
                         }));
}

}  // namespace gatehouse::bench
