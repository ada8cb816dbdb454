#include "dataset/prefixes.h"

#include <algorithm>
#include <numeric>

namespace finetune {

namespace {

/// The tokens of an example that may be shared: those that predict nothing supervised.
std::int64_t free_length(const Example& example) {
  const auto& marks = example.supervised;
  const auto first = std::find_if(marks.begin() + 1, marks.end(), [](auto mark) { return mark; });
  return first - marks.begin() - 1;
}

std::int64_t common_length(const Example& a, const Example& b) {
  const std::int64_t limit = std::min(free_length(a), free_length(b));
  const auto end = std::mismatch(a.input_ids.begin(), a.input_ids.begin() + limit,
                                 b.input_ids.begin(), b.input_ids.begin() + limit);
  return end.first - a.input_ids.begin();
}

}  // namespace

std::vector<PrefixGroup> shared_prefixes(std::span<const Example* const> batch) {
  std::vector<std::size_t> order(batch.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return batch[a]->input_ids < batch[b]->input_ids;
  });
  // Rows that begin alike are neighbours now. A neighbour joins as long as that saves tokens.
  std::vector<PrefixGroup> groups;
  for (const std::size_t place : order) {
    const auto joined = [&](const PrefixGroup& group) {
      const std::int64_t common = common_length(*batch[group.members.back()], *batch[place]);
      return group.members.size() == 1 ? common : std::min(common, group.length);
    };
    const auto saved = [](std::size_t members, std::int64_t length) {
      return (static_cast<std::int64_t>(members) - 1) * length;
    };
    if (!groups.empty()) {
      PrefixGroup& group = groups.back();
      const std::int64_t length = joined(group);
      const std::size_t members = group.members.size();
      if (length >= kShortestPrefix && saved(members + 1, length) >= saved(members, group.length)) {
        group.members.push_back(place);
        group.length = length;
        continue;
      }
    }
    groups.push_back({{place}, 0});
  }
  for (PrefixGroup& group : groups) std::sort(group.members.begin(), group.members.end());
  std::sort(groups.begin(), groups.end(), [](const PrefixGroup& a, const PrefixGroup& b) {
    return a.members.front() < b.members.front();
  });
  return groups;
}

}  // namespace finetune
