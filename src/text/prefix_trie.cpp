#include "text/prefix_trie.h"

#include <bit>

namespace finetune {

namespace {

std::uint64_t edge_key(std::uint32_t node, char byte) {
  return (static_cast<std::uint64_t>(node) << 8 | static_cast<unsigned char>(byte)) + 1;
}

}  // namespace

std::size_t PrefixTrie::place(std::uint64_t key) const {
  const std::size_t mask = edges_.size() - 1;
  std::size_t at = (key * 0x9E3779B97F4A7C15u) >> (64 - std::countr_zero(edges_.size()));
  while (edges_[at].key != 0 && edges_[at].key != key) at = (at + 1) & mask;
  return at;
}

void PrefixTrie::grow() {
  std::vector<Edge> old(edges_.size() * 2);
  old.swap(edges_);
  for (const Edge& edge : old) {
    if (edge.key != 0) edges_[place(edge.key)] = edge;
  }
}

void PrefixTrie::put(std::string_view text, std::int32_t number) {
  std::uint32_t node = kRoot;
  for (const char byte : text) {
    if (numbers_.size() * 2 >= edges_.size()) grow();
    Edge& edge = edges_[place(edge_key(node, byte))];
    if (edge.key == 0) {
      edge = {edge_key(node, byte), static_cast<std::uint32_t>(numbers_.size())};
      numbers_.push_back(-1);
    }
    node = edge.child;
  }
  numbers_[node] = number;
}

std::uint32_t PrefixTrie::step(std::uint32_t node, char byte) const {
  return edges_[place(edge_key(node, byte))].child;
}

std::uint32_t PrefixTrie::walk(std::string_view text) const {
  std::uint32_t node = kRoot;
  for (const char byte : text) {
    if (node == kNone) break;
    node = step(node, byte);
  }
  return node;
}

}  // namespace finetune
