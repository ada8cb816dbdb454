#include "model/bottlenecks.h"

#include "finetune/base/error.h"
#include "finetune/base/random.h"
#include "finetune/formats/safetensors.h"
#include "model/adapter_slots.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace finetune {

namespace {

constexpr std::uint64_t kInitStream = 0x626f746e;  // apart from the streams of order and dropout

/// Throws where a block has no point at which attention's or the MLP's result alone joins the
/// residual stream.
void check_blocks(const CausalLM& model, ErrorKind kind) {
  const DecoderLayer& layer = model.layers.front();
  const char* reason =
      model.config.parallel_blocks ? "attention and MLP read the same input and are added together"
      : layer.attention_out_norm.defined() || layer.mlp_out_norm.defined()
          ? "norms stand between attention or MLP and the residual stream"
      : model.config.residual_scale != 1.0
          ? "the results of attention and MLP are scaled before they join the residual stream"
          : nullptr;
  if (reason == nullptr) return;
  fail(kind,
       "a bottleneck adapter stands where attention or MLP join the residual stream, and in {} {}; "
       "use method: lora",
       model.config.model_type, reason);
}

Bottleneck new_bottleneck(const CausalLM& model, const Config& config, std::uint64_t index) {
  const std::int64_t hidden = model.config.hidden_size, size = config.adapter_size;
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(
      mix_seed({static_cast<std::uint64_t>(config.seed), kInitStream, index}));
  const double bound = 1.0 / std::sqrt(static_cast<double>(hidden));
  const at::TensorOptions options = at::TensorOptions(at::kFloat).device(model.device);
  Bottleneck bottleneck;
  bottleneck.down_weight =
      at::empty({size, hidden}, at::kFloat).uniform_(-bound, bound, generator).to(model.device);
  bottleneck.down_bias = at::zeros({size}, options);
  bottleneck.up_weight = at::zeros({hidden, size}, options);
  bottleneck.up_bias = at::zeros({hidden}, options);
  bottleneck.placement = config.adapter_placement;
  bottleneck.activation = *parse_activation(to_string(config.adapter_activation));
  bottleneck.scaling = config.resolved_adapter_scaling();
  bottleneck.dropout = config.adapter_dropout;
  bottleneck.index = index;
  return bottleneck;
}

/// The slots by every name an adapter may have for them: a bare decoder is saved without the
/// prefix.
std::map<std::string, BottleneckSlot> slots_by_name(CausalLM& model) {
  std::map<std::string, BottleneckSlot> slots;
  const std::string& prefix = model.config.names.prefix;
  for (const BottleneckSlot& slot : bottleneck_slots(model)) {
    slots[slot.name] = slot;
    slots[slot.name.substr(prefix.size())] = slot;
  }
  return slots;
}

void check_fits(const std::map<std::string, BottleneckSlot>& slots, const CausalLM& model,
                const BottleneckAdapter& adapter) {
  std::vector<std::string> problems;
  for (const auto& [name, weights] : adapter.modules) {
    const std::int64_t size = weights.up_weight.size(0);
    if (!slots.contains(name)) {
      problems.push_back(name + ": this model has no such place");
    } else if (size != model.config.hidden_size) {
      problems.push_back(fmt::format("{} is made for a hidden_size of {}; this model has {}", name,
                                     size, model.config.hidden_size));
    }
  }
  if (!problems.empty()) {
    fail(ErrorKind::model, "the adapter does not fit this base model:\n{}\nIt was trained on: {}",
         join_problems(problems),
         adapter.base_model_name_or_path.empty() ? "(not recorded)"
                                                 : adapter.base_model_name_or_path);
  }
}

/// Every block outside leave_out must have what any block has: a missing one would compute without
/// its adapter in silence.
void check_whole(CausalLM& model, const BottleneckAdapter& adapter) {
  const std::vector<BottleneckSlot> slots = bottleneck_slots(model);
  const auto any = [&](bool after_attention) {
    return std::any_of(slots.begin(), slots.end(), [&](const BottleneckSlot& slot) {
      return slot.after_attention == after_attention && *slot.bottleneck;
    });
  };
  const bool places[] = {any(false), any(true)};
  for (const BottleneckSlot& slot : slots) {
    const bool left_out = std::find(adapter.leave_out.begin(), adapter.leave_out.end(),
                                    slot.layer) != adapter.leave_out.end();
    if (slot.bottleneck->has_value() == (places[slot.after_attention] && !left_out)) continue;
    fail(ErrorKind::model, "the adapter has {}tensors for {}, and its 'leave_out' says otherwise",
         *slot.bottleneck ? "" : "no ", slot.name);
  }
}

template <typename Visit>
void visit_parts(Bottleneck& bottleneck, const Visit& visit) {
  visit("adapter_down.0.weight", bottleneck.down_weight, &BottleneckWeights::down_weight);
  visit("adapter_down.0.bias", bottleneck.down_bias, &BottleneckWeights::down_bias);
  visit("adapter_up.weight", bottleneck.up_weight, &BottleneckWeights::up_weight);
  visit("adapter_up.bias", bottleneck.up_bias, &BottleneckWeights::up_bias);
}

}  // namespace

std::vector<BottleneckSlot> bottleneck_slots(CausalLM& model) {
  std::vector<BottleneckSlot> slots;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    DecoderLayer& layer = model.layers[i];
    const auto index = static_cast<std::int64_t>(i);
    const std::string prefix = model.config.layer_prefix(index);
    slots.push_back({prefix + kAttentionAdapters, index, true, &layer.attention_adapter});
    slots.push_back({prefix + kOutputAdapters, index, false, &layer.output_adapter});
  }
  return slots;
}

std::vector<BottleneckTensor> bottleneck_parameters(CausalLM& model) {
  std::vector<BottleneckTensor> tensors;
  for (const BottleneckSlot& slot : bottleneck_slots(model)) {
    if (!*slot.bottleneck) continue;
    visit_parts(**slot.bottleneck, [&](const char* part, Tensor& tensor, auto) {
      tensors.push_back({slot.name + "." + part, &tensor, tensor.dim() > 1});
    });
  }
  return tensors;
}

void attach_new_bottlenecks(CausalLM& model, const Config& config) {
  check_blocks(model, ErrorKind::config);
  check_layers(model, config);
  const std::vector<std::int64_t>& layers = config.layers_to_transform;
  std::uint64_t index = 0;
  for (const BottleneckSlot& slot : bottleneck_slots(model)) {
    ++index;
    if (slot.after_attention && config.adapter_placement != AdapterPlacement::houlsby) continue;
    if (!layers.empty() && std::find(layers.begin(), layers.end(), slot.layer) == layers.end())
      continue;
    *slot.bottleneck = new_bottleneck(model, config, index);
  }
}

void continue_bottlenecks(CausalLM& model, const Config& config) {
  const BottleneckAdapter adapter = read_bottleneck_adapter(config.init_lora_weights.path);
  attach_bottlenecks(model, adapter);
  const Bottleneck& first = [&]() -> const Bottleneck& {
    for (const BottleneckSlot& slot : bottleneck_slots(model)) {
      if (*slot.bottleneck) return **slot.bottleneck;
    }
    FT_CHECK(false, "no adapter is attached");
  }();
  check_given(config, "adapter_size", config.adapter_size, adapter.size());
  check_given(config, "adapter_scaling", config.resolved_adapter_scaling(), adapter.scaling);
  check_given(config, "adapter_placement", to_string(config.adapter_placement),
              to_string(adapter.placement));
  check_given(config, "adapter_activation", to_string(config.adapter_activation),
              std::string(activation_name(first.activation)));
  check_not_given(config, {"layers_to_transform"});
  for (const BottleneckSlot& slot : bottleneck_slots(model)) {
    if (*slot.bottleneck) (*slot.bottleneck)->dropout = config.adapter_dropout;
  }
}

void attach_bottlenecks(CausalLM& model, const BottleneckAdapter& adapter) {
  check_blocks(model, ErrorKind::model);
  const auto activation = parse_activation(adapter.non_linearity);
  if (!activation) {
    fail(ErrorKind::model,
         "the adapter's 'non_linearity' is \"{}\"; this version computes relu, gelu, gelu_new, "
         "silu (swish) and tanh",
         adapter.non_linearity);
  }
  const auto slots = slots_by_name(model);
  check_fits(slots, model, adapter);
  for (const auto& [name, weights] : adapter.modules) {
    const BottleneckSlot& slot = slots.at(name);
    Bottleneck bottleneck;
    visit_parts(bottleneck, [&](const char*, Tensor& tensor, auto part) {
      tensor = (weights.*part).to(model.device, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    });
    bottleneck.placement = adapter.placement;
    bottleneck.activation = *activation;
    bottleneck.scaling = adapter.scaling;
    bottleneck.dropout = adapter.dropout;
    bottleneck.index = static_cast<std::uint64_t>(2 * slot.layer + (slot.after_attention ? 1 : 2));
    *slot.bottleneck = std::move(bottleneck);
  }
  check_whole(model, adapter);
}

std::optional<BottleneckAdapter> bottlenecks_of(CausalLM& model) {
  BottleneckAdapter adapter;
  adapter.model_type = model.config.model_type;
  std::set<std::int64_t> without;
  for (const BottleneckSlot& slot : bottleneck_slots(model)) {
    if (slot.after_attention) without.insert(slot.layer);
    if (!*slot.bottleneck) continue;
    without.erase(slot.layer);
    Bottleneck& bottleneck = **slot.bottleneck;
    visit_parts(bottleneck, [&](const char*, Tensor& tensor, auto part) {
      adapter.modules[slot.name].*part = tensor.detach().cpu().contiguous();
    });
    adapter.placement = bottleneck.placement;
    adapter.non_linearity = activation_name(bottleneck.activation);
    adapter.scaling = bottleneck.scaling;
    adapter.dropout = bottleneck.dropout;
  }
  if (adapter.modules.empty()) return std::nullopt;
  adapter.leave_out = {without.begin(), without.end()};
  return adapter;
}

void restore_bottlenecks(CausalLM& model, const BottleneckAdapter& adapter,
                         const std::string& where) {
  const at::NoGradGuard no_grad;
  for (const BottleneckSlot& slot : bottleneck_slots(model)) {
    if (!*slot.bottleneck) continue;
    const auto saved = adapter.modules.find(slot.name);
    visit_parts(**slot.bottleneck, [&](const char* name, Tensor& tensor, auto part) {
      const Tensor source = saved == adapter.modules.end() ? Tensor() : saved->second.*part;
      fill_tensor(tensor.detach(), source, slot.name + "." + name, where);
    });
  }
}

}  // namespace finetune
