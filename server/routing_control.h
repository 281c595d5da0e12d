// The routing table in force. Owner: GatehouseServer; any thread.
#pragma once

#include <memory>
#include <utility>

#include "kernels/base/mutex.h"
#include "server/routing_table.h"

namespace gatehouse {

class RoutingControl {
 public:
  std::shared_ptr<const RoutingTable> Read() const GATEHOUSE_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return table_;
  }

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const RoutingTable> table_ GATEHOUSE_GUARDED_BY(mutex_) =
      std::make_shared<const RoutingTable>();
};

}  // namespace gatehouse
