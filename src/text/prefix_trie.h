#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace finetune {

/// Texts with a number each, walked byte by byte from the root: finds all texts that a text begins
/// with. The edges lie in one hash table.
class PrefixTrie {
 public:
  static constexpr std::uint32_t kRoot = 0, kNone = 0xFFFFFFFF;

  /// The last number put for a text wins.
  void put(std::string_view text, std::int32_t number);
  /// The node that `byte` leads to, or kNone.
  std::uint32_t step(std::uint32_t node, char byte) const;
  /// The number of the text that ends at this node, or -1.
  std::int32_t number(std::uint32_t node) const { return numbers_[node]; }
  /// The node that a text leads to, or kNone.
  std::uint32_t walk(std::string_view text) const;

 private:
  struct Edge {
    std::uint64_t key = 0;  ///< (node << 8 | byte) + 1; 0: free
    std::uint32_t child = kNone;
  };
  std::size_t place(std::uint64_t key) const;
  void grow();

  std::vector<Edge> edges_ = std::vector<Edge>(64);
  std::vector<std::int32_t> numbers_ = {-1};
};

}  // namespace finetune
