#pragma once

#include "finetune/config/config.h"
#include "finetune/model/causal_lm.h"
#include "finetune/model/placement.h"
#include "finetune/text/chat_template.h"
#include "finetune/text/tokenizer.h"

#include <CLI/CLI.hpp>

#include <memory>
#include <string>
#include <vector>

namespace finetune {

/// Options that every verb has.
struct CommonOptions {
  bool verbose = false;
  bool quiet = false;
};

/// `--config FILE` and `key=value` words.
struct ConfigOptions {
  std::string file;
  std::vector<std::string> overrides;
  bool show_config = false;
};

/// A verb with --verbose, --quiet, and a help that ends in `example`.
CLI::App* add_verb(CLI::App& program, const std::string& name, const std::string& description,
                   const std::string& example, const std::shared_ptr<CommonOptions>& common);
void add_config_options(CLI::App& verb, ConfigOptions& options);

/// The configuration these options give. The words after the options must be key=value.
Config read_config(const ConfigOptions& options);

/// Sets threads and LibTorch's behaviour: results do not depend on what ran before.
void prepare_process(const Config& config);

/// What reads and writes the text of a model.
struct TextTools {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  std::vector<std::int32_t> stop_ids;  ///< end an answer: EOS, those of generation_config.json and
                                       ///< config.json, the template's
};
TextTools load_text_tools(const Config& config);

/// How the configuration wants the base model loaded. Throws Error(config) where it cannot be.
LoadOptions load_options(const Config& config, ModelUse use);

/// Loads the base model on the device and in the type that the configuration asks for, and says so.
CausalLM load_base(const Config& config, ModelUse use);

/// What tells one of several adapters from the others: the end of its path, or where another has
/// that too, or it is "base" (which is the model without one), the whole path.
std::string adapter_name(const std::vector<std::string>& paths, std::size_t index);

/// Throws Error(config) where a folder to be written holds a model: it may be the user's only copy.
void check_new_model_folder(const std::filesystem::path& output);

/// Prints text to standard output, or writes it to a file atomically; "-" is standard output.
void write_output(const std::string& destination, const std::string& text);

}  // namespace finetune
