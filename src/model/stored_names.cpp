#include "model/stored_names.h"

#include <algorithm>

namespace finetune {

StoredNames::StoredNames(const ModelConfig& config, const WeightFolder& weights)
    : prefix_(config.names.prefix), heads_(config.names.heads) {
  const std::string embeddings = config.names.embeddings + ".weight";
  bare_ = weights.find(prefix_ + embeddings) == nullptr && weights.find(embeddings) != nullptr;
}

bool StoredNames::is_head(const std::string& name) const {
  return std::any_of(heads_.begin(), heads_.end(),
                     [&](const std::string& head) { return name.starts_with(head + "."); });
}

std::string StoredNames::stored(const std::string& full) const {
  return bare_ && full.starts_with(prefix_) ? full.substr(prefix_.size()) : full;
}

std::string StoredNames::full(const std::string& stored) const {
  return bare_ && !is_head(stored) ? prefix_ + stored : stored;
}

}  // namespace finetune
