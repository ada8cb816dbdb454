#pragma once

#include "config/field.h"

// First half of the field list (see fields.h): the model and what is trained of it.

namespace finetune {

/// Each of the functions below calls `v(Field, member)` for every setting of one group, in order.
/// `C` is Config or const Config.
template <class C, class V>
void visit_model_fields(C& c, V&& v) {
  v(Field{.key = "model_name_or_path",
          .help = "Folder of the base model: `config.json`, weights (safetensors) and tokenizer.",
          .aliases = {"model", "base_model", "model_path"},
          .absent = "required"},
    c.model_name_or_path);
  v(Field{.key = "method",
          .help =
              "What is trained: `lora` low-rank adapters, `full` the weights themselves, `adapter` "
              "bottleneck adapters, `ia3` learned factors of keys, values and the MLP. `qlora` is "
              "read "
              "as `lora` with `quantization: nf4`.",
          .aliases = {"finetuning_type", "fine_tune_type", "tuner_type", "training_type"}},
    c.method);
  v(Field{.key = "stage", .help = "The objective.", .aliases = {"rl", "rlhf_type"}}, c.stage);
  v(Field{.key = "quantization",
          .help =
              "How the frozen weights of the decoder's linear layers are stored: `nf4` in 4 bits, "
              "the same bits as bitsandbytes; `int8` in 8 bits with a scale for each output "
              "channel, an approximation. Products are computed in `dtype`."},
    c.quantization);
  v(Field{.key = "double_quant",
          .help = "With `nf4`: the block scales are quantized too.",
          .aliases = {"bnb_4bit_use_double_quant", "double_quantization", "use_bnb_nested_quant"}},
    c.double_quant);
  v(Field{.key = "dtype",
          .help = "Type the model computes in. `auto`: bfloat16 where the machine multiplies it "
                  "natively, else "
                  "float32; evaluation keeps a float32 model in float32.",
          .aliases = {"torch_dtype"}},
    c.dtype);
  v(Field{.key = "device",
          .help = "Where the model runs. `auto`: on CUDA where there is such a device, else on the "
                  "CPU."},
    c.device);
  v(Field{.key = "allow_extra_tensors",
          .help =
              "Accept tensors in the model's files that its architecture does not know; they are "
              "not used. Otherwise they are an error."},
    c.allow_extra_tensors);
}

template <class C, class V>
void visit_lora_fields(C& c, V&& v) {
  v(Field{.key = "lora_rank",
          .help = "Rank of the update matrices.",
          .aliases = {"r", "lora_r"},
          .range = between(1, 65536),
          .only_for = {"lora"}},
    c.lora_rank);
  v(Field{.key = "lora_alpha",
          .help = "The update is scaled by alpha / rank (alpha / sqrt(rank) with `use_rslora`).",
          .range = above(0),
          .only_for = {"lora"}},
    c.lora_alpha);
  v(Field{.key = "lora_dropout",
          .help = "Fraction of the adapter's inputs set to zero in training.",
          .range = kFraction,
          .only_for = {"lora"}},
    c.lora_dropout);
  v(Field{.key = "target_modules",
          .help =
              "Modules that get an adapter: `attention` (q, k, v and o projections), `all-linear` "
              "(every linear layer of the blocks, not the head), a list of names, or a regular "
              "expression for the whole module name. A text made only of names and commas is a "
              "list.",
          .aliases = {"lora_target", "lora_target_modules"},
          .only_for = {"lora", "ia3"}},
    c.target_modules);
  v(Field{.key = "exclude_modules",
          .help =
              "Modules that get none although `target_modules` names them: a list of names or a "
              "regular expression.",
          .only_for = {"lora", "ia3"}},
    c.exclude_modules);
  v(Field{.key = "layers_to_transform",
          .help = "Only these decoder blocks get adapters, counted from 0.",
          .aliases = {"peft_layers_to_transform"},
          .range = at_least(0),
          .absent = "all blocks",
          .only_for = {"lora", "ia3", "adapter"}},
    c.layers_to_transform);
}

template <class C, class V>
void visit_lora_variant_fields(C& c, V&& v) {
  v(Field{.key = "rank_pattern",
          .help = "Module name pattern -> rank, where it differs from `lora_rank`.",
          .range = between(1, 65536),
          .only_for = {"lora"}},
    c.rank_pattern);
  v(Field{.key = "alpha_pattern",
          .help = "Module name pattern -> alpha, where it differs from `lora_alpha`.",
          .range = above(0),
          .only_for = {"lora"}},
    c.alpha_pattern);
  v(Field{.key = "modules_to_save",
          .help =
              "Modules trained in whole and saved with the adapter: every module whose name ends "
              "in one of these texts, such as `embed_tokens`, `lm_head`, `norm`. A tied head or "
              "embedding named here becomes a tensor of its own.",
          .aliases = {"additional_target", "lora_modules_to_save"},
          .only_for = {"lora", "ia3"}},
    c.modules_to_save);
  v(Field{.key = "use_rslora",
          .help = "Scale by alpha / sqrt(rank).",
          .aliases = {"peft_use_rslora"},
          .only_for = {"lora"}},
    c.use_rslora);
  v(Field{.key = "use_dora",
          .help = "Weight-decomposed LoRA (DoRA): the length of every row of the updated weight is "
                  "trained apart from its direction.",
          .aliases = {"peft_use_dora"},
          .only_for = {"lora"}},
    c.use_dora);
  v(Field{.key = "init_lora_weights",
          .help =
              "How the adapter begins: `true` (A random, B zero), `gaussian`, `pissa` (the largest "
              "singular values of the weight; `pissa_niter_16` finds them faster and about), "
              "`olora` "
              "(its QR factors), `loftq` (the largest singular values of what `nf4` or `int8` "
              "lost), "
              "or the folder of an adapter to continue, which then also gives rank, alpha and "
              "targets; with `adapter` only the last.",
          .aliases = {"init_adapter", "resume_adapter_file", "adapter_name_or_path",
                      "lora_model_dir", "peft_init_lora_weights"},
          .only_for = {"lora", "adapter"}},
    c.init_lora_weights);
  v(Field{.key = "stack_on_adapter",
          .help =
              "Folder of a LoRA adapter that stays as it is, under the new one. The result holds "
              "both, so it opens over the base model alone.",
          .absent = "none",
          .only_for = {"lora"}},
    c.stack_on_adapter);
  v(Field{.key = "loraplus_lr_ratio",
          .help = "LoRA+: learning rate of B over that of A, which has `learning_rate`.",
          .aliases = {"lorap_lr_ratio"},
          .range = above(0),
          .only_for = {"lora"}},
    c.loraplus_lr_ratio);
}

template <class C, class V>
void visit_other_method_fields(C& c, V&& v) {
  v(Field{.key = "trainable_modules",
          .help = "Regular expression; parameters with a name that matches it from end to end are "
                  "trained, the "
                  "others stay frozen.",
          .absent = "all parameters",
          .only_for = {"full"},
          .regex = true},
    c.trainable_modules);
  v(Field{.key = "freeze_trainable_layers",
          .help = "Above 0, only this many decoder blocks are trained, the last ones; below 0, the "
                  "first ones. Embeddings, head and last norm then stay frozen. Not beside "
                  "`trainable_modules`.",
          .only_for = {"full"}},
    c.freeze_trainable_layers);
  v(Field{.key = "pure_bf16",
          .help =
              "Keep the trained weights in bfloat16 alone, 2 bytes a weight in place of 4: each "
              "update is computed in float32 and rounded stochastically, so that small ones "
              "are not lost. With `dtype: bfloat16` the model computes with them as they are.",
          .only_for = {"full"}},
    c.pure_bf16);
  v(Field{.key = "adapter_size",
          .help = "Width of a bottleneck adapter.",
          .range = at_least(1),
          .only_for = {"adapter"}},
    c.adapter_size);
  v(Field{.key = "adapter_activation",
          .help = "Nonlinearity of a bottleneck adapter.",
          .only_for = {"adapter"}},
    c.adapter_activation);
  v(Field{.key = "adapter_placement",
          .help =
              "Where bottleneck adapters stand: `pfeiffer` after the MLP, reading what it gives "
              "and the residual stream together; `houlsby` after attention and MLP, reading "
              "what they give; `parallel` beside the MLP, reading the stream before it.",
          .only_for = {"adapter"}},
    c.adapter_placement);
  v(Field{.key = "adapter_scaling",
          .help = "The update of a bottleneck adapter is multiplied by this.",
          .range = above(0),
          .absent = "4 with `parallel`, else 1",
          .only_for = {"adapter"}},
    c.adapter_scaling);
  v(Field{.key = "adapter_dropout",
          .help = "Fraction of a bottleneck adapter's update set to zero in training.",
          .range = kFraction,
          .only_for = {"adapter"}},
    c.adapter_dropout);
  v(Field{.key = "feedforward_modules",
          .help = "With `ia3`: the targets that are scaled at their input instead of their output.",
          .absent = "the MLP's last projection",
          .only_for = {"ia3"}},
    c.feedforward_modules);
}

}  // namespace finetune
