#include "kernels/cpu/peak.h"

namespace gatehouse::cpu {

PeakLoops PeakLoopsOf(std::string_view /*isa*/) { return GenericPeakLoops(); }

}  // namespace gatehouse::cpu
