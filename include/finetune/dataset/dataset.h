#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/example.h"
#include "finetune/text/chat_template.h"
#include "finetune/text/tokenizer.h"

#include <cstdint>
#include <utility>
#include <vector>

namespace finetune {

/// How rows become examples.
struct DatasetOptions {
  std::int64_t max_length = 2048;  ///< tokens; the caller has lowered it to the model's own limit
  Overlength overlength = Overlength::error;
  bool train_on_prompt = false;
  bool pairs = false;                        ///< rows of a chosen and a rejected answer
  bool labelled = false;                     ///< rows of an answer and whether it is desirable
  bool allow_same_answers = false;           ///< pairs of twice the same one, for lint to tell
  std::optional<std::string> system_prompt;  ///< for rows that bring none
  std::int64_t max_row_bytes = std::int64_t{64} << 20;
  std::uint64_t seed = 42;  ///< chooses the rows of a fractional weight
  bool keep_texts = false;  ///< fill Dataset::texts
  /// Above 0: answers of so many tokens are to be sampled to the rows' prompts. A row then needs a
  /// prompt, but no answer, and room for both below max_length.
  std::int64_t sampled_tokens = 0;
};

/// The options of a configuration, with max_length lowered to `model_max_length` where that is
/// smaller.
DatasetOptions dataset_options(const Config& config, std::int64_t model_max_length);

/// Reads, checks, renders and tokenizes every file, in order. A file of weight w gives each of its
/// rows floor(w) times and a fixed random choice of them once more for the fraction. Throws one
/// Error(data) with every bad row as "file:line: found; expected" (ten shown, the rest counted):
/// malformed, empty, without a supervised token, over length, of another format than the first row
/// of its file.
Dataset open_dataset(const std::vector<DatasetSpec>& specs, const Tokenizer& tokenizer,
                     const ChatTemplate& chat_template, const DatasetOptions& options);

/// Moves a fixed random `fraction` of the rows (at least one, never all) into the second data set.
/// Copies of one row (weights) stay together. Throws Error(data) when there are fewer than two
/// rows.
std::pair<Dataset, Dataset> split_dataset(Dataset dataset, double fraction, std::uint64_t seed);

}  // namespace finetune
