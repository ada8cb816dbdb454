#pragma once

#include "train/blockwise_8bit.h"
#include "train/flat_parameters.h"

#include <map>
#include <optional>
#include <string>

namespace finetune {

/// How a moment is kept.
enum class MomentStorage { float32, signed_8bit, unsigned_8bit };

/// What an optimizer remembers of every trained element: in float32, or in eight bits, where
/// tensors of fewer than FlatParameters::kLarge elements stay float32.
class Moment {
 public:
  /// All zeros. `name`: as the optimizer's state calls it, such as "exp_avg".
  Moment(std::string name, const FlatParameters& parameters, MomentStorage storage);

  /// float32 [count] from the flat index `begin`, a multiple of 256: the memory itself, or a
  /// decoded copy. The range lies in one group.
  Tensor read(std::int64_t begin, std::int64_t count) const;
  /// Stores what read gave after it has changed.
  void write(std::int64_t begin, const Tensor& moment);
  /// Adds name -> tensor of everything that is kept, as views.
  void add_state(std::map<std::string, Tensor>& state) const;

 private:
  std::string name_;
  std::int64_t encoded_size_;  // elements in eight bits; they come first
  std::optional<Blockwise8Bit> format_;
  Tensor codes_, absmax_;  // [encoded_size_], [encoded_size_ / 256]
  Tensor values_;          // the others, float32
};

}  // namespace finetune
