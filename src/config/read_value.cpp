#include "config/read_value.h"

#include "config/fields.h"
#include "finetune/base/error.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <regex>

namespace finetune {

namespace {

bool is_scalar(const YamlValue& value) { return value.kind == YamlValue::Kind::scalar; }

/// A text of module names and commas: letters, digits, `_`, `.` and spaces. As a pattern for the
/// whole name it would match no more than it does as a list.
bool is_name_list(std::string_view text) {
  const auto is_name_character = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '.' || c == ',' || c == ' ';
  };
  return std::all_of(text.begin(), text.end(), is_name_character);
}

std::vector<std::string> split_names(std::string_view text) {
  std::vector<std::string> names;
  std::string name;
  for (const char c : text) {
    if (c != ',' && c != ' ') {
      name += c;
    } else if (!name.empty()) {
      names.push_back(std::move(name));
      name.clear();
    }
  }
  if (!name.empty()) names.push_back(std::move(name));
  return names;
}

bool check_regex(const YamlValue& value, const ReadContext& context, const std::string& text) {
  try {
    const std::regex compiled(text);
    return true;
  } catch (const std::regex_error& error) {
    context.mismatch(value,
                     fmt::format("a regular expression in ECMAScript's syntax ({})", error.what()));
    return false;
  }
}

/// One entry of `datasets`: the visitor that reads its keys.
class DatasetReader {
 public:
  DatasetReader(const YamlValue& entry, const ReadContext& context)
      : entry_(entry), context_(context), used_(entry.entries.size(), false) {}

  template <typename T>
  void operator()(const Field& field, T& member) {
    keys_.emplace_back(field.key);
    const YamlEntry* found = take(field.key);
    for (const std::string_view alias : field.aliases) {
      const YamlEntry* other = take(alias);
      if (found != nullptr && other != nullptr) {
        context_.problems.push_back(
            fmt::format("{}: '{}' and '{}' are the same key; keep one of them", other->value.where,
                        other->key, found->key));
      } else if (other != nullptr) {
        found = other;
      }
    }
    if (found == nullptr || found->value.kind == YamlValue::Kind::null) return;
    read_value(found->value, {field, context_.name + "." + found->key, context_.problems}, member);
  }

  void report_unknown() const {
    for (std::size_t i = 0; i < used_.size(); ++i) {
      if (used_[i]) continue;
      const YamlEntry& unknown = entry_.entries[i];
      const std::string near = nearest(unknown.key, keys_);
      context_.problems.push_back(fmt::format(
          "{}: unknown key '{}.{}'; {}", unknown.value.where, context_.name, unknown.key,
          near.empty() ? "it has: " + join(keys_, ", ") : "did you mean '" + near + "'?"));
    }
  }

 private:
  const YamlEntry* take(std::string_view key) {
    for (std::size_t i = 0; i < entry_.entries.size(); ++i) {
      if (entry_.entries[i].key != key) continue;
      used_[i] = true;
      return &entry_.entries[i];
    }
    return nullptr;
  }

  const YamlValue& entry_;
  const ReadContext& context_;
  std::vector<bool> used_;
  std::vector<std::string> keys_;
};

void read_dataset(const YamlValue& entry, const ReadContext& context,
                  std::vector<DatasetSpec>& out) {
  DatasetSpec spec;
  if (is_scalar(entry)) {
    spec.path = entry.text;
  } else if (entry.kind == YamlValue::Kind::map) {
    DatasetReader reader(entry, context);
    visit_dataset_fields(spec, reader);
    reader.report_unknown();
  } else {
    context.mismatch(entry, "a path, or an entry such as {path: train.jsonl}");
    return;
  }
  if (spec.path.empty()) {
    context.problems.push_back(fmt::format(
        "{}: an entry of '{}' has no path; expected 'path: FILE'", entry.where, context.name));
  }
  out.push_back(std::move(spec));
}

template <typename T>
void read_numbers(const YamlValue& value, const ReadContext& context, const char* expected,
                  std::vector<T>& out) {
  if (value.kind == YamlValue::Kind::map) {
    context.mismatch(value, expected);
    return;
  }
  out.clear();
  if (is_scalar(value)) {
    read_value(value, context, out.emplace_back());
    return;
  }
  for (const YamlValue& item : value.items) read_value(item, context, out.emplace_back());
}

template <typename T, typename Parse>
void read_ranged(const YamlValue& value, const ReadContext& context, const std::string& noun,
                 Parse parse, T& out) {
  const auto number = is_scalar(value) ? parse(value.text) : std::optional<T>();
  if (number && context.field.range.contains(static_cast<double>(*number))) {
    out = *number;
  } else {
    context.mismatch(value, describe_range(noun, context.field.range));
  }
}

}  // namespace

void ReadContext::mismatch(const YamlValue& value, const std::string& expected) const {
  problems.push_back(
      fmt::format("{}: '{}' is {}; expected {}", value.where, name, describe(value), expected));
}

std::string describe_range(const std::string& noun, const Range& range) {
  const bool has_low = std::isfinite(range.low);
  const bool has_high = std::isfinite(range.high);
  if (!has_low && !has_high) return noun;
  if (!has_high)
    return fmt::format("{} {} {}", noun, range.low_open ? "above" : "of at least", range.low);
  return fmt::format("{} from {} to {}{}", noun, range.low, range.high_open ? "below " : "",
                     range.high);
}

void read_value(const YamlValue& value, const ReadContext& context, std::string& out) {
  if (!is_scalar(value)) {
    context.mismatch(value, "a text");
    return;
  }
  if (context.field.regex && !check_regex(value, context, value.text)) return;
  out = value.text;
}

void read_value(const YamlValue& value, const ReadContext& context, bool& out) {
  const auto flag = is_scalar(value) ? parse_bool(value.text) : std::nullopt;
  if (flag) {
    out = *flag;
  } else {
    context.mismatch(value, "true or false");
  }
}

void read_value(const YamlValue& value, const ReadContext& context, std::int64_t& out) {
  if (context.field.bytes) {
    read_ranged(value, context, "a size in bytes, such as 1048576 or \"64 MiB\",", parse_bytes,
                out);
  } else {
    read_ranged(value, context, "an integer", parse_integer, out);
  }
}

void read_value(const YamlValue& value, const ReadContext& context, double& out) {
  read_ranged(value, context, "a number", parse_number, out);
}

void read_value(const YamlValue& value, const ReadContext& context, std::vector<std::string>& out) {
  if (is_scalar(value)) {
    out = context.field.whole_text ? std::vector{value.text} : split_names(value.text);
    return;
  }
  if (value.kind != YamlValue::Kind::list) {
    context.mismatch(value, "a list of names");
    return;
  }
  out.clear();
  for (const YamlValue& item : value.items) {
    if (!is_scalar(item) || item.text.empty()) {
      context.mismatch(item, "a name");
    } else {
      out.push_back(item.text);
    }
  }
}

void read_value(const YamlValue& value, const ReadContext& context,
                std::vector<std::int64_t>& out) {
  read_numbers(value, context, "a list of integers", out);
}

void read_value(const YamlValue& value, const ReadContext& context, std::vector<double>& out) {
  read_numbers(value, context, "a list of numbers", out);
}

void read_value(const YamlValue& value, const ReadContext& context, ModuleSelector& out) {
  if (value.kind == YamlValue::Kind::map || (is_scalar(value) && value.text.empty())) {
    context.mismatch(value,
                     "'attention', 'all-linear', a list of module names, or a regular expression");
    return;
  }
  using Kind = ModuleSelector::Kind;
  ModuleSelector result;
  if (is_scalar(value) && value.text == "attention") {
    result.kind = Kind::attention;
  } else if (is_scalar(value) && value.text == "all-linear") {
    result.kind = Kind::all_linear;
  } else if (is_scalar(value) && !is_name_list(value.text)) {
    if (!check_regex(value, context, value.text)) return;
    result.kind = Kind::regex;
    result.regex = value.text;
  } else {
    read_value(value, context, result.names);
    result.kind = result.names.empty() ? Kind::none : Kind::names;
  }
  out = std::move(result);
}

void read_value(const YamlValue& value, const ReadContext& context, LoraInit& out) {
  using Kind = LoraInit::Kind;
  const char* expected = "true, gaussian, pissa, olora, loftq, or the folder of an adapter";
  if (!is_scalar(value) || value.text.empty()) return context.mismatch(value, expected);
  const std::string& text = value.text;
  const std::string_view rounds = "pissa_niter_";
  if (const auto flag = parse_bool(text)) {
    if (!*flag) return context.mismatch(value, expected);
    out = {};
  } else if (text.starts_with(rounds)) {
    std::int64_t count = 0;
    const char *begin = text.data() + rounds.size(), *end = text.data() + text.size();
    const auto parsed = std::from_chars(begin, end, count);
    if (parsed.ec != std::errc() || parsed.ptr != end || count < 1)
      return context.mismatch(value, "pissa_niter_ and a number of rounds, such as pissa_niter_16");
    out = {Kind::pissa, {}, count};
  } else {
    const std::map<std::string_view, Kind> words = {{"gaussian", Kind::gaussian},
                                                    {"pissa", Kind::pissa},
                                                    {"olora", Kind::olora},
                                                    {"loftq", Kind::loftq}};
    const auto word = words.find(text);
    out = word == words.end() ? LoraInit{Kind::adapter, text} : LoraInit{word->second, {}};
  }
}

void read_value(const YamlValue& value, const ReadContext& context, std::vector<DatasetSpec>& out) {
  out.clear();
  if (value.kind != YamlValue::Kind::list) {
    read_dataset(value, context, out);
    return;
  }
  for (const YamlValue& entry : value.items) read_dataset(entry, context, out);
}

}  // namespace finetune
