// Threads for the parallel regions of one step. A region is a number of independent units; the
// calling thread works too, so ThreadPool(1) has no other thread and no synchronisation.
//
// Between the regions of a step the workers spin (0.2 us to enter a region); after kSpin without
// work they sleep on a condition variable (28 us to wake), so an idle server costs no CPU.
//
// Owner: the CPU back end. Run may be called by one thread at a time, never from inside a unit.
// Which thread takes which unit changes from run to run: results must not depend on it.
//
//   pool.Run(num_panels, [&](int thread, int panel) { ... });
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>

namespace gatehouse {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // at least 1
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls unit(thread_idx, unit_idx) once for each unit_idx in [0, num_units); returns when all are
  // done.
  template <typename Unit>
  void Run(int num_units, const Unit& unit) {
    RunErased(num_units, const_cast<void*>(static_cast<const void*>(&unit)),
              [](void* erased, int thread_idx, int unit_idx) {
                (*static_cast<const Unit*>(erased))(thread_idx, unit_idx);
              });
  }

 private:
  using UnitFn = void (*)(void* unit, int thread_idx, int unit_idx);
  struct Shared;
  void RunErased(int num_units, void* unit, UnitFn call);

  const int num_threads_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace gatehouse
