#pragma once

#include <limits>
#include <string_view>
#include <vector>

namespace finetune {

/// Values a number may have.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;   ///< `low` itself is refused
  bool high_open = false;  ///< `high` itself is refused

  bool contains(double value) const {
    return (low_open ? value > low : value >= low) && (high_open ? value < high : value <= high);
  }
};

constexpr Range at_least(double low) { return {.low = low}; }
constexpr Range above(double low) { return {.low = low, .low_open = true}; }
constexpr Range between(double low, double high) { return {.low = low, .high = high}; }
/// [0, 1)
constexpr Range kFraction{.low = 0, .high = 1, .high_open = true};

/// What is known of a setting besides its type and default, which the member itself has.
struct Field {
  std::string_view key;
  std::string_view help;                       ///< one sentence or two, Markdown
  std::vector<std::string_view> aliases = {};  ///< other names of the same value
  Range range = {};
  std::vector<std::string_view> has = {};       ///< values this version has, as written; empty: all
  std::string_view absent = {};                 ///< what an absent (null) value means
  std::vector<std::string_view> only_for = {};  ///< the `method`s that read it; empty: all
  bool bytes = false;                           ///< a size: `64 MiB` is accepted
  bool regex = false;                           ///< a text that must be a regular expression
  bool whole_text = false;  ///< a list whose single text is one entry, with its spaces and commas
};

}  // namespace finetune
