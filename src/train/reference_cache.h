#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/example.h"
#include "finetune/model/causal_lm.h"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// The log-probabilities that a model gives to the answers of a data set, on disk in
/// cache_folder(), so that the next run of the same model on the same data does not compute them
/// again. A file that is damaged counts as absent. Nothing here throws: without a usable folder
/// there is no cache.
class ReferenceCache {
 public:
  /// The file's name is a hash of all that decides the numbers: the files of the base, how it is
  /// held and computed, the attached adapter, and the content of the data.
  ReferenceCache(const Config& config, const CausalLM& model, const Dataset& data,
                 bool share_prefixes);

  /// So many numbers, or nothing.
  std::optional<std::vector<double>> read(std::size_t count) const;
  void write(const std::vector<double>& log_probabilities) const;
  const std::filesystem::path& file() const { return file_; }

 private:
  std::filesystem::path file_;  ///< empty: no cache
};

}  // namespace finetune
