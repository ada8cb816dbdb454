#include "config/yaml_value.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/text.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <sstream>

namespace finetune {

namespace {

constexpr int kMaxDepth = 32;
// Anchors that name each other can stand for more values than memory holds.
constexpr int kMaxValues = 100'000;
constexpr std::string_view kCommandLine = "command line";

/// Copies yaml-cpp's nodes into ours.
class Converter {
 public:
  Converter(std::string name, Problems& problems) : name_(std::move(name)), problems_(problems) {}

  YamlValue convert(const YAML::Node& node, const std::string& where, int depth = 0) {
    if (depth > kMaxDepth || ++values_ > kMaxValues) {
      fail(ErrorKind::config,
           "{}: the value is nested too deeply or too large for a configuration; write it without "
           "anchors (&, *)",
           where);
    }
    YamlValue value;
    value.where = where;
    if (node.IsScalar()) {
      value.kind = YamlValue::Kind::scalar;
      value.text = node.Scalar();
    } else if (node.IsSequence()) {
      value.kind = YamlValue::Kind::list;
      for (const YAML::Node& item : node) {
        value.items.push_back(convert(item, line_of(item, where), depth + 1));
      }
    } else if (node.IsMap()) {
      value.kind = YamlValue::Kind::map;
      convert_entries(node, depth, value);
    }
    return value;
  }

  std::string line_of(const YAML::Node& node, const std::string& otherwise) const {
    if (name_ == kCommandLine || node.Mark().is_null()) return otherwise;
    return fmt::format("{}:{}", name_, node.Mark().line + 1);
  }

 private:
  void convert_entries(const YAML::Node& node, int depth, YamlValue& value) {
    std::map<std::string, std::string> first_place;
    for (const auto& entry : node) {
      const std::string where = line_of(entry.first, value.where);
      if (!entry.first.IsScalar()) {
        fail(ErrorKind::config, "{}: a key is {}; expected a word", where,
             describe(convert(entry.first, where, depth + 1)));
      }
      const std::string key = entry.first.Scalar();
      const auto [place, is_new] = first_place.emplace(key, where);
      if (!is_new) {
        problems_.push_back(
            fmt::format("{}: key '{}' is given twice, first at {}; keep one of them", where, key,
                        place->second));
        continue;
      }
      value.entries.push_back({key, convert(entry.second, where, depth + 1)});
    }
  }

  std::string name_;
  Problems& problems_;
  int values_ = 0;
};

[[noreturn]] void fail_syntax(const std::string& name, const YAML::Exception& error) {
  const std::string hint =
      name == kCommandLine ? "; put the whole value in quotes, such as key='\"text\"'"
                           : "; texts with special characters need quotes, and indentation is made "
                             "of spaces";
  if (error.mark.is_null() || name == kCommandLine) {
    fail(ErrorKind::config, "{}: this is not YAML: {}{}", name, error.msg, hint);
  }
  fail(ErrorKind::config, "{}:{}:{}: this is not YAML: {}{}", name, error.mark.line + 1,
       error.mark.column + 1, error.msg, hint);
}

/// Ends a text of endless documents: at a stray comma yaml-cpp finds empty ones for ever, and
/// LoadAll collects them.
class DocumentCounter final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    constexpr int kMostDocuments = 100;  // one is right, the others get a message
    if (++documents_ > kMostDocuments) throw YAML::ParserException(mark, "no end of documents");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

 private:
  int documents_ = 0;
};

std::vector<YAML::Node> parse_all(const std::string& text, const std::string& name) {
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    DocumentCounter counter;
    while (parser.HandleNextDocument(counter)) {
    }
    return YAML::LoadAll(text);
  } catch (const YAML::Exception& error) {
    fail_syntax(name, error);
  }
}

/// yaml-cpp reads byte 4 as the end of the file and other bytes as it likes; refuse them before.
void check_characters(std::string_view text, const std::string& name) {
  const std::size_t not_utf8 = find_invalid_utf8(text);
  const auto is_control = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 && c != '\n' && c != '\r' && c != '\t';
  };
  const auto control = std::find_if(text.begin(), text.end(), is_control);
  const std::size_t bad =
      std::min(not_utf8, control == text.end() ? std::string_view::npos
                                               : static_cast<std::size_t>(control - text.begin()));
  if (bad == std::string_view::npos) return;
  const auto line =
      1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bad), '\n');
  fail(ErrorKind::config, "{}:{}: byte 0x{:02x}; expected UTF-8 text without control characters",
       name, line, static_cast<unsigned char>(text[bad]));
}

bool is_null_word(std::string_view text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}

}  // namespace

const YamlValue* YamlValue::find(std::string_view key) const {
  for (const YamlEntry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

YamlValue scalar(std::string text, std::string where) {
  YamlValue value;
  value.kind = YamlValue::Kind::scalar;
  value.text = std::move(text);
  value.where = std::move(where);
  return value;
}

std::string describe(const YamlValue& value) {
  switch (value.kind) {
    case YamlValue::Kind::null:
      return "empty";
    case YamlValue::Kind::scalar:
      return "\"" + value.text + "\"";
    case YamlValue::Kind::list:
      return "a list";
    case YamlValue::Kind::map:
      return "a section (key: value lines)";
  }
  return {};
}

YamlValue read_yaml_file(const std::filesystem::path& path, Problems& problems) {
  const std::string name = path.string();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    fail(ErrorKind::config,
         "{}: there is no such configuration file; check --config, or write one with 'finetune "
         "init'",
         name);
  }
  if (name.ends_with(".jsonl") || name.ends_with(".gz") || name.ends_with(".csv")) {
    fail(ErrorKind::config,
         "{}: these are data; a configuration is YAML and names them: 'datasets: [{}]'", name,
         name);
  }
  std::string text = read_file(path, ErrorKind::config);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  check_characters(text, name);
  const std::vector<YAML::Node> documents = parse_all(text, name);
  Converter converter(name, problems);
  for (std::size_t i = 1; i < documents.size(); ++i) {
    if (documents[i].IsNull()) continue;
    fail(ErrorKind::config,
         "{}: a second YAML document begins here; expected one, so remove the line '---' before it "
         "or move it to a file of its own",
         converter.line_of(documents[i], name));
  }
  YamlValue root;
  if (documents.empty() || documents[0].IsNull()) {
    root.kind = YamlValue::Kind::map;
    return root;
  }
  root = converter.convert(documents[0], name + ":1");
  if (root.kind != YamlValue::Kind::map) {
    fail(ErrorKind::config, "{}: the file is {}; expected 'key: value' lines, such as 'seed: 42'",
         name, describe(root));
  }
  return root;
}

YamlValue read_yaml_word(std::string_view text, Problems& problems) {
  const std::string name(kCommandLine);
  check_characters(text, name);
  const auto first = text.find_first_not_of(" \t\n");
  text = first == std::string_view::npos ? "" : text.substr(first);
  text = text.substr(0, text.find_last_not_of(" \t\n") + 1);
  if (is_null_word(text)) {
    YamlValue value;
    value.where = name;
    return value;
  }
  if (std::string_view("[{\"'").find(text[0]) == std::string_view::npos) {
    return scalar(std::string(text), name);
  }
  const std::vector<YAML::Node> documents = parse_all(std::string(text), name);
  if (documents.size() != 1) {
    fail(ErrorKind::config, "{}: '{}' is not one YAML value; put it in quotes", name, text);
  }
  return Converter(name, problems).convert(documents[0], name);
}

}  // namespace finetune
