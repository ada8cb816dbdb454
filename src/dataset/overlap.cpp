#include "finetune/dataset/overlap.h"

#include "finetune/base/file.h"

#include <unordered_map>

namespace finetune {

namespace {

std::string key_of(const Example& example) {
  return content_hash(std::as_bytes(std::span(example.input_ids))) +
         content_hash(std::as_bytes(std::span(example.supervised)));
}

}  // namespace

RowOverlap find_overlap(const Dataset& train, const Dataset* eval) {
  RowOverlap overlap;
  std::unordered_map<std::string, RowOrigin> first;
  for (const Example& example : train.examples) {
    const auto [place, is_new] = first.emplace(key_of(example), example.origin);
    const RowOrigin& before = place->second;
    if (is_new || (before.file == example.origin.file && before.line == example.origin.line))
      continue;
    if (overlap.repeated++ == 0) overlap.first_repeated = train.where(example);
  }
  if (eval == nullptr) return overlap;
  for (const Example& example : eval->examples) {
    if (!first.contains(key_of(example))) continue;
    if (overlap.shared++ == 0) overlap.first_shared = eval->where(example);
  }
  return overlap;
}

}  // namespace finetune
