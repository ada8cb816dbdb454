#include "finetune/formats/peft.h"

#include "finetune/base/file.h"
#include "finetune/formats/safetensors.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <type_traits>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kSuffixA = ".lora_A.weight";
constexpr std::string_view kSuffixB = ".lora_B.weight";

/// A field that changes what the adapter computes, with the value that means "not used".
bool unused(const json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return true;
  if (found->is_boolean()) return !found->get<bool>();
  if (found->is_string()) return *found == "none" || found->get<std::string>().empty();
  return found->empty();
}

template <typename T>
T field(const json& config, const fs::path& path, const char* key, const T& fallback) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return fallback;
  const bool fits = std::is_same_v<T, bool>           ? found->is_boolean()
                    : std::is_same_v<T, std::int64_t> ? found->is_number_integer()
                    : std::is_same_v<T, double>       ? found->is_number()
                                                      : found->is_string();
  if (!fits) {
    fail(ErrorKind::model, "{}: '{}' is {}, which is not of the expected type", path.string(), key,
         found->dump());
  }
  return found->get<T>();
}

/// PEFT repeats PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA when it loads an adapter, and takes the
/// initial update off the base weight; the tensors alone then mean something else. The words below
/// leave the base as it is.
void check_init(const json& config, const fs::path& path) {
  const auto init = config.find("init_lora_weights");
  if (init == config.end() || !init->is_string()) return;
  for (const char* word : {"gaussian", "eva", "orthogonal"}) {
    if (*init == word) return;
  }
  fail(ErrorKind::model,
       "{}: 'init_lora_weights' is {}, which changes the base weights; expected true, false, "
       "gaussian, eva or "
       "orthogonal. Save the adapter with PEFT's path_initial_model_for_weight_conversion",
       path.string(), init->dump());
}

PeftLoraConfig parse_config(const fs::path& path) {
  const json config = json::parse(read_file(path, ErrorKind::model), nullptr, false);
  if (!config.is_object()) fail(ErrorKind::model, "{}: expected a JSON object", path.string());
  const auto type = field<std::string>(config, path, "peft_type", "");
  if (type != "LORA") {
    fail(ErrorKind::model, "{}: 'peft_type' is \"{}\"; this version reads LORA", path.string(),
         type);
  }
  for (const char* key : {"use_dora", "bias", "modules_to_save", "rank_pattern", "alpha_pattern",
                          "layer_replication", "target_parameters", "trainable_token_indices",
                          "lora_bias", "use_qalora", "alora_invocation_tokens"}) {
    if (!unused(config, key)) {
      fail(ErrorKind::model, "{}: '{}' is {}; this version does not compute it", path.string(), key,
           config.at(key).dump());
    }
  }
  check_init(config, path);
  PeftLoraConfig result;
  result.base_model_name_or_path = field<std::string>(config, path, "base_model_name_or_path", "");
  result.r = field<std::int64_t>(config, path, "r", 8);
  result.lora_alpha = field<double>(config, path, "lora_alpha", 8.0);
  result.lora_dropout = field<double>(config, path, "lora_dropout", 0.0);
  result.use_rslora = field<bool>(config, path, "use_rslora", false);
  result.fan_in_fan_out = field<bool>(config, path, "fan_in_fan_out", false);
  if (result.r < 1)
    fail(ErrorKind::model, "{}: 'r' is {}; expected at least 1", path.string(), result.r);
  return result;
}

void check_pairs(const fs::path& path, const PeftAdapter& adapter) {
  std::vector<std::string> problems;
  for (const auto& [module, pair] : adapter.modules) {
    if (!pair.a.defined() || !pair.b.defined()) {
      problems.push_back(fmt::format("{}: '{}' has only lora_{}; expected A and B", path.string(),
                                     module, pair.a.defined() ? "A" : "B"));
    } else if (pair.a.dim() != 2 || pair.b.dim() != 2 || pair.a.size(0) != adapter.config.r ||
               pair.b.size(1) != adapter.config.r) {
      problems.push_back(fmt::format("{}: '{}' has A {} and B {}; adapter_config.json says rank {}",
                                     path.string(), module, format_shape(pair.a.sizes().vec()),
                                     format_shape(pair.b.sizes().vec()), adapter.config.r));
    }
  }
  if (adapter.modules.empty()) problems.push_back(path.string() + ": holds no LoRA tensors");
  if (!problems.empty()) throw Error(ErrorKind::model, join_problems(problems));
}

}  // namespace

double PeftLoraConfig::scaling() const {
  const double rank = static_cast<double>(r);
  return lora_alpha / (use_rslora ? std::sqrt(rank) : rank);
}

PeftAdapter read_peft_adapter(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    fail(ErrorKind::model, "{}: no such folder; expected a PEFT adapter folder", folder.string());
  }
  PeftAdapter adapter;
  adapter.config = parse_config(folder / kAdapterConfigFile);
  const SafetensorsFile file(folder / kAdapterWeightsFile);
  std::vector<std::string> extra;
  for (const auto& [name, info] : file.tensors()) {
    const bool is_a = name.ends_with(kSuffixA), is_b = name.ends_with(kSuffixB);
    if (!name.starts_with(kPrefix) || !(is_a || is_b)) {
      extra.push_back(fmt::format("{}: '{}' is not a LoRA tensor of a causal model",
                                  (folder / kAdapterWeightsFile).string(), name));
      continue;
    }
    const std::string module =
        name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffixA.size());
    (is_a ? adapter.modules[module].a : adapter.modules[module].b) = file.tensor(name);
  }
  if (!extra.empty()) throw Error(ErrorKind::model, join_problems(extra));
  check_pairs(folder / kAdapterWeightsFile, adapter);
  return adapter;
}

std::string peft_config_json(const PeftLoraConfig& config) {
  // Python's json writes 32 for an integral alpha; readers that type it as int need that.
  const json alpha = config.lora_alpha == std::floor(config.lora_alpha)
                         ? json(static_cast<std::int64_t>(config.lora_alpha))
                         : json(config.lora_alpha);
  const json out = {
      {"alpha_pattern", json::object()},
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", config.base_model_name_or_path},
      {"bias", "none"},
      {"fan_in_fan_out", config.fan_in_fan_out},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"layers_pattern", nullptr},
      {"layers_to_transform", nullptr},
      {"loftq_config", json::object()},
      {"lora_alpha", alpha},
      {"lora_dropout", config.lora_dropout},
      {"megatron_config", nullptr},
      {"megatron_core", "megatron.core"},
      {"modules_to_save", nullptr},
      {"peft_type", "LORA"},
      {"r", config.r},
      {"rank_pattern", json::object()},
      {"revision", nullptr},
      {"target_modules", config.target_modules},
      {"task_type", "CAUSAL_LM"},
      {"use_dora", false},
      {"use_rslora", config.use_rslora},
  };
  return out.dump(2) + "\n";
}

std::map<std::string, Tensor> peft_tensors(
    const std::map<std::string, PeftAdapter::Pair>& modules) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [module, pair] : modules) {
    tensors[std::string(kPrefix) + module + std::string(kSuffixA)] = pair.a;
    tensors[std::string(kPrefix) + module + std::string(kSuffixB)] = pair.b;
  }
  return tensors;
}

}  // namespace finetune
