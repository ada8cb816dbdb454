#pragma once

#include "finetune/model/adapters.h"

#include <map>
#include <string>
#include <vector>

namespace finetune {

/// A part of the flat buffers that one rule updates.
struct FlatSpan {
  std::int64_t begin = 0, count = 0;  ///< elements
  bool decays = true;                 ///< weight decay applies
  double lr_scale = 1;                ///< its learning rate over that of the run
};

/// One trained tensor.
struct FlatParameter {
  std::string name;
  FlatSpan span;
  Tensor leaf;  ///< what autograd sees: a view of the values in the tensor's own shape
};

/// All trained tensors as views of one flat buffer, and their gradients as views of another: norm,
/// clipping and the optimizer are a few passes over long spans. Tensors of 4096 elements and more
/// come first, then by weight decay and learning rate. Each begins at a multiple of kAlignment; the
/// gaps between them are zeros, which every optimizer leaves alone.
class FlatParameters {
 public:
  /// bitsandbytes' block of 8-bit moments: no block holds two tensors.
  static constexpr std::int64_t kAlignment = 256;
  /// bitsandbytes' min_8bit_size: moments of smaller tensors stay float32.
  static constexpr std::int64_t kLarge = 4096;

  /// Moves the parameters into the buffer as `dtype`: every slot becomes a leaf of autograd that
  /// shares its memory. Without gradients, each leaf gets its own from the backward pass.
  FlatParameters(const std::vector<TrainableParameter>& parameters, at::ScalarType dtype,
                 bool with_gradients);

  const Tensor& values() const { return values_; }  ///< [P] with gaps
  /// [P] float32 whatever the values are, so that sums over micro-batches lose nothing; or
  /// undefined.
  const Tensor& gradients() const { return gradients_; }
  std::int64_t size() const { return size_; }              ///< trained elements, without gaps
  std::int64_t large_size() const { return large_size_; }  ///< where the small tensors begin
  const std::vector<FlatParameter>& parameters() const { return parameters_; }  ///< ascending
  /// Neighbours with the same decay and learning rate, either all large or all small.
  const std::vector<FlatSpan>& groups() const { return groups_; }
  /// Name -> view of values().
  const std::map<std::string, Tensor>& by_name() const { return by_name_; }
  /// The name of the parameter that holds element `index`.
  const std::string& name_at(std::int64_t index) const;

 private:
  void place(const TrainableParameter& parameter, std::int64_t begin);
  void join_group(const FlatSpan& span);

  Tensor values_, gradients_;
  std::int64_t size_ = 0, large_size_ = 0;
  std::vector<FlatParameter> parameters_;
  std::vector<FlatSpan> groups_;
  std::map<std::string, Tensor> by_name_;
};

}  // namespace finetune
