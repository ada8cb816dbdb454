#pragma once

#include "finetune/nn/linear.h"

#include <optional>

namespace finetune {

/// What turns final hidden states into logits: softcap * tanh((h W^T + bias) * scale / softcap).
struct Head {
  Tensor weight;                            ///< [V, C]
  Tensor bias;                              ///< [V] or undefined (Phi)
  double scale = 1.0;                       ///< (Granite)
  double softcap = 0.0;                     ///< 0: none (Gemma 2)
  std::optional<Lora> lora = std::nullopt;  ///< an update of `weight`
};

/// Logits of some rows, [M, V] in float32 (double for double). hidden [M, C] in the compute type.
/// No gradient.
Tensor head_logits(const Tensor& hidden, const Head& head);

/// The rows of logits [rows, V] that the functions below hold at once, in memory that is kept for
/// the next time.
std::int64_t logits_tile_rows(std::int64_t vocabulary);

/// What changes the loss in training.
struct LossOptions {
  ForwardContext context;        ///< for the dropout of the head's adapter
  double label_smoothing = 0.0;  ///< the share of every target that all tokens get alike, as
                                 ///< torch.nn.CrossEntropyLoss has it
  Tensor token_weights = {};     ///< [M] float32: what each token's loss counts; undefined: 1
  Tensor* token_nll = nullptr;   ///< where to leave the plain cross-entropy of each token, [M]
                                 ///< float32 without gradient
};

/// Summed cross-entropy of the next token over supervised positions, in nats (float32), as a scalar
/// tensor. hidden [M, C] in the compute type, targets [M] int64. Works in tiles, so [M, V] never
/// exists; the gradient of `hidden` (and of the head's weight and bias when they ask for one) is
/// made in the same pass. Logits are accumulated and reduced in float32. The caller divides by the
/// count.
Tensor cross_entropy_sum(const Tensor& hidden, const Head& head, const Tensor& targets,
                         const LossOptions& options = {});

/// The cross-entropy of each token, [M] float32 (double for double), in nats: differentiable in
/// `hidden` and in what the head trains, so that a loss may be any function of log-probabilities.
/// Works in tiles too. Under a frozen head the product with its weights is made once: the backward
/// pass scales the rows that the forward pass left. Without dropout of the head's adapter.
/// `log_sum_squares`: where to leave log sum_v p_v^2 of each token's distribution, [M] without
/// gradient.
Tensor token_nll(const Tensor& hidden, const Head& head, const Tensor& targets,
                 Tensor* log_sum_squares = nullptr);

/// Per-token results of an evaluation, without gradients.
struct TokenScores {
  Tensor nll;      ///< [M] float32, nats
  Tensor correct;  ///< [M] bool: the target has the largest logit
};
TokenScores score_tokens(const Tensor& hidden, const Head& head, const Tensor& targets);

}  // namespace finetune
