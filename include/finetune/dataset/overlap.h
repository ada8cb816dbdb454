#pragma once

#include "finetune/dataset/example.h"

#include <cstdint>
#include <string>

namespace finetune {

/// Rows that are there more than once, by their tokens. Copies that a weight makes do not count.
struct RowOverlap {
  std::int64_t repeated = 0;                 ///< training rows that say what an earlier one says
  std::int64_t shared = 0;                   ///< evaluation rows that are training rows too
  std::string first_repeated, first_shared;  ///< "file:line" of the first of each
};

/// Compares all rows; `eval` may be nullptr.
RowOverlap find_overlap(const Dataset& train, const Dataset* eval);

}  // namespace finetune
