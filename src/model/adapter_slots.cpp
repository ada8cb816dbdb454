#include "model/adapter_slots.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "finetune/formats/safetensors.h"

#include <algorithm>
#include <regex>

namespace finetune {

namespace {

bool selects(const ModuleSelector& selector, const AdapterSlot& slot, const ModelConfig& config) {
  switch (selector.kind) {
    case ModuleSelector::Kind::none:
      return false;
    case ModuleSelector::Kind::all_linear:
      return slot.linear != nullptr;
    case ModuleSelector::Kind::attention:
      return slot.name.find("." + config.names.attention + ".") != std::string::npos;
    case ModuleSelector::Kind::names:
      return std::any_of(selector.names.begin(), selector.names.end(),
                         [&](const std::string& name) { return named(slot.name, name); });
    case ModuleSelector::Kind::regex:
      return std::regex_match(slot.name, std::regex(selector.regex));
  }
  return false;
}

/// The kinds of modules there are, for messages.
std::vector<std::string> kinds_of(const std::vector<AdapterSlot>& slots) {
  std::vector<std::string> kinds;
  for (const AdapterSlot& slot : slots) {
    const std::string kind = last_part(slot.name);
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
  }
  return kinds;
}

/// Every name of a list must mean something: a misspelt one would leave out a projection in
/// silence.
void check_names(const std::vector<AdapterSlot>& slots, const std::vector<std::string>& names,
                 const std::string& key) {
  const std::vector<std::string> kinds = kinds_of(slots);
  std::vector<std::string> problems;
  for (const std::string& name : names) {
    if (std::any_of(slots.begin(), slots.end(),
                    [&](const AdapterSlot& slot) { return named(slot.name, name); })) {
      continue;
    }
    const std::string near = nearest(last_part(name), kinds);
    problems.push_back(fmt::format("{}: no module of this model is called '{}'{}; it has: {}", key,
                                   name, near.empty() ? "" : " (did you mean '" + near + "'?)",
                                   join(kinds, ", ")));
  }
  if (!problems.empty()) throw Error(ErrorKind::config, join_problems(problems));
}

bool in_layers(const std::string& module, const std::vector<std::int64_t>& layers,
               const ModelConfig& config) {
  return layers.empty() || std::any_of(layers.begin(), layers.end(), [&](std::int64_t layer) {
           return module.starts_with(config.layer_prefix(layer));
         });
}

/// (IA)3 scales keys, values and the MLP's inner values unless the user says otherwise, as PEFT
/// does.
ModuleSelector targets_of(const CausalLM& model, const Config& config) {
  if (config.method != Method::ia3 || config.is_given("target_modules"))
    return config.target_modules;
  const ParameterNames& names = model.config.names;
  if (!names.qkv.empty())
    return {ModuleSelector::Kind::names, {names.qkv, names.mlp + "." + names.down}, {}};
  return {ModuleSelector::Kind::names, {names.k, names.v, names.mlp + "." + names.down}, {}};
}

}  // namespace

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

bool named(const std::string& module, const std::string& wanted) {
  return module == wanted || module.ends_with("." + wanted);
}

std::int64_t AdapterSlot::out_features() const {
  return linear != nullptr ? linear->weight.out_features() : table.size(embedding ? 1 : 0);
}

std::int64_t AdapterSlot::in_features() const {
  return linear != nullptr ? linear->weight.in_features() : table.size(embedding ? 0 : 1);
}

Tensor AdapterSlot::weight() const {
  if (linear != nullptr) return linear->weight.dense();
  return embedding ? table.t() : table;
}

std::vector<AdapterSlot> adapter_slots(CausalLM& model) {
  std::vector<AdapterSlot> slots;
  for (Linear* linear : model.linears()) {
    slots.push_back({linear->name, &linear->lora, linear, {}, false, linear->index});
  }
  const auto base = [&](const std::string& name, const Tensor& tensor) {
    const auto original = model.originals.find(name + ".weight");
    return original == model.originals.end() ? tensor : original->second;
  };
  const Tensor& head = model.tied() ? model.embed_tokens : model.lm_head;
  slots.push_back({model.embeddings_name(), &model.embed_lora, nullptr,
                   base(model.embeddings_name(), model.embed_tokens), true, slots.size()});
  slots.push_back({model.head_name, &model.head_lora, nullptr, base(model.head_name, head), false,
                   slots.size()});
  return slots;
}

void check_layers(const CausalLM& model, const Config& config) {
  for (const std::int64_t layer : config.layers_to_transform) {
    if (layer < model.config.num_hidden_layers) continue;
    fail(ErrorKind::config, "layers_to_transform names block {}; this model has blocks 0 to {}",
         layer, model.config.num_hidden_layers - 1);
  }
}

void check_not_given(const Config& config, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (!config.is_given(key)) continue;
    fail(ErrorKind::config, "{}: {} comes from the adapter {}; leave it out",
         config.origins.at(key), key, config.init_lora_weights.path);
  }
}

void fill_tensor(Tensor target, const Tensor& source, const std::string& name,
                 const std::string& where) {
  if (!source.defined() || source.sizes() != target.sizes()) {
    fail(ErrorKind::model, "{}: '{}' is missing or not of shape {}", where, name,
         format_shape(target.sizes().vec()));
  }
  target.copy_(source);
}

std::vector<AdapterSlot> select_slots(CausalLM& model, const Config& config) {
  const std::vector<AdapterSlot> slots = adapter_slots(model);
  const ModuleSelector targets = targets_of(model, config);
  if (targets.kind == ModuleSelector::Kind::names)
    check_names(slots, targets.names, "target_modules");
  if (config.exclude_modules.kind == ModuleSelector::Kind::names)
    check_names(slots, config.exclude_modules.names, "exclude_modules");
  check_layers(model, config);
  std::vector<AdapterSlot> selected;
  for (const AdapterSlot& slot : slots) {
    if (selects(targets, slot, model.config) &&
        !selects(config.exclude_modules, slot, model.config) &&
        in_layers(slot.name, config.layers_to_transform, model.config)) {
      selected.push_back(slot);
    }
  }
  if (selected.empty()) {
    fail(ErrorKind::config,
         "target_modules and exclude_modules leave no module to adapt; this model has: {}",
         join(kinds_of(slots), ", "));
  }
  return selected;
}

}  // namespace finetune
