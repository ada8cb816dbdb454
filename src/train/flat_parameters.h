#pragma once

#include "finetune/model/adapters.h"

#include <map>
#include <string>
#include <vector>

namespace finetune {

/// All trained tensors as views of one flat float32 buffer, and their gradients as views of
/// another: norm, clipping and the optimizer are one pass each. Those with weight decay come first.
class FlatParameters {
 public:
  /// Moves the parameters into the buffer: every slot becomes a leaf of autograd that shares its
  /// memory.
  explicit FlatParameters(const std::vector<TrainableParameter>& parameters);

  const Tensor& values() const { return values_; }        ///< [P]
  const Tensor& gradients() const { return gradients_; }  ///< [P]
  std::int64_t size() const { return values_.numel(); }
  std::int64_t decayed_size() const { return decayed_size_; }
  /// Name -> view of values().
  const std::map<std::string, Tensor>& by_name() const { return by_name_; }
  /// The name of the parameter that holds element `index`.
  const std::string& name_at(std::int64_t index) const;

 private:
  Tensor values_, gradients_;
  std::int64_t decayed_size_ = 0;
  std::map<std::string, Tensor> by_name_;
  std::map<std::int64_t, std::string> starts_;
};

}  // namespace finetune
