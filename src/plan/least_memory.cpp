#include "finetune/plan/least_memory.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "finetune/model/adapters.h"
#include "finetune/model/placement.h"
#include "plan/mapped_model.h"

#include <algorithm>

namespace finetune {

namespace fs = std::filesystem;

namespace {

/// Adam's two moments, values, gradients and a copy of the weights take less than this many times
/// the bytes of the files.
constexpr std::uint64_t kMostPerStoredByte = 16;

/// Weights that loading copies: those of a file of the same type stay mapped, and the kernel can
/// drop and read them again. Quantized ones may come from a cache, which is mapped too.
std::uint64_t copied_bytes(const Config& config, CausalLM& model, at::ScalarType stored) {
  const at::ScalarType dtype = resolve_dtype(config.dtype, at::kCPU, stored, ModelUse::train);
  if (stored == dtype || config.method == Method::full) return 0;
  std::uint64_t elements = 0;
  if (config.quantization == Quantization::none) {
    for (const Linear* linear : model.linears()) {
      if (!linear->weight.quantized()) {
        elements += static_cast<std::uint64_t>(linear->weight.out_features() *
                                               linear->weight.in_features());
      }
    }
  }
  model.visit_other_tensors([&](const std::string&, Tensor& tensor, bool) {
    elements += static_cast<std::uint64_t>(tensor.numel());
  });
  return elements * c10::elementSize(dtype);
}

/// The first block from which something is trained: what lies below keeps nothing.
std::size_t first_trained_block(const CausalLM& model,
                                const std::vector<TrainableParameter>& trained) {
  for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
    const std::string prefix = model.config.layer_prefix(static_cast<std::int64_t>(layer));
    if (std::any_of(trained.begin(), trained.end(), [&](const TrainableParameter& parameter) {
          return parameter.name.find(prefix) != std::string::npos;
        }))
      return layer;
  }
  return model.layers.size();
}

/// The input of every trained block, for the tokens of the longest row.
std::uint64_t activation_bytes(const CausalLM& model, const Dataset& data, at::ScalarType dtype,
                               std::size_t first_block) {
  std::size_t longest = 0;
  for (const Example& example : data.examples)
    longest = std::max(longest, example.input_ids.size());
  return (model.layers.size() - first_block) * longest *
         static_cast<std::uint64_t>(model.config.hidden_size) * c10::elementSize(dtype);
}

std::vector<std::string> advice(const Config& config) {
  std::vector<std::string> lines;
  if (config.method == Method::full) {
    lines.emplace_back("method: lora trains a hundredth of the weights");
    if (config.optim == Optim::adamw)
      lines.emplace_back("optim: adamw_8bit keeps a quarter of the optimizer's state");
    if (!config.optimizer_in_backward)
      lines.emplace_back("optimizer_in_backward: true with max_grad_norm: 0 keeps no gradients");
  } else if (config.quantization == Quantization::none) {
    lines.emplace_back("quantization: nf4 holds the weights in four bits");
    lines.emplace_back("dtype: that of the files, so that no weight is copied");
  }
  lines.emplace_back("lora_rank and target_modules: fewer values to train");
  lines.emplace_back("max_length: a smaller one with overlength: drop or truncate");
  if (config.method == Method::full) lines.erase(lines.end() - 2);
  return lines;
}

std::uint64_t file_bytes(const fs::path& folder) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size(error);
  }
  return bytes;
}

}  // namespace

std::uint64_t LeastMemory::total() const {
  std::uint64_t bytes = 0;
  for (const auto& [name, part] : components) bytes += part;
  return bytes;
}

LeastMemory least_memory(const Config& config, const Dataset& train_data) {
  const at::ScalarType stored = stored_dtype(config.model_name_or_path);
  CausalLM model = map_model(config);
  const std::uint64_t copied = copied_bytes(config, model, stored);
  const Config counted = countable(config);
  if (config.method != Method::full) attach_new_adapter(model, counted);
  const std::vector<TrainableParameter> trained = trained_of(model, counted);
  const TrainedCount count = count_trained(trained);
  const at::ScalarType dtype = resolve_dtype(config.dtype, at::kCPU, stored, ModelUse::train);
  return {{{"weights", copied},
           {"trained values", count.padded * c10::elementSize(trained_dtype(config))},
           {"gradients", config.optimizer_in_backward ? 0 : 4 * count.padded},
           {"optimizer", optimizer_bytes(config, count)},
           {"activations",
            activation_bytes(model, train_data, dtype, first_trained_block(model, trained))}}};
}

void require_memory(const Config& config, const LeastMemory& least, const MemoryLimits& limits) {
  const std::uint64_t there = limits.usable_bytes() + limits.swap_bytes;
  if (least.total() <= there) return;
  std::string parts;
  for (const auto& [name, bytes] : least.components)
    if (bytes > 0)
      parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", name, format_bytes(bytes));
  fail(ErrorKind::resource,
       "the run needs at least {} of memory ({}), and there are {}: {}. finetune plan tells more. "
       "To change, one of:\n  - {}",
       format_bytes(least.total()), parts, format_bytes(there), memory_bound(limits),
       join(advice(config), "\n  - "));
}

void require_memory(const Config& config, const Dataset& train_data) {
  if (!resolve_device(config.device).is_cpu()) return;
  const MemoryLimits limits = memory_limits();
  constexpr std::uint64_t kRow = std::uint64_t{64}
                                 << 20;  // more than a row's activations in small models
  if (file_bytes(config.model_name_or_path) * kMostPerStoredByte + kRow < limits.usable_bytes() / 2)
    return;
  require_memory(config, least_memory(config, train_data), limits);
}

}  // namespace finetune
