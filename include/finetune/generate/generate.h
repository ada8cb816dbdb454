#pragma once

#include "finetune/generate/sampling.h"
#include "finetune/model/causal_lm.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace finetune {

/// Why a sequence ended: "stop" at a stop token or where on_token said so, "length" at
/// max_new_tokens or the model's own limit.
struct Generation {
  std::vector<std::int32_t> ids;
  std::string finish_reason;
  std::int32_t stop_id = -1;  ///< the stop token that ended it, which is not in `ids`; -1: none
};

/// How long and until when to write, and how each token is chosen.
struct GenerateOptions {
  std::int64_t max_new_tokens = 256;
  std::vector<std::int32_t> stop_ids;  ///< any of them ends a sequence and is not part of it
  SamplingOptions sampling;            ///< greedy unless it says otherwise
  std::int64_t slots = 64;             ///< sequences decoded together, fewer of a large model
  std::int64_t copies = 1;             ///< answers to each prompt
  /// Of each prompt: what its draws depend on beside the seed and the number of the answer to it;
  /// empty: its index.
  std::vector<std::uint64_t> streams = {};
  /// Called after each token that an answer gets, with its index among the results and the answer
  /// so far; true ends the answer there, with finish_reason "stop".
  std::function<bool(std::size_t index, std::span<const std::int32_t> answer)> on_token = {};
  /// Called with each result as soon as its sequence ended, but not after an interruption.
  std::function<void(std::size_t index, const Generation& result)> on_finish = {};
};

/// Continues every prompt through a ragged key-value cache, a token of every unfinished sequence a
/// pass; the next prompt takes the place of one that is finished, in the same pass. A prompt's
/// result does not depend on the others, but for the rounding of sums. The answers to a prompt
/// stand together in the results; it is computed once for all of them that find a slot. Stops
/// early, with finish_reason "interrupted", when interrupt_signal() is set. Prompts must not be
/// empty; throws Error(data) for one that leaves no room below the model's longest_sequence(), and
/// Error(model) for a token without an embedding.
std::vector<Generation> generate(const CausalLM& model,
                                 const std::vector<std::vector<std::int32_t>>& prompts,
                                 const GenerateOptions& options);

}  // namespace finetune
