#pragma once

#include "commands/session.h"
#include "finetune/dataset/dataset.h"
#include "finetune/model/model_config.h"

#include <optional>

namespace finetune {

/// The data of a run.
struct RunData {
  Dataset train;
  std::optional<Dataset> eval;
};

/// Reads the training and evaluation data of a configuration, and says what they are.
RunData open_run_data(const Config& config, const TextTools& text, const ModelConfig& model);

/// Throws Error(model) when a row holds a token for which the model has no embedding, with how to
/// enlarge it.
void require_embeddings(const Dataset& data, const TextTools& text, const ModelConfig& model);

/// Rows above max_length: how many there are, and the longest.
struct Overlong {
  std::int64_t rows = 0, longest = 0, max_length = 0;
};

/// The same without stopping at rows that are too long: they are counted, and cut unless they are
/// to be dropped.
RunData open_planned_data(const Config& config, const TextTools& text, const ModelConfig& model,
                          Overlong& overlong);

}  // namespace finetune
