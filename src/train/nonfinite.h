#pragma once

#include "finetune/dataset/batch.h"
#include "finetune/model/causal_lm.h"
#include "finetune/train/step_plan.h"
#include "train/flat_parameters.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace finetune {

/// A step whose loss or gradient was not finite, and what is known of it.
struct Nonfinite {
  std::int64_t step = 0;
  std::size_t micro_batch = 0;     ///< of the step, counted from 0
  std::string what;                ///< "the loss is nan"
  std::string place;               ///< where it appeared first: "model.layers.3", "the head"
  bool in_loss = false;            ///< `what` does not name the place
  std::vector<std::string> rows;   ///< file:line of the rows whose own loss is not finite; of all
                                   ///< rows when none is by itself
  bool rows_are_culprits = false;  ///< the rows are the former
};

/// Where in the forward pass of a batch the values first stop being finite: the embeddings, a block
/// by its name, or the head.
std::string first_nonfinite_place(const CausalLM& model, const Batch& batch,
                                  const ForwardContext& context);

/// The parameter whose gradient stopped being finite first, which is the one nearest to the loss;
/// "" when all are finite.
std::string first_nonfinite_gradient(const FlatParameters& parameters);

/// Fills `place`, where it is not known, and `rows` for a step. `batch`: the micro-batch of
/// `found`.
void investigate(const CausalLM& model, const Dataset& dataset, const PlannedStep& planned,
                 const Batch& batch, const ForwardContext& context, Nonfinite& found);

/// For a person; `kept`: what is said of the batch.
std::string describe(const Nonfinite& found, const std::string& kept);

/// Fills `rows` by scoring each row of `indices` alone, without dropout.
void find_rows(const CausalLM& model, const Dataset& dataset,
               const std::vector<std::int64_t>& indices, Nonfinite& found);

/// Writes into `folder` what a repetition needs beside the weights: batch.safetensors (input_ids,
/// starts, target_rows, targets) and nonfinite.json. Throws Error(resource).
void write_dump(const std::filesystem::path& folder, const Nonfinite& found, const Batch& batch,
                std::uint64_t dropout_seed);

}  // namespace finetune
