#include "server/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/grpc_status.h"
#include "tests/testing/fake_engine.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class IgnoreSteps final : public StepObserver {
 public:
  void OnStep(const StepStats&) override {}
  void OnToken(double) override {}
  void OnFirstToken(double) override {}
  void OnRequestEnd(const RequestStats&) override {}
};

class ConvertTest : public ::testing::Test {
 protected:
  // What a client gets: conversion, then the engine's validation.
  absl::Status Check(const v1::GenerateRequest& message) {
    absl::StatusOr<Request> request = ToRequest(message, policy_, routing_, engine_);
    return request.ok() ? ValidateRequest(engine_.limits(), *request) : request.status();
  }
  static v1::GenerateRequest Text(const std::string& text = "hello") {
    v1::GenerateRequest message;
    message.set_text(text);
    return message;
  }

  SteadyClock clock_;
  IgnoreSteps observer_;
  FakeEngine engine_{{.max_context = 100}, clock_, observer_};
  TenantPolicy policy_;
  RoutingTable routing_;
};

TEST_F(ConvertTest, TakesTheModelsDefaultsWhereNothingIsSaid) {
  const auto request = ToRequest(Text("ab"), policy_, routing_, engine_);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->prompt_ids, ElementsAre(ByteTokenizer::kEndId, 'a', 'b'));
  EXPECT_EQ(request->sampling.temperature, 0.7f);
  EXPECT_FALSE(request->sampling.seed.has_value());
  EXPECT_FALSE(request->output.top_logprobs.has_value());
  EXPECT_EQ(request->priority, Priority::kNormal);
  EXPECT_EQ(request->deadline, kNoDeadline);
}

TEST_F(ConvertTest, ReadsEveryFieldAndTellsZeroFromNotSet) {
  v1::GenerateRequest message = Text();
  message.set_request_id("id 1");
  message.set_model("fake");
  message.set_add_special_tokens(false);
  message.set_priority(v1::GenerateRequest::HIGH);
  message.mutable_routing()->set_mode(v1::Routing::EXACT);
  v1::Sampling& sampling = *message.mutable_sampling();
  sampling.set_temperature(0);
  sampling.set_top_k(3);
  sampling.set_top_p(0.5f);
  sampling.set_min_p(0.25f);
  sampling.set_typical_p(0.75f);
  sampling.set_frequency_penalty(-1);
  sampling.set_presence_penalty(1);
  sampling.set_repetition_penalty(2);
  sampling.set_seed(std::numeric_limits<uint64_t>::max());
  sampling.set_n(1);
  (*sampling.mutable_logit_bias())[9] = -5;
  (*sampling.mutable_logit_bias())[4] = 5;
  sampling.add_allowed_token_ids(7);
  sampling.add_bad_words("no");
  v1::Stop& stop = *message.mutable_stop();
  stop.set_max_new_tokens(11);
  stop.set_min_new_tokens(2);
  stop.add_strings("end");
  stop.add_token_ids(8);
  stop.set_ignore_eos(true);
  stop.set_include_stop(true);
  v1::Output& output = *message.mutable_output();
  output.set_top_logprobs(0);
  output.set_prompt_logprobs(2);
  output.set_token_ids(true);
  output.set_routed_experts(true);
  output.set_moe_report(true);

  const auto request = ToRequest(message, policy_, routing_, engine_);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->id, "id 1");
  EXPECT_EQ(request->prompt_ids.size(), 5u) << "no special token";
  EXPECT_EQ(request->priority, Priority::kHigh);
  EXPECT_EQ(request->sampling.temperature, 0);
  EXPECT_EQ(request->sampling.top_k, 3);
  EXPECT_EQ(request->sampling.top_p, 0.5f);
  EXPECT_EQ(request->sampling.min_p, 0.25f);
  EXPECT_EQ(request->sampling.typical_p, 0.75f);
  EXPECT_EQ(request->sampling.frequency_penalty, -1);
  EXPECT_EQ(request->sampling.presence_penalty, 1);
  EXPECT_EQ(request->sampling.repetition_penalty, 2);
  EXPECT_EQ(request->sampling.seed, std::numeric_limits<uint64_t>::max());
  EXPECT_THAT(request->sampling.logit_bias, ElementsAre(Pair(4, 5), Pair(9, -5)));
  EXPECT_THAT(request->sampling.allowed_token_ids, ElementsAre(7));
  EXPECT_THAT(request->sampling.bad_words,
              ElementsAre(ElementsAre('n', 'o'), ElementsAre(' ', 'n', 'o')));
  EXPECT_EQ(request->stop.max_new_tokens, 11);
  EXPECT_EQ(request->stop.min_new_tokens, 2);
  EXPECT_THAT(request->stop.strings, ElementsAre("end"));
  EXPECT_THAT(request->stop.token_ids, ElementsAre(8));
  EXPECT_TRUE(request->stop.ignore_eos);
  EXPECT_TRUE(request->stop.include_stop);
  EXPECT_EQ(request->output.top_logprobs, 0);
  EXPECT_EQ(request->output.prompt_logprobs, 2);
  EXPECT_TRUE(request->output.token_ids);
  EXPECT_TRUE(request->output.routed_experts);
  EXPECT_TRUE(request->output.moe_report);
}

TEST_F(ConvertTest, TextOfUsersNeverBecomesASpecialToken) {
  v1::GenerateRequest message = Text("<|end|>");
  message.set_add_special_tokens(false);
  EXPECT_EQ(ToRequest(message, policy_, routing_, engine_)->prompt_ids.size(), 7u);
}

struct InvalidField {
  const char* path;
  std::function<void(v1::GenerateRequest&)> change;
};

TEST_F(ConvertTest, EveryInvalidFieldIsNamedByItsPath) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<InvalidField> fields = {
      {"input", [](auto& m) { m.clear_text(); }},
      {"text", [](auto& m) { m.set_text("\xff"); }},
      {"text", [](auto& m) { m.set_text(""), m.set_add_special_tokens(false); }},
      {"input", [](auto& m) { m.set_text(std::string(100, 'x')); }},
      {"tokens.ids", [](auto& m) { m.mutable_tokens(); }},
      {"tokens.ids[0]", [](auto& m) { m.mutable_tokens()->add_ids(257); }},
      {"tokens.ids[1]",
       [](auto& m) { m.mutable_tokens()->add_ids(1), m.mutable_tokens()->add_ids(-1); }},
      {"add_special_tokens",
       [](auto& m) { m.mutable_tokens()->add_ids(1), m.set_add_special_tokens(true); }},
      {"request_id", [](auto& m) { m.set_request_id(std::string(129, 'a')); }},
      {"request_id", [](auto& m) { m.set_request_id("a\nb"); }},
      {"priority", [](auto& m) { m.set_priority(static_cast<v1::GenerateRequest::Priority>(9)); }},
      {"routing.mode",
       [](auto& m) { m.mutable_routing()->set_mode(static_cast<v1::Routing::Mode>(9)); }},
      {"sampling.temperature", [](auto& m) { m.mutable_sampling()->set_temperature(-1); }},
      {"sampling.temperature", [](auto& m) { m.mutable_sampling()->set_temperature(kNan); }},
      {"sampling.top_k", [](auto& m) { m.mutable_sampling()->set_top_k(-1); }},
      {"sampling.top_p", [](auto& m) { m.mutable_sampling()->set_top_p(0); }},
      {"sampling.min_p", [](auto& m) { m.mutable_sampling()->set_min_p(2); }},
      {"sampling.typical_p", [](auto& m) { m.mutable_sampling()->set_typical_p(kNan); }},
      {"sampling.frequency_penalty",
       [](auto& m) { m.mutable_sampling()->set_frequency_penalty(3); }},
      {"sampling.presence_penalty",
       [](auto& m) { m.mutable_sampling()->set_presence_penalty(-3); }},
      {"sampling.repetition_penalty",
       [](auto& m) { m.mutable_sampling()->set_repetition_penalty(0); }},
      {"sampling.n", [](auto& m) { m.mutable_sampling()->set_n(0); }},
      {"sampling.logit_bias[257]",
       [](auto& m) { (*m.mutable_sampling()->mutable_logit_bias())[257] = 1; }},
      {"sampling.logit_bias[1]",
       [](auto& m) { (*m.mutable_sampling()->mutable_logit_bias())[1] = kNan; }},
      {"sampling.allowed_token_ids[0]",
       [](auto& m) { m.mutable_sampling()->add_allowed_token_ids(-1); }},
      {"sampling.bad_words[0]", [](auto& m) { m.mutable_sampling()->add_bad_words(""); }},
      {"sampling.bad_words[1]",
       [](auto& m) {
         m.mutable_sampling()->add_bad_words("x");
         m.mutable_sampling()->add_bad_words(std::string(64, 'y'));  // 65 after a space
       }},
      {"sampling.bad_words",
       [](auto& m) {
         for (int i = 0; i < 129; ++i) m.mutable_sampling()->add_bad_words("x");
       }},
      {"stop.max_new_tokens", [](auto& m) { m.mutable_stop()->set_max_new_tokens(0); }},
      {"stop.max_new_tokens", [](auto& m) { m.mutable_stop()->set_max_new_tokens(95); }},
      {"stop.min_new_tokens", [](auto& m) { m.mutable_stop()->set_min_new_tokens(-1); }},
      {"stop.strings[0]", [](auto& m) { m.mutable_stop()->add_strings(""); }},
      {"stop.token_ids[0]", [](auto& m) { m.mutable_stop()->add_token_ids(999); }},
      {"output.top_logprobs", [](auto& m) { m.mutable_output()->set_top_logprobs(21); }},
      {"output.prompt_logprobs", [](auto& m) { m.mutable_output()->set_prompt_logprobs(-1); }},
  };
  ASSERT_TRUE(Check(Text()).ok()) << "what each case changes one field of";
  for (const InvalidField& field : fields) {
    v1::GenerateRequest message = Text();
    field.change(message);
    const absl::Status status = Check(message);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field.path;
    const grpc::Status sent = ToGrpcStatus(status);
    google::rpc::Status details;
    google::rpc::BadRequest bad_request;
    ASSERT_TRUE(details.ParseFromString(sent.error_details())) << field.path;
    ASSERT_TRUE(details.details_size() == 1 && details.details(0).UnpackTo(&bad_request))
        << field.path;
    EXPECT_EQ(bad_request.field_violations(0).field(), field.path) << status;
    EXPECT_FALSE(bad_request.field_violations(0).description().empty());
  }
}

TEST_F(ConvertTest, ALongModelNameIsCountedAndNotRepeated) {
  v1::GenerateRequest message = Text();
  message.set_model(std::string(128, 'm'));
  EXPECT_THAT(std::string(Check(message).message()), HasSubstr(message.model()));
  message.set_model(std::string(129, 'm'));
  const absl::Status status = Check(message);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("129 bytes"));
  EXPECT_LT(status.message().size(), 129u);
}

TEST_F(ConvertTest, DetokenizesAsManyIdsAsItsLimitSays) {
  v1::DetokenizeRequest message;
  for (int i = 0; i < kMaxDetokenizeIds; ++i) message.add_ids('a');
  const auto text = Detokenize(message, engine_);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->text(), std::string(kMaxDetokenizeIds, 'a'));
  message.add_ids('a');
  EXPECT_EQ(Detokenize(message, engine_).status(),
            absl::InvalidArgumentError("ids: got 65537 tokens, the limit is 65536"));
}

TEST_F(ConvertTest, PinsThePolicyOfTheModeAndSaysWhatToConfigureWhereThereIsNone) {
  v1::GenerateRequest message = Text();
  message.mutable_routing()->set_mode(v1::Routing::ISOLATED);
  const absl::Status status = Check(message);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no policy for mode isolated"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--routing-config"));
  routing_.isolated = std::make_shared<const PinnedPolicy>(PinnedPolicy{.version = 7});
  const auto request = ToRequest(message, policy_, routing_, engine_);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->mode, RoutingMode::kIsolated);
  EXPECT_EQ(request->policy, routing_.isolated);
  EXPECT_FALSE(request->has_client_id);
  message.mutable_routing()->set_mode(v1::Routing::EXACT);
  message.set_request_id("mine");
  const auto exact = ToRequest(message, policy_, routing_, engine_);
  EXPECT_EQ(exact->policy, nullptr);
  EXPECT_TRUE(exact->has_client_id);
}

TEST(EventConverterTest, CarriesEverythingAnEventHolds) {
  EventConverter converter;
  converter.set_request_id("r");
  v1::GenerateResponse response;
  converter.Convert(StartedEvent{.num_prompt_tokens = 9, .num_cached_prompt_tokens = 4}, response);
  EXPECT_EQ(response.started().request_id(), "r");
  DeltaEvent delta{.text = "ab", .tokens = {}};
  delta.tokens.push_back({.id = 5,
                          .bytes = "\xc3",
                          .logprob = 0.0f,
                          .top = {{.id = 6, .logprob = -1}},
                          .routed_experts = RoutedExperts{{3, 1}, {0.75f, 0.25f}}});
  delta.tokens.push_back({.id = 6, .bytes = "", .logprob = {}, .top = {}, .routed_experts = {}});
  converter.Convert(std::move(delta), response);
  EXPECT_FALSE(response.has_started());
  const v1::Token& token = response.delta().tokens(0);
  EXPECT_EQ(token.bytes(), "\xc3");
  EXPECT_TRUE(token.has_logprob());
  EXPECT_EQ(token.top(0).id(), 6);
  EXPECT_THAT(token.routed_experts().expert_ids(), ElementsAre(3, 1));
  EXPECT_THAT(token.routed_experts().weights(), ElementsAre(0.75f, 0.25f));
  EXPECT_FALSE(response.delta().tokens(1).has_logprob());
  EXPECT_FALSE(response.delta().tokens(1).has_routed_experts());

  FinishedEvent finished;
  finished.reason = FinishReason::kStopString;
  finished.matched_stop = "end";
  finished.num_prompt_tokens = 9;
  finished.num_generated_tokens = 2;
  finished.num_preemptions = 1;
  finished.moe_report = MoeReport{.routes = {.assignments = 8, .kept = 8}};
  converter.Convert(finished, response);
  EXPECT_EQ(response.finished().matched_stop(), "end");
  EXPECT_FALSE(response.finished().has_matched_stop_token_id());
  EXPECT_EQ(response.finished().usage().cached_prompt_tokens(), 4) << "remembered from started";
  EXPECT_EQ(response.finished().timings().preemptions(), 1);
  EXPECT_TRUE(response.finished().moe_report().exact());
  EXPECT_EQ(response.finished().moe_report().mode(), v1::Routing::EXACT);
}

TEST(ToTimePointTest, NoDeadlineOfGrpcIsNoneOfTheEngines) {
  SteadyClock clock;
  EXPECT_EQ(ToTimePoint(std::chrono::system_clock::time_point::max(), clock), kNoDeadline);
  const TimePoint soon =
      ToTimePoint(std::chrono::system_clock::now() + std::chrono::hours(1), clock);
  EXPECT_GT(soon, clock.Now() + std::chrono::minutes(59));
  EXPECT_LE(soon, clock.Now() + std::chrono::minutes(61));
  const TimePoint past = ToTimePoint(std::chrono::system_clock::time_point{}, clock);
  EXPECT_LE(past, clock.Now());
}

}  // namespace
}  // namespace gatehouse
