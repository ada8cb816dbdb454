#pragma once

#include "finetune/base/tensor.h"
#include "finetune/dataset/example.h"

#include <cstdint>
#include <span>
#include <vector>

namespace finetune {

/// A micro-batch: a ragged list of segments in one flat stream of tokens. There is no padding. A
/// segment is an example, or what several begin with, or what is left of one of these.
struct Batch {
  Tensor input_ids;                   ///< [N] int64
  std::vector<std::int64_t> starts;   ///< S + 1 offsets into the stream, first 0, last N
  std::vector<std::int64_t> parents;  ///< [S] as Segments::parents, or empty
  Tensor target_rows;  ///< [M] int64: rows of the hidden state that predict a supervised token
  Tensor targets;      ///< [M] int64: the tokens they must predict
  std::vector<std::int64_t> supervised_by_example;  ///< how many of the targets each has
  std::vector<std::int64_t> examples;  ///< indices into Dataset::examples, as the targets follow
  std::int64_t tokens = 0;             ///< of all examples; above N where some begin with the same

  std::int64_t sequences() const { return static_cast<std::int64_t>(examples.size()); }
  std::int64_t supervised_tokens() const;
  /// The same batch with its tensors on `device`.
  Batch to(const at::Device& device) const;
};

/// Builds the batch of the given examples; targets are in that order. With `share_prefixes`, what
/// examples begin with alike stands in the stream once.
Batch make_batch(const Dataset& dataset, std::span<const std::int64_t> example_indices,
                 bool share_prefixes = false);

/// How rows are put into micro-batches.
struct BatchPlanOptions {
  bool shuffle = true;
  std::uint64_t seed = 42;
  std::int64_t examples_per_batch = 8;  ///< rows; used when tokens_per_batch is 0
  std::int64_t tokens_per_batch =
      0;  ///< > 0: fill up to this many tokens, longest first within a window
};

/// The micro-batches of one epoch: lists of example indices that together hold every example once;
/// the examples of a row stay together.
/// A pure function of its arguments, so a resumed run needs only the step number. `epoch` counts
/// from 0.
std::vector<std::vector<std::int64_t>> plan_epoch(const Dataset& dataset,
                                                  const BatchPlanOptions& options,
                                                  std::int64_t epoch);

}  // namespace finetune
