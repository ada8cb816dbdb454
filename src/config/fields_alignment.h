#pragma once

#include "config/field.h"

// The settings of alignment; included by fields.h.

namespace finetune {

template <class C, class V>
void visit_preference_fields(C& c, V&& v) {
  v(Field{.key = "loss_type",
          .help = "The loss of stage `dpo`: `sigmoid` as published (with `label_smoothing` cDPO), "
                  "`hinge` (SLiC), `robust` (for a known share of wrong labels, "
                  "`label_smoothing`).",
          .aliases = {"pref_loss", "dpo_loss", "dpo_loss_type"}},
    c.loss_type);
  v(Field{.key = "beta",
          .help = "Strength of the pull towards the reference model; `orpo`: weight of the odds "
                  "ratio; `simpo`: scale of the margin; `grpo`: weight of the KL term.",
          .aliases = {"pref_beta", "dpo_beta", "rl_beta"},
          .range = at_least(0),
          .absent = "0.1, and 0 for grpo"},
    c.beta);
  v(Field{.key = "simpo_gamma",
          .help = "Margin between the chosen and the rejected answer that stage `simpo` aims at.",
          .range = at_least(0)},
    c.simpo_gamma);
  v(Field{.key = "reference_adapter",
          .help =
              "Folder of the adapter over the base model that is the reference of stages `dpo`, "
              "`ipo` and `kto`.",
          .absent = "the state at step 0"},
    c.reference_adapter);
  v(Field{.key = "use_weighting",
          .help =
              "Stage `dpo`: weigh each pair by how likely the model itself is to write it (WPO)."},
    c.use_weighting);
  v(Field{.key = "desirable_weight",
          .help = "Stage `kto`: weight of the rows labelled true.",
          .aliases = {"kto_chosen_weight"},
          .range = above(0)},
    c.desirable_weight);
  v(Field{.key = "undesirable_weight",
          .help = "Stage `kto`: weight of the rows labelled false.",
          .aliases = {"kto_rejected_weight"},
          .range = above(0)},
    c.undesirable_weight);
  v(Field{.key = "center_rewards_coefficient",
          .help = "Stage `reward`: weight of a term that keeps the rewards of a pair around 0.",
          .range = at_least(0)},
    c.center_rewards_coefficient);
}

template <class C, class V>
void visit_grpo_fields(C& c, V&& v) {
  v(Field{.key = "reward_funcs",
          .help = "What rewards an answer, each as a name or `name:argument`; their weighted sum "
                  "counts. docs/grpo.md has the list.",
          .aliases = {"rewards"},
          .whole_text = true},
    c.reward_funcs);
  v(Field{.key = "reward_weights",
          .help = "A weight for each of `reward_funcs`.",
          .absent = "1 each"},
    c.reward_weights);
  v(Field{.key = "num_generations",
          .help =
              "Answers sampled to each prompt. A prompt with its answers is a group, and a row of "
              "the batch.",
          .aliases = {"group_size"},
          .range = at_least(2)},
    c.num_generations);
  v(Field{.key = "max_completion_length",
          .help = "Most tokens of a sampled answer.",
          .range = at_least(1)},
    c.max_completion_length);
  v(Field{.key = "temperature", .help = "Of the sampled answers.", .range = above(0)},
    c.temperature);
  v(Field{.key = "top_k",
          .help = "Sample from so many of the likeliest tokens; 0 is all.",
          .range = at_least(0)},
    c.top_k);
  v(Field{.key = "top_p",
          .help = "Sample from the likeliest tokens that have this probability together.",
          .range = {.low = 0, .high = 1, .low_open = true}},
    c.top_p);
  v(Field{.key = "num_iterations",
          .help = "Optimizer steps on the same sampled answers.",
          .range = at_least(1)},
    c.num_iterations);
  v(Field{.key = "epsilon",
          .help =
              "Clipping: how far the ratio of a token's new to its old probability counts below 1.",
          .range = kFraction},
    c.epsilon);
  v(Field{.key = "epsilon_high",
          .help = "The same above 1.",
          .range = at_least(0),
          .absent = "`epsilon`"},
    c.epsilon_high);
  v(Field{.key = "grpo_loss_type",
          .help =
              "How token losses are averaged: `grpo` within each answer and then over answers, "
              "`bnpo` over the tokens of a micro-batch, `dapo` over those of an optimizer step, "
              "`dr_grpo` over answers times `max_completion_length`."},
    c.grpo_loss_type);
  v(Field{.key = "scale_rewards",
          .help = "Divide the advantages by the deviation of the rewards in their `group`, in the "
                  "`batch`, or not (`none`)."},
    c.scale_rewards);
}

}  // namespace finetune
