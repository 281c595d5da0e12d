// The matrix kernels of the CPU back end against the limits of the machine, measured in the same
// run: read bandwidth where weights stream from memory once (few rows), the FMA peak of 256-bit
// registers where they are used often. Weights are cold: each iteration takes the next of a set
// larger than the last-level cache.
//
//   GBps        packed bytes of the weights that were used / time (experts: those with rows)
//   GFLOPps     2 * rows * outputs * inputs / time
//   read_share  GBps / best read bandwidth;  fma_share  GFLOPps / best FMA rate
//
// SkewedFfn: 512 tokens, routed evenly and with one expert that gets half of the pairs.
//
//   kernels_bench --benchmark_filter=Gemm/bf16    GATEHOUSE_ISA=portable kernels_bench
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa_list.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/packed.h"
#include "tests/bench/machine_limits.h"

namespace gatehouse::bench {
namespace {

constexpr size_t kColdBytes = size_t{768} << 20;

std::vector<float> RandomFloats(int64_t count, uint64_t seed) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random() % 2001) / 1000 - 1;
  return values;
}

// Holds what outlives one benchmark: threads, limits, and the weights in use.
class KernelsBench {
 public:
  KernelsBench(const cpu::IsaKernels& isa, int num_threads)
      : isa_(isa), pool_(num_threads), arena_(*cpu::AllocateZeroed(kColdBytes)) {
    std::fill(arena_.as<char>(), arena_.as<char>() + kColdBytes, 1);
  }

  int num_threads() const { return pool_.num_threads(); }

  void Limits(benchmark::State& state) {
    for (auto _ : state) ReportLimits(state, 0, 0);
  }

  void Gemm(benchmark::State& state, WeightFormat format, int64_t num_outputs, int64_t num_inputs,
            int64_t num_rows) {
    const std::vector<float> source = RandomFloats(num_outputs * num_inputs, 1);
    const WeightView view{source.data(), DType::kF32, num_outputs, num_inputs};
    std::vector<std::unique_ptr<cpu::CpuPackedMatrix>> weights;
    for (size_t bytes = 0; bytes < kColdBytes; bytes += weights.back()->num_bytes()) {
      weights.push_back(*cpu::Pack(pool_, {&view, 1}, format));
    }
    std::vector<float> x = RandomFloats(num_rows * num_inputs, 2);
    std::vector<float> out(static_cast<size_t>(num_rows * num_outputs));
    size_t next = 0;
    for (auto _ : state) {
      cpu::Gemm({isa_, pool_, scratch_}, {.x = {x.data(), num_rows, num_inputs},
                                          .weights = weights[next].get(),
                                          .out = {out.data(), num_rows, num_outputs}});
      next = (next + 1) % weights.size();
    }
    ReportLimits(state, static_cast<double>(weights[0]->num_bytes()),
                 2.0 * static_cast<double>(num_rows * num_outputs * num_inputs));
  }

  // Model Q: 32 experts, 8 of them a token, hidden 1024, intermediate 512; uniform routing, or one
  // expert with half of the pairs.
  void ExpertFfn(benchmark::State& state, WeightFormat format, int64_t num_tokens,
                 bool half_on_one = false) {
    constexpr int kExperts = 32, kTopK = 8;
    constexpr int64_t kHidden = 1024, kIntermediate = 512;
    const std::vector<float> source = RandomFloats(kHidden * kIntermediate, 1);
    const WeightView wide{source.data(), DType::kF32, kIntermediate, kHidden};
    const WeightView tall{source.data(), DType::kF32, kHidden, kIntermediate};
    const std::vector<ExpertSource> experts(kExperts, {wide, wide, tall});
    std::vector<std::unique_ptr<cpu::CpuPackedExperts>> layers;
    for (size_t bytes = 0; bytes < kColdBytes; bytes += layers.back()->num_bytes()) {
      layers.push_back(*cpu::Pack(pool_, experts, format));
    }
    std::vector<std::vector<int32_t>> rows(kExperts);
    std::vector<int> ids(kExperts);
    std::iota(ids.begin(), ids.end(), 0);
    std::mt19937 random(3);
    for (int32_t t = 0; t < num_tokens; ++t) {
      std::shuffle(ids.begin(), ids.end(), random);
      for (int s = 0; s < kTopK; ++s) {
        rows[half_on_one && s % 2 == 0 ? 0 : ids[s]].push_back(t);
      }
    }
    std::vector<int32_t> row_ids, expert_begin{0};
    int num_used = 0;
    for (const std::vector<int32_t>& mine : rows) {
      row_ids.insert(row_ids.end(), mine.begin(), mine.end());
      expert_begin.push_back(static_cast<int32_t>(row_ids.size()));
      num_used += mine.empty() ? 0 : 1;
    }
    const int64_t num_pairs = static_cast<int64_t>(row_ids.size());
    std::vector<float> x = RandomFloats(num_tokens * kHidden, 2);
    std::vector<float> scratch(num_pairs * kIntermediate), out(num_pairs * kHidden);
    size_t next = 0;
    for (auto _ : state) {
      cpu::ExpertFfn({isa_, pool_, scratch_},
                     {.x = {x.data(), num_tokens, kHidden},
                      .groups = {row_ids, expert_begin},
                      .experts = layers[next].get(),
                      .scratch = {scratch.data(), num_pairs, kIntermediate},
                      .out = {out.data(), num_pairs, kHidden}});
      next = (next + 1) % layers.size();
    }
    ReportLimits(state, static_cast<double>(layers[0]->num_bytes()) * num_used / kExperts,
                 2.0 * 3 * static_cast<double>(num_pairs * kHidden * kIntermediate));
  }

 private:
  void ReportLimits(benchmark::State& state, double bytes, double operations) {
    const double read = limits_.ReadBytesPerSecond(pool_, arena_.as<char>(), kColdBytes);
    const double flops = limits_.FlopsPerSecond(pool_);
    using benchmark::Counter;
    state.counters["read_limit"] = read * 1e-9;
    state.counters["fma_limit"] = flops * 1e-9;
    if (bytes == 0) return;
    const double n = static_cast<double>(state.iterations());
    const auto rate = [&](double amount) { return Counter(amount * n, Counter::kIsRate); };
    state.counters["GBps"] = rate(bytes * 1e-9);
    state.counters["GFLOPps"] = rate(operations * 1e-9);
    state.counters["read_share"] = rate(bytes / read);
    state.counters["fma_share"] = rate(operations / flops);
  }

  const cpu::IsaKernels& isa_;
  ThreadPool pool_;
  cpu::OpScratch scratch_;
  const Buffer arena_;
  MachineLimits limits_;
};

void Register(KernelsBench& bench) {
  const auto add = [&](const std::string& name, auto run) {
    const std::string suffix = "/threads:" + std::to_string(bench.num_threads());
    benchmark::RegisterBenchmark((name + suffix).c_str(), run)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond)
        ->MinTime(0.3);
  };
  add("Limits", [&bench](benchmark::State& state) { bench.Limits(state); });
  for (const WeightFormat format : {WeightFormat::kBF16, WeightFormat::kF32}) {
    const std::string name(WeightFormatName(format));
    for (const int64_t m : {1, 2, 4, 8, 16, 64, 512}) {
      add("Gemm/" + name + "/1024x1024/rows:" + std::to_string(m),
          [=, &bench](benchmark::State& state) { bench.Gemm(state, format, 1024, 1024, m); });
    }
    add("Gemm/" + name + "/49152x1024/rows:1",
        [=, &bench](benchmark::State& state) { bench.Gemm(state, format, 49152, 1024, 1); });
    for (const int64_t t : {1, 8, 32, 512}) {
      add("ExpertFfn/" + name + "/tokens:" + std::to_string(t),
          [=, &bench](benchmark::State& state) { bench.ExpertFfn(state, format, t); });
    }
  }
  for (const WeightFormat format :
       {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const bool half_on_one : {false, true}) {
      const std::string spread = half_on_one ? "half_on_one" : "even";
      add("SkewedFfn/" + std::string(WeightFormatName(format)) + "/" + spread,
          [=, &bench](benchmark::State& state) {
            bench.ExpertFfn(state, format, 512, half_on_one);
          });
    }
  }
}

int Main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const char* wanted = std::getenv("GATEHOUSE_ISA");
  const auto isa = cpu::FindIsa(wanted == nullptr ? "" : wanted);
  GATEHOUSE_CHECK(isa.ok()) << isa.status().ToString();
  benchmark::AddCustomContext("isa", (*isa)->name);
  KernelsBench bench(**isa, static_cast<int>(std::thread::hardware_concurrency()));
  KernelsBench single(**isa, 1);
  Register(bench);
  Register(single);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace gatehouse::bench

int main(int argc, char** argv) { return gatehouse::bench::Main(argc, argv); }
