#pragma once

#include <cstdint>
#include <initializer_list>
#include <random>
#include <vector>

namespace finetune {

/// Mixes words into one seed (splitmix64 steps). Streams are derived from (seed, purpose, step,
/// ...), so no generator state has to be saved to resume.
std::uint64_t mix_seed(std::initializer_list<std::uint64_t> words);

/// Uniform integer in [0, bound) from a 64-bit generator, the same on every standard library
/// (std::uniform_int_distribution is not).
std::uint64_t uniform_below(std::mt19937_64& generator, std::uint64_t bound);

/// A permutation of 0..count-1 by Fisher-Yates, fixed by the seed.
std::vector<std::int64_t> permutation(std::int64_t count, std::uint64_t seed);

}  // namespace finetune
