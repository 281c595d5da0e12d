// Every limit of the listeners that no flag sets, with its reason: the one table. GetServerInfo
// shows them beside the limits that flags set (ToServerInfo), docs/operations.md explains them.
#pragma once

#include <cstddef>

namespace gatehouse {

struct ServerLimits {
  // Calls.
  size_t max_request_bytes = size_t{4} << 20;  // of one message; gRPC's own default
  // Of one listener, all connections together: what is read and no message yet. Beyond it gRPC
  // reads less, then ends the calls that hold most.
  size_t max_connection_bytes = size_t{256} << 20;
  size_t max_metadata_bytes = size_t{8} << 10;  // gRPC's own default
  int max_open_calls = 4096;  // Generate calls in any state; beyond: RESOURCE_EXHAUSTED
  size_t max_open_bytes = size_t{256} << 20;  // of their requests; beyond: RESOURCE_EXHAUSTED
  int max_streams_per_connection = 1024;      // beyond, the client's own gRPC queues
  double max_connection_age_seconds =
      3600;  // so that clients find new servers behind a balancer; 0: for ever
  double max_connection_grace_seconds = 3600;  // then for the calls of an old connection to end

  // Readers.
  size_t max_unread_bytes = size_t{1} << 20;  // deltas: minutes of text for any reader alive
  // Prompt events come in one burst that the client asked for and that no reader can keep up with.
  size_t max_unread_prompt_bytes = size_t{16} << 20;
  double max_unread_seconds = 30;  // a reader that takes nothing for this long has gone

  // Long texts that wait to be tokenised.
  int front_threads = 2;
  size_t max_front_tasks = 256;
  size_t max_front_bytes = size_t{64} << 20;

  // Operators.
  int max_watches = 64;  // WatchStatus and WatchExpertLoad streams

  // Health. Stalled: work, and no step for longer than both of these say.
  double stall_seconds = 1.5;     // seen within one period of the watcher, so within 2 s
  double stall_step_factor = 4;   // times the longest step of the last 10 to 20 minutes
  double first_step_seconds = 5;  // what a step is taken to last until one has been seen
};

}  // namespace gatehouse
