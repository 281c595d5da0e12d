// The command line of `gatehouse-loadgen`.
#pragma once

#include <cstdint>
#include <string>

#include "client/connection_flags.h"
#include "gatehouse/v1/inference.pb.h"

namespace gatehouse {

struct LoadOptions {
  ConnectionFlags connection;
  int num_connections = 1;

  // Closed loop: `num_clients` each send their next request when the last has ended. Open loop
  // (rate > 0): requests come by a Poisson process whatever the server does.
  int num_clients = 1;
  double rate = 0;              // requests per second
  int max_in_flight = 4096;     // open loop: what comes beyond it is counted and not sent
  int64_t num_requests = 0;     // 0: until the duration is over
  double duration_seconds = 0;  // 0: until the requests are done
  double grace_seconds = 30;    // what runs this long after the duration is cancelled
  int num_warmup = 0;           // requests before, one by one for each client, not counted
  int num_repeats = 1;

  int num_prompt_tokens = 32;  // random ids below the model's vocabulary
  std::string prompt_file;     // or the lines of a file, in turn
  int max_new_tokens = 32;
  bool ignore_eos = false;
  v1::Routing::Mode mode = v1::Routing::MODE_UNSPECIFIED;
  double temperature = -1;  // negative: the model's default
  double timeout_seconds = 0;
  uint64_t seed = 1;  // of arrivals, prompts and sampling

  double token_rate = 0;    // tokens per second of one stream, if the server keeps such a pace
  int64_t server_pid = 0;   // for the CPU time of a server on this machine
  std::string output_file;  // JSON lines go there (appended) instead of standard output
  std::string label;        // repeated in the result, to tell runs apart

  bool open_loop() const { return rate > 0; }
};

ParseOutcome ParseLoadOptions(int argc, const char* const* argv, LoadOptions& options);

}  // namespace gatehouse
