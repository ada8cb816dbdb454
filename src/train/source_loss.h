#pragma once

#include "finetune/dataset/batch.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <vector>

namespace finetune {

/// The mean loss of each data file over one optimizer step.
class SourceLoss {
 public:
  explicit SourceLoss(const Dataset& dataset);

  void begin_step();
  /// `token_nll` [M]: of the batch's supervised tokens, in its order.
  void add(const Batch& batch, const Tensor& token_nll);
  /// {"data/a.jsonl": 1.234, ...} of the files that the step read; null for data of one file.
  nlohmann::ordered_json means() const;

 private:
  const Dataset& dataset_;
  std::vector<double> sums_;           // of each file
  std::vector<std::int64_t> counts_;
};

}  // namespace finetune
