#include "server/generate_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "gatehouse/v1/admin.grpc.pb.h"
#include "tests/server/served_engine_test.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using GenerateServiceTest = ServedEngineTest;

TEST_F(GenerateServiceTest, StreamsStartedThenDeltasThenFinished) {
  StartServer();
  v1::GenerateRequest request = TextRequest("abc", 5);
  request.set_request_id("mine");
  request.mutable_output()->set_token_ids(true);
  request.mutable_output()->set_top_logprobs(0);
  const Stream stream = Generate(request);
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  ASSERT_GE(stream.events.size(), 3u);
  const v1::Started& started = stream.events.front().started();
  EXPECT_EQ(started.request_id(), "mine");
  EXPECT_EQ(started.prompt_tokens(), 4);
  EXPECT_THAT(started.prompt_token_ids(), ElementsAre(ByteTokenizer::kEndId, 'a', 'b', 'c'));
  for (size_t i = 1; i + 1 < stream.events.size(); ++i) {
    ASSERT_TRUE(stream.events[i].has_delta());
    EXPECT_EQ(stream.events[i].delta().tokens(0).logprob(), -0.5f);
  }
  EXPECT_EQ(stream.text(), "t0 t1 t2 t3 t4 ");
  const v1::Finished& finished = stream.events.back().finished();
  EXPECT_EQ(finished.reason(), v1::Finished::LENGTH);
  EXPECT_EQ(finished.usage().prompt_tokens(), 4);
  EXPECT_EQ(finished.usage().generated_tokens(), 5);
}

TEST_F(GenerateServiceTest, SendsThePromptBeforeTheFirstDelta) {
  StartServer();
  v1::GenerateRequest request = TextRequest("ab", 1);
  request.mutable_output()->set_prompt_logprobs(0);
  const Stream stream = Generate(request);
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  ASSERT_EQ(stream.events.size(), 4u);
  EXPECT_EQ(stream.events[1].prompt().tokens_size(), 3);
  EXPECT_TRUE(stream.events[2].has_delta());
}

TEST_F(GenerateServiceTest, GivesARequestWithoutIdOneOfItsOwn) {
  StartServer();
  const std::string first = Generate(TextRequest("a", 1)).events.at(0).started().request_id();
  const std::string second = Generate(TextRequest("a", 1)).events.at(0).started().request_id();
  EXPECT_FALSE(first.empty());
  EXPECT_NE(first, second);
}

TEST_F(GenerateServiceTest, TokenisesLongPromptsInTheFrontPool) {
  StartServer();
  const std::string text(3 * kMaxInlineBytes, 'a');
  const Stream stream = Generate(TextRequest(text, 1));
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  EXPECT_EQ(stream.events[0].started().prompt_tokens(), static_cast<int>(text.size()) + 1);
}

TEST_F(GenerateServiceTest, CancelEndsTheRequestInTheEngine) {
  StartServer();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, TextRequest("a", 1'000'000));
  v1::GenerateResponse response;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return engine_->num_open() == 0; }));
  EXPECT_TRUE(
      Eventually([&] { return ScrapeMetrics().find("code=\"CANCELLED\"") != std::string::npos; }));
}

TEST_F(GenerateServiceTest, ACallCancelledBeforeItsTurnIsNotTokenised) {
  config_.limits.front_threads = 1;
  std::promise<void> door;
  std::atomic<int> num_encoded = 0;
  StartServer({.on_encode = [&, opened = door.get_future().share()] {
    ++num_encoded;
    opened.wait();
  }});
  const std::string text(2 * kMaxInlineBytes, 'a');
  grpc::ClientContext first_context, second_context;
  auto first = stub_->Generate(&first_context, TextRequest(text, 1));
  EXPECT_TRUE(Eventually([&] { return num_encoded == 1; }));
  v1::GenerateRequest behind = TextRequest(text, 1);
  behind.set_request_id("behind");
  auto second = stub_->Generate(&second_context, behind);
  const auto admin = v1::Admin::NewStub(
      grpc::CreateChannel(server_->admin_address(), grpc::InsecureChannelCredentials()));
  v1::CancelRequestRequest cancel;
  cancel.set_request_id("behind");
  EXPECT_TRUE(Eventually([&] {
    grpc::ClientContext context;
    v1::CancelRequestResponse cancelled;
    return admin->CancelRequest(&context, cancel, &cancelled).ok();
  }));
  door.set_value();
  v1::GenerateResponse response;
  EXPECT_FALSE(second->Read(&response));
  EXPECT_EQ(second->Finish().error_code(), grpc::StatusCode::CANCELLED);
  while (first->Read(&response)) {
  }
  EXPECT_TRUE(first->Finish().ok());
  EXPECT_EQ(num_encoded, 1);
  EXPECT_EQ(engine_->submitted().size(), 1u);
}

TEST_F(GenerateServiceTest, AFullQueueRefusesBeforeThePromptIsTokenised) {
  std::atomic<int> num_encoded = 0;
  StartServer({.max_queued_requests = 1, .on_encode = [&] { ++num_encoded; }});
  grpc::ClientContext context;
  auto open = stub_->Generate(&context, TextRequest("a", 1'000'000));
  v1::GenerateResponse response;
  ASSERT_TRUE(open->Read(&response));
  EXPECT_EQ(num_encoded, 1);
  for (const size_t length : {size_t{1}, 2 * kMaxInlineBytes}) {
    const Stream refused = Generate(TextRequest(std::string(length, 'a'), 1));
    EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  EXPECT_EQ(num_encoded, 1);
  context.TryCancel();
  while (open->Read(&response)) {
  }
  open->Finish();
  EXPECT_TRUE(Eventually([&] { return engine_->num_open() == 0; }));
  EXPECT_TRUE(Generate(TextRequest("a", 1)).status.ok());
  EXPECT_EQ(num_encoded, 2);
}

TEST_F(GenerateServiceTest, ALostClientEndsTheRequestInTheEngine) {
  StartServer();
  {
    auto channel = grpc::CreateCustomChannel(server_->listen_address(),
                                             grpc::InsecureChannelCredentials(), {});
    grpc::ClientContext context;
    auto reader = v1::Inference::NewStub(channel)->Generate(&context, TextRequest("a", 1'000'000));
    v1::GenerateResponse response;
    ASSERT_TRUE(reader->Read(&response));
  }
  EXPECT_TRUE(Eventually([&] { return engine_->num_open() == 0; }));
}

TEST_F(GenerateServiceTest, TheDeadlineOfTheCallIsTheRequests) {
  StartServer();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const Stream stream = Generate(TextRequest("a", 1'000'000), &context);
  EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  ASSERT_EQ(engine_->submitted().size(), 1u);
  EXPECT_LT(engine_->submitted()[0].deadline, clock_.Now() + std::chrono::seconds(1));
  EXPECT_TRUE(Eventually([&] { return engine_->num_open() == 0; }));
  EXPECT_TRUE(Eventually(
      [&] { return ScrapeMetrics().find("code=\"DEADLINE_EXCEEDED\"") != std::string::npos; }));
  Generate(TextRequest("a", 1));
  EXPECT_EQ(engine_->submitted()[1].deadline, kNoDeadline);
}

TEST_F(GenerateServiceTest, ASlowReaderLosesItsStreamAndNobodyElsesSuffers) {
  StartServer({.text_bytes_per_token = 16 << 10});
  grpc::ClientContext context;
  auto slow = stub_->Generate(&context, TextRequest("a", 1'000'000));
  v1::GenerateResponse response;
  ASSERT_TRUE(slow->Read(&response));
  // Once gRPC's window is full, a write stays in flight and 1 MiB piles up behind it.
  ASSERT_TRUE(Eventually([&] { return engine_->num_open() == 0; }));
  EXPECT_TRUE(Generate(TextRequest("b", 3)).status.ok());
  while (slow->Read(&response)) {
  }
  const grpc::Status status = slow->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("reads too slowly"));
  EXPECT_FALSE(DetailOf<google::rpc::RetryInfo>(status).has_value());
}

TEST_F(GenerateServiceTest, AReaderThatNeverReadsAgainIsCutOff) {
  config_.limits.max_unread_seconds = 0.05;
  StartServer({.text_bytes_per_token = 16 << 10});
  grpc::ClientContext context;
  auto slow = stub_->Generate(&context, TextRequest("a", 1'000'000));
  v1::GenerateResponse response;
  ASSERT_TRUE(slow->Read(&response));
  ASSERT_TRUE(Eventually([&] {
    return ScrapeMetrics().find("code=\"RESOURCE_EXHAUSTED\"") != std::string::npos;
  })) << "ended although the client never reads on";
}

TEST_F(GenerateServiceTest, AFullQueueIsResourceExhaustedWithTheTimeToWait) {
  StartServer({.max_queued_requests = 0});
  const Stream stream = Generate(TextRequest("a", 1));
  EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto retry = DetailOf<google::rpc::RetryInfo>(stream.status);
  ASSERT_TRUE(retry.has_value());
  EXPECT_EQ(retry->retry_delay().seconds(), 1);
  EXPECT_EQ(retry->retry_delay().nanos(), 500'000'000);
}

TEST_F(GenerateServiceTest, MoreOpenCallsThanTheLimitAreRefused) {
  config_.limits.max_open_calls = 1;
  StartServer();
  grpc::ClientContext context;
  auto open = stub_->Generate(&context, TextRequest("a", 1'000'000));
  v1::GenerateResponse response;
  ASSERT_TRUE(open->Read(&response));
  const Stream refused = Generate(TextRequest("b", 1));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(DetailOf<google::rpc::RetryInfo>(refused.status).has_value());
  context.TryCancel();
}

TEST_F(GenerateServiceTest, AnInvalidRequestNamesTheFieldAndBothNumbers) {
  StartServer();
  v1::GenerateRequest request = TextRequest("a", 1);
  request.mutable_sampling()->set_top_p(1.5f);
  const Stream stream = Generate(request);
  EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto bad_request = DetailOf<google::rpc::BadRequest>(stream.status);
  ASSERT_TRUE(bad_request.has_value());
  ASSERT_EQ(bad_request->field_violations_size(), 1);
  EXPECT_EQ(bad_request->field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(bad_request->field_violations(0).description(), "got 1.5, must be in (0, 1]");
  EXPECT_TRUE(engine_->submitted().empty());
}

TEST_F(GenerateServiceTest, TheLogLineOfARefusedRequestHasTheClientsId) {
  logger_.~Logger();
  new (&logger_) Logger(LogFormat::kText, LogLevel::kInfo, /*file_descriptor=*/1);
  ::testing::internal::CaptureStdout();
  StartServer();
  v1::GenerateRequest request = TextRequest("a", 1);
  request.set_request_id("id-78");
  request.mutable_sampling()->set_n(0);
  Generate(request);
  request.set_request_id("no\nid");
  Generate(request);
  logger_.Flush();
  const std::string log = ::testing::internal::GetCapturedStdout();
  EXPECT_THAT(log, HasSubstr("id=id-78"));
  EXPECT_THAT(log, HasSubstr("request_id: not printable ASCII"));
  EXPECT_EQ(log.find("no\\u000aid"), std::string::npos) << log;
}

TEST_F(GenerateServiceTest, OtherModelsAreNotFound) {
  StartServer();
  v1::GenerateRequest request = TextRequest("a", 1);
  request.set_model("other");
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::NOT_FOUND);
  request.set_model("fake");
  EXPECT_TRUE(Generate(request).status.ok());
}

TEST_F(GenerateServiceTest, AModeWithoutPolicyIsRefusedSayingWhatToConfigure) {
  StartServer();
  v1::GenerateRequest shared = TextRequest("a", 1);
  shared.mutable_routing()->set_mode(v1::Routing::SHARED);
  EXPECT_EQ(Generate(shared).status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(Generate(shared).status.error_message(), HasSubstr("no policy for mode shared"));
}

TEST_F(GenerateServiceTest, OurOwnFaultsCarryTheIdThatTheLogRepeats) {
  logger_.~Logger();
  new (&logger_) Logger(LogFormat::kText, LogLevel::kError, /*file_descriptor=*/1);
  StartServer({.fail_text = "a weight is not finite"});
  v1::GenerateRequest request = TextRequest("secret prompt", 1);
  request.set_request_id("id-77");
  ::testing::internal::CaptureStdout();
  const Stream stream = Generate(request);
  logger_.Flush();
  const std::string log = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(stream.status.error_message(), HasSubstr("id-77"));
  EXPECT_THAT(stream.status.error_message(), ::testing::Not(HasSubstr("weight")));
  EXPECT_THAT(log, HasSubstr("a weight is not finite"));
  EXPECT_THAT(log, HasSubstr("id=id-77"));
  EXPECT_THAT(log, HasSubstr("status=INTERNAL"));
  EXPECT_THAT(log, ::testing::Not(HasSubstr("secret")));
}

TEST_F(GenerateServiceTest, LogsOneLineARequestWithItsTraceAndNoText) {
  logger_.~Logger();
  new (&logger_) Logger(LogFormat::kJson, LogLevel::kInfo, /*file_descriptor=*/1);
  StartServer();
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  grpc::ClientContext context;
  context.AddMetadata("traceparent", trace);
  ::testing::internal::CaptureStdout();
  Generate(TextRequest("secret prompt", 4), &context);
  logger_.Flush();
  const std::string log = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
  const auto line = nlohmann::json::parse(log, nullptr, false);
  ASSERT_FALSE(line.is_discarded()) << log;
  EXPECT_EQ(line.value("traceparent", ""), trace);
  EXPECT_EQ(line.value("status", ""), "OK");
  EXPECT_EQ(line.value("prompt_tokens", ""), "14");
  EXPECT_EQ(line.value("generated_tokens", ""), "4");
  EXPECT_THAT(log, ::testing::Not(HasSubstr("secret")));
  EXPECT_THAT(log, ::testing::Not(HasSubstr("t0")));
}

TEST_F(GenerateServiceTest, TokenizesAndDetokenizes) {
  StartServer();
  v1::TokenizeRequest request;
  request.set_text("a<|end|>");
  request.set_parse_special(true);
  request.set_add_special_tokens(false);
  v1::TokenizeResponse tokens;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->Tokenize(&context, request, &tokens).ok());
  }
  EXPECT_THAT(tokens.ids(), ElementsAre('a', ByteTokenizer::kEndId));
  v1::DetokenizeRequest back;
  *back.mutable_ids() = tokens.ids();
  back.set_skip_special_tokens(true);
  v1::DetokenizeResponse text;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->Detokenize(&context, back, &text).ok());
  }
  EXPECT_EQ(text.text(), "a");
  back.add_ids(-1);
  grpc::ClientContext context;
  const grpc::Status status = stub_->Detokenize(&context, back, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status)->field_violations(0).field(), "ids");
}

TEST_F(GenerateServiceTest, DescribesModelAndServer) {
  StartServer();
  v1::ModelInfo model;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->GetModelInfo(&context, {}, &model).ok());
  }
  EXPECT_EQ(model.name(), "fake");
  EXPECT_THAT(model.moe_layers(), ElementsAre(1, 2));
  EXPECT_EQ(model.default_sampling().temperature(), 0.7f);
  v1::ServerInfo server;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->GetServerInfo(&context, {}, &server).ok());
  EXPECT_EQ(server.version(), "1.2.3");
  EXPECT_EQ(server.limits().max_unread_bytes(), 1 << 20);
  EXPECT_EQ(server.limits().max_unread_prompt_bytes(), 16 << 20);
  EXPECT_EQ(server.limits().kv_cache_tokens(), 1600);
}

TEST_F(GenerateServiceTest, EveryOneOfManyMixedRequestsEndsOnce) {
  StartServer({.step_time = {}});
  constexpr int kThreads = 8, kRequests = 25;
  std::vector<std::thread> threads;
  std::atomic<int> num_ok = 0, num_cancelled = 0, num_other = 0;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kRequests; ++i) {
        grpc::ClientContext context;
        const bool cancels = (thread + i) % 3 == 0;
        auto reader = stub_->Generate(&context, TextRequest("a", cancels ? 100'000 : 20));
        v1::GenerateResponse response;
        for (int reads = 0; reader->Read(&response); ++reads) {
          if (cancels && reads == i) context.TryCancel();
        }
        const grpc::StatusCode code = reader->Finish().error_code();
        ++(code == grpc::OK ? num_ok : code == grpc::CANCELLED ? num_cancelled : num_other);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_other, 0);
  EXPECT_EQ(num_ok + num_cancelled, kThreads * kRequests);
  EXPECT_TRUE(Eventually([&] { return engine_->num_open() == 0; }));
}

}  // namespace
}  // namespace gatehouse
