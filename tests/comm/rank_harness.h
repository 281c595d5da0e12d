// Ranks as threads, over any communicator: what tests of all of them run on.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "engine/comm/gloo_communicator.h"
#include "engine/comm/in_process.h"
#include "engine/comm/key_board.h"
#include "gtest/gtest.h"

namespace gatehouse {

enum class Engine { kInProcess, kGloo };

// gloo's library is not instrumented: ThreadSanitizer cannot judge it.
inline std::vector<Engine> EnginesToTest() {
#if defined(__SANITIZE_THREAD__)
  return {Engine::kInProcess};
#else
  return {Engine::kInProcess, Engine::kGloo};
#endif
}

// The communicators of all members of one group.
class RankGroup {
 public:
  RankGroup(Engine engine, const Membership& membership, Duration deadline)
      : membership_(membership), board_([](const BoardKey&) {}), gloo_(membership.num_ranks) {
    if (engine == Engine::kInProcess) {
      in_process_ = std::make_unique<InProcessGroup>(
          InProcessOptions{.membership = membership, .deadline = deadline});
      return;
    }
    OnMembers([&](int r) {
      auto comm = ConnectGloo({.membership = membership,
                               .rank = r,
                               .deadline = deadline,
                               .connect_deadline = std::chrono::seconds(60),
                               .address = "127.0.0.1"},
                              *board_.StoreOf(membership.epoch));
      EXPECT_TRUE(comm.ok()) << comm.status();
      gloo_[r] = *std::move(comm);
    });
  }

  Communicator& rank(int rank) {
    return in_process_ != nullptr ? in_process_->rank(rank) : *gloo_[rank];
  }
  // As if the rank's process ended, or a heartbeat of it was missed.
  void Lose(int lost) {
    for (const int r : membership_.members) rank(r).Lose(lost);
  }
  // Its process ends: the connections break, or somebody notices.
  void End(int r) {
    if (in_process_ != nullptr) return rank(r).Lose(r);
    gloo_[r] = nullptr;
  }
  void Run(const std::function<void(Communicator&)>& body) {
    OnMembers([&](int r) { body(rank(r)); });
  }

 private:
  void OnMembers(const std::function<void(int)>& body) {
    std::vector<std::thread> threads;
    for (const int r : membership_.members) threads.emplace_back([&, r] { body(r); });
    for (std::thread& thread : threads) thread.join();
  }

  const Membership membership_;
  std::unique_ptr<InProcessGroup> in_process_;
  KeyBoard board_;
  std::vector<std::unique_ptr<Communicator>> gloo_;  // [num_ranks]
};

}  // namespace gatehouse
