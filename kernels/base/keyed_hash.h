// SipHash-2-4 (Aumasson, Bernstein): a hash whose values nobody can foresee without its key. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace gatehouse {

using HashKey = std::array<uint64_t, 2>;

uint64_t KeyedHash(const HashKey& key, std::span<const std::byte> bytes);

}  // namespace gatehouse
