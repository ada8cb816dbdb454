#include "finetune/model/adapters.h"

#include "finetune/base/error.h"
#include "finetune/base/log.h"
#include "finetune/base/random.h"
#include "finetune/base/text.h"
#include "finetune/formats/safetensors.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <regex>
#include <set>

namespace finetune {

namespace {

constexpr std::uint64_t kInitStream = 0x696e6974;  // apart from the streams of order and dropout

/// "q_proj" of "model.layers.0.self_attn.q_proj"
std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

bool named(const std::string& module, const std::string& wanted) {
  return module == wanted || module.ends_with("." + wanted);
}

bool selects(const ModuleSelector& selector, const std::string& module, const ModelConfig& config) {
  switch (selector.kind) {
    case ModuleSelector::Kind::none:
      return false;
    case ModuleSelector::Kind::all_linear:
      return true;
    case ModuleSelector::Kind::attention:
      return module.find("." + config.names.attention + ".") != std::string::npos;
    case ModuleSelector::Kind::names:
      return std::any_of(selector.names.begin(), selector.names.end(),
                         [&](const std::string& name) { return named(module, name); });
    case ModuleSelector::Kind::regex:
      return std::regex_match(module, std::regex(selector.regex));
  }
  return false;
}

/// The kinds of linears there are, for messages.
std::vector<std::string> linear_kinds(const CausalLM& model) {
  std::vector<std::string> kinds;
  for (const Linear* linear : model.linears()) {
    const std::string kind = last_part(linear->name);
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
  }
  return kinds;
}

/// Every name of a list must mean something: a misspelt one would leave out a projection in
/// silence.
void check_names(const CausalLM& model, const ModuleSelector& selector, const std::string& key) {
  if (selector.kind != ModuleSelector::Kind::names) return;
  const std::vector<std::string> kinds = linear_kinds(model);
  std::vector<std::string> problems;
  for (const std::string& name : selector.names) {
    const auto linears = model.linears();
    const bool found = std::any_of(linears.begin(), linears.end(),
                                   [&](const Linear* linear) { return named(linear->name, name); });
    if (found) continue;
    const std::string near = nearest(last_part(name), kinds);
    problems.push_back(fmt::format("{}: no linear of this model is called '{}'{}; it has: {}", key,
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

std::vector<Linear*> select_linears(CausalLM& model, const Config& config) {
  check_names(model, config.target_modules, "target_modules");
  check_names(model, config.exclude_modules, "exclude_modules");
  for (const std::int64_t layer : config.layers_to_transform) {
    if (layer >= model.config.num_hidden_layers) {
      fail(ErrorKind::config, "layers_to_transform names block {}; this model has blocks 0 to {}",
           layer, model.config.num_hidden_layers - 1);
    }
  }
  std::vector<Linear*> selected;
  for (Linear* linear : model.linears()) {
    if (selects(config.target_modules, linear->name, model.config) &&
        !selects(config.exclude_modules, linear->name, model.config) &&
        in_layers(linear->name, config.layers_to_transform, model.config)) {
      selected.push_back(linear);
    }
  }
  if (selected.empty()) {
    fail(ErrorKind::config,
         "target_modules and exclude_modules leave no linear to adapt; this model has: {}",
         join(linear_kinds(model), ", "));
  }
  return selected;
}

/// A of one linear, from its own random stream: independent of which others are adapted.
Tensor initial_a(std::int64_t rank, std::int64_t in_features, LoraInit::Kind kind,
                 std::uint64_t seed) {
  Tensor a = at::empty({rank, in_features}, at::kFloat);
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  if (kind == LoraInit::Kind::gaussian)
    return a.normal_(0.0, 1.0 / static_cast<double>(rank), generator);
  const double bound = 1.0 / std::sqrt(static_cast<double>(in_features));
  return a.uniform_(-bound, bound, generator);
}

void check_given_values(const Config& config, const PeftLoraConfig& adapter) {
  const auto check = [&](const char* key, double given, double stored) {
    if (!config.is_given(key) || given == stored) return;
    fail(ErrorKind::config,
         "{}: {} is {}, but the adapter {} has {}; leave {} out, or start a new adapter",
         config.origins.at(key), key, given, config.init_lora_weights.path, stored, key);
  };
  check("lora_rank", static_cast<double>(config.lora_rank), static_cast<double>(adapter.r));
  check("lora_alpha", config.lora_alpha, adapter.lora_alpha);
  check("use_rslora", config.use_rslora, adapter.use_rslora);
}

void continue_adapter(CausalLM& model, const Config& config) {
  const PeftAdapter adapter = read_peft_adapter(config.init_lora_weights.path);
  check_given_values(config, adapter.config);
  attach_adapter(model, adapter);
  for (Linear* linear : model.linears()) {
    if (linear->lora) linear->lora->dropout = config.lora_dropout;
  }
  if (!config.is_given("target_modules")) return;
  for (const Linear* linear : select_linears(model, config)) {
    if (!linear->lora) {
      fail(ErrorKind::config,
           "{}: target_modules includes {}, which the adapter {} does not adapt; leave "
           "target_modules out",
           config.origins.at("target_modules"), linear->name, config.init_lora_weights.path);
    }
  }
}

std::string shape_problem(const Linear& linear, const PeftAdapter::Pair& pair) {
  if (pair.a.size(1) != linear.weight.in_features()) {
    return fmt::format("{}.lora_A is {}; this model needs [{}, {}]", linear.name,
                       format_shape(pair.a.sizes().vec()), pair.a.size(0),
                       linear.weight.in_features());
  }
  if (pair.b.size(0) != linear.weight.out_features()) {
    return fmt::format("{}.lora_B is {}; this model needs [{}, {}]", linear.name,
                       format_shape(pair.b.sizes().vec()), linear.weight.out_features(),
                       pair.b.size(1));
  }
  return "";
}

}  // namespace

void attach_new_lora(CausalLM& model, const Config& config) {
  if (config.init_lora_weights.kind == LoraInit::Kind::adapter)
    return continue_adapter(model, config);
  if (config.init_lora_weights.kind == LoraInit::Kind::pissa) {
    fail(ErrorKind::config,
         "init_lora_weights: pissa is not in this version; it has: true, gaussian, the path of an "
         "adapter");
  }
  PeftLoraConfig peft;
  peft.r = config.lora_rank;
  peft.lora_alpha = config.lora_alpha;
  peft.use_rslora = config.use_rslora;
  for (Linear* linear : select_linears(model, config)) {
    const std::uint64_t seed =
        mix_seed({static_cast<std::uint64_t>(config.seed), kInitStream, linear->index});
    Lora lora;
    lora.a = initial_a(config.lora_rank, linear->weight.in_features(),
                       config.init_lora_weights.kind, seed)
                 .to(model.device);
    lora.b = at::zeros({linear->weight.out_features(), config.lora_rank}, lora.a.options());
    lora.alpha = config.lora_alpha;
    lora.use_rslora = config.use_rslora;
    lora.scaling = peft.scaling();
    lora.dropout = config.lora_dropout;
    linear->lora = lora;
  }
}

void attach_adapter(CausalLM& model, const PeftAdapter& adapter) {
  std::map<std::string, Linear*> linears;
  for (Linear* linear : model.linears()) linears[linear->name] = linear;
  std::vector<std::string> problems;
  for (const auto& [name, pair] : adapter.modules) {
    const auto found = linears.find(name);
    const std::string problem = found == linears.end()
                                    ? fmt::format("{}: this model has no such linear", name)
                                    : shape_problem(*found->second, pair);
    if (!problem.empty()) problems.push_back(problem);
  }
  if (!problems.empty()) {
    fail(ErrorKind::model, "the adapter does not fit this base model:\n{}\nIt was trained on: {}",
         join_problems(problems),
         adapter.config.base_model_name_or_path.empty() ? "(not recorded)"
                                                        : adapter.config.base_model_name_or_path);
  }
  for (const auto& [name, pair] : adapter.modules) {
    Lora lora;
    lora.a = pair.a.to(model.device, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    lora.b = pair.b.to(model.device, at::kFloat, false, true);
    lora.alpha = adapter.config.lora_alpha;
    lora.use_rslora = adapter.config.use_rslora;
    lora.scaling = adapter.config.scaling();
    linears[name]->lora = lora;
  }
}

PeftLoraConfig lora_config_of(const CausalLM& model) {
  PeftLoraConfig config;
  config.fan_in_fan_out = model.config.transposed_linears;
  std::set<std::string> full_names, suffixes;
  for (const Linear* linear : model.linears()) {
    if (!linear->lora) continue;
    full_names.insert(linear->name);
    suffixes.insert(last_part(linear->name));
    config.r = linear->lora->a.size(0);
    config.lora_alpha = linear->lora->alpha;
    config.use_rslora = linear->lora->use_rslora;
    config.lora_dropout = linear->lora->dropout;
  }
  bool exact = true;
  for (const Linear* linear : model.linears()) {
    if (!linear->lora && suffixes.contains(last_part(linear->name))) exact = false;
  }
  const std::set<std::string>& targets = exact ? suffixes : full_names;
  config.target_modules.assign(targets.begin(), targets.end());
  return config;
}

std::map<std::string, PeftAdapter::Pair> lora_pairs_of(const CausalLM& model) {
  std::map<std::string, PeftAdapter::Pair> pairs;
  for (const Linear* linear : model.linears()) {
    if (linear->lora)
      pairs[linear->name] = {linear->lora->a.detach().cpu(), linear->lora->b.detach().cpu()};
  }
  return pairs;
}

void detach_adapters(CausalLM& model) {
  for (Linear* linear : model.linears()) linear->lora.reset();
}

}  // namespace finetune
