#include "finetune/config/config.h"

#include "config/fields.h"
#include "config/write_value.h"

#include <fmt/format.h>

#include <functional>

namespace finetune {

namespace {

/// The configuration with the values that depend on others filled in.
Config effective(const Config& config) {
  Config result = config;
  result.learning_rate = config.resolved_learning_rate();
  if (config.stage != Stage::sft && config.stage != Stage::reward)
    result.beta = config.resolved_beta();
  result.load_best_model_at_end = config.resolved_load_best_model_at_end();
  return result;
}

/// True for a default that another given key replaces. Written out as a value it would count as
/// given when the file is read again, and contradict that key.
bool is_replaced(const Config& config, std::string_view key) {
  if (config.is_given(key)) return false;
  if (key == "per_device_train_batch_size") return config.tokens_per_batch.has_value();
  if (key == "warmup_ratio") return config.warmup_steps > 0;
  const bool from_adapter = key == "lora_rank" || key == "lora_alpha" || key == "target_modules" ||
                            key == "exclude_modules" || key == "layers_to_transform" ||
                            key == "use_rslora" || key == "adapter_size" ||
                            key == "adapter_activation" || key == "adapter_placement" ||
                            key == "adapter_scaling";
  return from_adapter && config.init_lora_weights.kind == LoraInit::Kind::adapter;
}

/// Writes every setting as "key: value  # comment" under the titles of the groups.
class Writer {
 public:
  using Comment = std::function<std::string(const Field&)>;

  Writer(const Config& config, Comment comment) : config_(config), comment_(std::move(comment)) {}

  void group(std::string_view title) {
    text += fmt::format("{}# {}\n", text.empty() ? "" : "\n", title);
  }

  template <typename T>
  void operator()(const Field& field, const T& member) {
    const std::string value =
        is_replaced(config_, field.key) ? "null" : yaml_text(json_value(member));
    const std::string comment = comment_(field);
    text += fmt::format("{}: {}{}\n", field.key, value, comment.empty() ? "" : "  # " + comment);
  }

  std::string text;

 private:
  const Config& config_;
  Comment comment_;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> config_values(const Config& config) {
  std::vector<std::pair<std::string, std::string>> values;
  const Config complete = effective(config);
  visit_fields(complete, [&](const Field& field, const auto& member) {
    values.emplace_back(field.key,
                        is_replaced(config, field.key) ? "null" : yaml_text(json_value(member)));
  });
  return values;
}

std::string show_config(const Config& config) {
  const Config complete = effective(config);
  Writer writer(config, [&](const Field& field) -> std::string {
    const auto origin = config.origins.find(std::string(field.key));
    return origin == config.origins.end() ? "default" : origin->second;
  });
  visit_fields(complete, writer);
  return writer.text;
}

std::string resolved_yaml(const Config& config) {
  const Config complete = effective(config);
  Writer writer(config, [](const Field&) { return std::string(); });
  visit_fields(complete, writer);
  return "# The settings of this run, complete. --config reads this file again; null is the "
         "default.\n\n" +
         writer.text;
}

}  // namespace finetune
