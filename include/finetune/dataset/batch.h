#pragma once

#include "finetune/base/tensor.h"
#include "finetune/dataset/example.h"

#include <cstdint>
#include <span>
#include <vector>

namespace finetune {

/// A micro-batch: a ragged list of sequences in one flat stream of tokens. There is no padding.
struct Batch {
  Tensor input_ids;                  ///< [N] int64
  std::vector<std::int64_t> starts;  ///< S + 1 offsets into the stream, first 0, last N
  Tensor target_rows;  ///< [M] int64: rows of the hidden state that predict a supervised token
  Tensor targets;      ///< [M] int64: the tokens they must predict
  std::vector<std::int64_t> examples;  ///< S indices into Dataset::examples

  std::int64_t tokens() const { return starts.back(); }
  std::int64_t sequences() const { return static_cast<std::int64_t>(starts.size()) - 1; }
  std::int64_t supervised_tokens() const;
  /// The same batch with its tensors on `device`.
  Batch to(const at::Device& device) const;
};

/// Builds the batch of the given examples, in that order.
Batch make_batch(const Dataset& dataset, std::span<const std::int64_t> example_indices);

/// How rows are put into micro-batches.
struct BatchPlanOptions {
  bool shuffle = true;
  std::uint64_t seed = 42;
  std::int64_t examples_per_batch = 8;  ///< used when tokens_per_batch is 0
  std::int64_t tokens_per_batch =
      0;  ///< > 0: fill up to this many tokens, longest first within a window
};

/// The micro-batches of one epoch: lists of example indices that together hold every example once.
/// A pure function of its arguments, so a resumed run needs only the step number. `epoch` counts
/// from 0.
std::vector<std::vector<std::int64_t>> plan_epoch(const Dataset& dataset,
                                                  const BatchPlanOptions& options,
                                                  std::int64_t epoch);

}  // namespace finetune
