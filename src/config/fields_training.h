#pragma once

#include "config/field.h"

// Second half of the field list (see fields.h): data, schedule, output.

namespace finetune {

template <class C, class V>
void visit_data_fields(C& c, V&& v) {
  v(Field{.key = "datasets",
          .help = "Training data: a path, or a list of paths or of entries, whose keys stand at "
                  "the end "
                  "of this page. JSON Lines or a JSON array, also `.gz`.",
          .aliases = {"dataset", "train_file", "data"},
          .absent = "required for train"},
    c.datasets);
  v(Field{.key = "eval_datasets",
          .help = "Evaluation data, written like `datasets`.",
          .aliases = {"eval_dataset", "eval_file", "validation_file", "test_datasets"}},
    c.eval_datasets);
  v(Field{.key = "eval_split",
          .help = "Fraction of the training rows held out for evaluation.",
          .aliases = {"val_size", "val_set_size", "split_dataset_ratio"},
          .range = kFraction},
    c.eval_split);
  v(Field{.key = "template",
          .help = "How messages become text: `auto` (the model's own chat template, else "
                  "`alpaca`), `alpaca`, `chatml`, `llama2`, "
                  "`llama3`, `mistral`, `gemma`, `phi3`, `qwen`, `vicuna`, `none` (prompt and "
                  "completion as they are), or a "
                  "file ending in `.jinja`.",
          .aliases = {"chat_template"}},
    c.template_name);
  v(Field{.key = "system_prompt",
          .help = "System message of rows that have none.",
          .aliases = {"default_system", "system"},
          .absent = "none"},
    c.system_prompt);
  v(Field{.key = "train_on_prompt",
          .help = "Supervise the prompt's tokens too.",
          .aliases = {"train_on_inputs", "train_on_input"}},
    c.train_on_prompt);
}

template <class C, class V>
void visit_row_fields(C& c, V&& v) {
  v(Field{.key = "max_length",
          .help = "Longest row in tokens; never above what the model itself can read.",
          .aliases = {"cutoff_len", "sequence_len", "max_seq_length", "max_seq_len"},
          .range = at_least(2)},
    c.max_length);
  v(Field{.key = "overlength",
          .help = "What happens to a longer row: `error` stops before training, `truncate` cuts "
                  "its end, "
                  "`drop` leaves it out and counts it.",
          .aliases = {"excess_length_strategy"}},
    c.overlength);
  v(Field{.key = "shuffle", .help = "New order of the rows in each epoch, fixed by `seed`."},
    c.shuffle);
  v(Field{.key = "seed", .help = "Seed of everything random.", .range = at_least(0)}, c.seed);
  v(Field{.key = "max_row_bytes",
          .help = "A data row above this size is an error. A size like `64 MiB` is understood.",
          .range = at_least(1),
          .bytes = true},
    c.max_row_bytes);
  v(Field{.key = "prefix_sharing",
          .help =
              "Compute what rows of a micro-batch begin with alike only once; the result is the "
              "same. `auto`: wherever that is so, not with dropout or noise of each row's own."},
    c.prefix_sharing);
}

template <class C, class V>
void visit_length_fields(C& c, V&& v) {
  v(Field{.key = "num_train_epochs",
          .help = "Times each row is seen; may be a fraction.",
          .aliases = {"num_epochs", "epochs"},
          .range = above(0)},
    c.num_train_epochs);
  v(Field{.key = "max_steps",
          .help = "Number of optimizer steps. Above 0 it decides instead of `num_train_epochs`; -1 "
                  "leaves it to that.",
          .aliases = {"iters"},
          .range = at_least(-1)},
    c.max_steps);
  v(Field{.key = "per_device_train_batch_size",
          .help = "Rows of a micro-batch.",
          .aliases = {"micro_batch_size", "batch_size"},
          .range = between(1, 1 << 20)},
    c.per_device_train_batch_size);
  v(Field{.key = "tokens_per_batch",
          .help = "Tokens of a micro-batch, instead of `per_device_train_batch_size`: rows of "
                  "similar length "
                  "fill it up.",
          .range = at_least(1),
          .absent = "batches are counted in rows"},
    c.tokens_per_batch);
  v(Field{.key = "per_device_eval_batch_size",
          .help = "Rows of an evaluation batch. Does not change the result.",
          .aliases = {"eval_batch_size"},
          .range = between(1, 1 << 20),
          .absent = "as in training"},
    c.per_device_eval_batch_size);
  v(Field{.key = "gradient_accumulation_steps",
          .help = "Micro-batches of an optimizer step. Any split gives the same gradient.",
          .aliases = {"grad_accumulation_steps"},
          .range = between(1, 1 << 20)},
    c.gradient_accumulation_steps);
}

template <class C, class V>
void visit_schedule_fields(C& c, V&& v) {
  v(Field{.key = "learning_rate",
          .help = "Highest learning rate.",
          .aliases = {"lr"},
          .range = above(0),
          .absent =
              "2e-4 for lora and adapter, 3e-3 for ia3, 1e-5 for full, 5e-6 for preference stages"},
    c.learning_rate);
  v(Field{.key = "lr_scheduler_type",
          .help = "Shape of the learning rate over the run. `constant` has no warm-up.",
          .aliases = {"lr_scheduler", "lr_schedule"}},
    c.lr_scheduler_type);
  v(Field{.key = "warmup_ratio",
          .help = "Fraction of the steps in which the rate rises from 0.",
          .range = kFraction},
    c.warmup_ratio);
  v(Field{.key = "warmup_steps",
          .help =
              "Steps in which the rate rises from 0, instead of `warmup_ratio`. A value below 1 is "
              "read as the ratio, as transformers does.",
          .aliases = {"num_warmup_steps", "lr_warmup_steps"},
          .range = at_least(0)},
    c.warmup_steps);
  v(Field{.key = "min_lr_ratio",
          .help = "With `cosine_with_min_lr`: the lowest rate as a fraction of `learning_rate`.",
          .aliases = {"min_lr_rate"},
          .range = between(0, 1)},
    c.min_lr_ratio);
  v(Field{.key = "wsd_decay_ratio",
          .help = "With `wsd`: the last fraction of the steps, in which the rate falls to 0.",
          .range = between(0, 1)},
    c.wsd_decay_ratio);
}

template <class C, class V>
void visit_optimizer_fields(C& c, V&& v) {
  v(Field{.key = "optim",
          .help = "The optimizer. `adamw_8bit` keeps both moments in eight bits, block by block: 2 "
                  "bytes a weight in place of 8. `lion` wants a learning rate 3 to 10 times "
                  "smaller than `adamw`.",
          .aliases = {"optimizer"}},
    c.optim);
  v(Field{.key = "weight_decay", .help = "Decoupled weight decay.", .range = at_least(0)},
    c.weight_decay);
  v(Field{.key = "adam_beta1",
          .help = "Decay of AdamW's first moment; share of the momentum in the step of `lion`.",
          .range = kFraction},
    c.adam_beta1);
  v(Field{.key = "adam_beta2",
          .help =
              "Decay of AdamW's second moment; of the momentum of `lion`, whose paper has 0.99.",
          .range = kFraction},
    c.adam_beta2);
  v(Field{.key = "adam_epsilon",
          .help = "Added to the root of AdamW's second moment.",
          .range = above(0)},
    c.adam_epsilon);
  v(Field{.key = "momentum", .help = "Momentum of `sgd`.", .range = kFraction}, c.momentum);
  v(Field{.key = "optimizer_in_backward",
          .help =
              "Update each weight as soon as the backward pass has its gradient, and free that: "
              "memory for one layer's gradients in place of all. Needs "
              "`gradient_accumulation_steps: 1` and `max_grad_norm: 0`."},
    c.optimizer_in_backward);
  v(Field{.key = "max_grad_norm",
          .help = "A gradient with a larger norm is scaled down to this one; 0 turns it off.",
          .range = at_least(0)},
    c.max_grad_norm);
  v(Field{.key = "gradient_checkpointing",
          .help = "Keep the input of each block alone and compute the block again in the backward "
                  "pass: a fraction of the memory for a third more time, and the same result. "
                  "`auto` is off.",
          .aliases = {"activation_checkpointing", "use_gradient_checkpointing"}},
    c.gradient_checkpointing);
  v(Field{.key = "neftune_noise_alpha",
          .help = "Noise on the embeddings in training; 0 turns it off.",
          .range = at_least(0)},
    c.neftune_noise_alpha);
  v(Field{.key = "label_smoothing",
          .help =
              "Share of every target that all tokens of the vocabulary get alike, in training. "
              "Evaluation has none. Preference stages: the share of pairs taken to be the wrong "
              "way round.",
          .aliases = {"label_smoothing_factor"},
          .range = kFraction},
    c.label_smoothing);
}

template <class C, class V>
void visit_evaluation_fields(C& c, V&& v) {
  v(Field{.key = "eval_steps",
          .help = "Optimizer steps between evaluations.",
          .range = at_least(1),
          .absent = "at the end of each epoch"},
    c.eval_steps);
  v(Field{.key = "save_steps",
          .help = "Optimizer steps between checkpoints.",
          .aliases = {"save_every"},
          .range = at_least(1),
          .absent = "at the end of each epoch"},
    c.save_steps);
  v(Field{.key = "logging_steps",
          .help = "Optimizer steps between lines of `metrics.jsonl`.",
          .range = at_least(1)},
    c.logging_steps);
  v(Field{.key = "eval_samples",
          .help = "Rows of the evaluation data that are answered, greedily, at each evaluation; "
                  "`samples.jsonl` and the report show them. 0 turns it off.",
          .range = between(0, 1000)},
    c.eval_samples);
  v(Field{.key = "tensorboard",
          .help = "Write event files for TensorBoard into `tensorboard/` of the output folder.",
          .aliases = {"use_tensorboard"}},
    c.tensorboard);
  v(Field{.key = "prometheus_file",
          .help = "A file that always holds the newest numbers in Prometheus' text format, such as "
                  "`/var/lib/node_exporter/finetune.prom`.",
          .absent = "none"},
    c.prometheus_file);
  v(Field{.key = "save_total_limit", .help = "Checkpoints kept.", .range = at_least(1)},
    c.save_total_limit);
  v(Field{.key = "load_best_model_at_end",
          .help = "The result is the state with the lowest evaluation loss, not the last one.",
          .absent = "true when there are evaluation data"},
    c.load_best_model_at_end);
  v(Field{.key = "early_stopping_patience",
          .help = "Stop after this many evaluations without a lower loss; 0 turns it off.",
          .aliases = {"early_stopping_steps"},
          .range = at_least(0)},
    c.early_stopping_patience);
  v(Field{.key = "terms",
          .help = "For `eval --generate`: a glossary, a term a line. Scores how many of the terms "
                  "in the reference are in the answer.",
          .aliases = {"glossary"},
          .absent = "none"},
    c.terms);
  v(Field{.key = "format_check",
          .help = "For `eval --generate`: what an answer must be valid against: a JSON schema (a "
                  "file ending in `.json`, or its text), or a regular expression that matches it "
                  "from end to end. A row's own `format_check` wins.",
          .absent = "none"},
    c.format_check);
  v(Field{.key = "scorer",
          .help = "For `eval --generate`: a shell command that reads a JSON line for each row "
                  "(`prompt`, `reference`, `prediction`, ...) and prints a number a line.",
          .absent = "none"},
    c.scorer);
}

template <class C, class V>
void visit_run_fields(C& c, V&& v) {
  v(Field{.key = "output_dir",
          .help = "Where the result is written.",
          .absent = "`runs/NAME` after the file `NAME.yaml`, or `runs/train` without a file"},
    c.output_dir);
  v(Field{.key = "overwrite_output_dir", .help = "Start anew in a folder that holds a run."},
    c.overwrite_output_dir);
  v(Field{.key = "disk_retry_seconds",
          .help = "How long a write to a full disk is tried again before the run stops.",
          .range = at_least(0)},
    c.disk_retry_seconds);
  v(Field{.key = "on_nonfinite",
          .help = "What a loss or gradient that is not finite does. It is never applied. `stop` "
                  "ends the run with exit code 6; `skip` leaves the step out; `rollback` also puts "
                  "weights and optimizer back to the last checkpoint. After three such steps in a "
                  "row the run stops whatever it says."},
    c.on_nonfinite);
  v(Field{.key = "interrupt_grace_seconds",
          .help = "After SIGINT or SIGTERM the run saves a checkpoint and ends; after this many "
                  "seconds it ends without. Keep it below the terminationGracePeriodSeconds of a "
                  "pod.",
          .range = between(1, 86400)},
    c.interrupt_grace_seconds);
  v(Field{.key = "num_threads",
          .help = "CPU threads.",
          .range = between(1, 4096),
          .absent = "all cores this process may use"},
    c.num_threads);
}

}  // namespace finetune
