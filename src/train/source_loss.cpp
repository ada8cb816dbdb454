#include "train/source_loss.h"

#include "finetune/train/evaluate.h"

#include <algorithm>

namespace finetune {

SourceLoss::SourceLoss(const Dataset& dataset)
    : dataset_(dataset), sums_(dataset.files.size()), counts_(dataset.files.size()) {}

void SourceLoss::begin_step() {
  std::fill(sums_.begin(), sums_.end(), 0.0);
  std::fill(counts_.begin(), counts_.end(), 0);
}

void SourceLoss::add(const Batch& batch, const Tensor& token_nll) {
  if (sums_.size() < 2 || !token_nll.defined()) return;
  const std::vector<double> sums = sum_by_example(dataset_, batch.examples, token_nll);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const Example& example = dataset_.examples[static_cast<std::size_t>(batch.examples[i])];
    const auto file = static_cast<std::size_t>(example.origin.file);
    sums_[file] += sums[i];
    counts_[file] += example.supervised_tokens;
  }
}

nlohmann::ordered_json SourceLoss::means() const {
  if (sums_.size() < 2) return {};
  nlohmann::ordered_json means = nlohmann::ordered_json::object();
  for (std::size_t file = 0; file < sums_.size(); ++file) {
    if (counts_[file] > 0)
      means[dataset_.files[file]] = sums_[file] / static_cast<double>(counts_[file]);
  }
  return means.empty() ? nlohmann::ordered_json() : means;
}

}  // namespace finetune
