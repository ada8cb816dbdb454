#pragma once

#include "finetune/model/causal_lm.h"

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace finetune {

/// A base model under an adapter that stage `reward` trained, or TRL's RewardTrainer with PEFT.
/// Throws Error(model) for an adapter without a head that makes scores.
CausalLM open_reward_model(const std::filesystem::path& base, const std::filesystem::path& adapter,
                           const LoadOptions& options);

/// The score of each text, given by its tokens: a prompt with its answer, as training renders them.
/// It is read at the last token, as transformers' sequence classifiers do it where the padding
/// token is none of the text's. `model` has a head (CausalLM::score). Shorter than `texts` when
/// interrupt_signal() is set.
std::vector<double> reward_scores(const CausalLM& model,
                                  std::span<const std::vector<std::int32_t>> texts,
                                  std::int64_t texts_per_batch);

}  // namespace finetune
