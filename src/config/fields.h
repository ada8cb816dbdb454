#pragma once

// The one list of settings. The parser, --show-config, the documentation, the JSON schema and the
// "not in this version" check are visitors of it, so a setting is described once: here and in the
// three headers below.

#include "config/fields_alignment.h"
#include "config/fields_model.h"
#include "config/fields_training.h"
#include "finetune/config/config.h"

namespace finetune {

/// Every setting, group by group; `v.group(title)` is called before each where the visitor has it.
template <class C, class V>
void visit_fields(C& c, V&& v) {
  const auto group = [&](std::string_view title) {
    if constexpr (requires { v.group(title); }) v.group(title);
  };
  group("Model and method");
  visit_model_fields(c, v);
  group("LoRA");
  visit_lora_fields(c, v);
  visit_lora_variant_fields(c, v);
  group("Full fine-tuning and bottleneck adapters");
  visit_other_method_fields(c, v);
  group("Data");
  visit_data_fields(c, v);
  visit_row_fields(c, v);
  group("Length of the run and batches");
  visit_length_fields(c, v);
  group("Learning rate and optimizer");
  visit_schedule_fields(c, v);
  visit_optimizer_fields(c, v);
  group("Preference stages");
  visit_preference_fields(c, v);
  group("Online alignment: stage grpo");
  visit_grpo_fields(c, v);
  group("Evaluation, checkpoints and output");
  visit_evaluation_fields(c, v);
  visit_run_fields(c, v);
}

/// The settings of one entry of `datasets`.
template <class S, class V>
void visit_dataset_fields(S& s, V&& v) {
  v(Field{.key = "path", .help = "The file.", .absent = "required"}, s.path);
  v(Field{.key = "format",
          .help = "Row format: `auto` recognises it by the rows' keys; else `alpaca`, "
                  "`prompt_completion`, `messages`, `conversations`, `text`.",
          .aliases = {"type"}},
    s.format);
  v(Field{.key = "fields", .help = "Our key -> the key in the file, e.g. `{output: answer}`."},
    s.fields);
  v(Field{.key = "weight",
          .help = "How often each of its rows is seen in an epoch; may be a fraction. Not for "
                  "evaluation data.",
          .range = above(0)},
    s.weight);
  v(Field{.key = "template", .help = "A template for this file alone.", .has = {""}},
    s.template_name);
  v(Field{.key = "format_check",
          .help = "What `eval --generate` wants its answers to be valid against, instead of the "
                  "run's `format_check`."},
    s.format_check);
}

}  // namespace finetune
