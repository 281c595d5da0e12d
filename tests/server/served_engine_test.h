// A FakeEngine served over real gRPC on a free port of loopback. Waits are for events, never for
// time.
#pragma once

#include <google/protobuf/any.pb.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gatehouse/v1/inference.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/gatehouse_server.h"
#include "tests/testing/fake_engine.h"
#include "tests/testing/http_get.h"

namespace gatehouse {

// Long enough for the slowest machine; nothing passes by waiting.
inline constexpr auto kPatience = std::chrono::seconds(60);

inline ::testing::AssertionResult Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) {
      return ::testing::AssertionFailure() << "did not come true";
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return ::testing::AssertionSuccess();
}

template <typename Detail>
std::optional<Detail> DetailOf(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return std::nullopt;
  for (const google::protobuf::Any& any : details.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

struct Stream {
  std::vector<v1::GenerateResponse> events;
  grpc::Status status;
  std::string text() const {
    std::string text;
    for (const auto& event : events) text += event.delta().text();
    return text;
  }
};

class ServedEngineTest : public ::testing::Test {
 protected:
  void StartServer(const FakeEngineOptions& options = {}) {
    config_.listen = config_.admin.listen = config_.metrics_listen = "127.0.0.1:0";
    config_.drain_seconds = 60;
    engine_ = std::make_unique<FakeEngine>(options, clock_, metrics_);
    metrics_.SetModel(engine_->model());
    auto server = GatehouseServer::Start(config_, facts_, Parts());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    ASSERT_TRUE(server_->Serve(*engine_).ok());
    channel_ = grpc::CreateChannel(server_->listen_address(), grpc::InsecureChannelCredentials());
    stub_ = v1::Inference::NewStub(channel_);
  }
  ServerParts Parts() {
    return {metrics_, logger_, clock_, [this] { drain_requested_ = true; }};
  }

  Stream Generate(const v1::GenerateRequest& request, grpc::ClientContext* context = nullptr) {
    grpc::ClientContext own;
    auto reader = stub_->Generate(context != nullptr ? context : &own, request);
    Stream stream;
    v1::GenerateResponse response;
    while (reader->Read(&response)) stream.events.push_back(response);
    stream.status = reader->Finish();
    return stream;
  }
  static v1::GenerateRequest TextRequest(const std::string& text, int max_new_tokens) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_stop()->set_max_new_tokens(max_new_tokens);
    return request;
  }
  std::string ScrapeMetrics() { return HttpGet(server_->metrics_address(), "/metrics").body; }

  ServerConfig config_;
  ServerFacts facts_{
      .version = "1.2.3", .build = "test", .backend = "cpu", .isa = "none", .num_threads = 2};
  SteadyClock clock_;
  Logger logger_{LogFormat::kText, LogLevel::kError};
  PrometheusMetrics metrics_{{.version = "1.2.3", .backend = "cpu", .isa = "none"}, std::nullopt};
  std::atomic<bool> drain_requested_ = false;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<GatehouseServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace gatehouse
