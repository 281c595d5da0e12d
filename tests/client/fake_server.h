// A gRPC server in this process whose Inference service is scripted by the prompt's text: the truth
// that the client and the load generator are tested against. Owns its thread pool (gRPC's).
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "gatehouse/v1/inference.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace gatehouse {

inline grpc::Status StatusWithDetails(grpc::StatusCode code, const std::string& message,
                                      const google::protobuf::Message& detail) {
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(detail);
  return {code, message, details.SerializeAsString()};
}

// Generate: "bad" is refused with a BadRequest, "busy" with RetryInfo of 1.5 s, "crowded" with 5
// ms, "gone" is UNAVAILABLE, "lost" is so after `started`, "torn" after tokens, "full" is
// RESOURCE_EXHAUSTED without RetryInfo (these six only num_refusals times), "cut" ends without
// `finished`, "forever" sends a token a millisecond until cancelled; all else sends max_new_tokens
// tokens, two in each message, and `finished`.
class FakeInference final : public v1::Inference::Service {
 public:
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    num_requests.fetch_add(1);
    last_authorization = Metadata(*context, "authorization");
    if (request->text() == "bad") {
      google::rpc::BadRequest detail;
      auto* violation = detail.add_field_violations();
      violation->set_field("sampling.top_p");
      violation->set_description("got 3, at most 1");
      return StatusWithDetails(grpc::StatusCode::INVALID_ARGUMENT, "the request is wrong", detail);
    }
    const std::string& text = request->text();
    const bool refuses = num_requests.load() <= num_refusals.load();
    if (refuses && (text == "busy" || text == "crowded")) {
      google::rpc::RetryInfo detail;
      detail.mutable_retry_delay()->set_seconds(text == "busy" ? 1 : 0);
      detail.mutable_retry_delay()->set_nanos(text == "busy" ? 500'000'000 : 5'000'000);
      return StatusWithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full", detail);
    }
    if (refuses && text == "full") return {grpc::StatusCode::RESOURCE_EXHAUSTED, "too large"};
    if (refuses && text == "gone") return {grpc::StatusCode::UNAVAILABLE, "going"};
    v1::GenerateResponse event;
    event.mutable_started()->set_prompt_tokens(request->tokens().ids_size());
    writer->Write(event);
    if (refuses && text == "lost") return {grpc::StatusCode::UNAVAILABLE, "a rank is lost"};
    if (refuses && text == "torn") {
      event.mutable_delta()->set_text("ab");
      writer->Write(event);
      return {grpc::StatusCode::UNAVAILABLE, "a rank is lost"};
    }
    const bool forever = request->text() == "forever";
    const int num_tokens = request->stop().max_new_tokens();
    for (int sent = 0; forever || sent < num_tokens;) {
      if (context->IsCancelled()) return Ended(grpc::Status::CANCELLED);
      v1::Delta& delta = *event.mutable_delta();
      delta.Clear();
      delta.set_text("ab");
      for (int i = 0; i < 2 && (forever || sent < num_tokens); ++i, ++sent) {
        delta.add_tokens()->set_id(sent);
      }
      if (!writer->Write(event)) return Ended(grpc::Status::CANCELLED);
      if (forever) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (request->text() != "cut") {
      event.mutable_finished()->set_reason(v1::Finished::LENGTH);
      writer->Write(event);
    }
    return Ended(grpc::Status::OK);
  }

  // "gone" is UNAVAILABLE num_refusals times.
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    if (request->text() == "gone" && num_requests.fetch_add(1) < num_refusals.load()) {
      return {grpc::StatusCode::UNAVAILABLE, "going"};
    }
    for (const char c : request->text()) response->add_ids(c);
    return grpc::Status::OK;
  }

  grpc::Status GetModelInfo(grpc::ServerContext*, const v1::GetModelInfoRequest* request,
                            v1::ModelInfo* response) override {
    if (!request->model().empty() && request->model() != "fake") {
      return {grpc::StatusCode::NOT_FOUND, "this server serves fake"};
    }
    response->set_name("fake");
    response->set_vocab_size(10);
    response->add_eos_token_ids(0);
    return grpc::Status::OK;
  }

  std::atomic<int> num_requests{0};
  std::atomic<int> num_cancelled{0};
  std::atomic<int> num_refusals{1 << 30};
  std::string last_authorization;  // read it only after the call

 private:
  grpc::Status Ended(const grpc::Status& status) {
    if (!status.ok()) num_cancelled.fetch_add(1);
    return status;
  }
  static std::string Metadata(const grpc::ServerContext& context, const char* key) {
    const auto found = context.client_metadata().find(key);
    return found == context.client_metadata().end()
               ? ""
               : std::string(found->second.data(), found->second.size());
  }
};

class FakeServer {
 public:
  FakeServer() {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service);
    server_ = builder.BuildAndStart();
  }
  ~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }
  grpc::HealthCheckServiceInterface& health() { return *server_->GetHealthCheckService(); }

  FakeInference service;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace gatehouse
