#include "dataset/cache.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"
#include "finetune/formats/safetensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdlib>

namespace finetune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kVersion = "1";
constexpr std::size_t kMostFiles = 16;

fs::path default_folder() {
  if (const char* given = std::getenv("FINETUNE_CACHE_DIR")) return given;
  if (const char* given = std::getenv("XDG_CACHE_HOME"); given != nullptr && *given != '\0')
    return fs::path(given) / "finetune";
  const char* home = std::getenv("HOME");
  return home == nullptr || *home == '\0' ? fs::path() : fs::path(home) / ".cache" / "finetune";
}

std::map<std::string, std::string> metadata_of(const Dataset& dataset) {
  const Dataset::Summary& s = dataset.summary;
  return {{"version", kVersion},
          {"content_hash", dataset.content_hash},
          {"rows", std::to_string(s.rows)},
          {"dropped", std::to_string(s.dropped)},
          {"truncated", std::to_string(s.truncated)}};
}

constexpr std::int64_t kOriginNumbers = 3;  // tokens, file, line

/// The tensors of a data set; each is made when it is its turn to be written.
std::vector<TensorPlan> planned_tensors(const Dataset& dataset) {
  const auto examples = static_cast<std::int64_t>(dataset.examples.size());
  return {{"origins", at::kLong, {examples, kOriginNumbers}},
          {"input_ids", at::kInt, {dataset.summary.tokens}},
          {"supervised", at::kByte, {dataset.summary.tokens}}};
}

Tensor flatten(const Dataset& dataset, const TensorPlan& plan) {
  Tensor tensor = at::empty(plan.shape, plan.dtype);
  if (plan.name == "input_ids") {
    auto* next = tensor.mutable_data_ptr<std::int32_t>();
    for (const Example& example : dataset.examples)
      next = std::copy(example.input_ids.begin(), example.input_ids.end(), next);
  } else if (plan.name == "supervised") {
    auto* next = tensor.mutable_data_ptr<std::uint8_t>();
    for (const Example& example : dataset.examples)
      next = std::copy(example.supervised.begin(), example.supervised.end(), next);
  } else {
    auto* next = tensor.mutable_data_ptr<std::int64_t>();
    for (const Example& example : dataset.examples) {
      *next++ = static_cast<std::int64_t>(example.input_ids.size());
      *next++ = example.origin.file;
      *next++ = example.origin.line;
    }
  }
  return tensor;
}

Dataset unflatten(const SafetensorsFile& file) {
  Dataset dataset;
  dataset.content_hash = file.metadata().at("content_hash");
  dataset.summary.rows = std::stoll(file.metadata().at("rows"));
  dataset.summary.dropped = std::stoll(file.metadata().at("dropped"));
  dataset.summary.truncated = std::stoll(file.metadata().at("truncated"));
  const Tensor ids = file.tensor("input_ids"), supervised = file.tensor("supervised"),
               origins = file.tensor("origins");
  const auto* next_id = ids.const_data_ptr<std::int32_t>();
  const auto* next_mark = supervised.const_data_ptr<std::uint8_t>();
  const auto* const last_id = next_id + ids.numel();
  const auto* origin = origins.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < origins.size(0); ++i, origin += kOriginNumbers) {
    const std::int64_t tokens = origin[0];
    if (tokens < 0 || tokens > last_id - next_id || ids.numel() != supervised.numel())
      throw std::out_of_range("lengths");
    Example& example = dataset.examples.emplace_back();
    example.input_ids.assign(next_id, next_id + tokens);
    example.supervised.assign(next_mark, next_mark + tokens);
    example.supervised_tokens = std::count(example.supervised.begin(), example.supervised.end(), 1);
    example.origin = {static_cast<std::int32_t>(origin[1]), origin[2]};
    next_id += tokens;
    next_mark += tokens;
    dataset.summary.tokens += tokens;
    dataset.summary.supervised_tokens += example.supervised_tokens;
    dataset.summary.longest = std::max(dataset.summary.longest, tokens);
  }
  return dataset;
}

}  // namespace

DatasetCache::DatasetCache() : folder_(default_folder()) {}

fs::path DatasetCache::file_of(const std::string& key) const {
  return folder_ / ("dataset-" + key + ".safetensors");
}

std::optional<Dataset> DatasetCache::read(const std::string& key) const {
  std::error_code absent;
  if (folder_.empty() || !fs::exists(file_of(key), absent)) return std::nullopt;
  try {
    const SafetensorsFile file(file_of(key));
    const auto version = file.metadata().find("version");
    if (version == file.metadata().end() || version->second != kVersion) return std::nullopt;
    Dataset dataset = unflatten(file);
    fs::last_write_time(file_of(key), fs::file_time_type::clock::now(), absent);  // recently used
    return dataset;
  } catch (const std::exception& error) {
    log_verbose("data", "{} is not used: {}", file_of(key).string(), error.what());
    return std::nullopt;
  }
}

void DatasetCache::write(const std::string& key, const Dataset& dataset) const {
  if (folder_.empty()) return;
  try {
    make_folder(folder_);
    write_safetensors(
        file_of(key), planned_tensors(dataset),
        [&](const TensorPlan& plan) { return flatten(dataset, plan); }, metadata_of(dataset));
    prune();
    log_verbose("data", "the tokens are kept in {}", file_of(key).string());
  } catch (const std::exception& error) {
    log_verbose("data", "the tokens are not kept: {}", error.what());
  }
}

void DatasetCache::prune() const {
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("dataset-") && name.ends_with(".safetensors"))
      files.emplace_back(entry.last_write_time(), entry.path());
  }
  std::sort(files.begin(), files.end());
  for (std::size_t i = 0; i + kMostFiles < files.size(); ++i) {
    std::error_code gone_already;
    fs::remove(files[i].second, gone_already);
  }
}

}  // namespace finetune
