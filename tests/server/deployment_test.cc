// The first rank's end, with workers played by the test: what they say is what a real one never
// would.
#include "server/deployment.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gatehouse/v1/worker.grpc.pb.h"
#include "server/heartbeat.h"
#include "server/worker_convert.h"

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

constexpr char kVersion[] = "1.2.3";
const RankSettings kSettings = {.num_ranks = 2,
                                .model_hash = "0123456789abcdef",
                                .expert_weight_format = "bf16",
                                .dense_weight_format = "f32",
                                .block_tokens = 16,
                                .kv_block_bytes = 1024,
                                .num_kv_blocks = 10,
                                .max_sequences = 4,
                                .max_step_tokens = 64,
                                .max_context = 128};

v1::RankHello HelloOf(const std::string& version, int protocol = kWorkerProtocol) {
  v1::RankHello hello;
  hello.set_version(version);
  hello.set_protocol(protocol);
  return hello;
}

v1::RankLoaded LoadedOf(const RankSettings& settings) {
  v1::RankLoaded loaded;
  loaded.set_model_hash(settings.model_hash);
  loaded.set_expert_weights(settings.expert_weight_format);
  loaded.set_dense_weights(settings.dense_weight_format);
  loaded.set_kv_blocks(settings.num_kv_blocks);
  return loaded;
}

// A worker that says what it is told to, and nothing of itself.
class PlayedWorker {
 public:
  explicit PlayedWorker(const std::string& address)
      : stub_(v1::Deployment::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))),
        stream_(stub_->Join(&context_)) {}
  ~PlayedWorker() {
    context_.TryCancel();
    if (!ended_) End();
  }

  void Say(const v1::RankHello& hello) {
    v1::WorkerMessage message;
    *message.mutable_hello() = hello;
    stream_->Write(message);
  }
  void Say(const v1::RankLoaded& loaded) {
    v1::WorkerMessage message;
    *message.mutable_loaded() = loaded;
    stream_->Write(message);
  }
  void SayFormed(int64_t epoch) {
    v1::WorkerMessage message;
    message.mutable_formed()->set_epoch(epoch);
    stream_->Write(message);
  }
  // The next command that is no heartbeat; nothing set: the call has ended.
  v1::WorkerCommand Hear() {
    v1::WorkerCommand command;
    while (stream_->Read(&command)) {
      if (!command.has_heartbeat()) return command;
    }
    return {};
  }
  // How the call ends.
  grpc::Status End() {
    while (Hear().command_case() != v1::WorkerCommand::COMMAND_NOT_SET) {
    }
    ended_ = true;
    return stream_->Finish();
  }

 private:
  bool ended_ = false;
  grpc::ClientContext context_;
  const std::unique_ptr<v1::Deployment::Stub> stub_;
  const std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::WorkerCommand>> stream_;
};

class DeploymentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ServerConfig config;
    config.deployment.num_workers = 1;
    config.deployment.listen = "127.0.0.1:0";
    auto opened = Deployment::Open(config, kVersion, logger_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    deployment_ = *std::move(opened);
    thread_ = std::thread([this] { ranks_ = deployment_->Start(kSettings); });
  }
  void TearDown() override { Join(); }
  void Join() {
    if (thread_.joinable()) thread_.join();
  }
  std::unique_ptr<PlayedWorker> Worker() {
    return std::make_unique<PlayedWorker>(deployment_->listen_address());
  }
  // One that fits.
  std::unique_ptr<PlayedWorker> JoinedWorker() {
    auto worker = Worker();
    worker->Say(HelloOf(kVersion));
    EXPECT_TRUE(worker->Hear().has_welcome());
    worker->Say(LoadedOf(kSettings));
    EXPECT_TRUE(worker->Hear().has_accepted());
    Join();
    return worker;
  }
  RankPeer& rank() { return *ranks_->front(); }

  const Logger logger_{LogFormat::kText, LogLevel::kError};
  std::unique_ptr<Deployment> deployment_;
  absl::StatusOr<std::vector<std::unique_ptr<RankPeer>>> ranks_;
  std::thread thread_;
};

TEST_F(DeploymentTest, AnotherVersionIsRefusedWithBoth) {
  const auto older = Worker();
  older->Say(HelloOf("1.2.2"));
  grpc::Status status = older->End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("gatehouse 1.2.2"));
  EXPECT_THAT(status.error_message(), HasSubstr("server 1.2.3"));
  const auto other = Worker();
  other->Say(HelloOf(kVersion, kWorkerProtocol + 1));
  EXPECT_THAT(other->End().error_message(), HasSubstr("protocol 2"));
  const auto right = JoinedWorker();
  EXPECT_TRUE(rank().is_up());
  EXPECT_EQ(rank().num_returns(), 0);
}

TEST_F(DeploymentTest, WhatWasLoadedIsRefusedByName) {
  RankSettings other = kSettings;
  const auto refusal = [&] {
    const auto worker = Worker();
    worker->Say(HelloOf(kVersion));
    EXPECT_TRUE(worker->Hear().has_welcome());
    worker->Say(LoadedOf(std::exchange(other, kSettings)));
    const grpc::Status status = worker->End();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    return status.error_message();
  };
  other.model_hash = "fedcba9876543210";
  EXPECT_THAT(refusal(), HasSubstr("model hash: got fedcba9876543210, the deployment's server has "
                                   "0123456789abcdef"));
  other.expert_weight_format = "int8";
  EXPECT_THAT(refusal(), HasSubstr("expert weights: got int8, the deployment's server has bf16"));
  other.dense_weight_format = "bf16";
  EXPECT_THAT(refusal(), HasSubstr("dense weights: got bf16, the deployment's server has f32"));
  other.num_kv_blocks = 9;
  EXPECT_THAT(refusal(), HasSubstr("KV blocks: got 9, the deployment's server has 10"));
  JoinedWorker();
}

TEST_F(DeploymentTest, WhoIsSilentIsLostAndMayComeBack) {
  const auto worker = JoinedWorker();
  EXPECT_TRUE(rank().is_up());
  const grpc::Status status = worker->End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(status.error_message(), "rank 1 was silent for 2 s and is lost: it may join again");
  EXPECT_FALSE(rank().is_up());
  const auto back = JoinedWorker();
  while (!rank().is_up()) std::this_thread::yield();
  EXPECT_EQ(rank().num_returns(), 1);
}

// Whether it waits for a group to form or for a step: at once, not after the silence.
TEST_F(DeploymentTest, WhoWaitsForAWorkerThatDiesHearsOfIt) {
  auto worker = JoinedWorker();
  std::thread dies([&] {
    EXPECT_TRUE(worker->Hear().has_form());
    worker = nullptr;
  });
  EXPECT_TRUE(absl::IsUnavailable(rank().Join(AllRanks(2, 1))));
  dies.join();
  EXPECT_FALSE(rank().is_up());

  worker = JoinedWorker();
  std::thread dies_later([&] {
    EXPECT_EQ(worker->Hear().form().epoch(), 2);
    worker->SayFormed(2);
    EXPECT_TRUE(worker->Hear().has_step());
    worker = nullptr;
  });
  while (!rank().is_up()) std::this_thread::yield();
  EXPECT_TRUE(rank().Join(AllRanks(2, 2)).ok());
  const StepRows rows = RowsByRank({0, 0}, 2);
  const RankSlice slice;
  EXPECT_TRUE(absl::IsUnavailable(rank().Run({.rows = &rows, .slice = &slice}).status()));
  dies_later.join();

  // The one that comes back is another: it has no part in the group.
  const auto back = JoinedWorker();
  while (!rank().is_up()) std::this_thread::yield();
  EXPECT_TRUE(absl::IsUnavailable(rank().Run({.rows = &rows, .slice = &slice}).status()));
}

TEST_F(DeploymentTest, AMemberHearsWhoIsLost) {
  const auto worker = JoinedWorker();
  std::thread forms([&] {
    EXPECT_EQ(worker->Hear().form().members_size(), 2);
    worker->SayFormed(7);
    const v1::WorkerCommand place = worker->Hear();
    EXPECT_EQ(place.place().moe_layer(), 3);
    const v1::WorkerCommand lost = worker->Hear();
    EXPECT_EQ(lost.lost().epoch(), 7);
    EXPECT_EQ(lost.lost().rank(), 0);
  });
  EXPECT_TRUE(rank().Join(AllRanks(2, 7)).ok());
  rank().Place(3, LinearPlacement(8, 2));
  rank().Lose(0);
  forms.join();
}

}  // namespace
}  // namespace gatehouse
