#include "kernels/cpu/machine_limits.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/clock.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/peak.h"

namespace gatehouse::cpu {
namespace {

// A neighbour may have had the core: the best of some samples is nearest to the limit.
constexpr int kSamples = 4;
constexpr double kSamplingSeconds = 0.04;  // of each rate: a busy machine gives fewer samples
constexpr size_t kReadBytes = size_t{128} << 20;  // more than caches hold
constexpr size_t kPiece = size_t{1} << 20;
constexpr int kUnitsPerThread = 8;
constexpr double kUnitSeconds = 5e-4;

double Seconds(const SteadyClock& clock, TimePoint since) { return ToSeconds(clock.Now() - since); }

double ReadRate(ThreadPool& pool, void (*read)(const char* data, size_t num_bytes)) {
  const absl::StatusOr<Buffer> memory = AllocateZeroed(kReadBytes);
  if (!memory.ok()) return 0;
  char* data = memory->as<char>();
  const int num_pieces = static_cast<int>(kReadBytes / kPiece);
  // Pages come with the first write; until then all of them are one page of zeros.
  pool.Run(num_pieces, [&](int, int unit) { std::memset(data + unit * kPiece, 1, kPiece); });
  const SteadyClock clock;
  const TimePoint begin = clock.Now();
  double best = 0;
  for (int i = 0; i < kSamples && Seconds(clock, begin) < kSamplingSeconds; ++i) {
    const TimePoint start = clock.Now();
    pool.Run(num_pieces, [&](int, int unit) { read(data + unit * kPiece, kPiece); });
    best = std::max(best, static_cast<double>(kReadBytes) / Seconds(clock, start));
  }
  return best;
}

double OperationRate(ThreadPool& pool, double (*operations)(int64_t num_rounds)) {
  const SteadyClock clock;
  int64_t num_rounds = 1000;
  while (true) {  // of one unit
    const TimePoint start = clock.Now();
    operations(num_rounds);
    if (Seconds(clock, start) > kUnitSeconds) break;
    num_rounds *= 2;
  }
  const int num_units = kUnitsPerThread * pool.num_threads();
  const TimePoint begin = clock.Now();
  double best = 0;
  for (int i = 0; i < kSamples && Seconds(clock, begin) < kSamplingSeconds; ++i) {
    double each = 0;
    const TimePoint start = clock.Now();
    pool.Run(num_units, [&](int thread, int) {
      const double done = operations(num_rounds);
      if (thread == 0) each = done;
    });
    best = std::max(best, each * num_units / Seconds(clock, start));
  }
  return best;
}

}  // namespace

MachineLimits MeasureLimits(std::string_view isa, ThreadPool& pool) {
  const PeakLoops loops = PeakLoopsOf(isa);
  return {.read_bytes_per_second = ReadRate(pool, loops.read),
          .float_operations_per_second = OperationRate(pool, loops.float_operations),
          .integer_operations_per_second = OperationRate(pool, loops.integer_operations)};
}

}  // namespace gatehouse::cpu
