// XXH64 (Collet), seed 0: tells bytes that were damaged or exchanged by accident, at the speed of
// memory. No protection against somebody who wants two files to look alike. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace gatehouse {

uint64_t Checksum(std::span<const std::byte> bytes);

}  // namespace gatehouse
