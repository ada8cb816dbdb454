#include "finetune/formats/peft.h"

#include "finetune/base/file.h"
#include "finetune/formats/safetensors.h"
#include "formats/json_field.h"

#include <algorithm>
#include <cmath>
#include <regex>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr std::string_view kLoraA = ".lora_A.weight", kLoraB = ".lora_B.weight",
                           kEmbeddingA = ".lora_embedding_A", kEmbeddingB = ".lora_embedding_B",
                           kMagnitude = ".lora_magnitude_vector", kIa3 = ".ia3_l",
                           kBaseLayer = ".base_layer.weight";

/// Keys in the metadata of the weights' file.
constexpr const char *kQuantization = "quantization", *kDoubleQuant = "double_quant";

/// A field that changes what the adapter computes, with the value that means "not used".
bool unused(const ordered_json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return true;
  if (found->is_boolean()) return !found->get<bool>();
  if (found->is_string()) return *found == "none" || found->get<std::string>().empty();
  return found->empty();
}

/// A list of texts; one text is a list of one, null an empty one.
std::vector<std::string> texts(const ordered_json& config, const fs::path& path, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return {};
  const ordered_json list = found->is_array() ? *found : ordered_json::array({*found});
  std::vector<std::string> result;
  for (const ordered_json& item : list) {
    if (!item.is_string()) {
      fail(ErrorKind::model, "{}: '{}' is {}; expected texts", path.string(), key, found->dump());
    }
    result.push_back(item.get<std::string>());
  }
  return result;
}

/// PEFT repeats PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA when it loads an adapter, and takes the
/// initial update off the base weight; the tensors alone then mean something else. For `pissa` and
/// `olora` the initial update follows from the base weight alone.
std::string read_init(const ordered_json& config, const fs::path& path) {
  const auto init = config.find("init_lora_weights");
  if (init == config.end() || !init->is_string()) return "";
  for (const char* word : {"gaussian", "eva", "orthogonal"}) {
    if (*init == word) return "";
  }
  if (*init == "pissa" || *init == "olora") return init->get<std::string>();
  fail(
      ErrorKind::model,
      "{}: 'init_lora_weights' is {}, which changes the base weights in a way that cannot be "
      "repeated; expected true, false, gaussian, eva, orthogonal, pissa or olora. Save the adapter "
      "with PEFT's path_initial_model_for_weight_conversion",
      path.string(), init->dump());
}

/// rank_pattern or alpha_pattern: the first key that matches gives the value.
double pattern_value(const ordered_json& config, const fs::path& path, const char* key,
                     const std::string& module, double fallback) {
  const auto pattern = config.find(key);
  if (pattern == config.end() || pattern->is_null()) return fallback;
  for (const auto& [name, value] : pattern->items()) {
    if (!value.is_number()) {
      fail(ErrorKind::model, "{}: '{}' has {} for '{}'; expected a number", path.string(), key,
           value.dump(), name);
    }
    try {
      if (pattern_matches(name, module)) return value.get<double>();
    } catch (const std::regex_error& error) {
      fail(ErrorKind::model, "{}: '{}' has the key '{}', which is no regular expression ({})",
           path.string(), key, name, error.what());
    }
  }
  return fallback;
}

PeftAdapter::Type read_type(const ordered_json& config, const fs::path& path) {
  const auto type = json_field<std::string>(config, path, "peft_type", "");
  if (type == "LORA") return PeftAdapter::Type::lora;
  if (type == "IA3") return PeftAdapter::Type::ia3;
  if (type.empty() && config.contains("model_type")) {
    fail(ErrorKind::model, "{}: is an adapter of the adapters library; expected one of PEFT",
         path.string());
  }
  fail(ErrorKind::model, "{}: 'peft_type' is \"{}\"; this version reads LORA and IA3",
       path.string(), type);
}

PeftAdapter parse_config(const ordered_json& config, const fs::path& path) {
  PeftAdapter adapter;
  adapter.type = read_type(config, path);
  for (const char* key :
       {"bias", "layer_replication", "target_parameters", "trainable_token_indices", "lora_bias",
        "use_qalora", "use_bdlora", "alora_invocation_tokens"}) {
    if (!unused(config, key)) {
      fail(ErrorKind::model, "{}: '{}' is {}; this version does not compute it", path.string(), key,
           config.at(key).dump());
    }
  }
  adapter.init_lora_weights = read_init(config, path);
  adapter.base_model_name_or_path =
      json_field<std::string>(config, path, "base_model_name_or_path", "");
  adapter.lora_dropout = json_field<double>(config, path, "lora_dropout", 0.0);
  adapter.use_rslora = json_field<bool>(config, path, "use_rslora", false);
  adapter.fan_in_fan_out = json_field<bool>(config, path, "fan_in_fan_out", false);
  adapter.feedforward_modules = texts(config, path, "feedforward_modules");
  adapter.modules_to_save = texts(config, path, "modules_to_save");
  adapter.scores = json_field<std::string>(config, path, "task_type", "") == "SEQ_CLS";
  if (json_field<std::int64_t>(config, path, "r", 8) < 1)
    fail(ErrorKind::model, "{}: 'r' is {}; expected at least 1", path.string(),
         config.at("r").dump());
  return adapter;
}

/// Puts one tensor where it belongs; false when it belongs nowhere.
bool take(PeftAdapter& adapter, const std::string& stored, const Tensor& tensor) {
  if (!stored.starts_with(kPeftPrefix)) return false;
  const std::string name = stored.substr(kPeftPrefix.size());
  const auto module = [&](std::string_view suffix) {
    return name.substr(0, name.size() - suffix.size());
  };
  if (adapter.type == PeftAdapter::Type::lora) {
    for (const auto& [suffix, slot, embedding] :
         {std::tuple{kLoraA, &PeftLora::a, false}, std::tuple{kLoraB, &PeftLora::b, false},
          std::tuple{kEmbeddingA, &PeftLora::a, true}, std::tuple{kEmbeddingB, &PeftLora::b, true},
          std::tuple{kMagnitude, &PeftLora::magnitude, false}}) {
      if (!name.ends_with(suffix)) continue;
      PeftLora& lora = adapter.modules[module(suffix)];
      lora.*slot = tensor;
      lora.embedding = lora.embedding || embedding;
      return true;
    }
    // PEFT saves an adapted embedding's or head's own weight too; it is the base's.
    if (name.ends_with(kBaseLayer)) return true;
  } else if (name.ends_with(kIa3)) {
    adapter.ia3[module(kIa3)] = tensor;
    return true;
  }
  const std::string owner = name.substr(0, name.rfind('.'));
  for (const std::string& wanted : adapter.modules_to_save) {
    // A module whose name ends in the text, or one that lies in such a module (PEFT's rule).
    for (std::size_t end = owner.size(); end != std::string::npos;
         end = end == 0 ? std::string::npos : owner.rfind('.', end - 1)) {
      if (!std::string_view(owner).substr(0, end).ends_with(wanted)) continue;
      adapter.saved[name] = tensor;
      return true;
    }
  }
  return false;
}

void check_module(const fs::path& path, const std::string& module, const PeftLora& lora,
                  double rank, std::vector<std::string>& problems) {
  if (!lora.a.defined() || !lora.b.defined()) {
    problems.push_back(fmt::format("{}: '{}' has only lora_{}; expected A and B", path.string(),
                                   module, lora.a.defined() ? "A" : "B"));
  } else if (lora.a.dim() != 2 || lora.b.dim() != 2 ||
             static_cast<double>(lora.a.size(0)) != rank ||
             static_cast<double>(lora.b.size(1)) != rank) {
    problems.push_back(fmt::format("{}: '{}' has A {} and B {}; adapter_config.json says rank {}",
                                   path.string(), module, format_shape(lora.a.sizes().vec()),
                                   format_shape(lora.b.sizes().vec()), rank));
  } else if (lora.magnitude.defined() &&
             (lora.embedding || lora.magnitude.numel() != lora.b.size(0))) {
    problems.push_back(fmt::format("{}: '{}' has a magnitude vector {}; {}", path.string(), module,
                                   format_shape(lora.magnitude.sizes().vec()),
                                   lora.embedding
                                       ? "this version does not compute DoRA of embeddings"
                                       : "expected one value for each row of B"));
  }
}

/// Fills in what the configuration says of each module, and checks the shapes.
void finish_modules(const fs::path& folder, const ordered_json& config, PeftAdapter& adapter) {
  const fs::path path = folder / kAdapterConfigFile, weights = folder / kAdapterWeightsFile;
  const auto rank = static_cast<double>(json_field<std::int64_t>(config, path, "r", 8));
  const double alpha = json_field<double>(config, path, "lora_alpha", 8.0);
  std::vector<std::string> problems;
  for (auto& [module, lora] : adapter.modules) {
    lora.alpha = pattern_value(config, path, "alpha_pattern", module, alpha);
    check_module(weights, module, lora, pattern_value(config, path, "rank_pattern", module, rank),
                 problems);
  }
  for (const auto& [module, factors] : adapter.ia3) {
    if (factors.dim() == 2 && (factors.size(0) == 1 || factors.size(1) == 1)) continue;
    problems.push_back(fmt::format("{}: '{}' has ia3_l {}; expected [O, 1] or [1, I]",
                                   weights.string(), module, format_shape(factors.sizes().vec())));
  }
  if (json_field<bool>(config, path, "use_dora", false) != adapter.use_dora())
    problems.push_back(fmt::format("{}: 'use_dora' and the magnitude vectors of {} disagree",
                                   path.string(), kAdapterWeightsFile));
  if (adapter.modules.empty() && adapter.ia3.empty())
    problems.push_back(weights.string() + ": holds no LoRA tensors");
  if (!problems.empty()) throw Error(ErrorKind::model, join_problems(problems));
}

/// PEFT adds the names of scalar heads that models may have to those the user gave.
void check_score_head(const fs::path& path, PeftAdapter& adapter) {
  if (!adapter.scores) return;
  if (!adapter.saved.contains(std::string(kScoreHead) + ".weight")) {
    fail(ErrorKind::model,
         "{}: task_type is SEQ_CLS, and there is no '{}.weight'; expected the head that makes "
         "scores among modules_to_save",
         path.string(), kScoreHead);
  }
  std::erase(adapter.modules_to_save, "classifier");
}

/// How the base was held in training, where the weights' metadata say so.
void read_quantization(const SafetensorsFile& file, const fs::path& path, PeftAdapter& adapter) {
  const auto found = file.metadata().find(kQuantization);
  if (found == file.metadata().end()) return;
  const auto kind = parse_choice<Quantization>(found->second);
  if (!kind) {
    fail(ErrorKind::model, "{}: its metadata say quantization \"{}\"; expected none, nf4 or int8",
         path.string(), found->second);
  }
  adapter.quantization = *kind;
  const auto nested = file.metadata().find(kDoubleQuant);
  adapter.double_quant = nested == file.metadata().end() || nested->second == "true";
}

ordered_json number(double value) {
  // Python's json writes 32 for an integral alpha; readers that type it as int need that.
  return value == std::floor(value) ? ordered_json(static_cast<std::int64_t>(value))
                                    : ordered_json(value);
}

/// The value that most modules have, and the others by full name.
template <typename Value>
std::pair<double, ordered_json> most_and_pattern(const std::map<std::string, PeftLora>& modules,
                                                 const Value& value) {
  std::map<double, int> counts;
  for (const auto& [name, lora] : modules) ++counts[value(lora)];
  if (counts.empty()) return {8, ordered_json::object()};
  const double most = std::max_element(counts.begin(), counts.end(), [](auto& x, auto& y) {
                        return x.second < y.second;
                      })->first;
  ordered_json pattern = ordered_json::object();
  for (const auto& [name, lora] : modules) {
    if (value(lora) != most) pattern[name] = number(value(lora));
  }
  return {most, pattern};
}

ordered_json nullable(const std::vector<std::string>& list) {
  return list.empty() ? ordered_json() : ordered_json(list);
}

ordered_json ia3_config(const PeftAdapter& adapter) {
  return {{"auto_mapping", nullptr},
          {"base_model_name_or_path", adapter.base_model_name_or_path},
          {"exclude_modules", nullptr},
          {"fan_in_fan_out", adapter.fan_in_fan_out},
          {"feedforward_modules", adapter.feedforward_modules},
          {"inference_mode", true},
          {"init_ia3_weights", true},
          {"modules_to_save", nullable(adapter.modules_to_save)},
          {"peft_type", "IA3"},
          {"revision", nullptr},
          {"target_modules", adapter.target_modules},
          {"task_type", "CAUSAL_LM"}};
}

}  // namespace

double lora_scaling(double alpha, std::int64_t rank, bool use_rslora) {
  const auto r = static_cast<double>(rank);
  return alpha / (use_rslora ? std::sqrt(r) : r);
}

bool pattern_matches(const std::string& key, const std::string& module) {
  return std::regex_match(module, std::regex("(.*\\.)?(" + key + ")"));
}

bool PeftAdapter::use_dora() const {
  return std::any_of(modules.begin(), modules.end(),
                     [](const auto& module) { return module.second.magnitude.defined(); });
}

PeftAdapter read_peft_adapter(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    fail(ErrorKind::model, "{}: no such folder; expected a PEFT adapter folder", folder.string());
  }
  const fs::path path = folder / kAdapterConfigFile;
  const ordered_json config =
      ordered_json::parse(read_file(path, ErrorKind::model), nullptr, false);
  if (!config.is_object()) fail(ErrorKind::model, "{}: expected a JSON object", path.string());
  PeftAdapter adapter = parse_config(config, path);
  const SafetensorsFile file(folder / kAdapterWeightsFile);
  std::vector<std::string> extra;
  for (const auto& [name, info] : file.tensors()) {
    if (take(adapter, name, file.tensor(name))) continue;
    extra.push_back(fmt::format("{}: '{}' is not {} tensor of a causal model",
                                (folder / kAdapterWeightsFile).string(), name,
                                adapter.type == PeftAdapter::Type::lora ? "a LoRA" : "an (IA)3"));
  }
  if (!extra.empty()) throw Error(ErrorKind::model, join_problems(extra));
  read_quantization(file, folder / kAdapterWeightsFile, adapter);
  check_score_head(folder / kAdapterWeightsFile, adapter);
  finish_modules(folder, config, adapter);
  return adapter;
}

void write_peft_adapter(const fs::path& folder, const PeftAdapter& adapter) {
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (adapter.quantization != Quantization::none) {
    metadata[kQuantization] = to_string(adapter.quantization);
    metadata[kDoubleQuant] = adapter.double_quant ? "true" : "false";
  }
  write_safetensors(folder / kAdapterWeightsFile, peft_tensors(adapter), metadata);
  write_file_atomically(folder / kAdapterConfigFile, peft_config_json(adapter));
}

std::string peft_config_json(const PeftAdapter& adapter) {
  if (adapter.type == PeftAdapter::Type::ia3) return ia3_config(adapter).dump(2) + "\n";
  const auto [rank, ranks] = most_and_pattern(
      adapter.modules, [](const PeftLora& lora) { return static_cast<double>(lora.rank()); });
  const auto [alpha, alphas] =
      most_and_pattern(adapter.modules, [](const PeftLora& lora) { return lora.alpha; });
  const ordered_json out = {
      {"alpha_pattern", alphas},
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", adapter.base_model_name_or_path},
      {"bias", "none"},
      {"fan_in_fan_out", adapter.fan_in_fan_out},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"layers_pattern", nullptr},
      {"layers_to_transform", nullptr},
      {"loftq_config", ordered_json::object()},
      {"lora_alpha", number(alpha)},
      {"lora_dropout", adapter.lora_dropout},
      {"megatron_config", nullptr},
      {"megatron_core", "megatron.core"},
      {"modules_to_save", nullable(adapter.modules_to_save)},
      {"peft_type", "LORA"},
      {"r", number(rank)},
      {"rank_pattern", ranks},
      {"revision", nullptr},
      {"target_modules", adapter.target_modules},
      {"task_type", adapter.scores ? "SEQ_CLS" : "CAUSAL_LM"},
      {"use_dora", adapter.use_dora()},
      {"use_rslora", adapter.use_rslora},
  };
  return out.dump(2) + "\n";
}

std::map<std::string, Tensor> peft_tensors(const PeftAdapter& adapter) {
  std::map<std::string, Tensor> tensors;
  const auto put = [&](const std::string& module, std::string_view suffix, const Tensor& tensor) {
    if (tensor.defined()) tensors[std::string(kPeftPrefix) + module + std::string(suffix)] = tensor;
  };
  for (const auto& [module, lora] : adapter.modules) {
    put(module, lora.embedding ? kEmbeddingA : kLoraA, lora.a);
    put(module, lora.embedding ? kEmbeddingB : kLoraB, lora.b);
    put(module, kMagnitude, lora.magnitude);
  }
  for (const auto& [module, factors] : adapter.ia3) put(module, kIa3, factors);
  for (const auto& [name, tensor] : adapter.saved) put(name, "", tensor);
  return tensors;
}

}  // namespace finetune
