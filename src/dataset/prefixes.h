#pragma once

#include "finetune/dataset/example.h"

#include <cstdint>
#include <span>
#include <vector>

namespace finetune {

/// Examples of a batch that begin with the same tokens.
struct PrefixGroup {
  std::vector<std::size_t> members;  ///< places in the batch, ascending
  std::int64_t length = 0;           ///< tokens they share; 0 for an example alone
};

/// Divides a batch into groups, each example in one, ordered by their first members. A shared
/// prefix has at least `kShortestPrefix` tokens and ends before any of its members' tokens predicts
/// a supervised one.
std::vector<PrefixGroup> shared_prefixes(std::span<const Example* const> batch);

/// Below this, another segment costs more than its tokens do.
constexpr std::int64_t kShortestPrefix = 16;

}  // namespace finetune
