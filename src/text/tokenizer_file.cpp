#include "text/tokenizer_file.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/text.h"
#include "text/split_pattern.h"
#include "text/tokenizer_config.h"

#include <algorithm>
#include <string_view>

namespace finetune {

namespace {

using nlohmann::json;

constexpr std::size_t kMaxDepth = 64;  // stages are built by recursion

/// Builds a tokenizer.json from the parser's events: model.vocab and model.merges as lists, the
/// rest as JSON. `vocab_only`: the file is a vocab.json, all of it the vocabulary.
class Builder final : public nlohmann::json_sax<json> {
 public:
  Builder(TokenizerFile& file, bool vocab_only) : file_(file), vocab_only_(vocab_only) {}

  bool null() override { return value(nullptr); }
  bool boolean(bool value_) override { return value(value_); }
  bool number_integer(number_integer_t number) override { return any_number(number); }
  bool number_unsigned(number_unsigned_t number) override { return any_number(number); }
  bool number_float(number_float_t number, const string_t&) override { return any_number(number); }
  bool string(string_t& text) override {
    if (list_ == List::none) return value(std::move(text));
    return list_text(std::move(text));
  }
  bool binary(binary_t&) override { return refuse("binary data"); }

  bool start_object(std::size_t) override {
    if (list_ != List::none) return refuse("an object inside of the vocabulary or the merges");
    if (begins_list(List::vocab)) return enter(List::vocab, false);
    return open(json::object());
  }
  bool key(string_t& name) override {
    if (list_ == List::none) {
      key_ = std::move(name);
    } else {
      pending_ = std::move(name);
    }
    return true;
  }
  bool end_object() override { return close(); }

  bool start_array(std::size_t) override {
    if (list_ != List::none) {
      parts_ = 0;
      return ++list_depth_ <= 2 || refuse("a list too deep inside of the vocabulary or the merges");
    }
    if (begins_list(List::vocab)) return enter(List::vocab, true);
    if (begins_list(List::merges)) return enter(List::merges, true);
    return open(json::array());
  }
  bool end_array() override {
    if (list_ == List::none || list_depth_ == 1) return close();
    --list_depth_;
    return parts_ == 2 ||
           refuse(list_ == List::merges ? "a merge without two sides" : "a token without score");
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    offset_ = position > 0 ? position - 1 : 0;
    problem_ = without_exception_name(error.what());
    return false;
  }

  const std::string& problem() const { return problem_; }
  /// Byte of the text where it stops being JSON; npos: the content is wrong, not the syntax.
  std::size_t offset() const { return offset_; }

 private:
  enum class List { none, vocab, merges };

  bool refuse(const std::string& problem) {
    problem_ = problem;
    return false;
  }
  bool begins_list(List list) const {
    if (vocab_only_) return list == List::vocab && open_.empty();
    return open_.size() == 2 && path_ == "model" && open_.back()->is_object() &&
           key_ == (list == List::vocab ? "vocab" : "merges");
  }
  bool enter(List list, bool array) {
    list_ = list;
    list_depth_ = 1;
    if (list == List::vocab) {
      file_.lists.vocab.clear();  // of two members with one name the last one counts
      file_.lists.scored = array;
    } else {
      file_.lists.merges.clear();
    }
    return true;
  }
  json* put(json&& item) {
    if (open_.empty()) return &(file_.json = std::move(item));
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(item));
    return &((*open_.back())[key_] = std::move(item));
  }
  bool open(json&& item) {
    if (open_.size() >= kMaxDepth) return refuse("nested too deep");
    if (vocab_only_) return refuse("not an object of tokens");
    if (open_.size() == 1) path_ = key_;
    open_.push_back(put(std::move(item)));
    return true;
  }
  bool close() {
    if (list_ != List::none) {
      list_ = List::none;
    } else {
      open_.pop_back();
    }
    return true;
  }
  template <typename T>
  bool value(T&& item) {
    if (list_ != List::none)
      return refuse("a value in the vocabulary or the merges that does not belong there");
    if (vocab_only_) return refuse("not an object of tokens");
    put(json(std::forward<T>(item)));
    return true;
  }
  template <typename T>
  bool any_number(T number) {
    if (list_ == List::none) return value(number);
    if (list_ == List::merges) return refuse("a number among the merges");
    if (file_.lists.scored && (list_depth_ != 2 || ++parts_ != 2))
      return refuse("a score without a token");
    file_.lists.vocab.emplace_back(std::move(pending_), static_cast<double>(number));
    pending_.clear();
    return true;
  }
  bool list_text(std::string&& text) {
    if (list_ == List::vocab) {
      if (!file_.lists.scored || list_depth_ != 2 || ++parts_ != 1)
        return refuse("a text where a number belongs");
      pending_ = std::move(text);
      return true;
    }
    if (list_depth_ == 2) {  // ["left", "right"]
      if (++parts_ == 1) {
        pending_ = std::move(text);
      } else if (parts_ == 2) {
        file_.lists.merges.emplace_back(std::move(pending_), std::move(text));
      }
      return true;
    }
    const std::size_t space = text.find(' ');  // "left right" in older files
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return refuse(
          fmt::format("merge {} is \"{}\", expected \"left right\" or [\"left\", \"right\"]",
                      file_.lists.merges.size(), text));
    }
    file_.lists.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    return true;
  }

  TokenizerFile& file_;
  bool vocab_only_;
  std::vector<json*> open_;  ///< the objects and lists around the next value
  std::string key_, path_, pending_, problem_;
  List list_ = List::none;
  int list_depth_ = 0, parts_ = 0;
  std::size_t offset_ = std::string::npos;
};

void parse_into(TokenizerFile& file, const std::string& text, bool vocab_only) {
  Builder builder(file, vocab_only);
  if (json::sax_parse(text, &builder)) return;
  if (builder.offset() == std::string::npos) {
    fail(ErrorKind::model, "{}: {}; the file is not what `tokenizers` writes", file.where,
         builder.problem());
  }
  refuse_json(file.where, text, builder.offset(), builder.problem());
}

void read_merges(TokenizerFile& file, const std::filesystem::path& path) {
  const std::string text = read_model_text(path);
  if (const std::size_t bad = find_invalid_utf8(text); bad != std::string::npos) {
    fail(ErrorKind::model, "{}: not UTF-8 at byte {}; is the file complete?", path.string(), bad);
  }
  std::size_t number = 0;
  for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      fail(ErrorKind::model,
           "{}:{}: '{}' is not a merge; expected two tokens with a space between them",
           path.string(), number, line);
    }
    file.lists.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
}

}  // namespace

std::string read_model_text(const std::filesystem::path& path) {
  std::string text = read_file(path, ErrorKind::model);
  if (text.starts_with("version https://git-lfs.github.com/spec/")) {
    fail(ErrorKind::model,
         "{}: this is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
         path.string());
  }
  return text;
}

TokenizerFile read_tokenizer_file(const std::filesystem::path& path) {
  TokenizerFile file;
  file.where = path.string();
  parse_into(file, read_model_text(path), false);
  if (!file.json.is_object() || !file.json.contains("model") || !file.json["model"].is_object()) {
    fail(ErrorKind::model, "{}: has no object \"model\"; the file is not what `tokenizers` writes",
         file.where);
  }
  return file;
}

TokenizerFile read_vocab_and_merges(const std::filesystem::path& vocab,
                                    const std::filesystem::path& merges, const std::string& family,
                                    bool add_prefix_space) {
  TokenizerFile file;
  file.where = vocab.string();
  parse_into(file, read_model_text(vocab), true);
  file.json = family_stages(family, add_prefix_space);
  file.json["model"] = {{"type", "BPE"}};
  const auto is_end = [](const auto& token) { return token.first == "<|endoftext|>"; };
  if (std::any_of(file.lists.vocab.begin(), file.lists.vocab.end(), is_end)) {
    file.json["added_tokens"] = {{{"content", "<|endoftext|>"}, {"special", true}}};
  }
  read_merges(file, merges);
  return file;
}

json family_stages(const std::string& family, bool add_prefix_space) {
  json stages = {{"decoder", {{"type", "ByteLevel"}}}};
  if (family == "gpt2") {
    stages["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}};
    return stages;
  }
  const char* pattern = family == "qwen2" ? kQwen2Pattern : kLlama3Pattern;
  json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"use_regex", false}};
  json split = {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
  stages["pre_tokenizer"] = {{"type", "Sequence"},
                             {"pretokenizers", {std::move(split), std::move(bytes)}}};
  if (family == "qwen2") stages["normalizer"] = {{"type", "NFC"}};
  return stages;
}

}  // namespace finetune
