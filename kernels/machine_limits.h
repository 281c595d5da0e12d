// What a machine can do at most, measured: the bounds beside what a step did. A value.
#pragma once

namespace gatehouse {

struct MachineLimits {                     // of all threads of a back end together; 0: not measured
  double read_bytes_per_second = 0;        // of memory that no cache holds
  double float_operations_per_second = 0;  // f32; a fused multiply-add is two
  double integer_operations_per_second = 0;  // 8 bits times 8 bits, likewise
};

}  // namespace gatehouse
