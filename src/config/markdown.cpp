#include "finetune/config/config.h"

#include "config/aliases.h"
#include "config/fields.h"
#include "config/read_value.h"
#include "config/write_value.h"
#include "finetune/base/text.h"

#include <fmt/format.h>

namespace finetune {

namespace {

constexpr std::string_view kIntroduction = R"(# Configuration

<!-- Generated from src/config/fields*.h. To write it anew:
     FINETUNE_UPDATE_DOCS=1 build/release/tests/finetune_tests --gtest_filter='ConfigDocs.*' -->

A run is described by a flat YAML file (`--config lora.yaml`), by `key=value` words on the command line, which
win, or by both. The names are those of Hugging Face's TrainingArguments and PEFT's LoraConfig.

- Sections are joined with their keys: `lora: {rank: 8}` is `lora_rank: 8`, and on the command line
  `lora.rank=8` is `lora_rank=8`. Where that is no key, the section is only a heading: `training: {seed: 1}` is
  `seed: 1`. `-` in a key is `_`.
- An unknown key, a key given twice, two names of one setting with different values, and a value of the wrong type
  or out of range are errors; all problems of a file are reported at once, with their lines.
- The type of the setting decides what a word means: `1e-4` is a number, `16.0` and `1_000` are integers, `no` is
  false for a switch and a text elsewhere. `null` is the default.
- Relative paths are relative to the working directory.
- `--show-config` prints every value and where it comes from. The output folder's `config.yaml` has all of
  them and can be given to `--config` again.
- What this version does not have yet is refused with exit code 2, not ignored; notes such as *in this version only `sft`*
  say what there is.

[config.schema.json](config.schema.json) is a JSON Schema of the file, for editors.
)";

std::string type_text(const std::string&) { return "text"; }
std::string type_text(bool) { return "true, false"; }
std::string type_text(std::int64_t) { return "integer"; }
std::string type_text(double) { return "number"; }
std::string type_text(const ModuleSelector&) { return "word, list of names, or pattern"; }
std::string type_text(const LoraInit&) { return "true, gaussian, pissa, olora, loftq, or folder"; }
std::string type_text(const std::vector<DatasetSpec>&) {
  return "path, or list of paths or entries";
}

template <Choice E>
std::string type_text(E) {
  return join(main_words<E>(), ", ");
}

template <typename T>
std::string type_text(const std::optional<T>&) {
  return type_text(T());
}

template <typename T>
std::string type_text(const std::vector<T>&) {
  if (std::is_same_v<T, double>) return "list of numbers";
  return "list of " + std::string(std::is_same_v<T, std::string> ? "names" : "integers");
}

template <typename T>
std::string type_text(const std::map<std::string, T>&) {
  return "section of names, each with " +
         std::string(std::is_same_v<T, std::int64_t> ? "an " : "a ") + type_text(T());
}

std::string code_list(const std::vector<std::string_view>& words) {
  std::vector<std::string> quoted;
  for (const std::string_view word : words) quoted.push_back("`" + std::string(word) + "`");
  return join(quoted, ", ");
}

/// Appends a table for each group of settings.
struct TableWriter {
  std::string text;
  bool has_header = false;

  void group(std::string_view title) {
    text += fmt::format("\n## {}\n", title);
    has_header = false;
  }

  template <typename T>
  void operator()(const Field& field, const T& member) {
    if (!has_header) text += "\n| key | value | default | meaning |\n|---|---|---|---|\n";
    has_header = true;
    std::string standard =
        field.absent.empty() ? default_text(json_value(member)) : std::string(field.absent);
    text += fmt::format(
        "| `{}` | {} | {} | {} |\n", field.key,
        describe_range(field.bytes ? "bytes, a number" : type_text(member), field.range), standard,
        meaning(field));
  }

  static std::string default_text(const OrderedJson& value) {
    const bool empty =
        (value.is_structured() || value.is_string()) && (value.empty() || value == "");
    return value.is_null() || empty ? "none" : "`" + yaml_text(value) + "`";
  }

  static std::string meaning(const Field& field) {
    std::string text(field.help);
    if (!field.only_for.empty())
      text += fmt::format(" Only for `method: {}`.",
                          join({field.only_for.begin(), field.only_for.end()}, "` and `"));
    if (field.has.size() == 1 && (field.has[0] == "{}" || field.has[0] == "[]" ||
                                  field.has[0].empty() || field.has[0] == "null")) {
      text += " *Not in this version.*";
    } else if (!field.has.empty()) {
      text += fmt::format(" *In this version{} {}.*", field.has.size() == 1 ? " only" : ":",
                          code_list(field.has));
    }
    if (!field.aliases.empty()) text += " Also: " + code_list(field.aliases) + ".";
    return text;
  }
};

}  // namespace

std::string config_markdown() {
  TableWriter config;
  const Config defaults;
  visit_fields(defaults, config);
  TableWriter dataset;
  const DatasetSpec dataset_defaults;
  visit_dataset_fields(dataset_defaults, dataset);
  std::string text(kIntroduction);
  text += config.text;
  text += "\n## Entries of `datasets` and `eval_datasets`\n" + dataset.text;
  text +=
      "\n## Other trainers' spellings\n\nBesides the names after *Also*, these are understood:\n\n";
  for (const auto& [name, meaning] : translated_names())
    text += fmt::format("- `{}`: {}\n", name, meaning);
  text +=
      "- `method: qlora`: `method: lora` with `quantization: nf4`\n"
      "- `lora_target: all`: `target_modules: all-linear`\n"
      "- `warmup_steps` below 1: `warmup_ratio`\n";
  return text;
}

}  // namespace finetune
