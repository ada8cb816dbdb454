#include "finetune/base/text.h"
#include "finetune/report/report.h"

#include <algorithm>

namespace finetune {

using nlohmann::ordered_json;

namespace {

constexpr std::int64_t kBuckets = 10;

}  // namespace

std::vector<RowPart> row_parts(const Example& example, const Tokenizer& tokenizer) {
  // A part decoded alone can lose a space or half a character, so each part is what it adds to the
  // text before it.
  const auto text_until = [&](std::size_t end) {
    return tokenizer.decode(std::span(example.input_ids).first(end), false);
  };
  std::vector<RowPart> parts;
  std::string before;
  for (std::size_t begin = 0; begin < example.input_ids.size();) {
    std::size_t end = begin;
    while (end < example.input_ids.size() && example.supervised[end] == example.supervised[begin])
      ++end;
    std::string until = text_until(end);
    parts.push_back(
        {until.substr(std::min(before.size(), until.size())), example.supervised[begin] != 0});
    before = std::move(until);
    begin = end;
  }
  return parts;
}

std::vector<LengthBucket> length_histogram(const std::vector<std::int64_t>& lengths) {
  std::vector<LengthBucket> buckets;
  if (lengths.empty()) return buckets;
  const std::int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const std::int64_t width = std::max<std::int64_t>(1, (longest + kBuckets - 1) / kBuckets);
  for (std::int64_t from = 1; from <= longest; from += width)
    buckets.push_back({from, from + width - 1, 0});
  for (const std::int64_t length : lengths)
    ++buckets[static_cast<std::size_t>((std::max<std::int64_t>(length, 1) - 1) / width)].rows;
  return buckets;
}

ordered_json describe_data(const std::string& name, const Dataset& dataset,
                           const Tokenizer& tokenizer, std::size_t samples) {
  const Dataset::Summary& summary = dataset.summary;
  ordered_json data = {{"name", name},
                       {"files", dataset.files},
                       {"rows", summary.rows},
                       {"dropped", summary.dropped},
                       {"truncated", summary.truncated},
                       {"tokens", summary.tokens},
                       {"supervised_tokens", summary.supervised_tokens},
                       {"longest", summary.longest},
                       {"content_hash", dataset.content_hash},
                       {"histogram", ordered_json::array()},
                       {"samples", ordered_json::array()}};
  std::vector<std::int64_t> lengths;
  for (const Example& example : dataset.examples)
    lengths.push_back(static_cast<std::int64_t>(example.input_ids.size()));
  for (const LengthBucket& bucket : length_histogram(lengths))
    data["histogram"].push_back({{"from", bucket.from}, {"to", bucket.to}, {"rows", bucket.rows}});
  for (std::size_t i = 0; i < std::min(samples, dataset.examples.size()); ++i) {
    ordered_json parts = ordered_json::array();
    for (const RowPart& part : row_parts(dataset.examples[i], tokenizer))
      parts.push_back({{"text", part.text}, {"supervised", part.supervised}});
    data["samples"].push_back({{"where", dataset.where(dataset.examples[i])}, {"parts", parts}});
  }
  return data;
}

}  // namespace finetune
