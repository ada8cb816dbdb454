#include "finetune/base/error.h"
#include "finetune/model/write_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <cmath>
#include <set>

namespace finetune {

namespace {

void check(const PeftAdapter& adapter, std::size_t index) {
  const char* what = adapter.type != PeftAdapter::Type::lora ? "an (IA)3 adapter"
                     : adapter.use_dora()                    ? "a DoRA adapter"
                     : !adapter.saved.empty()                ? "an adapter with modules_to_save"
                     : !adapter.init_lora_weights.empty()
                         ? "a PiSSA or OLoRA adapter that was not converted"
                         : nullptr;
  if (what == nullptr) return;
  fail(ErrorKind::model, "adapter {} of those to combine is {}; expected plain low-rank updates",
       index + 1, what);
}

/// The sum of what two adapters have for one module.
PeftLora add(const std::string& module, const PeftLora& sum, const PeftLora& next,
             Combination combination) {
  PeftLora result = sum;
  if (combination == Combination::cat) {
    result.a = at::cat({sum.a, next.a}, 0);
    result.b = at::cat({sum.b, next.b}, 1);
    return result;
  }
  if (sum.rank() != next.rank()) {
    fail(ErrorKind::model,
         "{}: the adapters have ranks {} and {}; a linear combination needs equal ones, use "
         "--combination cat",
         module, sum.rank(), next.rank());
  }
  result.a = sum.a + next.a;
  result.b = sum.b + next.b;
  return result;
}

}  // namespace

PeftAdapter combine_adapters(const std::vector<PeftAdapter>& adapters,
                             const std::vector<double>& weights, Combination combination) {
  FT_CHECK(!adapters.empty() && adapters.size() == weights.size(), "{} adapters, {} weights",
           adapters.size(), weights.size());
  PeftAdapter result;
  result.base_model_name_or_path = adapters.front().base_model_name_or_path;
  result.fan_in_fan_out = adapters.front().fan_in_fan_out;
  result.quantization = adapters.front().quantization;
  result.double_quant = adapters.front().double_quant;
  std::set<std::string> targets;
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    check(adapters[i], i);
    for (const auto& [module, stored] : adapters[i].modules) {
      const double factor = weights[i] * adapters[i].scaling(stored);
      // `linear` shares the factor between A and B; a negative weight goes to A alone.
      const double root = std::sqrt(std::abs(factor));
      const bool shared = combination == Combination::linear;
      PeftLora scaled = stored;
      scaled.a = stored.a.to(at::kFloat) * (shared ? std::copysign(root, factor) : factor);
      scaled.b = stored.b.to(at::kFloat) * (shared ? root : 1.0);
      const auto found = result.modules.find(module);
      result.modules[module] =
          found == result.modules.end() ? scaled : add(module, found->second, scaled, combination);
      targets.insert(module);
    }
  }
  for (auto& [module, lora] : result.modules) lora.alpha = static_cast<double>(lora.rank());
  result.target_modules = {targets.begin(), targets.end()};
  return result;
}

}  // namespace finetune
