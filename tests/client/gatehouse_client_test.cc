#include "client/gatehouse_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <future>

#include "client/admin_client.h"
#include "client/connection_flags.h"
#include "client/rpc_error.h"
#include "tests/client/fake_server.h"

namespace gatehouse {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GatehouseClientTest : public ::testing::Test {
 protected:
  static std::unique_ptr<GatehouseClient> ConnectTo(const ClientOptions& options) {
    auto client = GatehouseClient::Connect(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  static v1::GenerateRequest Prompt(const std::string& text, int max_new_tokens = 5) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_stop()->set_max_new_tokens(max_new_tokens);
    return request;
  }

  FakeServer server_;
  const std::unique_ptr<GatehouseClient> client_ = ConnectTo({.target = server_.target()});
};

TEST_F(GatehouseClientTest, StreamsEveryEventInOrder) {
  std::vector<int> ids;
  std::string kinds;
  const absl::Status status = client_->Generate(Prompt("hi"), {}, [&](const auto& event) {
    kinds += event.has_started() ? 's' : event.has_delta() ? 'd' : 'f';
    for (const v1::Token& token : event.delta().tokens()) ids.push_back(token.id());
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(kinds, "sdddf");
  EXPECT_THAT(ids, ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(GatehouseClientTest, AReaderThatSaysEnoughCancelsTheRequest) {
  int num_events = 0;
  const absl::Status status =
      client_->Generate(Prompt("forever"), {}, [&](const auto&) { return ++num_events < 10; });
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(num_events, 10);
}

TEST_F(GatehouseClientTest, CancelFromAnotherThreadEndsTheStream) {
  const std::unique_ptr<GenerateStream> stream = client_->Generate(Prompt("forever"), {});
  v1::GenerateResponse event;
  ASSERT_TRUE(stream->Next(event));
  const auto cancelled = std::async(std::launch::async, [&] { stream->Cancel(); });
  while (stream->Next(event)) {
  }
  EXPECT_TRUE(absl::IsCancelled(stream->Finish()));
}

TEST_F(GatehouseClientTest, AStreamThatIsDroppedDoesNotHang) {
  v1::GenerateResponse event;
  EXPECT_TRUE(client_->Generate(Prompt("forever"), {})->Next(event));
}

TEST_F(GatehouseClientTest, TheTimeoutIsTheDeadline) {
  const auto stream = client_->Generate(Prompt("forever"), {.timeout = milliseconds(100)});
  v1::GenerateResponse event;
  while (stream->Next(event)) {
  }
  EXPECT_EQ(stream->Finish().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(GatehouseClientTest, FieldsAtFaultArriveAsText) {
  const absl::Status status = client_->Generate(Prompt("bad"), {})->Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DescribeError(status),
            "INVALID_ARGUMENT: the request is wrong\n  sampling.top_p: got 3, at most 1");
}

TEST_F(GatehouseClientTest, WhenToTryAgainArrives) {
  const auto client = ConnectTo({.target = server_.target(), .retry = {.max_tries = 1}});
  const absl::Status status = client->Generate(Prompt("busy"), {})->Finish();
  EXPECT_EQ(server_.service.num_requests.load(), 1);
  EXPECT_DOUBLE_EQ(DecodeError(status).retry_delay_seconds.value_or(0), 1.5);
  EXPECT_THAT(DescribeError(status), HasSubstr("try again in 1.5 s"));
}

class Counter final : public GenerateHandler {
 public:
  void OnEvent(const v1::GenerateResponse& event) override {
    num_starts += event.has_started() ? 1 : 0;
    num_tokens += event.delta().tokens_size();
  }
  void OnDone(const absl::Status& status) override {
    ++num_ends;
    done.set_value(status);
  }
  int num_starts = 0;
  int num_tokens = 0;
  int num_ends = 0;
  std::promise<absl::Status> done;
};

TEST_F(GatehouseClientTest, CallbackCallsEndExactlyOnce) {
  for (const bool cancel : {false, true}) {
    const auto handler = std::make_shared<Counter>();
    const auto call = client_->StartGenerate(Prompt(cancel ? "forever" : "hi", 40), {}, handler);
    if (cancel) call->Cancel();
    const absl::Status status = handler->done.get_future().get();
    EXPECT_EQ(status.code(), cancel ? absl::StatusCode::kCancelled : absl::StatusCode::kOk);
    if (!cancel) {
      EXPECT_EQ(handler->num_tokens, 40);
    }
    EXPECT_EQ(handler->num_ends, 1);
  }
}

TEST_F(GatehouseClientTest, WhatPassesIsTriedAgainUntilItWorks) {
  for (const char* prompt : {"crowded", "gone", "lost"}) {
    server_.service.num_requests = 0;
    server_.service.num_refusals = 2;
    std::string kinds;
    int num_retries = 0;
    const absl::Status status = client_->Generate(
        Prompt(prompt), {.on_retry = [&](auto&, auto) { ++num_retries; }}, [&](const auto& event) {
          kinds += event.has_started() ? 's' : event.has_delta() ? 'd' : 'f';
          return true;
        });
    EXPECT_TRUE(status.ok()) << prompt << ": " << status;
    EXPECT_EQ(kinds, "sdddf") << prompt;  // `started` of one try only
    EXPECT_EQ(num_retries, 2) << prompt;
    EXPECT_EQ(server_.service.num_requests.load(), 3) << prompt;
  }
}

TEST_F(GatehouseClientTest, CallbackCallsAreTriedAgainToo) {
  for (const char* prompt : {"crowded", "gone", "lost"}) {
    server_.service.num_requests = 0;
    server_.service.num_refusals = 2;
    const auto handler = std::make_shared<Counter>();
    const auto call = client_->StartGenerate(Prompt(prompt), {}, handler);
    const absl::Status status = handler->done.get_future().get();
    EXPECT_TRUE(status.ok()) << prompt << ": " << status;
    EXPECT_EQ(handler->num_starts, 1) << prompt;
    EXPECT_EQ(handler->num_tokens, 5) << prompt;
    EXPECT_EQ(handler->num_ends, 1) << prompt;
    EXPECT_EQ(server_.service.num_requests.load(), 3) << prompt;
  }
}

TEST_F(GatehouseClientTest, UnaryCallsAreTriedAgain) {
  server_.service.num_refusals = 2;
  v1::TokenizeRequest request;
  request.set_text("gone");
  EXPECT_EQ(client_->Tokenize(request, {})->ids_size(), 4);
  EXPECT_EQ(server_.service.num_requests.load(), 3);
}

TEST_F(GatehouseClientTest, TriesEnd) {
  const absl::Status status = client_->Generate(Prompt("gone"), {})->Finish();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(server_.service.num_requests.load(), RetryPolicy().max_tries);
}

TEST_F(GatehouseClientTest, AfterATokenNothingIsTriedAgain) {
  for (const char* prompt : {"torn", "full"}) {
    server_.service.num_requests = 0;
    EXPECT_FALSE(client_->Generate(Prompt(prompt), {})->Finish().ok());
    const auto handler = std::make_shared<Counter>();
    const auto call = client_->StartGenerate(Prompt(prompt), {}, handler);
    EXPECT_FALSE(handler->done.get_future().get().ok());
    EXPECT_EQ(server_.service.num_requests.load(), 2) << prompt;  // one each
  }
}

TEST_F(GatehouseClientTest, AWaitThatWouldPassTheDeadlineIsNotBegun) {
  const absl::Status status =
      client_->Generate(Prompt("busy"), {.timeout = milliseconds(1400)})->Finish();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(server_.service.num_requests.load(), 1);
}

TEST_F(GatehouseClientTest, CancelEndsTheWaitForARetry) {
  const auto client = ConnectTo(
      {.target = server_.target(),
       .retry = {.first_wait = std::chrono::hours(1), .max_wait = std::chrono::hours(1)}});
  std::promise<void> waits;
  const auto stream =
      client->Generate(Prompt("gone"), {.on_retry = [&](auto&, auto) { waits.set_value(); }});
  auto status = std::async(std::launch::async, [&] { return stream->Finish(); });
  waits.get_future().wait();
  stream->Cancel();
  EXPECT_TRUE(absl::IsCancelled(status.get()));

  std::promise<void> call_waits;
  const auto handler = std::make_shared<Counter>();
  const auto call = client->StartGenerate(
      Prompt("gone"), {.on_retry = [&](auto&, auto) { call_waits.set_value(); }}, handler);
  call_waits.get_future().wait();
  call->Cancel();
  EXPECT_TRUE(absl::IsCancelled(handler->done.get_future().get()));
  EXPECT_EQ(handler->num_ends, 1);
}

TEST_F(GatehouseClientTest, UnaryCallsReturnAnswersAndErrors) {
  v1::TokenizeRequest text;
  text.set_text("AB");
  EXPECT_THAT(client_->Tokenize(text, {})->ids(), ElementsAre(65, 66));
  EXPECT_EQ(client_->GetModelInfo({}, {})->vocab_size(), 10);
  v1::GetModelInfoRequest other;
  other.set_model("other");
  EXPECT_TRUE(absl::IsNotFound(client_->GetModelInfo(other, {}).status()));
  EXPECT_TRUE(absl::IsUnimplemented(client_->Detokenize({}, {}).status()));
}

TEST_F(GatehouseClientTest, TheTokenTravelsAsBearer) {
  const auto client = ConnectTo({.target = server_.target(), .auth_token = "secret"});
  EXPECT_TRUE(client->Generate(Prompt("hi"), {})->Finish().ok());
  EXPECT_EQ(server_.service.last_authorization, "Bearer secret");
}

TEST_F(GatehouseClientTest, HealthIsCheckedAndWatched) {
  server_.health().SetServingStatus("gatehouse.v1.Inference", false);
  EXPECT_EQ(*client_->CheckHealth("", {}), HealthState::kServing);
  EXPECT_EQ(*client_->CheckHealth("gatehouse.v1.Inference", {}), HealthState::kNotServing);
  EXPECT_TRUE(absl::IsNotFound(client_->CheckHealth("other", {}).status()));
  std::vector<HealthState> seen;
  const absl::Status status = client_->WatchHealth("", {}, [&](HealthState state) {
    seen.push_back(state);
    if (seen.size() == 1) server_.health().SetServingStatus("", false);
    return seen.size() < 2;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(seen, ElementsAre(HealthState::kServing, HealthState::kNotServing));
}

TEST_F(GatehouseClientTest, ConnectingReportsWhetherAServerIsThere) {
  EXPECT_TRUE(client_->WaitUntilConnected(milliseconds(5000)).ok());
  EXPECT_TRUE(client_->reachable());
  const auto nobody = ConnectTo({.target = "127.0.0.1:1"});
  EXPECT_TRUE(absl::IsUnavailable(nobody->WaitUntilConnected(milliseconds(5000))));
  EXPECT_FALSE(nobody->reachable());
  const absl::Status status = nobody->GetServerInfo({}).status();
  EXPECT_THAT(DescribeCallError(status, "127.0.0.1:1", nobody->reachable()),
              HasSubstr("cannot reach a server at 127.0.0.1:1"));
}

TEST_F(GatehouseClientTest, AProxyDoesNotCatchThisMachine) {
  setenv("grpc_proxy", "http://127.0.0.1:1", 1);
  setenv("no_grpc_proxy", "example.org",
         1);  // else no_proxy, which the caller's shell may have set
  const auto client = ConnectTo({.target = server_.target(), .connection_idx = 1});
  const absl::Status status = client->WaitUntilConnected(milliseconds(5000));
  unsetenv("grpc_proxy");
  unsetenv("no_grpc_proxy");
  EXPECT_TRUE(status.ok()) << status;
}

TEST(ConnectTest, SendsNoTokenUnencryptedToOtherMachines) {
  for (const char* here : {"localhost:1", "127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "unix:/x"}) {
    EXPECT_TRUE(GatehouseClient::Connect({.target = here, .auth_token = "t"}).ok()) << here;
  }
  for (const char* away : {"example.org:1", "127.example.org:1", "10.0.0.1:1", "[2001:db8::1]:1",
                           "localhost.example.org:1", "dns:///example.org:1", "[::10]:1"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        GatehouseClient::Connect({.target = away, .auth_token = "t"}).status()))
        << away;
    EXPECT_TRUE(
        absl::IsInvalidArgument(AdminClient::Connect({.target = away, .auth_token = "t"}).status()))
        << away;
    EXPECT_TRUE(
        GatehouseClient::Connect({.target = away, .use_tls = true, .auth_token = "t"}).ok());
    EXPECT_TRUE(GatehouseClient::Connect({.target = away}).ok());
  }
}

TEST(ConnectTest, RefusesTargetsThatGrpcWouldReadOtherwise) {
  for (const char* target : {"", "localhost", "127.0.0.1", "h:", "h:0", "h:99999", "h:-1", ":1",
                             "::1", "::1:50051", "h:1x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(GatehouseClient::Connect({.target = target}).status()))
        << target;
  }
  for (const char* target : {"h:1", "h:65535", "[::1]:1", "unix:/x", "dns:///h:1"}) {
    EXPECT_TRUE(GatehouseClient::Connect({.target = target}).ok()) << target;
  }
}

TEST(ConnectTest, RefusesHalfACertificate) {
  EXPECT_TRUE(absl::IsInvalidArgument(GatehouseClient::Connect({.target = ""}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      GatehouseClient::Connect({.use_tls = true, .tls_cert_pem = "x"}).status()));
}

}  // namespace
}  // namespace gatehouse
