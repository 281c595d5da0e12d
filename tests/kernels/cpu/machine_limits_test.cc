#include "kernels/cpu/machine_limits.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/cpu/isa_list.h"
#include "kernels/cpu/peak.h"

namespace gatehouse::cpu {
namespace {

// How fast they are is the machine's affair; that they run wherever their kernels do is ours.
TEST(PeakLoopsTest, CountWhatTheyDoOnEverySetOfThisMachine) {
  const std::vector<char> bytes(4096 + 8256);
  for (const IsaKernels* isa : SupportedIsas()) {
    const PeakLoops loops = PeakLoopsOf(isa->name);
    for (const auto operations : {loops.float_operations, loops.integer_operations}) {
      EXPECT_GE(operations(1), 24) << isa->name;
      EXPECT_EQ(operations(70), 70 * operations(1)) << isa->name;
    }
    loops.read(bytes.data(), 4096);
  }
}

TEST(MeasureLimitsTest, FindsARateOfEachKind) {
  ThreadPool pool(2);
  const MachineLimits limits = MeasureLimits(SupportedIsas()[0]->name, pool);
  // A machine of the nineties would pass; a rate that was not measured or is not finite does not.
  EXPECT_GT(limits.read_bytes_per_second, 1e6);
  EXPECT_GT(limits.float_operations_per_second, 1e6);
  EXPECT_GT(limits.integer_operations_per_second, 1e6);
  EXPECT_LT(limits.read_bytes_per_second, 1e15);
  EXPECT_LT(limits.float_operations_per_second, 1e15);
  EXPECT_LT(limits.integer_operations_per_second, 1e15);
}

}  // namespace
}  // namespace gatehouse::cpu
