// Where ranks in several processes tell each other how they are reached: keys and values, the same
// in all of them since each is told of those of the others. Keys are of an epoch; those before the
// newest are forgotten.
//
//   KeyBoard board([&](const BoardKey& key) { /* to the other processes */ });
//   board.Put(key_of_another);                        // any thread
//   auto comm = GlooCommunicator::Connect(options, *board.StoreOf(epoch));
//   board.End(epoch);                                 // any thread: nobody waits for it any more
//
// Thread-safe. Outlives its stores.
#pragma once

#include <gloo/rendezvous/store.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/mutex.h"

namespace gatehouse {

struct BoardKey {
  int64_t epoch = 0;
  std::string key;
  std::string value;
};

class KeyBoard {
 public:
  explicit KeyBoard(std::function<void(const BoardKey&)> tell_others)
      : tell_others_(std::move(tell_others)) {}

  // What another process was told.
  void Put(BoardKey key) GATEHOUSE_EXCLUDES(mutex_);
  // Who waits for a key of this epoch or of one before fails, now and from now on.
  void End(int64_t epoch) GATEHOUSE_EXCLUDES(mutex_);
  // Throws, as gloo wants it, when keys do not come in time or the epoch has ended.
  std::unique_ptr<gloo::rendezvous::Store> StoreOf(int64_t epoch) GATEHOUSE_EXCLUDES(mutex_);

 private:
  class EpochStore;
  using Keys = std::map<std::string, std::string>;

  // Empty: all of them are there; else why not.
  std::string WaitFor(int64_t epoch, const std::vector<std::string>& keys,
                      std::chrono::milliseconds timeout) GATEHOUSE_EXCLUDES(mutex_);

  const std::function<void(const BoardKey&)> tell_others_;
  Mutex mutex_;
  CondVar changed_;
  std::map<int64_t, Keys> epochs_ GATEHOUSE_GUARDED_BY(mutex_);
  int64_t ended_ GATEHOUSE_GUARDED_BY(mutex_) = -1;
};

}  // namespace gatehouse
