#include "client/load_plan.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/terminal.h"
#include "client/text.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxPromptFileBytes = 256 << 20;
constexpr int kMaxVocabSize = 1 << 24;

absl::StatusOr<std::vector<std::string>> ReadPrompts(const std::string& path) {
  const absl::StatusOr<std::string> content = ReadAll(path, kMaxPromptFileBytes);
  if (!content.ok()) return content.status();
  const std::optional<size_t> bad_byte = FirstInvalidUtf8(*content);
  if (bad_byte.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s is not UTF-8 at byte %d", path, *bad_byte));
  }
  std::vector<std::string> lines = absl::StrSplit(*content, '\n', absl::SkipEmpty());
  if (lines.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat("%s holds no prompts (one a line)", path));
  }
  return lines;
}

}  // namespace

uint64_t SeededRandom::Next() {
  state_ += 0x9E3779B97F4A7C15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

double SeededRandom::NextUnit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

// The remainder favours small values by less than bound / 2^64: nothing for a vocabulary.
uint64_t SeededRandom::NextBelow(uint64_t bound) { return Next() % bound; }

double PoissonArrivals::NextSeconds() {
  seconds_ += -std::log1p(-random_.NextUnit()) / rate_;
  return seconds_;
}

absl::StatusOr<RequestPlan> RequestPlan::Create(const LoadOptions& options,
                                                const v1::ModelInfo& model) {
  RequestPlan plan;
  plan.seed_ = options.seed;
  if (options.prompt_file.empty()) {
    if (model.vocab_size() <= 0 || model.vocab_size() > kMaxVocabSize) {
      return absl::FailedPreconditionError(
          absl::StrFormat("the server says its vocabulary has %d tokens, expected 1 to %d",
                          model.vocab_size(), kMaxVocabSize));
    }
    const auto& special_ids = model.eos_token_ids();
    for (int32_t id = 0; id < model.vocab_size(); ++id) {
      if (std::find(special_ids.begin(), special_ids.end(), id) == special_ids.end()) {
        plan.ordinary_ids_.push_back(id);
      }
    }
    if (plan.ordinary_ids_.empty()) return absl::FailedPreconditionError("every token ends a text");
    plan.num_prompt_tokens_ = options.num_prompt_tokens;
  } else {
    absl::StatusOr<std::vector<std::string>> texts = ReadPrompts(options.prompt_file);
    if (!texts.ok()) return texts.status();
    plan.texts_ = *std::move(texts);
  }
  v1::GenerateRequest& request = plan.template_;
  request.mutable_stop()->set_max_new_tokens(options.max_new_tokens);
  request.mutable_stop()->set_ignore_eos(options.ignore_eos);
  if (options.mode != v1::Routing::MODE_UNSPECIFIED) {
    request.mutable_routing()->set_mode(options.mode);
  }
  if (options.temperature >= 0) {
    request.mutable_sampling()->set_temperature(static_cast<float>(options.temperature));
  }
  return plan;
}

v1::GenerateRequest RequestPlan::Request(uint64_t request_idx) const {
  v1::GenerateRequest request = template_;
  // A generator of its own for each request: which prompt it gets depends on its number alone.
  SeededRandom random(SeededRandom(seed_).Next() + request_idx);
  request.mutable_sampling()->set_seed(random.Next());
  if (!texts_.empty()) {
    request.set_text(texts_[request_idx % texts_.size()]);
    return request;
  }
  auto& ids = *request.mutable_tokens()->mutable_ids();
  ids.Reserve(num_prompt_tokens_);
  for (int i = 0; i < num_prompt_tokens_; ++i) {
    ids.Add(ordinary_ids_[random.NextBelow(ordinary_ids_.size())]);
  }
  return request;
}

}  // namespace gatehouse
