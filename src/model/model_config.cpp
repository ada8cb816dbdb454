#include "finetune/model/model_config.h"

#include "model/families.h"
#include "finetune/base/file.h"
#include "finetune/base/text.h"

#include <nlohmann/json.hpp>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {


RopeScaling::Type parse_rope_type(const std::string& word, const ConfigReader& reader) {
  if (word == "default") return RopeScaling::Type::none;
  if (word == "linear") return RopeScaling::Type::linear;
  if (word == "dynamic") return RopeScaling::Type::dynamic;
  if (word == "llama3") return RopeScaling::Type::llama3;
  if (word == "yarn") return RopeScaling::Type::yarn;
  reader.fail_field("rope_type", fmt::format("is \"{}\"", word),
                    "default, linear, dynamic, llama3 or yarn");
}

}  // namespace

ConfigReader::ConfigReader(fs::path path) : path_(std::move(path)) {
  values_ = json::parse(read_file(path_, ErrorKind::model), nullptr, false);
  if (!values_.is_object()) {
    fail(ErrorKind::model, "{}: expected a JSON object", path_.string());
  }
}

void ConfigReader::fail_field(const std::string& key, const std::string& found,
                              const std::string& expected) const {
  fail(ErrorKind::model, "{}: '{}' {}; expected {}", path_.string(), key, found, expected);
}

const json* ConfigReader::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() || found->is_null() ? nullptr : &*found;
}

std::int64_t ConfigReader::size(const std::string& key, std::optional<std::int64_t> fallback) const {
  constexpr std::int64_t kLargest = std::int64_t{1} << 31;  // a hostile number must not overflow a shape
  const json* value = find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    fail_field(key, "is missing", "a whole number");
  }
  if (!value->is_number_integer() || value->get<double>() < 1 ||
      value->get<double>() > static_cast<double>(kLargest)) {
    fail_field(key, "is " + value->dump(), fmt::format("a whole number from 1 to {}", kLargest));
  }
  return value->get<std::int64_t>();
}

double ConfigReader::number(const std::string& key, double fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_number()) fail_field(key, "is " + value->dump(), "a number");
  return value->get<double>();
}

double ConfigReader::positive(const std::string& key, double fallback) const {
  const double value = number(key, fallback);
  if (!(value > 0.0)) fail_field(key, "is " + find(key)->dump(), "a number above 0");
  return value;
}

bool ConfigReader::flag(const std::string& key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) fail_field(key, "is " + value->dump(), "true or false");
  return value->get<bool>();
}

std::string ConfigReader::word(const std::string& key, const std::string& fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) fail_field(key, "is " + value->dump(), "a word");
  return value->get<std::string>();
}

ConfigReader ConfigReader::section(const std::string& key) const {
  ConfigReader inner = *this;
  const json* value = find(key);
  inner.values_ = value == nullptr ? json::object() : *value;
  if (!inner.values_.is_object()) fail_field(key, "is " + inner.values_.dump(), "an object");
  return inner;
}

void read_rope(const ConfigReader& reader, ModelConfig& config) {
  const bool new_spelling = reader.find("rope_parameters") != nullptr;
  const ConfigReader rope = reader.section(new_spelling ? "rope_parameters" : "rope_scaling");
  config.rope_theta = rope.positive("rope_theta", reader.positive("rope_theta", 10000.0));
  RopeScaling& scaling = config.rope_scaling;
  scaling.type = parse_rope_type(rope.word("rope_type", rope.word("type", "default")), rope);
  if (scaling.type == RopeScaling::Type::none) return;
  const bool yarn = scaling.type == RopeScaling::Type::yarn;
  scaling.original_max_position_embeddings =
      reader.size("original_max_position_embeddings",
                  rope.size("original_max_position_embeddings", config.max_position_embeddings));
  const double by_length = static_cast<double>(config.max_position_embeddings) /
                           static_cast<double>(scaling.original_max_position_embeddings);
  scaling.factor = rope.number("factor", yarn ? by_length : -1.0);
  if (!(scaling.factor > 0.0)) rope.fail_field("factor", "is missing or not positive", "a number above 0");
  scaling.low_freq_factor = rope.number("low_freq_factor", 1.0);
  scaling.high_freq_factor = rope.number("high_freq_factor", 4.0);
  if (scaling.type == RopeScaling::Type::llama3 && scaling.high_freq_factor <= scaling.low_freq_factor) {
    rope.fail_field("high_freq_factor", fmt::format("is {}", scaling.high_freq_factor),
                    fmt::format("a number above low_freq_factor ({})", scaling.low_freq_factor));
  }
  scaling.beta_fast = rope.number("beta_fast", 32.0);
  scaling.beta_slow = rope.number("beta_slow", 1.0);
  const auto optional_number = [&](const char* key) -> std::optional<double> {
    if (rope.find(key) == nullptr) return std::nullopt;
    return rope.number(key, 0.0);
  };
  scaling.attention_factor = optional_number("attention_factor");
  scaling.mscale = optional_number("mscale");
  scaling.mscale_all_dim = optional_number("mscale_all_dim");
  scaling.truncate = rope.flag("truncate", true);
}

std::int64_t ModelConfig::longest_sequence() const {
  if (rope_scaling.type != RopeScaling::Type::dynamic) return max_position_embeddings;
  return static_cast<std::int64_t>(static_cast<double>(max_position_embeddings) * rope_scaling.factor);
}

ModelConfig read_model_config(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    fail(ErrorKind::model, "{}: no such folder; expected the folder of a Hugging Face model",
         folder.string());
  }
  const ConfigReader reader(folder / "config.json");
  const std::string model_type = reader.word("model_type", "");
  for (const Family& family : families()) {
    if (family.model_type == model_type) return family.read(reader);
  }
  std::vector<std::string> names;
  for (const Family& family : families()) names.push_back(family.model_type);
  const std::string near = nearest(model_type, names);
  reader.fail_field("model_type", fmt::format("is \"{}\"", model_type),
                    join(names, ", ") +
                        (near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

}  // namespace finetune
