#include "engine/step_stats.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <variant>

#include "tests/testing/engine_harness.h"

namespace gatehouse {
namespace {

// Notes what has been counted by the time that its reader can know of it.
class CountCheckingSink final : public TokenSink {
 public:
  explicit CountCheckingSink(const CountingObserver& observer) : observer_(observer) {}
  bool Push(SinkEvent event) override {
    num_tokens_ += std::holds_alternative<DeltaEvent>(event);
    EXPECT_GE(observer_.steps().size(), num_tokens_);
    return true;
  }
  void Close(absl::Status status) override {
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(observer_.ended().size(), 1u);
    closed_.store(true);
  }
  bool closed() const { return closed_; }

 private:
  const CountingObserver& observer_;
  size_t num_tokens_ = 0;  // each of a step
  std::atomic<bool> closed_ = false;
};

TEST(StepStatsTest, HasCountedStepsAndRequestBeforeTheReaderSeesThem) {
  EngineHarness harness({});
  const auto sink = std::make_shared<CountCheckingSink>(harness.observer());
  ASSERT_TRUE(harness.engine().Submit(HarnessRequest(4, 3), sink).ok());
  harness.engine().Drain(kNoDeadline);
  EXPECT_TRUE(sink->closed());
}

TEST(StepStatsTest, TellsTheObserverWhatHappened) {
  EngineHarness harness({});
  harness.Start(HarnessRequest(20, 5))->WaitForClose().IgnoreError();
  harness.Start(HarnessRequest(10, 3))->WaitForClose().IgnoreError();
  harness.engine().Drain(kNoDeadline);
  const CountingObserver& observer = harness.observer();
  EXPECT_EQ(observer.num_first_tokens(), 2);
  EXPECT_EQ(observer.num_later_tokens(), 6);
  ASSERT_EQ(observer.ended().size(), 2u);
  EXPECT_EQ(observer.ended()[0].num_generated_tokens, 5);
  EXPECT_EQ(observer.ended()[1].num_prompt_tokens, 10);
  EXPECT_GE(observer.ended()[1].time_to_first_token_seconds, 0);
  int64_t num_prefill = 0, num_decode = 0, num_routed = 0;
  for (const StepStats& step : observer.steps()) {
    num_prefill += step.num_prefill_tokens;
    num_decode += step.num_decode_tokens;
    EXPECT_EQ(step.num_kv_blocks_total, 64);
    ASSERT_EQ(step.layer_loads.size(), 2u);
    EXPECT_EQ(step.layer_loads[1].layer, 3);
    for (const int64_t tokens : step.layer_loads[1].expert_tokens) num_routed += tokens;
  }
  EXPECT_EQ(num_prefill, 30);
  EXPECT_EQ(num_decode, 6);
  EXPECT_EQ(num_routed, 36 * 2);
}

}  // namespace
}  // namespace gatehouse
