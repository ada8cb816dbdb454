// How the symbols of one word are merged.

#include "text/bpe.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <tuple>

namespace finetune {

namespace {

constexpr std::int32_t kNoRank = std::numeric_limits<std::int32_t>::max();

}  // namespace

void BpeModel::propose(Symbol& symbol, const Symbol* next) const {
  const Merge* merge = next == nullptr ? nullptr : merges_.find(symbol.id, next->id);
  symbol.rank = merge == nullptr ? kNoRank : merge->rank;
  symbol.result = merge == nullptr ? -1 : merge->result;
}

void BpeModel::merge_short(std::vector<Symbol>& symbols) const {
  std::size_t size = symbols.size();
  Symbol* all = symbols.data();
  for (std::size_t i = 0; i < size; ++i) propose(all[i], i + 1 < size ? &all[i + 1] : nullptr);
  while (size > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < size; ++i) best = all[i].rank < all[best].rank ? i : best;
    if (all[best].rank == kNoRank) break;
    all[best].id = all[best].result;
    all[best].end = all[best + 1].end;
    std::copy(all + best + 2, all + size, all + best + 1);
    --size;
    propose(all[best], best + 1 < size ? &all[best + 1] : nullptr);
    if (best > 0) propose(all[best - 1], &all[best]);
  }
  symbols.resize(size);
}

void BpeModel::merge_long(std::vector<Symbol>& symbols) const {
  using Candidate =
      std::tuple<std::int32_t, std::int32_t, std::int32_t>;  // rank, left index, result
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto at = [&](std::int32_t index) -> Symbol& {
    return symbols[static_cast<std::size_t>(index)];
  };
  const auto offer = [&](std::int32_t left) {
    if (left < 0 || at(left).next < 0) return;
    const Merge* merge = merges_.find(at(left).id, at(at(left).next).id);
    if (merge != nullptr) queue.emplace(merge->rank, left, merge->result);
  };
  const auto size = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i < size; ++i) {
    at(i).previous = i - 1;
    at(i).next = i + 1 < size ? i + 1 : -1;
  }
  for (std::int32_t i = 0; i < size; ++i) offer(i);
  while (!queue.empty()) {
    const auto [rank, index, result] = queue.top();
    queue.pop();
    Symbol& left = at(index);
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = at(left.next);
    const Merge* merge = merges_.find(left.id, right.id);
    if (merge == nullptr || merge->result != result) continue;  // the neighbours changed meanwhile
    left.id = result;
    left.end = right.end;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) at(left.next).previous = index;
    offer(left.previous);
    offer(index);
  }
}

}  // namespace finetune
