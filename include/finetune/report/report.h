#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/dataset.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace finetune {

constexpr const char* kReportJsonFile = "report.json";
constexpr const char* kReportPageFile = "report.html";
constexpr const char* kSamplesFile = "samples.jsonl";

/// A stretch of a row whose tokens are all supervised, or none.
struct RowPart {
  std::string text;
  bool supervised = false;
};
/// The row as the model sees it, special tokens included. The parts joined are the decoded row.
std::vector<RowPart> row_parts(const Example& example, const Tokenizer& tokenizer);

/// Rows of one length range in tokens, the upper bound included.
struct LengthBucket {
  std::int64_t from = 0, to = 0, rows = 0;
};
/// At most ten ranges of equal width from 1 to the longest; none without rows.
std::vector<LengthBucket> length_histogram(const std::vector<std::int64_t>& lengths);

/// Counts, histogram and the first `samples` rows of a data set, as report.json has them.
nlohmann::ordered_json describe_data(const std::string& name, const Dataset& dataset,
                                     const Tokenizer& tokenizer, std::size_t samples);

/// Every setting with its value and origin.
nlohmann::ordered_json describe_config(const Config& config);

/// Processor, cores, memory, versions.
nlohmann::ordered_json describe_environment();

/// Norm of the update and its effective rank (the exponential of the entropy of the normalized
/// singular values; Roy and Vetterli 2007) for each LoRA module of a folder; empty for other
/// adapters and for whole models.
nlohmann::ordered_json describe_adapter(const std::filesystem::path& folder);

/// What a run folder holds: report.json where there is one, with metrics, samples and adapter read
/// anew. Throws Error(config) for a folder that holds no run.
nlohmann::ordered_json read_run(const std::filesystem::path& folder);

/// One page that needs nothing else, of one run, or of two to compare.
std::string report_page(const std::vector<nlohmann::ordered_json>& runs);

/// Writes report.json and report.html into the run folder. `about` is what only the run itself
/// knows: config, data, environment, result, repeat.
void write_report(const std::filesystem::path& folder, nlohmann::ordered_json about);

}  // namespace finetune
