#pragma once

#include "finetune/dataset/example.h"

#include <filesystem>
#include <optional>
#include <string>

namespace finetune {

/// Tokenized data sets on disk, so that a second run begins at once. One file a data set, named by
/// a hash of everything that shapes its tokens; a file that is damaged or of another version counts
/// as absent. Nothing here throws: without a usable folder there is no cache.
class DatasetCache {
 public:
  /// In cache_folder().
  DatasetCache();
  /// A cache in a folder of the caller's.
  explicit DatasetCache(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// The data set of this key, without its file names (the caller knows them), or nothing.
  std::optional<Dataset> read(const std::string& key) const;
  /// Stores it and removes the oldest files beyond the newest 16.
  void write(const std::string& key, const Dataset& dataset) const;

 private:
  std::filesystem::path file_of(const std::string& key) const;

  std::filesystem::path folder_;  ///< empty: no cache
};

}  // namespace finetune
