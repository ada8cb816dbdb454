#include "commands/session.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"
#include "finetune/base/machine.h"
#include "finetune/base/stopwatch.h"
#include "finetune/base/text.h"
#include "finetune/formats/safetensors.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>

namespace finetune {

namespace {

/// What ends an answer; a model can name several tokens, and a template another one.
std::vector<std::int32_t> read_stop_ids(const std::filesystem::path& folder,
                                        const Tokenizer& tokenizer,
                                        const ChatTemplate& chat_template) {
  std::vector<std::int32_t> ids;
  const auto add = [&](std::int64_t id) {
    if (id < 0 || id >= tokenizer.vocab_size()) return;
    if (std::find(ids.begin(), ids.end(), id) == ids.end())
      ids.push_back(static_cast<std::int32_t>(id));
  };
  if (const auto eos = tokenizer.specials().eos_id) add(*eos);
  if (const auto stop = chat_template.stop_id()) add(*stop);
  for (const char* name : {"generation_config.json", "config.json"}) {
    if (!std::filesystem::is_regular_file(folder / name)) continue;
    const auto json = nlohmann::json::parse(read_file(folder / name, ErrorKind::model), nullptr,
                                            /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("eos_token_id")) continue;
    const auto& named = json.at("eos_token_id");
    for (const auto& id : named.is_array() ? named : nlohmann::json::array({named})) {
      if (id.is_number_integer()) add(id.get<std::int64_t>());
    }
  }
  return ids;
}

void check_quantization(const Config& config, const CausalLM& model) {
  if (!model.quantized()) return;
  if (config.method == Method::full) {
    fail(ErrorKind::config,
         "{}: its weights are quantized, and method: full trains them; use method: lora, or the "
         "original model",
         config.model_name_or_path);
  }
  const CausalLM::LinearBytes bytes = model.linear_bytes();
  log_info("model", "the blocks' linears take {} quantized, {} less than in {}",
           format_bytes(bytes.stored), format_bytes(bytes.dense - bytes.stored),
           dtype_name(model.compute_dtype));
}

}  // namespace

CLI::App* add_verb(CLI::App& program, const std::string& name, const std::string& description,
                   const std::string& example, const std::shared_ptr<CommonOptions>& common) {
  CLI::App* verb = program.add_subcommand(name, description);
  verb->footer("Example:\n  " + example);
  verb->add_flag("--verbose", common->verbose, "Say more");
  verb->add_flag("--quiet", common->quiet, "Warnings and errors only");
  verb->parse_complete_callback([common] {
    set_log_level(common->quiet     ? LogLevel::quiet
                  : common->verbose ? LogLevel::verbose
                                    : LogLevel::normal);
  });
  return verb;
}

void add_config_options(CLI::App& verb, ConfigOptions& options) {
  verb.add_option("--config", options.file, "Configuration file (YAML)")->type_name("FILE");
  verb.add_option("settings", options.overrides,
                  "Settings that win over the file: learning_rate=1e-4")
      ->type_name("KEY=VALUE");
  verb.add_flag("--show-config", options.show_config,
                "Print every setting with its origin, and stop");
}

Config read_config(const ConfigOptions& options) {
  for (const std::string& word : options.overrides) {
    if (word.find('=') == std::string::npos) {
      if (word.ends_with(".jsonl") || word.ends_with(".json") || word.ends_with(".gz"))
        fail(ErrorKind::config,
             "'{}' is neither an option nor KEY=VALUE; data are given as datasets={}", word, word);
      fail(
          ErrorKind::config,
          "'{}' is neither an option nor KEY=VALUE; a configuration file is given with --config {}",
          word, word);
    }
  }
  ConfigSource source;
  if (!options.file.empty()) source.file = options.file;
  source.overrides = options.overrides;
  return load_config(source);
}

void prepare_process(const Config& config) {
  at::set_num_threads(static_cast<int>(config.num_threads.value_or(usable_cores())));
  if (resolve_device(config.device).is_cpu()) return;  // the CPU kernels we use are deterministic
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

TextTools load_text_tools(const Config& config) {
  TextTools tools;
  tools.tokenizer = load_tokenizer(config.model_name_or_path);
  tools.chat_template =
      load_chat_template(config.model_name_or_path, config.template_name, *tools.tokenizer);
  tools.stop_ids = read_stop_ids(config.model_name_or_path, *tools.tokenizer, *tools.chat_template);
  return tools;
}

LoadOptions load_options(const Config& config, ModelUse use) {
  LoadOptions options;
  options.device = resolve_device(config.device);
  options.dtype =
      resolve_dtype(config.dtype, options.device, stored_dtype(config.model_name_or_path), use);
  options.allow_extra_tensors = config.allow_extra_tensors;
  options.quantization = config.quantization;
  options.double_quant = config.double_quant;
  if (options.quantization != Quantization::none && !options.device.is_cpu()) {
    fail(ErrorKind::config, "quantization: {} runs on the CPU in this version; use device: cpu",
         to_string(config.quantization));
  }
  return options;
}

CausalLM load_base(const Config& config, ModelUse use) {
  const Stopwatch watch;
  const LoadOptions options = load_options(config, use);
  CausalLM model = load_model(config.model_name_or_path, options);
  const double seconds = watch.seconds();
  log_info("model", "{}: {}, {} parameters, {} on {} ({})", config.model_name_or_path,
           model.config.model_type, format_count(model.parameter_count()),
           dtype_name(options.dtype), options.device.str(), format_seconds(seconds));
  check_quantization(config, model);
  return model;
}

std::string adapter_name(const std::vector<std::string>& paths, std::size_t index) {
  const auto last = [](const std::string& path) {
    const std::filesystem::path clean = std::filesystem::path(path).lexically_normal();
    return (clean.has_filename() ? clean : clean.parent_path()).filename().string();
  };
  const auto same = std::count_if(paths.begin(), paths.end(), [&](const std::string& path) {
    return last(path) == last(paths[index]);
  });
  return same == 1 && last(paths[index]) != "base" ? last(paths[index]) : paths[index];
}

void write_output(const std::string& destination, const std::string& text) {
  if (destination != "-") return write_file_atomically(destination, text);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void check_new_model_folder(const std::filesystem::path& output) {
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json",
                           "adapter_config.json"}) {
    if (std::filesystem::exists(output / name)) {
      fail(ErrorKind::config, "{}: already holds {}; choose another --output, or remove it",
           output.string(), name);
    }
  }
}

}  // namespace finetune
