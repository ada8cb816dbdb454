#pragma once

#include "finetune/model/causal_lm.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace finetune {

/// How long and until when to write. Decoding is greedy: the token with the largest logit, the
/// lowest id among equals.
struct GenerateOptions {
  std::int64_t max_new_tokens = 256;
  std::vector<std::int32_t> stop_ids;  ///< any of them ends a sequence and is not part of it
};

/// Why a sequence ended: "stop" at a stop token, "length" at max_new_tokens or the model's own
/// limit.
struct Generation {
  std::vector<std::int32_t> ids;
  std::string finish_reason;
};

/// Continues every prompt through a key-value cache, a token of every unfinished sequence a pass. A
/// prompt's result does not depend on the others. Stops early, with finish_reason "interrupted",
/// when interrupt_signal() is set. Prompts must not be empty; throws Error(data) for one that
/// leaves no room below the model's longest_sequence().
std::vector<Generation> generate(const CausalLM& model,
                                 const std::vector<std::vector<std::int32_t>>& prompts,
                                 const GenerateOptions& options);

}  // namespace finetune
