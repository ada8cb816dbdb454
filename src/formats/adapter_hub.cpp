#include "finetune/formats/adapter_hub.h"

#include "finetune/base/file.h"
#include "finetune/base/text.h"
#include "finetune/formats/peft.h"
#include "finetune/formats/safetensors.h"
#include "formats/json_field.h"

#include <algorithm>
#include <optional>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* kName = "finetune";          // of the adapter in the files that we write
constexpr const char* kLayout = "adapters.1.3.0";  // the library whose layout it is

struct Part {
  const char* suffix;
  Tensor BottleneckWeights::*tensor;
};
constexpr Part kParts[] = {{"adapter_down.0.weight", &BottleneckWeights::down_weight},
                           {"adapter_down.0.bias", &BottleneckWeights::down_bias},
                           {"adapter_up.weight", &BottleneckWeights::up_weight},
                           {"adapter_up.bias", &BottleneckWeights::up_bias}};

/// A field of BnConfig with the only value that this version computes.
struct FixedField {
  const char* key;
  ordered_json value;
};

const std::vector<FixedField>& fixed_fields() {
  static const std::vector<FixedField> fields = {
      {"original_ln_after", true}, {"ln_before", false},         {"ln_after", false},
      {"use_gating", false},       {"phm_layer", false},         {"inv_adapter", nullptr},
      {"cross_adapter", false},    {"residual_before_ln", true}, {"stochastic_depth", 0.0}};
  return fields;
}

void check_fixed(const ordered_json& config, const fs::path& path) {
  std::vector<std::string> problems;
  for (const FixedField& field : fixed_fields()) {
    const auto found = config.find(field.key);
    if (found == config.end() || *found == field.value) continue;
    problems.push_back(fmt::format("{}: '{}' is {}; this version computes {}", path.string(),
                                   field.key, found->dump(), field.value.dump()));
  }
  const auto scaling = config.find("scaling");
  if (scaling != config.end() && !scaling->is_number()) {
    problems.push_back(fmt::format("{}: 'scaling' is {}; this version computes a number",
                                   path.string(), scaling->dump()));
  }
  if (!problems.empty()) throw Error(ErrorKind::model, join_problems(problems));
}

std::vector<std::int64_t> read_leave_out(const ordered_json& config, const fs::path& path) {
  const auto found = config.find("leave_out");
  if (found == config.end() || found->is_null()) return {};
  std::vector<std::int64_t> layers;
  for (const ordered_json& item : *found) {
    if (!item.is_number_integer()) {
      fail(ErrorKind::model, "{}: 'leave_out' is {}; expected numbers of blocks", path.string(),
           found->dump());
    }
    layers.push_back(item.get<std::int64_t>());
  }
  return layers;
}

BottleneckAdapter parse_config(const ordered_json& file, const fs::path& path) {
  if (file.contains("peft_type")) {
    fail(ErrorKind::model,
         "{}: is an adapter of PEFT; expected a bottleneck adapter of the adapters library",
         path.string());
  }
  const auto found = file.find("config");
  const ordered_json config = found == file.end() ? ordered_json() : *found;
  const std::string kind = config.is_object()
                               ? json_field<std::string>(config, path, "architecture", "")
                               : config.dump();
  if (!config.is_object() || !kind.empty()) {
    fail(ErrorKind::model,
         "{}: the adapter of the adapters library is \"{}\"; this version reads its bottleneck "
         "adapters (SeqBnConfig, DoubleSeqBnConfig, ParBnConfig)",
         path.string(), kind);
  }
  if (!file.contains("version")) {
    fail(ErrorKind::model,
         "{}: has no 'version', so its activations have other names; save it again with the "
         "adapters library",
         path.string());
  }
  check_fixed(config, path);
  BottleneckAdapter adapter;
  adapter.base_model_name_or_path = json_field<std::string>(file, path, "model_name", "");
  adapter.model_type = json_field<std::string>(file, path, "model_type", "");
  adapter.placement =
      json_field<bool>(config, path, "is_parallel", false)          ? AdapterPlacement::parallel
      : json_field<bool>(config, path, "original_ln_before", false) ? AdapterPlacement::pfeiffer
                                                                    : AdapterPlacement::houlsby;
  adapter.non_linearity = json_field<std::string>(config, path, "non_linearity", "");
  adapter.scaling = json_field<double>(config, path, "scaling", 1.0);
  adapter.dropout = json_field<double>(config, path, "dropout", 0.0);
  adapter.leave_out = read_leave_out(config, path);
  return adapter;
}

/// Puts one tensor where it belongs; false when it belongs nowhere.
bool take(BottleneckAdapter& adapter, const std::string& name, const std::string& adapter_name,
          const Tensor& tensor) {
  for (const char* place : {kAttentionAdapters, kOutputAdapters}) {
    const std::string stem = std::string(place) + ".adapters." + adapter_name + ".";
    const std::size_t begin = name.find(stem);
    if (begin == std::string::npos || begin == 0 || name[begin - 1] != '.') continue;
    for (const Part& part : kParts) {
      if (name.substr(begin + stem.size()) != part.suffix) continue;
      adapter.modules[name.substr(0, begin) + place].*part.tensor = tensor;
      return true;
    }
  }
  return false;
}

std::string problem_of(const std::string& module, const BottleneckWeights& weights) {
  for (const Part& part : kParts) {
    if (!(weights.*part.tensor).defined())
      return fmt::format("'{}' has no {}", module, part.suffix);
  }
  const Tensor &down = weights.down_weight, &up = weights.up_weight;
  const bool fits = down.dim() == 2 && up.dim() == 2 && down.size(0) == up.size(1) &&
                    down.size(1) == up.size(0) && weights.down_bias.numel() == down.size(0) &&
                    weights.up_bias.numel() == up.size(0);
  if (fits) return "";
  return fmt::format("'{}' has adapter_down {} and adapter_up {}, which do not fit together",
                     module, format_shape(down.sizes().vec()), format_shape(up.sizes().vec()));
}

void check_modules(const fs::path& path, const BottleneckAdapter& adapter) {
  std::vector<std::string> problems;
  for (const auto& [module, weights] : adapter.modules) {
    const std::string problem = problem_of(module, weights);
    if (!problem.empty()) problems.push_back(path.string() + ": " + problem);
  }
  if (adapter.modules.empty())
    problems.push_back(path.string() + ": holds no bottleneck adapter's tensors");
  if (!problems.empty()) throw Error(ErrorKind::model, join_problems(problems));
}

/// The library computes the size as the whole part of hidden_size / reduction_factor; where the
/// size is no divisor, half a unit more keeps rounding away from it.
ordered_json reduction_factor(std::int64_t hidden_size, std::int64_t size) {
  const auto hidden = static_cast<double>(hidden_size), width = static_cast<double>(size);
  return hidden_size % size == 0 ? hidden / width : hidden / (width + 0.5);
}

bool has_place(const BottleneckAdapter& adapter, const char* place) {
  return std::any_of(adapter.modules.begin(), adapter.modules.end(),
                     [&](const auto& module) { return module.first.ends_with(place); });
}

std::string config_text(const BottleneckAdapter& adapter) {
  const BottleneckWeights& first = adapter.modules.begin()->second;
  const std::int64_t hidden_size = first.up_weight.size(0);
  ordered_json config = {{"mh_adapter", has_place(adapter, kAttentionAdapters)},
                         {"output_adapter", has_place(adapter, kOutputAdapters)},
                         {"reduction_factor", reduction_factor(hidden_size, adapter.size())},
                         {"non_linearity", adapter.non_linearity},
                         {"original_ln_before", adapter.placement == AdapterPlacement::pfeiffer},
                         {"is_parallel", adapter.placement == AdapterPlacement::parallel},
                         {"adapter_residual_before_ln", false},
                         {"scaling", adapter.scaling},
                         {"dropout", adapter.dropout},
                         {"init_weights", "mam_adapter"},
                         {"leave_out", adapter.leave_out}};
  for (const FixedField& field : fixed_fields()) config[field.key] = field.value;
  const ordered_json file = {{"config", config},
                             {"hidden_size", hidden_size},
                             {"model_name", adapter.base_model_name_or_path},
                             {"model_type", adapter.model_type},
                             {"name", kName},
                             {"version", kLayout}};
  return file.dump(2) + "\n";
}

}  // namespace

BottleneckAdapter read_bottleneck_adapter(const fs::path& folder) {
  const fs::path path = folder / kAdapterConfigFile, weights = folder / kBottleneckWeightsFile;
  const ordered_json file = ordered_json::parse(read_file(path, ErrorKind::model), nullptr, false);
  if (!file.is_object()) fail(ErrorKind::model, "{}: expected a JSON object", path.string());
  BottleneckAdapter adapter = parse_config(file, path);
  if (!fs::exists(weights) && fs::exists(folder / "pytorch_adapter.bin")) {
    fail(ErrorKind::model,
         "{}: holds pytorch_adapter.bin; expected {}, which the adapters library writes with "
         "save_adapter(..., use_safetensors=True)",
         folder.string(), kBottleneckWeightsFile);
  }
  const SafetensorsFile tensors(weights);
  const std::string name = json_field<std::string>(file, path, "name", "");
  std::vector<std::string> extra;
  for (const auto& [stored, info] : tensors.tensors()) {
    if (take(adapter, stored, name, tensors.tensor(stored))) continue;
    extra.push_back(fmt::format("{}: '{}' is no tensor of the bottleneck adapter \"{}\"",
                                weights.string(), stored, name));
  }
  if (!extra.empty()) throw Error(ErrorKind::model, join_problems(extra));
  check_modules(weights, adapter);
  return adapter;
}

void write_bottleneck_adapter(const fs::path& folder, const BottleneckAdapter& adapter) {
  write_safetensors(folder / kBottleneckWeightsFile, bottleneck_tensors(adapter),
                    {{"format", "pt"}});
  write_file_atomically(folder / kAdapterConfigFile, config_text(adapter));
}

std::map<std::string, Tensor> bottleneck_tensors(const BottleneckAdapter& adapter) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [module, weights] : adapter.modules) {
    for (const Part& part : kParts)
      tensors[fmt::format("{}.adapters.{}.{}", module, kName, part.suffix)] = weights.*part.tensor;
  }
  return tensors;
}

}  // namespace finetune
