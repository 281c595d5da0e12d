#include "client/gatehouse_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <future>

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
  const absl::Status status = client_->Generate(Prompt("busy"), {})->Finish();
  EXPECT_DOUBLE_EQ(DecodeError(status).retry_delay_seconds.value_or(0), 1.5);
  EXPECT_THAT(DescribeError(status), HasSubstr("try again in 1.5 s"));
}

TEST_F(GatehouseClientTest, CallbackCallsEndExactlyOnce) {
  class Counter final : public GenerateHandler {
   public:
    void OnEvent(const v1::GenerateResponse& event) override {
      num_tokens += event.delta().tokens_size();
    }
    void OnDone(const absl::Status& status) override {
      ++num_ends;
      done.set_value(status);
    }
    int num_tokens = 0;
    int num_ends = 0;
    std::promise<absl::Status> done;
  };
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

TEST(ConnectTest, RefusesHalfACertificate) {
  EXPECT_TRUE(absl::IsInvalidArgument(GatehouseClient::Connect({.target = ""}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      GatehouseClient::Connect({.use_tls = true, .tls_cert_pem = "x"}).status()));
}

}  // namespace
}  // namespace gatehouse
