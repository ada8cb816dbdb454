#pragma once

#include "finetune/nn/attention.h"
#include "nn/tiles.h"

#include <algorithm>
#include <vector>

namespace finetune {

/// A segment with what it sees: the tokens of its parent, then its own.
struct Sequence {
  std::int64_t begin, length, parent_begin, before, parent;

  std::int64_t keys() const { return before + length; }
  std::int64_t tiles() const { return (keys() + kTileKeys - 1) / kTileKeys; }
};

inline std::vector<Sequence> sequences_of(const Segments& segments) {
  std::vector<Sequence> sequences;
  for (std::int64_t s = 0; s < segments.count(); ++s) {
    const std::int64_t parent = segments.parent(s);
    sequences.push_back({segments.starts[static_cast<std::size_t>(s)], segments.length(s),
                         parent < 0 ? 0 : segments.starts[static_cast<std::size_t>(parent)],
                         segments.before(s), parent});
  }
  return sequences;
}

/// Queries at the positions [first, first + count) of a sequence, and the tiles that hold the keys
/// they see.
struct QueryBlock {
  std::int64_t first, count, first_tile, end_tile, window;

  QueryBlock(const Sequence& sequence, std::int64_t begin, std::int64_t window)
      : first(sequence.before + begin),
        count(std::min(kTileQueries, sequence.length - begin)),
        first_tile(first_key(first, window) / kTileKeys),
        end_tile((first + count - 1) / kTileKeys + 1),
        window(window) {}

  static std::int64_t first_key(std::int64_t position, std::int64_t window) {
    return window > 0 ? std::max<std::int64_t>(0, position - window + 1) : 0;
  }
  /// True when every query sees every key of the tile.
  bool sees_all(std::int64_t tile) const {
    return (tile + 1) * kTileKeys - 1 <= first &&
           tile * kTileKeys >= first_key(first + count - 1, window);
  }
};

/// The rows of one head, from the row `begin` on.
template <typename T>
RowView<T> rows_of(const Tensor& x, std::int64_t head, std::int64_t begin) {
  return {x.const_data_ptr<T>() + begin * x.stride(0) + head * x.stride(1), x.stride(0)};
}

/// With rows that tiles can be copied from.
inline Tensor tileable(const Tensor& x) {
  const std::int64_t pair = x.scalar_type() == at::kFloat ? 1 : 2;
  const bool aligned = (x.storage_offset() | x.stride(0) | x.stride(1)) % pair == 0;
  return x.stride(2) == 1 && aligned ? x : x.contiguous();
}

/// The keys or values of a sequence, padded with zeros to whole tiles, [tiles * kTileKeys, dim].
template <typename T>
void gather(const Tensor& x, const Sequence& sequence, std::int64_t head, std::vector<T>& to) {
  const std::int64_t dim = x.size(2);
  to.resize(static_cast<std::size_t>(sequence.tiles() * kTileKeys * dim));
  copy_rows(rows_of<T>(x, head, sequence.parent_begin), sequence.before, sequence.before, dim,
            to.data());
  copy_rows(rows_of<T>(x, head, sequence.begin), sequence.length,
            sequence.tiles() * kTileKeys - sequence.before, dim, to.data() + sequence.before * dim);
}

}  // namespace finetune
