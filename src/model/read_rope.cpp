#include "model/families.h"

#include "finetune/base/error.h"

#include <algorithm>

namespace finetune {

namespace {

RopeScaling::Type parse_rope_type(const std::string& word, const ConfigReader& reader) {
  if (word == "default") return RopeScaling::Type::none;
  if (word == "linear") return RopeScaling::Type::linear;
  if (word == "dynamic") return RopeScaling::Type::dynamic;
  if (word == "llama3") return RopeScaling::Type::llama3;
  if (word == "yarn") return RopeScaling::Type::yarn;
  if (word == "longrope" || word == "su") return RopeScaling::Type::longrope;
  reader.fail_field("rope_type", fmt::format("is \"{}\"", word),
                    "default, linear, dynamic, llama3, yarn or longrope");
}

std::optional<double> optional_number(const ConfigReader& reader, const char* key) {
  if (reader.find(key) == nullptr) return std::nullopt;
  return reader.number(key, 0.0);
}

std::vector<double> read_factors(const ConfigReader& rope, const char* key, std::int64_t count) {
  std::vector<double> factors = rope.numbers(key);
  if (static_cast<std::int64_t>(factors.size()) != count) {
    rope.fail_field(key, fmt::format("holds {} numbers", factors.size()),
                    fmt::format("one for each pair of rotated values, {}", count));
  }
  for (const double factor : factors) {
    if (!(factor > 0.0)) rope.fail_field(key, fmt::format("holds {}", factor), "numbers above 0");
  }
  return factors;
}

void read_scaling(const ConfigReader& reader, const ConfigReader& rope, const ModelConfig& config,
                  RopeConfig& result) {
  RopeScaling& scaling = result.scaling;
  scaling.original_max_position_embeddings =
      reader.size("original_max_position_embeddings",
                  rope.size("original_max_position_embeddings", config.max_position_embeddings));
  const double by_length = static_cast<double>(config.max_position_embeddings) /
                           static_cast<double>(scaling.original_max_position_embeddings);
  const bool knows_length =
      scaling.type == RopeScaling::Type::yarn || scaling.type == RopeScaling::Type::longrope;
  scaling.factor = rope.number("factor", knows_length ? by_length : -1.0);
  if (!(scaling.factor > 0.0))
    rope.fail_field("factor", "is missing or not positive", "a number above 0");
  scaling.low_freq_factor = rope.number("low_freq_factor", 1.0);
  scaling.high_freq_factor = rope.number("high_freq_factor", 4.0);
  if (scaling.type == RopeScaling::Type::llama3 &&
      scaling.high_freq_factor <= scaling.low_freq_factor) {
    rope.fail_field("high_freq_factor", fmt::format("is {}", scaling.high_freq_factor),
                    fmt::format("a number above low_freq_factor ({})", scaling.low_freq_factor));
  }
  scaling.beta_fast = rope.number("beta_fast", 32.0);
  scaling.beta_slow = rope.number("beta_slow", 1.0);
  scaling.attention_factor = optional_number(rope, "attention_factor");
  scaling.mscale = optional_number(rope, "mscale");
  scaling.mscale_all_dim = optional_number(rope, "mscale_all_dim");
  scaling.truncate = rope.flag("truncate", true);
  if (scaling.type == RopeScaling::Type::longrope) {
    scaling.short_factor = read_factors(rope, "short_factor", result.rotary_dim / 2);
    scaling.long_factor = read_factors(rope, "long_factor", result.rotary_dim / 2);
  }
}

}  // namespace

RopeConfig read_rope(const ConfigReader& reader, const ModelConfig& config, double theta,
                     double partial_rotary_factor) {
  const bool new_spelling = reader.find("rope_parameters") != nullptr;
  return read_rope_object(reader, reader.section(new_spelling ? "rope_parameters" : "rope_scaling"),
                          config, theta, partial_rotary_factor);
}

RopeConfig read_rope_object(const ConfigReader& reader, const ConfigReader& rope,
                            const ModelConfig& config, double theta, double partial_rotary_factor) {
  RopeConfig result;
  result.max_position_embeddings = config.max_position_embeddings;
  result.theta = rope.positive("rope_theta", reader.positive("rope_theta", theta));
  const double part = rope.positive(
      "partial_rotary_factor", reader.positive("partial_rotary_factor", partial_rotary_factor));
  result.rotary_dim =
      static_cast<std::int64_t>(static_cast<double>(config.head_dim) * std::min(part, 2.0));
  if (part == 1.0 && config.head_dim % 2 != 0)
    reader.fail_field("head_dim", fmt::format("is {}", config.head_dim), "an even number");
  if (part > 1.0 || result.rotary_dim % 2 != 0 || result.rotary_dim < 2) {
    reader.fail_field(
        "partial_rotary_factor",
        fmt::format("rotates {} of the {} values of a head", result.rotary_dim, config.head_dim),
        "an even number of them, at least 2");
  }
  result.scaling.type = parse_rope_type(rope.word("rope_type", rope.word("type", "default")), rope);
  if (result.scaling.type != RopeScaling::Type::none) read_scaling(reader, rope, config, result);
  return result;
}

}  // namespace finetune
