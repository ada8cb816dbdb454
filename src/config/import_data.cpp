#include "config/imported.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/text.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <optional>

namespace finetune {

namespace {

namespace fs = std::filesystem;

/// The files of one key, with a comment for each.
struct Files {
  std::vector<DatasetSpec> specs;
  std::vector<std::string> comments;

  void add(DatasetSpec spec, std::string comment = "") {
    specs.push_back(std::move(spec));
    comments.push_back(std::move(comment));
  }
};

std::string text_of(const YamlValue* value) {
  return value != nullptr && value->kind == YamlValue::Kind::scalar ? value->text : "";
}

std::vector<std::string> texts_of(const YamlValue& value) {
  std::vector<std::string> texts;
  for (const YamlValue& item : value.items) texts.push_back(text_of(&item));
  if (value.kind == YamlValue::Kind::scalar) texts.push_back(value.text);
  return texts;
}

/// A list of entries, or the one that stands without a list.
std::vector<YamlValue> entries_of(const YamlValue& value) {
  if (value.kind == YamlValue::Kind::list) return value.items;
  return {value};
}

bool ends_in_one_of(const std::string& path, const std::vector<std::string_view>& endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](std::string_view ending) { return path.ends_with(ending); });
}

/// Adds a file, or in place of a data set on a hub the file that it has to be saved as.
void add_source(const std::string& source, DatasetSpec spec, const std::string& where, Files& files,
                Imported& out) {
  std::error_code ignored;
  const bool is_file = fs::is_regular_file(source, ignored) ||
                       ends_in_one_of(source, {".json", ".jsonl", ".json.gz", ".jsonl.gz"});
  if (is_file) {
    spec.path = source;
    return files.add(std::move(spec));
  }
  const fs::path path = fs::path(source).lexically_normal();
  const std::string name =
      (path.has_filename() ? path : path.parent_path()).filename().stem().string();
  spec.path = (name.empty() ? "train" : name) + ".jsonl";
  const bool other_type = ends_in_one_of(source, {".parquet", ".csv", ".arrow", ".txt"});
  out.note(where, fmt::format("{}: {}; save its rows as {}", source,
                              other_type ? "a file of this type is not read here"
                              : fs::is_directory(source, ignored)
                                  ? "a folder; the files of it are given one by one here"
                                  : "a name on a hub, and nothing is fetched here",
                              spec.path));
  files.add(std::move(spec), "rows of " + source);
}

/// Our format and keys of an Axolotl entry whose `type` is a word.
void read_axolotl_type(const YamlEntry& type, const YamlValue& entry, DatasetSpec& spec,
                       Imported& out) {
  const std::string word = type.value.text;
  const auto rename = [&](const char* ours, const char* theirs) {
    const std::string name = text_of(entry.find(theirs));
    if (!name.empty() && name != ours) spec.fields[ours] = name;
  };
  if (word == "alpaca") {
    spec.format = "alpaca";
    out.set("template", scalar("alpaca", type.value.where), "type: alpaca");
  } else if (word == "completion") {
    spec.format = "text";
    rename("text", "field");
  } else if (word == "sharegpt") {
    spec.format = "conversations";
  } else if (word == "chat_template") {
    spec.format = "messages";
    rename("messages", "field_messages");
    const YamlValue* names = entry.find("message_property_mappings");
    for (const char* part : {"role", "content"}) {
      const std::string inner = names == nullptr ? "" : text_of(names->find(part));
      const std::string name =
          inner.empty() ? text_of(entry.find(std::string("message_field_") + part)) : inner;
      if (!name.empty() && name != part) spec.fields[part] = name;
    }
  } else if (word != "chat_template.default") {
    out.note(type, "rows are recognised by their keys here; 'format' and 'fields' say more");
  }
}

/// Axolotl's own way to name the keys of a row: `type: {field_instruction: ..., ...}`.
void read_axolotl_fields(const YamlValue& type, DatasetSpec& spec, Imported& out) {
  spec.format = "alpaca";
  for (const YamlEntry& part : type.entries) {
    const std::string name = part.key.starts_with("field_") ? part.key.substr(6) : "";
    const bool known =
        name == "instruction" || name == "input" || name == "output" || name == "system";
    if (known && part.value.kind == YamlValue::Kind::scalar) {
      if (part.value.text != name) spec.fields[name] = part.value.text;
    } else if (part.value.kind != YamlValue::Kind::null) {
      out.note(part, "the text around a row is a template here; write a .jinja file");
    }
  }
}

void read_axolotl_entry(const YamlValue& entry, Files& files, Imported& out) {
  DatasetSpec spec;
  std::vector<std::string> sources = {text_of(entry.find("path"))};
  for (const YamlEntry& part : entry.entries) {
    const std::string& key = part.key;
    const bool absent = part.value.kind == YamlValue::Kind::null;
    const bool is_read = key == "path" || key == "ds_type" || key == "field" ||
                         key == "field_messages" || key.starts_with("message_") ||
                         (key == "split" && part.value.text == "train");
    if (absent || is_read) continue;
    if (key == "data_files") {
      const std::string folder = sources[0] == "json" ? "" : sources[0];
      sources = texts_of(part.value);
      std::error_code ignored;
      if (fs::is_directory(folder, ignored)) {
        for (std::string& source : sources) source = (fs::path(folder) / source).string();
      }
    } else if (key == "type" && part.value.kind == YamlValue::Kind::map) {
      read_axolotl_fields(part.value, spec, out);
    } else if (key == "type") {
      read_axolotl_type(part, entry, spec, out);
    } else if (key == "chat_template") {
      out.set("template", part.value, "chat_template");
    } else if (key == "roles_to_train" && texts_of(part.value).size() == 1) {
      continue;  // the assistant's turns, as always here
    } else {
      out.note(part, "no key of a data file here");
    }
  }
  for (const std::string& source : sources) add_source(source, spec, entry.where, files, out);
}

/// dataset_info.json of `folder`: relative to the working directory, or to a folder above the
/// configuration, as where LLaMA-Factory's own examples are run.
std::optional<fs::path> find_dataset_info(const std::string& folder, const std::string& file) {
  constexpr int kLevels = 4;
  std::vector<fs::path> roots = {"."};
  std::error_code ignored;
  fs::path above = fs::absolute(file, ignored).parent_path();
  for (int i = 0; i < kLevels; ++i, above = above.parent_path()) roots.push_back(above);
  for (const fs::path& root : roots) {
    const fs::path info = root / folder / "dataset_info.json";
    if (fs::is_regular_file(info, ignored)) return info.lexically_normal();
  }
  return std::nullopt;
}

std::string member(const nlohmann::json& json, const char* key) {
  return json.is_object() && json.contains(key) && json.at(key).is_string()
             ? json.at(key).get<std::string>()
             : "";
}

/// Format and renamed keys of an entry of dataset_info.json.
DatasetSpec read_dataset_info(const nlohmann::json& info) {
  DatasetSpec spec;
  const auto columns = info.value("columns", nlohmann::json::object());
  const auto tags = info.value("tags", nlohmann::json::object());
  const auto rename = [&](const char* ours, const std::string& theirs) {
    if (!theirs.empty() && theirs != ours) spec.fields[ours] = theirs;
  };
  const bool ranking = info.value("ranking", false);
  const bool sharegpt = member(info, "formatting") == "sharegpt";
  const std::string list = member(columns, "messages");
  if (sharegpt) {
    const std::string name = list.empty() ? "conversations" : list;
    const bool openai = member(tags, "role_tag") == "role";
    if (!ranking) spec.format = openai ? "messages" : "conversations";
    rename(openai ? "messages" : "conversations", name);
    if (!openai) {
      rename("from", member(tags, "role_tag"));
      rename("value", member(tags, "content_tag"));
    } else {
      rename("content", member(tags, "content_tag"));
    }
  } else if (member(columns, "prompt") == "text" && !columns.contains("response")) {
    spec.format = "text";  // as rows of `stage: pt` are described
  } else {
    if (!ranking) spec.format = "alpaca";
    rename("instruction", member(columns, "prompt"));
    rename("input", member(columns, "query"));
    rename("output", member(columns, "response"));
    rename("history", member(columns, "history"));
  }
  rename("system", member(columns, "system"));
  rename("chosen", member(columns, "chosen"));
  rename("rejected", member(columns, "rejected"));
  if (ranking) spec.format = "preference";
  return spec;
}

void read_named_dataset(const std::string& name, const fs::path& info_path,
                        const nlohmann::json& info, const std::string& where, Files& files,
                        Imported& out) {
  DatasetSpec spec = read_dataset_info(info);
  for (const char* key : {"user_tag", "assistant_tag"}) {
    const auto tags = info.value("tags", nlohmann::json::object());
    const std::string tag = member(tags, key);
    if (!tag.empty() && tag != "user" && tag != "assistant" && tag != "human" && tag != "gpt")
      out.note(info_path.string(),
               fmt::format("{}: {}: {}: roles are named by the usual words here; rename it in the "
                           "rows",
                           name, key, tag));
  }
  for (const char* key : {"num_samples", "subset", "folder", "images", "videos", "audios"}) {
    if (info.contains(key))
      out.note(info_path.string(),
               fmt::format("{}: {}: {}: no key of a data file here", name, key, info[key].dump()));
  }
  const std::string file_name = member(info, "file_name");
  if (!file_name.empty())
    return add_source((info_path.parent_path() / file_name).string(), spec, where, files, out);
  for (const char* key : {"hf_hub_url", "ms_hub_url", "om_hub_url", "script_url"}) {
    if (const std::string hub = member(info, key); !hub.empty())
      return add_source(hub, spec, where, files, out);
  }
  add_source(name, spec, where, files, out);
}

}  // namespace

void import_axolotl_data(const std::string& key, const YamlEntry& list, Imported& out) {
  Files files;
  for (const YamlValue& entry : entries_of(list.value)) {
    if (entry.kind == YamlValue::Kind::map) {
      read_axolotl_entry(entry, files, out);
    } else {
      out.note(list, "expected entries with a path");
    }
  }
  out.set_data(key, files.specs, files.comments, list.value.where);
}

void import_llama_factory_data(const std::string& key, const YamlEntry& names,
                               const std::string& dataset_dir, const std::string& file,
                               Imported& out) {
  Files files;
  const auto info_path = find_dataset_info(dataset_dir, file);
  nlohmann::json all = nlohmann::json::object();
  if (info_path) {
    all = nlohmann::json::parse(read_file(*info_path, ErrorKind::config), nullptr,
                                /*allow_exceptions=*/false);
    if (!all.is_object())
      fail(ErrorKind::config, "{}: expected a JSON object of data sets", info_path->string());
  } else {
    out.note(names, "there is no " + (fs::path(dataset_dir) / "dataset_info.json").string() +
                        ", which says what these names are; run this where LLaMA-Factory runs");
  }
  std::vector<std::string> words;
  for (const std::string& text : texts_of(names.value)) {
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      const std::string word = text.substr(begin, end - begin);
      const std::size_t first = word.find_first_not_of(' ');
      if (first != std::string::npos)
        words.push_back(word.substr(first, word.find_last_not_of(' ') - first + 1));
      begin = end + 1;
    }
  }
  for (const std::string& word : words) {
    if (all.contains(word) && all[word].is_object()) {
      read_named_dataset(word, *info_path, all[word], names.value.where, files, out);
    } else {
      if (info_path)
        out.note(names.value.where,
                 fmt::format("{}: {} does not have it", word, info_path->string()));
      DatasetSpec spec;
      spec.path = word + ".jsonl";
      files.add(std::move(spec), "the rows of " + word);
    }
  }
  out.set_data(key, files.specs, files.comments, names.value.where);
}

void import_trl_data(const YamlEntry& data, const std::string& text_field, Imported& out) {
  Files files;
  DatasetSpec spec;
  if (!text_field.empty() && text_field != "text") {
    spec.format = "text";
    spec.fields["text"] = text_field;
  }
  for (const YamlValue& entry : entries_of(data.value)) {
    if (entry.kind == YamlValue::Kind::scalar) {
      add_source(entry.text, spec, entry.where, files, out);
      continue;
    }
    for (const YamlEntry& part : entry.entries) {
      const bool is_read = part.key == "path" || part.key == "data_files" ||
                           (part.key == "split" && part.value.text == "train");
      if (!is_read && part.value.kind != YamlValue::Kind::null)
        out.note(part, "no key of a data file here");
    }
    const YamlValue* files_of_it = entry.find("data_files");
    const std::vector<std::string> sources =
        files_of_it != nullptr ? texts_of(*files_of_it)
                               : std::vector<std::string>{text_of(entry.find("path"))};
    for (const std::string& source : sources) add_source(source, spec, entry.where, files, out);
  }
  out.set_data("datasets", files.specs, files.comments, data.value.where);
}

}  // namespace finetune
