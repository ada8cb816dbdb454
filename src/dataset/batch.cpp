#include "finetune/dataset/batch.h"

#include "dataset/prefixes.h"
#include "finetune/base/error.h"
#include "finetune/base/random.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

namespace finetune {

namespace {

using Batches = std::vector<std::vector<std::int64_t>>;

/// Purposes of random streams.
constexpr std::uint64_t kOrderStream = 0x6f726465;
constexpr std::uint64_t kWindowStream = 0x77696e64;

/// Batches' worth of tokens that are sorted by length together: wide enough to fill the batches,
/// narrow enough that the order of an epoch stays random.
constexpr std::int64_t kWindowBatches = 64;

/// Tokens of a row.
std::int64_t length_of(const Dataset& dataset, std::int64_t row) {
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < dataset.examples_per_row; ++i) {
    const auto index = static_cast<std::size_t>(row * dataset.examples_per_row + i);
    tokens += static_cast<std::int64_t>(dataset.examples[index].input_ids.size());
  }
  return tokens;
}

/// Lists of rows -> lists of their examples.
Batches examples_of(Batches batches, std::int64_t examples_per_row) {
  if (examples_per_row == 1) return batches;
  for (std::vector<std::int64_t>& batch : batches) {
    std::vector<std::int64_t> examples;
    for (const std::int64_t row : batch) {
      for (std::int64_t i = 0; i < examples_per_row; ++i)
        examples.push_back(row * examples_per_row + i);
    }
    batch = std::move(examples);
  }
  return batches;
}

/// Puts each example, longest first, into the first batch that has room for it.
Batches fill_batches(const Dataset& dataset, std::vector<std::int64_t> window,
                     std::int64_t budget) {
  std::stable_sort(window.begin(), window.end(), [&](std::int64_t a, std::int64_t b) {
    return length_of(dataset, a) > length_of(dataset, b);
  });
  Batches batches;
  std::vector<std::int64_t> room;
  const std::int64_t shortest = length_of(dataset, window.back());
  std::size_t first_open = 0;
  for (const std::int64_t index : window) {
    const std::int64_t length = length_of(dataset, index);
    while (first_open < room.size() && room[first_open] < shortest) ++first_open;
    std::size_t place = first_open;
    while (place < room.size() && room[place] < length) ++place;
    if (place == room.size()) {
      batches.emplace_back();
      room.push_back(budget);
    }
    batches[place].push_back(index);
    room[place] -= length;
  }
  return batches;
}

Batches plan_by_tokens(const Dataset& dataset, const BatchPlanOptions& options, std::uint64_t epoch,
                       const std::vector<std::int64_t>& order) {
  Batches batches;
  std::uint64_t window_number = 0;
  for (std::size_t begin = 0; begin < order.size();) {
    std::vector<std::int64_t> window;
    std::int64_t tokens = 0;
    while (begin < order.size() && tokens < kWindowBatches * options.tokens_per_batch) {
      tokens += length_of(dataset, order[begin]);
      window.push_back(order[begin++]);
    }
    Batches filled = fill_batches(dataset, std::move(window), options.tokens_per_batch);
    std::vector<std::int64_t> places(filled.size());
    std::iota(places.begin(), places.end(), std::int64_t{0});
    if (options.shuffle) {
      places = permutation(static_cast<std::int64_t>(filled.size()),
                           mix_seed({options.seed, kWindowStream, epoch, window_number}));
    }
    for (const std::int64_t place : places)
      batches.push_back(std::move(filled[static_cast<std::size_t>(place)]));
    ++window_number;
  }
  return batches;
}

Tensor to_tensor(const std::vector<std::int64_t>& values) {
  Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<std::int64_t>());
  return tensor;
}

/// The tokens of a batch as they lie in its stream.
struct Stream {
  std::vector<std::int64_t> input_ids, starts = {0}, parents;

  Stream(std::span<const Example* const> rows, bool share_prefixes) : own_(rows.size()) {
    if (share_prefixes) {
      for (const PrefixGroup& group : shared_prefixes(rows)) add(rows, group);
    } else {
      for (std::size_t r = 0; r < rows.size(); ++r) add(rows, {{r}, 0});
    }
    const auto has_parent = [](std::int64_t parent) { return parent >= 0; };
    if (std::none_of(parents.begin(), parents.end(), has_parent)) parents.clear();
  }

  /// Where token `t` of row `r` stands; `t` is not in a shared prefix, or gives all rows the same.
  std::int64_t place(std::size_t r, std::size_t t) const {
    const auto token = static_cast<std::int64_t>(t);
    const Place& own = own_[r];
    return token < own.shared ? own.prefix_begin + token : own.begin + token - own.shared;
  }

 private:
  struct Place {
    std::int64_t prefix_begin = 0, shared = 0, begin = 0;
  };

  void add(std::span<const Example* const> rows, const PrefixGroup& group) {
    const std::int64_t prefix_begin = starts.back();
    std::int64_t parent = -1;
    if (group.length > 0) {
      parent = static_cast<std::int64_t>(parents.size());
      add_segment(*rows[group.members.front()], 0, group.length, -1);
    }
    for (const std::size_t r : group.members) {
      own_[r] = {prefix_begin, group.length, starts.back()};
      add_segment(*rows[r], group.length, static_cast<std::int64_t>(rows[r]->input_ids.size()),
                  parent);
    }
  }

  void add_segment(const Example& row, std::int64_t first, std::int64_t end, std::int64_t parent) {
    input_ids.insert(input_ids.end(), row.input_ids.begin() + first, row.input_ids.begin() + end);
    starts.push_back(static_cast<std::int64_t>(input_ids.size()));
    parents.push_back(parent);
  }

  std::vector<Place> own_;
};

}  // namespace

std::int64_t Batch::supervised_tokens() const { return targets.size(0); }

Batch Batch::to(const at::Device& device) const {
  Batch moved = *this;
  moved.input_ids = input_ids.to(device);
  moved.target_rows = target_rows.to(device);
  moved.targets = targets.to(device);
  return moved;
}

Batch make_batch(const Dataset& dataset, std::span<const std::int64_t> example_indices,
                 bool share_prefixes) {
  std::vector<const Example*> rows;
  for (const std::int64_t index : example_indices) {
    const Example& example = dataset.examples.at(static_cast<std::size_t>(index));
    FT_CHECK(!example.input_ids.empty() && example.supervised.size() == example.input_ids.size(),
             "example {} has {} tokens and {} marks", index, example.input_ids.size(),
             example.supervised.size());
    rows.push_back(&example);
  }
  Stream stream(rows, share_prefixes);
  Batch batch;
  std::vector<std::int64_t> target_rows, targets;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const Example& example = *rows[r];
    for (std::size_t t = 1; t < example.input_ids.size(); ++t) {
      if (example.supervised[t] == 0) continue;
      target_rows.push_back(stream.place(r, t - 1));
      targets.push_back(example.input_ids[t]);
    }
    batch.tokens += static_cast<std::int64_t>(example.input_ids.size());
    batch.supervised_by_example.push_back(example.supervised_tokens);
  }
  batch.examples.assign(example_indices.begin(), example_indices.end());
  batch.input_ids = to_tensor(stream.input_ids);
  batch.starts = std::move(stream.starts);
  batch.parents = std::move(stream.parents);
  batch.target_rows = to_tensor(target_rows);
  batch.targets = to_tensor(targets);
  return batch;
}

Batches plan_epoch(const Dataset& dataset, const BatchPlanOptions& options, std::int64_t epoch) {
  const std::int64_t count = dataset.rows();
  const auto epoch_word = static_cast<std::uint64_t>(epoch);
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  if (options.shuffle)
    order = permutation(count, mix_seed({options.seed, kOrderStream, epoch_word}));
  if (options.tokens_per_batch > 0) {
    return examples_of(plan_by_tokens(dataset, options, epoch_word, order),
                       dataset.examples_per_row);
  }

  FT_CHECK(options.examples_per_batch > 0, "examples_per_batch is {}", options.examples_per_batch);
  Batches batches;
  for (std::int64_t begin = 0; begin < count; begin += options.examples_per_batch) {
    const std::int64_t end = std::min(count, begin + options.examples_per_batch);
    batches.emplace_back(order.begin() + begin, order.begin() + end);
  }
  return examples_of(std::move(batches), dataset.examples_per_row);
}

}  // namespace finetune
