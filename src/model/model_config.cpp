#include "finetune/model/model_config.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "model/families.h"

#include <algorithm>

namespace finetune {

namespace fs = std::filesystem;

std::int64_t ModelConfig::longest_sequence() const {
  if (ropes.empty() || ropes.front().scaling.type != RopeScaling::Type::dynamic)
    return max_position_embeddings;
  constexpr double kLongest = 1e15;  // whatever the factor says
  return static_cast<std::int64_t>(std::min(
      kLongest, static_cast<double>(max_position_embeddings) * ropes.front().scaling.factor));
}

bool ModelConfig::angles_change_at(std::int64_t length) const {
  return std::any_of(ropes.begin(), ropes.end(), [&](const RopeConfig& rope) {
    return rope.scaling.type == RopeScaling::Type::longrope &&
           length == rope.scaling.original_max_position_embeddings + 1;
  });
}

std::string ModelConfig::layer_prefix(std::int64_t layer) const {
  return fmt::format("{}{}.{}.", names.prefix, names.layers, layer);
}

bool ModelConfig::stores_transposed(std::string_view name) const {
  if (!transposed_linears) return false;
  const std::string parts[] = {names.attention + "." + names.qkv, names.attention + "." + names.o,
                               names.mlp + "." + names.up, names.mlp + "." + names.down};
  return std::any_of(std::begin(parts), std::end(parts), [&](const std::string& part) {
    return name.ends_with("." + part + ".weight");
  });
}

std::vector<std::string> supported_model_types() {
  std::vector<std::string> names;
  for (const Family& family : families()) names.push_back(family.model_type);
  return names;
}

ModelConfig read_model_config(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    const std::string name = folder.string();
    const bool on_a_hub =
        name[0] != '/' && name[0] != '.' && std::count(name.begin(), name.end(), '/') == 1;
    fail(ErrorKind::model, "{}: no such folder; expected the folder of a Hugging Face model{}",
         name,
         on_a_hub
             ? fmt::format("; nothing is fetched here: hf download {} --local-dir FOLDER gets one",
                           name)
             : "");
  }
  const ConfigReader reader(folder / "config.json");
  const std::string model_type = reader.word("model_type", "");
  for (const Family& family : families()) {
    if (family.model_type != model_type) continue;
    ModelConfig config = family.read(reader);
    config.model_type = model_type;
    if (config.layers.size() != static_cast<std::size_t>(config.num_hidden_layers)) {
      reader.fail_field("num_hidden_layers", fmt::format("is {}", config.num_hidden_layers),
                        fmt::format("at most {}", config.layers.size()));
    }
    return config;
  }
  const std::vector<std::string> names = supported_model_types();
  if (reader.find("text_config") != nullptr) {
    const std::string inner = reader.section("text_config").word("model_type", "unknown");
    reader.fail_field(
        "model_type",
        fmt::format("is \"{}\", a model of several kinds of input whose text part is \"{}\"",
                    model_type, inner),
        "a text model; the text part inside such a folder is not loaded in this version. Save it "
        "on its own "
        "(transformers: model.language_model and its text_config) where its type is one of: " +
            join(names, ", "));
  }
  const std::string near = nearest(model_type, names);
  reader.fail_field(
      "model_type", fmt::format("is \"{}\"", model_type),
      join(names, ", ") + (near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

}  // namespace finetune
