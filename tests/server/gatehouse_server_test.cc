#include "server/gatehouse_server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "absl/strings/str_format.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/server/served_engine_test.h"

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

using GatehouseServerTest = ServedEngineTest;

grpc::health::v1::HealthCheckResponse::ServingStatus CheckHealth(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  grpc::ClientContext context;
  grpc::health::v1::Health::NewStub(channel)->Check(&context, request, &response);
  return response.status();
}

TEST_F(GatehouseServerTest, SaysThatItLoadsUntilThereIsAnEngine) {
  using Health = grpc::health::v1::HealthCheckResponse;
  config_.listen = config_.admin.listen = config_.metrics_listen = "127.0.0.1:0";
  config_.ready_file = ::testing::TempDir() + absl::StrFormat("loading.%d.json", getpid());
  auto server = GatehouseServer::Start(config_, facts_, Parts());
  ASSERT_TRUE(server.ok()) << server.status();
  channel_ = grpc::CreateChannel((*server)->listen_address(), grpc::InsecureChannelCredentials());
  stub_ = v1::Inference::NewStub(channel_);
  const std::string& metrics_address = (*server)->metrics_address();
  EXPECT_EQ(CheckHealth(channel_, ""), Health::NOT_SERVING);
  EXPECT_EQ(CheckHealth(channel_, "gatehouse.v1.Inference"), Health::NOT_SERVING);
  EXPECT_EQ(HttpGet(metrics_address, "/healthz").status, 200);
  EXPECT_EQ(HttpGet(metrics_address, "/readyz").status, 503);
  EXPECT_THAT(HttpGet(metrics_address, "/readyz").body, HasSubstr("loading"));
  EXPECT_THAT(HttpGet(metrics_address, "/metrics").body,
              HasSubstr("gatehouse_engine_state{state=\"loading\"} 1\n"));
  const grpc::Status refused = Generate(TextRequest("a", 1)).status;
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(DetailOf<google::rpc::RetryInfo>(refused).has_value());
  grpc::ClientContext context;
  v1::ServerInfo info;
  EXPECT_EQ(stub_->GetServerInfo(&context, {}, &info).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(std::ifstream(config_.ready_file).good());

  engine_ = std::make_unique<FakeEngine>(FakeEngineOptions{}, clock_, metrics_);
  metrics_.SetModel(engine_->model());
  ASSERT_TRUE((*server)->Serve(*engine_).ok());
  EXPECT_TRUE(std::ifstream(config_.ready_file).good());
  EXPECT_EQ(CheckHealth(channel_, ""), Health::SERVING);
  EXPECT_TRUE(Generate(TextRequest("a", 1)).status.ok());
}

TEST_F(GatehouseServerTest, HealthFollowsAStallAndItsEnd) {
  using Health = grpc::health::v1::HealthCheckResponse;
  config_.limits.stall_seconds = config_.limits.first_step_seconds = 0.01;
  StartServer();
  EXPECT_EQ(CheckHealth(channel_, ""), Health::SERVING);
  EXPECT_EQ(CheckHealth(channel_, "gatehouse.v1.Inference"), Health::SERVING);

  grpc::health::v1::HealthCheckRequest request;
  request.set_service("gatehouse.v1.Inference");
  grpc::ClientContext watch_context;
  auto watch = grpc::health::v1::Health::NewStub(channel_)->Watch(&watch_context, request);
  Health state;
  ASSERT_TRUE(watch->Read(&state));
  EXPECT_EQ(state.status(), Health::SERVING);

  engine_->Pause(true);
  grpc::ClientContext call_context;
  auto call = stub_->Generate(&call_context, TextRequest("a", 5));
  ASSERT_TRUE(watch->Read(&state));
  EXPECT_EQ(state.status(), Health::NOT_SERVING);
  EXPECT_EQ(CheckHealth(channel_, ""), Health::NOT_SERVING);
  const HttpResult ready = HttpGet(server_->metrics_address(), "/readyz");
  EXPECT_EQ(ready.status, 503);
  EXPECT_THAT(ready.body, HasSubstr("\"state\":\"stalled\""));
  EXPECT_FALSE(nlohmann::json::parse(ready.body, nullptr, false).is_discarded()) << ready.body;
  EXPECT_EQ(HttpGet(server_->metrics_address(), "/healthz").status, 200);

  engine_->Pause(false);
  ASSERT_TRUE(watch->Read(&state));
  EXPECT_EQ(state.status(), Health::SERVING);
  EXPECT_TRUE(
      Eventually([&] { return HttpGet(server_->metrics_address(), "/readyz").status == 200; }));
  watch_context.TryCancel();
}

TEST_F(GatehouseServerTest, DrainRefusesNewRequestsLetsRunningOnesEndAndCloses) {
  StartServer();
  grpc::ClientContext context;
  auto running = stub_->Generate(&context, TextRequest("a", 300));
  v1::GenerateResponse response;
  ASSERT_TRUE(running->Read(&response));
  bool all_ended = false;
  std::thread drain([&] { all_ended = server_->Drain(); });
  ASSERT_TRUE(Eventually([&] { return engine_->Status().draining; }));
  const Stream refused = Generate(TextRequest("b", 1));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  std::string text;
  do {
    text += response.delta().text();
  } while (running->Read(&response));
  EXPECT_TRUE(running->Finish().ok());
  EXPECT_THAT(text, HasSubstr("t299 "));
  drain.join();
  EXPECT_TRUE(all_ended);
  EXPECT_EQ(Generate(TextRequest("c", 1)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GatehouseServerTest, DrainEndsWhatIsLeftAfterItsTimeWithUnavailable) {
  StartServer();
  config_.drain_seconds = 0;
  auto second = GatehouseServer::Start(config_, facts_, Parts());
  ASSERT_TRUE(second.ok()) << second.status();
  server_ = nullptr;
  ASSERT_TRUE((*second)->Serve(*engine_).ok());
  channel_ = grpc::CreateChannel((*second)->listen_address(), grpc::InsecureChannelCredentials());
  stub_ = v1::Inference::NewStub(channel_);
  grpc::ClientContext context;
  auto running = stub_->Generate(&context, TextRequest("a", 1'000'000));
  v1::GenerateResponse response;
  ASSERT_TRUE(running->Read(&response));
  EXPECT_FALSE((*second)->Drain());
  while (running->Read(&response)) {
  }
  const grpc::Status status = running->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(DetailOf<google::rpc::RetryInfo>(status).has_value());
}

TEST_F(GatehouseServerTest, WhoeverWatchesAnIdleServerIsToldOfItsDrain) {
  StartServer();
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("gatehouse.v1.Inference");
  grpc::ClientContext context;
  auto watch = grpc::health::v1::Health::NewStub(channel_)->Watch(&context, request);
  grpc::health::v1::HealthCheckResponse state;
  ASSERT_TRUE(watch->Read(&state));
  EXPECT_EQ(state.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  bool told = false;
  std::thread reader([&] { told = watch->Read(&state); });
  EXPECT_TRUE(server_->Drain());
  reader.join();
  EXPECT_TRUE(told);
  EXPECT_EQ(state.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
}

TEST_F(GatehouseServerTest, ADrainHasTimeForAReaderThatIsSlow) {
  constexpr int kTokens = 200;  // 12.5 MiB: more than gRPC takes when nobody reads
  config_.limits.max_unread_bytes = size_t{64} << 20;
  StartServer({.text_bytes_per_token = 64 << 10});
  grpc::ClientContext context;
  auto slow = stub_->Generate(&context, TextRequest("a", kTokens));
  ASSERT_TRUE(Eventually([&] { return engine_->submitted().size() == 1; }));
  ASSERT_TRUE(Eventually([&] { return engine_->num_open() == 0; }));
  ASSERT_EQ(ScrapeMetrics().find("code=\"OK\""), std::string::npos) << "all was sent already";
  bool all_read = false;
  std::thread drain([&] { all_read = server_->Drain(); });
  // What a drain waits at least, and some more.
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));
  v1::GenerateResponse response;
  size_t num_bytes = 0;
  while (slow->Read(&response)) num_bytes += response.delta().text().size();
  EXPECT_TRUE(slow->Finish().ok());
  EXPECT_EQ(num_bytes, size_t{kTokens} * (64 << 10));
  drain.join();
  EXPECT_TRUE(all_read);
}

TEST_F(GatehouseServerTest, TheMetricsListenerAnswersItsPathsAndNothingElse) {
  StartServer();
  Generate(TextRequest("a", 3));
  const HttpResult metrics = HttpGet(server_->metrics_address(), "/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_THAT(metrics.headers, HasSubstr("text/plain; version=0.0.4"));
  EXPECT_THAT(metrics.body, HasSubstr("gatehouse_generated_tokens_total{model=\"fake\"} 3\n"));
  EXPECT_THAT(metrics.body, HasSubstr("gatehouse_engine_state{state=\"serving\"} 1\n"));
  EXPECT_EQ(HttpGet(server_->metrics_address(), "/readyz").body,
            "{\"ready\":true,\"state\":\"serving\",\"reasons\":[]}\n");
  EXPECT_EQ(HttpGet(server_->metrics_address(), "/healthz").status, 200);
  EXPECT_EQ(HttpGet(server_->metrics_address(), "/healthz", "HEAD").body, "");
  EXPECT_EQ(HttpGet(server_->metrics_address(), "/metrics", "POST").status, 405);
  EXPECT_EQ(HttpGet(server_->metrics_address(), "/etc/passwd").status, 404);
}

// In bytes: the reflection library has its own copy of these messages and does not export it.
TEST_F(GatehouseServerTest, ReflectionListsTheServices) {
  StartServer();
  const std::string request("\x3a\x00", 2);  // ServerReflectionRequest.list_services = 7: ""
  const grpc::Slice slice(request);
  const grpc::ByteBuffer message(&slice, 1);
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto done = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(nullptr);
  ASSERT_TRUE(done());
  call->WriteLast(message, {}, nullptr);
  ASSERT_TRUE(done());
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  ASSERT_TRUE(done());
  grpc::Slice answer;
  ASSERT_TRUE(response.DumpToSingleSlice(&answer).ok());
  const std::string names(reinterpret_cast<const char*>(answer.begin()), answer.size());
  EXPECT_THAT(names, HasSubstr("gatehouse.v1.Inference"));
  EXPECT_THAT(names, HasSubstr("grpc.health.v1.Health"));
  grpc::Status status;
  call->Finish(&status, nullptr);
  EXPECT_TRUE(done());
  EXPECT_TRUE(status.ok()) << status.error_message();
  queue.Shutdown();
}

TEST_F(GatehouseServerTest, ASecondServerOnTheSamePortDoesNotStart) {
  StartServer();
  ServerConfig config = config_;
  config.listen = server_->listen_address();
  const auto second = GatehouseServer::Start(config, facts_, Parts());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(config.listen));
  config.listen = "127.0.0.1:0";
  config.admin.listen = server_->admin_address();
  EXPECT_THAT(std::string(GatehouseServer::Start(config, facts_, Parts()).status().message()),
              HasSubstr(config.admin.listen));
  config.admin.listen = "127.0.0.1:0";
  config.metrics_listen = server_->metrics_address();
  EXPECT_THAT(std::string(GatehouseServer::Start(config, facts_, Parts()).status().message()),
              HasSubstr(config.metrics_listen));
}

std::string ReadWhole(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST_F(GatehouseServerTest, WithTlsOnlyClientsThatTheAuthoritySignedGetIn) {
  const std::string base = ::testing::TempDir() + absl::StrFormat("tls.%d", getpid());
  config_.tls = {.certificate = base + ".crt", .key = base + ".key", .client_ca = base + ".crt"};
  const std::string command = absl::StrFormat(
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj "
      "/CN=localhost -addext subjectAltName=DNS:localhost -keyout %s -out %s 2>&1",
      config_.tls.key, config_.tls.certificate);
  ASSERT_EQ(std::system(command.c_str()), 0);
  StartServer();
  const auto generate = [&](const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("localhost");
    stub_ = v1::Inference::NewStub(
        grpc::CreateCustomChannel(server_->listen_address(), credentials, arguments));
    return Generate(TextRequest("a", 2)).status;
  };
  const std::string certificate = ReadWhole(config_.tls.certificate);
  EXPECT_TRUE(
      generate(grpc::SslCredentials({certificate, ReadWhole(config_.tls.key), certificate})).ok());
  EXPECT_EQ(generate(grpc::SslCredentials({certificate, "", ""})).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(generate(grpc::InsecureChannelCredentials()).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GatehouseServerTest, NamesTheTlsFileThatCannotBeRead) {
  StartServer();
  config_.tls = {.certificate = "/no/such.crt", .key = "/no/such.key", .client_ca = ""};
  const auto second = GatehouseServer::Start(config_, facts_, Parts());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("/no/such.crt"));
}

TEST_F(GatehouseServerTest, TlsFilesThatAreNoPemAreNotTakenForATakenPort) {
  StartServer();
  const std::string path = ::testing::TempDir() + absl::StrFormat("garbage.%d.crt", getpid());
  std::ofstream(path) << "garbage\n";
  config_.tls = {.certificate = path, .key = path, .client_ca = ""};
  const auto second = GatehouseServer::Start(config_, facts_, Parts());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(path));
}

TEST_F(GatehouseServerTest, TheReadyFileNamesThePortsAndGoesWithTheServer) {
  config_.ready_file = ::testing::TempDir() + absl::StrFormat("ready.%d.json", getpid());
  StartServer();
  const std::string text = ReadWhole(config_.ready_file);
  const auto ready = nlohmann::json::parse(text, nullptr, false);
  ASSERT_TRUE(ready.is_object()) << text;
  EXPECT_EQ(ready.value("pid", 0), getpid());
  EXPECT_EQ(ready.value("listen", ""), server_->listen_address());
  EXPECT_EQ(ready.value("admin", ""), server_->admin_address());
  EXPECT_EQ(ready.value("metrics", ""), server_->metrics_address());
  server_ = nullptr;
  EXPECT_FALSE(std::ifstream(config_.ready_file).good());
}

}  // namespace
}  // namespace gatehouse
