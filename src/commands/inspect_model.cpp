#include "commands/inspect.h"
#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "finetune/formats/adapter_folder.h"
#include "finetune/model/write_model.h"

#include <nlohmann/json.hpp>

#include <map>
#include <set>

namespace finetune {

using nlohmann::ordered_json;

namespace {

struct InspectFolderOptions {
  std::string folder;
  bool json = false;
};

/// "model.layers.3.self_attn.q_proj.weight" -> "q_proj".
std::string last_name(std::string module) {
  const std::string ending = ".weight";
  if (module.ends_with(ending)) module.resize(module.size() - ending.size());
  return module.substr(module.rfind('.') + 1);
}

/// "key: value" a line, or the object as JSON.
void print(const ordered_json& values, bool json) {
  if (json) return write_output("-", values.dump(2) + "\n");
  std::string text;
  for (const auto& [name, value] : values.items()) {
    std::string shown = value.is_string() ? value.get<std::string>() : value.dump();
    if (value.is_number_integer() && value.get<std::int64_t>() >= 1000)
      shown = format_count(value.get<std::int64_t>());
    if (value.is_array()) {
      std::vector<std::string> parts;
      for (const auto& item : value)
        parts.push_back(item.is_string() ? item.get<std::string>() : item.dump());
      shown = join(parts, ", ");
    }
    text += fmt::format("{:24}{}\n", name, value.is_null() ? "-" : shown);
  }
  write_output("-", text);
}

void run_inspect_model(const InspectFolderOptions& options) {
  const std::filesystem::path folder = options.folder;
  const ModelConfig config = read_model_config(folder);
  const std::string layers = config.names.prefix + config.names.layers + ".";
  std::int64_t parameters = 0;
  std::uint64_t bytes = 0;
  std::map<std::string, std::int64_t> dtypes;
  std::set<std::string> linears;
  for (const auto& [name, tensor] : read_model_tensors(folder)) {
    parameters += tensor.numel();
    bytes += tensor.nbytes();
    dtypes[dtype_name(tensor.scalar_type())] += tensor.numel();
    if (tensor.dim() == 2 && name.starts_with(layers)) linears.insert(last_name(name));
  }
  std::vector<std::string> types;
  for (const auto& [type, count] : dtypes) types.push_back(type);
  const RawTemplate chat = load_raw_template(folder, "auto");
  print({{"model_type", config.model_type},
         {"parameters", parameters},
         {"bytes", format_bytes(bytes)},
         {"dtype", join(types, ", ")},
         {"num_hidden_layers", config.num_hidden_layers},
         {"hidden_size", config.hidden_size},
         {"intermediate_size", config.intermediate_size},
         {"num_attention_heads", config.num_attention_heads},
         {"num_key_value_heads", config.num_key_value_heads},
         {"head_dim", config.head_dim},
         {"vocab_size", config.vocab_size},
         {"longest_sequence", config.longest_sequence()},
         {"tie_word_embeddings", config.tie_word_embeddings},
         {"template", chat.where},
         {"linears", std::vector<std::string>(linears.begin(), linears.end())}},
        options.json);
}

/// 16, or "4 to 16".
template <typename T>
ordered_json spread(const std::set<T>& values) {
  if (values.empty()) return {};
  if (values.size() == 1) return *values.begin();
  return fmt::format("{} to {}", *values.begin(), *values.rbegin());
}

ordered_json describe(const PeftAdapter& adapter) {
  std::set<std::string> targets;
  std::set<std::int64_t> ranks;
  std::set<double> alphas, scalings;
  for (const auto& [module, lora] : adapter.modules) {
    targets.insert(last_name(module));
    ranks.insert(lora.rank());
    alphas.insert(lora.alpha);
    scalings.insert(adapter.scaling(lora));
  }
  for (const auto& [module, factors] : adapter.ia3) targets.insert(last_name(module));
  const bool lora = adapter.type == PeftAdapter::Type::lora;
  ordered_json values = {{"type", lora ? "lora" : "ia3"},
                         {"base_model", adapter.base_model_name_or_path}};
  if (lora) {
    values.update({{"rank", spread(ranks)},
                   {"alpha", spread(alphas)},
                   {"dropout", adapter.lora_dropout},
                   {"use_rslora", adapter.use_rslora},
                   {"use_dora", adapter.use_dora()},
                   {"scaling", spread(scalings)}});
  }
  values.update(
      {{"modules", static_cast<std::int64_t>(adapter.modules.size() + adapter.ia3.size())},
       {"targets", std::vector<std::string>(targets.begin(), targets.end())},
       {"modules_to_save", adapter.modules_to_save}});
  return values;
}

ordered_json describe(const BottleneckAdapter& adapter) {
  std::set<std::string> places;
  for (const auto& [module, weights] : adapter.modules) places.insert(last_name(module));
  return {{"type", "adapter"},
          {"base_model", adapter.base_model_name_or_path},
          {"placement", to_string(adapter.placement)},
          {"size", adapter.size()},
          {"activation", adapter.non_linearity},
          {"scaling", adapter.scaling},
          {"dropout", adapter.dropout},
          {"modules", static_cast<std::int64_t>(adapter.modules.size())},
          {"targets", std::vector<std::string>(places.begin(), places.end())}};
}

void run_inspect_adapter(const InspectFolderOptions& options) {
  const SavedAdapter adapter = read_adapter(options.folder);
  std::int64_t parameters = 0;
  std::set<std::string> types;
  for (const auto& [name, tensor] : stored_tensors(adapter)) {
    parameters += tensor.numel();
    types.insert(dtype_name(tensor.scalar_type()));
  }
  ordered_json values = std::visit([](const auto& any) { return describe(any); }, adapter);
  values.update({{"parameters", parameters}, {"dtype", join({types.begin(), types.end()}, ", ")}});
  print(values, options.json);
}

}  // namespace

void add_inspect_model(CLI::App& inspect) {
  auto options = std::make_shared<InspectFolderOptions>();
  CLI::App* verb =
      add_verb(inspect, "model", "Family, shapes, size and targets of a model folder",
               "finetune inspect model data/tiny-base", std::make_shared<CommonOptions>());
  verb->add_option("folder", options->folder, "Model folder")->type_name("DIR")->required();
  verb->add_flag("--json", options->json, "Print JSON");
  verb->final_callback([options] { run_inspect_model(*options); });
}

void add_inspect_adapter(CLI::App& inspect) {
  auto options = std::make_shared<InspectFolderOptions>();
  CLI::App* verb =
      add_verb(inspect, "adapter", "Rank, targets and size of an adapter folder",
               "finetune inspect adapter runs/lora", std::make_shared<CommonOptions>());
  verb->add_option("folder", options->folder, "Adapter folder")->type_name("DIR")->required();
  verb->add_flag("--json", options->json, "Print JSON");
  verb->final_callback([options] { run_inspect_adapter(*options); });
}

}  // namespace finetune
