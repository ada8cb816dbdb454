#include "finetune/base/error.h"
#include "finetune/model/adapters.h"

#include <regex>

namespace finetune {

namespace {

/// Takes what the pattern matches, as float32 masters of autograd.
class Unfreezer {
 public:
  explicit Unfreezer(const std::string& pattern) : pattern_(pattern), all_(pattern.empty()) {}

  bool matches(const std::string& name) const { return all_ || std::regex_match(name, pattern_); }

  void take(const std::string& name, Tensor& slot, bool decays) {
    if (slot.defined() && matches(name)) add(name, slot, slot, decays);
  }

  void take_linear(Linear& linear) {
    if (matches(linear.name + ".weight"))
      add(linear.name + ".weight", linear.trained, linear.weight.dense(), true);
    take(linear.name + ".bias", linear.bias, false);
  }

  std::vector<TrainableParameter> list;

 private:
  void add(const std::string& name, Tensor& slot, const Tensor& value, bool decays) {
    slot = value.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    list.push_back({name, &slot, decays});
  }

  std::regex pattern_;
  bool all_;
};

}  // namespace

std::vector<TrainableParameter> lora_parameters(CausalLM& model) {
  std::vector<TrainableParameter> list;
  for (Linear* linear : model.linears()) {
    if (!linear->lora) continue;
    list.push_back({linear->name + ".lora_A.weight", &linear->lora->a, true});
    list.push_back({linear->name + ".lora_B.weight", &linear->lora->b, true});
  }
  return list;
}

std::vector<TrainableParameter> unfreeze(CausalLM& model, const std::string& pattern) {
  Unfreezer unfreezer(pattern);
  for (Linear* linear : model.linears()) unfreezer.take_linear(*linear);
  model.visit_other_tensors([&](const std::string& name, Tensor& tensor, bool decays) {
    unfreezer.take(name, tensor, decays);
  });
  if (unfreezer.list.empty()) {
    fail(ErrorKind::config,
         "trainable_modules: '{}' matches no parameter; names look like {}.weight", pattern,
         model.linears().empty() ? model.norm.name : model.linears().front()->name);
  }
  return unfreezer.list;
}

}  // namespace finetune
