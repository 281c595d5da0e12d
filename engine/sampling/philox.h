// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a random
// number is a function of a key and a counter, with no state between two draws. So the draw for a
// request's n-th token is the same in any batch and after any preemption. Pure; any thread.
#pragma once

#include <array>
#include <cstdint>

namespace gatehouse {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// In [0, 1), 53 bits: the `index`-th draw of `seed`.
double UniformAt(uint64_t seed, uint64_t index);

// What the n-th output of a request with this seed draws with: the seed itself for the first, so
// that it equals a request for one output.
uint64_t SeedOfOutput(uint64_t seed, int32_t output_index);

}  // namespace gatehouse
