// Encoding on one thread, in bytes of text per second, with the demo model's tokenizer (GPT-2's
// split) and small ones of each family's kind: "mixed" is English prose and the corpus of all
// Unicode classes in equal parts, the others are texts of 1 MiB without a break; and what one short
// prompt costs.
#include <benchmark/benchmark.h>

#include <fstream>
#include <map>
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
    const nlohmann::json values = nlohmann::json::parse(line);
    if (values.contains("s")) text += values["s"].get<std::string>() + "\n";
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
constexpr const char* kFamilies[] = {"qwen2",   "llama3",      "mixtral",     "olmoe",
                                     "granite", "deepseek_v2", "deepseek_v3", "gpt_oss"};

std::string Repeated(const std::string& text) {
  std::string all;
  while (all.size() + text.size() <= kMebibyte) all += text;
  return all;
}

// Half prose, half the corpus.
std::string Mixed() {
  std::string text = Prose().substr(0, kMebibyte / 2);
  const std::string corpus = Corpus();
  while (text.size() < kMebibyte) text += corpus;
  return text;
}

}  // namespace

void RegisterAll() {
  const std::map<std::string, std::string> texts = {
      {"mixed", Mixed()},
      {"prose", Prose()},
      {"one_letter", Repeated("a")},
      {"random_letters", Unbroken()},
      {"spaces", Repeated(" ")},
      {"spaces_and_digit", std::string(kMebibyte - 1, ' ') + "7"},
      {"digits", Repeated("7")},
      {"emoji", Repeated("\U0001F600")},
      {"letter_and_space", Repeated("a ")},
      {"letter_and_digit", Repeated("a1")},
      {"marks", "e" + Repeated("\u0301")},
      {"unknown_letters", Repeated("\uA66E")}};
  const auto add = [&texts](const std::string& name, const std::string& dir) {
    for (const auto& [kind, text] : texts) {
      const std::string title = "Encode/" + name + "_" + kind;
      benchmark::RegisterBenchmark(
          title.c_str(), [dir, text = text](benchmark::State& state) { Encode(state, dir, text); });
    }
  };
  add("demo", kDemo);
  for (const std::string name : kFamilies) add(name, "tests/tokenizer/data/" + name);
}

namespace {

BENCHMARK_CAPTURE(Encode, demo_short_prompt, kDemo, "Once upon a time");
BENCHMARK_CAPTURE(Encode, mixtral_short_prompt, "tests/tokenizer/data/mixtral", "Once upon a time");

void Load(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(LoadTokenizer(SourcePath(kDemo)));
}
BENCHMARK(Load);

}  // namespace
}  // namespace gatehouse

int main(int argc, char** argv) {
  gatehouse::RegisterAll();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
