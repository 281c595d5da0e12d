#include "engine/comm/key_board.h"

#include <algorithm>
#include <stdexcept>

#include "absl/strings/str_format.h"

namespace gatehouse {

class KeyBoard::EpochStore final : public gloo::rendezvous::Store {
 public:
  EpochStore(KeyBoard& board, int64_t epoch) : board_(board), epoch_(epoch) {}

  void set(const std::string& key, const std::vector<char>& value) override {
    const BoardKey own{epoch_, key, std::string(value.begin(), value.end())};
    board_.Put(own);
    board_.tell_others_(own);
  }
  std::vector<char> get(const std::string& key) override {
    wait({key}, kDefaultTimeout);
    const MutexLock lock(board_.mutex_);
    const std::string& value = board_.epochs_[epoch_][key];
    return {value.begin(), value.end()};
  }
  void wait(const std::vector<std::string>& keys) override { wait(keys, kDefaultTimeout); }
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override {
    const std::string problem = board_.WaitFor(epoch_, keys, timeout);
    if (!problem.empty()) throw std::runtime_error(problem);
  }

 private:
  KeyBoard& board_;
  const int64_t epoch_;
};

void KeyBoard::Put(BoardKey key) {
  const MutexLock lock(mutex_);
  if (key.epoch <= ended_) return;
  epochs_[key.epoch][std::move(key.key)] = std::move(key.value);
  changed_.NotifyAll();
}

void KeyBoard::End(int64_t epoch) {
  const MutexLock lock(mutex_);
  ended_ = std::max(ended_, epoch);
  epochs_.erase(epochs_.begin(), epochs_.upper_bound(ended_));
  changed_.NotifyAll();
}

std::unique_ptr<gloo::rendezvous::Store> KeyBoard::StoreOf(int64_t epoch) {
  End(epoch - 1);
  return std::make_unique<EpochStore>(*this, epoch);
}

std::string KeyBoard::WaitFor(int64_t epoch, const std::vector<std::string>& keys,
                              std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  const MutexLock lock(mutex_);
  while (epoch > ended_) {
    const Keys& there = epochs_[epoch];
    const auto missing = std::find_if(keys.begin(), keys.end(),
                                      [&](const auto& key) { return there.count(key) == 0; });
    if (missing == keys.end()) return "";
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= left.zero()) return absl::StrFormat("no key %s in time", *missing);
    changed_.WaitFor(mutex_, left);
  }
  return absl::StrFormat("epoch %d has ended", epoch);
}

}  // namespace gatehouse
