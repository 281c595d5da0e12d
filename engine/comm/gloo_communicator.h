// Ranks in other processes, over TCP with gloo. How they find each other is the caller's: a store
// of keys that all of them see (key_board.h). What travels is neither encrypted nor signed.
//
// Errors as in communicator.h: the rank named is the one whose connection failed or who did not
// come in time. Who knows better (by heartbeats) says so with Lose, which also ends a call that
// waits for somebody alive.
#pragma once

#include <gloo/rendezvous/store.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/comm/communicator.h"
#include "engine/comm/membership.h"
#include "kernels/base/clock.h"

namespace gatehouse {

struct GlooOptions {
  Membership membership;
  int rank = 0;
  Duration deadline{};          // of one call
  Duration connect_deadline{};  // of finding each other
  std::string address;          // of this host, that others reach: "10.0.0.5"
};

// Returns when all members have come. UNAVAILABLE, with what gloo says, when they do not in time.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectGloo(const GlooOptions& options,
                                                          gloo::rendezvous::Store& store);

}  // namespace gatehouse
