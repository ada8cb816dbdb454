#include "model/base_tensors.h"

#include "finetune/nn/frozen_weight.h"
#include "model/quantized_weights.h"

#include <algorithm>
#include <set>

namespace finetune {

namespace {

/// A weight of the blocks that loading quantizes: every matrix but those of routers.
bool is_quantizable(const ModelConfig& config, const std::string& name,
                    const std::vector<std::int64_t>& shape) {
  const ParameterNames& names = config.names;
  if (shape.size() != 2 || !name.starts_with(names.prefix + names.layers + ".")) return false;
  if (config.moe.num_experts == 0) return true;
  const std::string moe = "." + names.moe + ".";
  return !name.ends_with(moe + names.router + ".weight") &&
         (names.shared_expert_gate.empty() ||
          !name.ends_with(moe + names.shared_expert_gate + ".weight"));
}

}  // namespace

BaseTensors::BaseTensors(const std::filesystem::path& folder, BaseQuantization trained)
    : config_(read_model_config(folder)),
      files_(folder),
      stored_(config_, files_),
      trained_(trained) {
  check_quantization_config(folder);
  check_quant_states(files_);
}

std::string BaseTensors::file_name(const std::string& name) const {
  const auto twin = twins_.find(name);
  return stored_.stored(twin == twins_.end() ? name : twin->second);
}

std::vector<std::string> BaseTensors::full_names() const {
  std::set<std::string> parts, names;
  for (const std::string& file_name : files_.names()) {
    if (!is_nf4(files_, file_name)) continue;
    for (const std::string& part : nf4_parts(files_, file_name)) {
      if (part != file_name) parts.insert(part);
    }
  }
  for (const std::string& file_name : files_.names()) {
    if (!parts.contains(file_name)) names.insert(stored_.full(file_name));
  }
  for (const auto& [twin, other] : twins_) names.insert(twin);
  return {names.begin(), names.end()};
}

bool BaseTensors::stored_nf4(const std::string& name) const {
  return is_nf4(files_, file_name(name));
}

bool BaseTensors::any_stored_nf4() const {
  const std::vector<std::string> names = files_.names();
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return is_nf4(files_, name); });
}

std::vector<std::string> BaseTensors::parts(const std::string& name) const {
  return stored_nf4(name) ? nf4_parts(files_, file_name(name))
                          : std::vector<std::string>{file_name(name)};
}

Tensor BaseTensors::numbers(const std::string& name) const {
  const Tensor tensor = files_.tensor(file_name(name));
  return config_.stores_transposed(name) ? tensor.t() : tensor;
}

Quantization BaseTensors::quantization(const std::string& name) const {
  if (stored_nf4(name)) return Quantization::nf4;
  return is_quantizable(config_, name, files_.find(file_name(name))->shape) ? trained_.kind
                                                                            : Quantization::none;
}

Nf4Tensor BaseTensors::nf4(const std::string& name) const {
  return stored_nf4(name) ? read_nf4(files_, file_name(name))
                          : nf4_quantize(numbers(name), trained_.double_quant);
}

Tensor BaseTensors::tensor(const std::string& name) const {
  switch (quantization(name)) {
    case Quantization::nf4:
      return FrozenWeight(nf4(name)).dense();
    case Quantization::int8:
      return FrozenWeight(int8_quantize(numbers(name))).dense();
    case Quantization::none:
      break;
  }
  return numbers(name);
}

void BaseTensors::release(const std::string& name) const {
  for (const std::string& part : parts(name)) files_.release(part);
}

std::vector<std::int64_t> BaseTensors::shape(const std::string& name) const {
  if (!stored_nf4(name)) return numbers(name).sizes().vec();
  const Nf4Tensor weight = read_nf4(files_, file_name(name));
  return {weight.out, weight.in};
}

at::ScalarType BaseTensors::dtype(const std::string& name) const {
  return stored_nf4(name) ? read_nf4(files_, file_name(name)).dtype
                          : files_.find(file_name(name))->dtype;
}

Nf4Tensor requantized(const BaseTensors& base, const std::string& name, const Tensor& before,
                      const Tensor& changed) {
  Nf4Tensor held = base.nf4(name);
  if (changed.is_same(before)) return held;
  return nf4_quantize(changed.to(held.dtype).contiguous(), held.double_quant());
}

}  // namespace finetune
