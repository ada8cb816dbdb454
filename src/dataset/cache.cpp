#include "dataset/cache.h"

#include "finetune/base/cache_folder.h"
#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"
#include "finetune/formats/safetensors.h"

#include <algorithm>
#include <span>

namespace finetune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kVersion = "1";
constexpr std::size_t kMostFiles = 16;

std::map<std::string, std::string> metadata_of(const Dataset& dataset) {
  const Dataset::Summary& s = dataset.summary;
  return {{"version", kVersion},
          {"content_hash", dataset.content_hash},
          {"rows", std::to_string(s.rows)},
          {"dropped", std::to_string(s.dropped)},
          {"truncated", std::to_string(s.truncated)}};
}

constexpr std::int64_t kOriginNumbers = 3;  // tokens, file, line

std::vector<TensorPlan> planned_tensors(const Dataset& dataset) {
  const auto examples = static_cast<std::int64_t>(dataset.examples.size());
  return {{"origins", at::kLong, {examples, kOriginNumbers}},
          {"input_ids", at::kInt, {dataset.summary.tokens}},
          {"supervised", at::kByte, {dataset.summary.tokens}}};
}

/// What `add` appends to a list for each example, written in pieces: as one tensor, the tokens of
/// many rows would take as much memory again.
template <typename T, typename Add>
void write_numbers(const Dataset& dataset, const WriteBytes& write, const Add& add) {
  constexpr std::size_t kPiece = 1 << 18;
  std::vector<T> piece;
  for (const Example& example : dataset.examples) {
    add(example, piece);
    if (piece.size() < kPiece) continue;
    write(std::as_bytes(std::span(piece)));
    piece.clear();
  }
  write(std::as_bytes(std::span(piece)));
}

void write_tensor(const Dataset& dataset, const TensorPlan& plan, const WriteBytes& write) {
  if (plan.name == "input_ids") {
    write_numbers<std::int32_t>(dataset, write, [](const Example& example, auto& piece) {
      piece.insert(piece.end(), example.input_ids.begin(), example.input_ids.end());
    });
  } else if (plan.name == "supervised") {
    write_numbers<std::uint8_t>(dataset, write, [](const Example& example, auto& piece) {
      piece.insert(piece.end(), example.supervised.begin(), example.supervised.end());
    });
  } else {
    write_numbers<std::int64_t>(dataset, write, [](const Example& example, auto& piece) {
      piece.insert(piece.end(), {static_cast<std::int64_t>(example.input_ids.size()),
                                 example.origin.file, example.origin.line});
    });
  }
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

DatasetCache::DatasetCache() : folder_(cache_folder()) {}

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
        [&](const TensorPlan& plan, const WriteBytes& write) {
          write_tensor(dataset, plan, write);
        },
        metadata_of(dataset));
    prune_cache(folder_, "dataset-", kMostFiles);
    log_verbose("data", "the tokens are kept in {}", file_of(key).string());
  } catch (const std::exception& error) {
    log_verbose("data", "the tokens are not kept: {}", error.what());
  }
}

}  // namespace finetune
