// Encoding on one thread, in bytes of text per second, with the demo model's tokenizer (GPT-2's
// split) and the small one of Qwen's kind (NFC and Qwen's split): English prose, the corpus of all
// Unicode classes joined to one text, and texts of 1 MiB without a break; and what one short prompt
// costs.
#include <benchmark/benchmark.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "engine/tokenizer/tokenizer.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

constexpr size_t kMebibyte = size_t{1} << 20;

std::string SourcePath(const std::string& name) {
  return std::string(GATEHOUSE_SOURCE_DIR) + "/" + name;
}

std::string Prose() {
  std::ifstream stream(SourcePath("models/demo/samples.txt"));
  std::stringstream all;
  all << stream.rdbuf();
  GATEHOUSE_CHECK(!all.str().empty()) << "no models/demo/samples.txt";
  std::string text;
  while (text.size() < kMebibyte) text += all.str();
  return text;
}

std::string Corpus() {
  std::ifstream stream(SourcePath("tests/tokenizer/data/corpus.jsonl"));
  std::string text;
  for (std::string line; std::getline(stream, line);) {
    text += nlohmann::json::parse(line)["s"].get<std::string>() + "\n";
  }
  GATEHOUSE_CHECK(!text.empty()) << "no corpus.jsonl";
  return text;
}

std::string Unbroken() {
  std::string text;
  for (uint32_t state = 1; text.size() < kMebibyte;) {
    state = state * 1664525u + 1013904223u;
    text.push_back(static_cast<char>('a' + (state >> 24) % 26));
  }
  return text;
}

void Encode(benchmark::State& state, const std::string& model_dir, const std::string& text) {
  const auto tokenizer = LoadTokenizer(SourcePath(model_dir));
  GATEHOUSE_CHECK(tokenizer.ok()) << tokenizer.status();
  for (auto _ : state) {
    benchmark::DoNotOptimize((*tokenizer)->Encode(text, {}));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

constexpr const char* kDemo = "models/demo";
constexpr const char* kQwen2 = "tests/tokenizer/data/qwen2";

BENCHMARK_CAPTURE(Encode, demo_prose, kDemo, Prose());
BENCHMARK_CAPTURE(Encode, demo_corpus, kDemo, Corpus());
BENCHMARK_CAPTURE(Encode, demo_one_letter, kDemo, std::string(kMebibyte, 'a'));
BENCHMARK_CAPTURE(Encode, demo_random_letters, kDemo, Unbroken());
BENCHMARK_CAPTURE(Encode, demo_short_prompt, kDemo, "Once upon a time");
BENCHMARK_CAPTURE(Encode, qwen2_prose, kQwen2, Prose());
BENCHMARK_CAPTURE(Encode, qwen2_corpus, kQwen2, Corpus());

void Load(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(LoadTokenizer(SourcePath(kDemo)));
}
BENCHMARK(Load);

}  // namespace
}  // namespace gatehouse

BENCHMARK_MAIN();
