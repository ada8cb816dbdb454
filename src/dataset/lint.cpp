#include "finetune/dataset/lint.h"

#include "dataset/similar_rows.h"
#include "finetune/base/text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <optional>
#include <set>

namespace finetune {

namespace {

constexpr std::int64_t kShortAnswer = 2;  // supervised tokens, the stop token included
constexpr double kLargestShare = 0.9, kSmallestShare = 0.01;

/// Indices of the first example of each row, each row of the files once.
std::vector<std::size_t> rows_once(const Dataset& data) {
  std::set<std::pair<std::int32_t, std::int64_t>> seen;
  std::vector<std::size_t> rows;
  const auto each = static_cast<std::size_t>(data.examples_per_row);
  for (std::size_t i = 0; i < data.examples.size(); i += each) {
    const RowOrigin& origin = data.examples[i].origin;
    if (seen.emplace(origin.file, origin.line).second) rows.push_back(i);
  }
  return rows;
}

/// True for a character that a byte 0x80 to 0xBF becomes in Latin-1 or Windows-1252.
bool is_high_byte(utf8proc_int32_t c) {
  return (c >= 0x80 && c <= 0xBF) || c == 0x20AC || c == 0x2122 || (c >= 0x2013 && c <= 0x203A) ||
         c == 0x0152 || c == 0x0153 || c == 0x0160 || c == 0x0161 || c == 0x0178 || c == 0x017D ||
         c == 0x017E || c == 0x0192 || c == 0x02C6 || c == 0x02DC;
}

/// True where text of people has these two: a capital before a quotation mark, a dash, a space.
bool is_usual(utf8proc_int32_t lead, utf8proc_int32_t c) {
  if (c == 0xA0 || c == 0xAB || c == 0xBB) return true;
  return (lead == 0xC2 || lead == 0xC3) && c > 0xBF;
}

/// Characters that are the bytes of UTF-8 read one by one as Latin-1 or Windows-1252: "Ã©", "â€™",
/// "Ð¿". Returns the first such run, or "".
std::string read_as_latin(const std::string& text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  int wanted = 0;
  std::size_t begin = 0;
  utf8proc_int32_t lead = 0;
  for (utf8proc_ssize_t at = 0; at < size;) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t width = utf8proc_iterate(bytes + at, size - at, &c);
    if (width <= 0) return "";
    at += width;
    if (wanted > 0 && is_high_byte(c) && !is_usual(lead, c)) {
      if (--wanted == 0) return text.substr(begin, static_cast<std::size_t>(at) - begin);
      continue;
    }
    const bool two = c == 0xC2 || c == 0xC3 || c == 0xCE || c == 0xCF || c == 0xD0 || c == 0xD1;
    wanted = two ? 1 : c >= 0xE2 && c <= 0xEF ? 2 : c >= 0xF0 && c <= 0xF4 ? 3 : 0;
    lead = c;
    begin = static_cast<std::size_t>(at - width);
  }
  return "";
}

/// What looks like text that was read in the wrong encoding, or "".
std::string strange_encoding(const std::string& text) {
  if (text.find("\xef\xbf\xbd") != std::string::npos) return "the replacement character U+FFFD";
  if (const std::string run = read_as_latin(text); !run.empty())
    return fmt::format("'{}', which looks like UTF-8 read as Latin-1", run);
  for (const char* mark : {"锟斤拷", "烫烫烫"}) {
    if (text.find(mark) != std::string::npos)
      return fmt::format("'{}', which comes of a wrong encoding", mark);
  }
  for (const char* entity : {"&lt;", "&gt;", "&amp;", "&quot;", "&nbsp;", "&#39;"}) {
    if (text.find(entity) != std::string::npos)
      return fmt::format("'{}', as text from a web page", entity);
  }
  constexpr std::pair<std::string_view, std::string_view> kInvisible[] = {
      {"\xe2\x80\x8b", "a zero-width space"},
      {"\xef\xbb\xbf", "a byte order mark"},
      {"\xc2\xad", "a soft hyphen"}};
  for (const auto& [bytes, name] : kInvisible) {
    if (text.find(bytes) != std::string::npos) return std::string(name);
  }
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 && c != '\n' && c != '\t' && c != '\r')
      return fmt::format("the control character 0x{:02x}", byte);
  }
  return "";
}

bool is_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '-' ||
         c == ' ';
}

/// Text such as {{name}}, [INSERT ...] or <your name here> that somebody forgot to fill in, or "".
std::string placeholder(const std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kBrackets[] = {
      {"{{", "}}"}, {"[INSERT", "]"}, {"[YOUR", "]"}, {"<your", ">"}, {"<YOUR", ">"}};
  for (const auto& [open, close] : kBrackets) {
    for (std::size_t at = 0; (at = text.find(open, at)) != std::string::npos; at += open.size()) {
      std::size_t end = at + open.size();
      while (end < text.size() && is_name(text[end])) ++end;
      if (end > at + open.size() && text.compare(end, close.size(), close) == 0)
        return text.substr(at, end + close.size() - at);
    }
  }
  for (const char* word : {"lorem ipsum", "Lorem ipsum", "TODO:", "FIXME:"}) {
    if (text.find(word) != std::string::npos) return word;
  }
  return "";
}

/// "chosen: " and "rejected: " for the examples of a pair.
const char* side(const Dataset& data, std::size_t index) {
  if (data.examples_per_row == 1) return "";
  return index % 2 == 0 ? "chosen: " : "rejected: ";
}

/// Findings of one example that need no other.
void lint_example(const Dataset& data, std::size_t index, const LintOptions& options,
                  std::map<std::string, std::vector<Finding>>& found) {
  const Example& example = data.examples[index];
  const std::string where = data.where(example);
  const auto add = [&](const std::string& kind, std::string what) {
    found[kind].push_back({kind, where, side(data, index) + std::move(what)});
  };
  const auto length = static_cast<std::int64_t>(example.input_ids.size());
  if (options.max_length > 0 && length > options.max_length)
    add("over_length", fmt::format("{} tokens, and max_length is {}", length, options.max_length));
  if (example.supervised_tokens <= kShortAnswer)
    add("short_answer", fmt::format("{} supervised tokens", example.supervised_tokens));
  const auto last = std::find(example.supervised.rbegin(), example.supervised.rend(), 1);
  if (!options.stop_ids.empty() && last != example.supervised.rend()) {
    const auto at = static_cast<std::size_t>(example.supervised.rend() - last) - 1;
    const auto& stops = options.stop_ids;
    if (std::find(stops.begin(), stops.end(), example.input_ids[at]) == stops.end())
      add("no_stop",
          "no stop token is trained after the last answer: the model will not learn to end");
  }
  if (index >= data.texts.size()) return;
  const std::string text = data.texts[index].prompt + "\n" + data.texts[index].reference;
  if (const std::string strange = strange_encoding(text); !strange.empty())
    add("encoding", "it holds " + strange);
  if (const std::string left = placeholder(text); !left.empty())
    add("placeholder", "'" + left + "' looks like something to be filled in");
}

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string::npos
             ? ""
             : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

/// A pair whose answers differ in white space at most.
void lint_pair(const Dataset& data, std::size_t index,
               std::map<std::string, std::vector<Finding>>& found) {
  const Example &chosen = data.examples[index], &rejected = data.examples[index + 1];
  const bool same = chosen.input_ids == rejected.input_ids;
  const bool texts = index + 1 < data.texts.size();
  if (!same &&
      (!texts || trimmed(data.texts[index].reference) != trimmed(data.texts[index + 1].reference)))
    return;
  found["same_answers"].push_back(
      {"same_answers", data.where(chosen),
       same ? "the chosen and the rejected answer are the same; training refuses this row"
            : "the chosen and the rejected answer differ in white space alone"});
}

/// The weighted numbers of both labels should be about the same: 1 to 4/3 in favour of the
/// desirable ones. Source: Ethayarajh et al. 2024, arXiv 2402.01306, equation 8.
void lint_labels(const Dataset& data, const LintOptions& options,
                 std::map<std::string, std::vector<Finding>>& found) {
  if (data.labels.empty()) return;
  const auto good = static_cast<double>(std::count(data.labels.begin(), data.labels.end(), 1));
  const double bad = static_cast<double>(data.labels.size()) - good;
  const double ratio = options.desirable_weight * good / (options.undesirable_weight * bad);
  if (good > 0 && ratio >= 1 && ratio <= 4.0 / 3) return;
  std::string what = fmt::format("{:.0f} desirable and {:.0f} undesirable rows", good, bad);
  what +=
      good == 0 || bad == 0
          ? "; both kinds are needed"
          : fmt::format(
                ", weighted {:.2f} to 1; expected 1 to 1.33: desirable_weight {:.2f} to {:.2f}, "
                "or undesirable_weight {:.2f} to {:.2f}",
                ratio, options.undesirable_weight * bad / good,
                options.undesirable_weight * bad / good * 4 / 3,
                options.desirable_weight * good / bad * 3 / 4,
                options.desirable_weight * good / bad);
  found["label_imbalance"].push_back({"label_imbalance", join(data.files, ", "), what});
}

/// Files, or what rows name as their source, with nearly all or nearly none of what is learned.
void lint_sources(const Dataset& data, std::map<std::string, std::vector<Finding>>& found) {
  std::map<std::string, std::int64_t> by_file, by_source;
  for (std::size_t i = 0; i < data.examples.size(); ++i) {
    const std::int64_t tokens = data.examples[i].supervised_tokens;
    by_file[data.files[static_cast<std::size_t>(data.examples[i].origin.file)]] += tokens;
    if (i < data.texts.size() && !data.texts[i].source.empty())
      by_source["source " + data.texts[i].source] += tokens;
  }
  const auto all = static_cast<double>(std::max<std::int64_t>(data.summary.supervised_tokens, 1));
  for (const auto& groups : {by_file, by_source}) {
    if (groups.size() < 2) continue;
    for (const auto& [name, tokens] : groups) {
      const double share = static_cast<double>(tokens) / all;
      if (share > kSmallestShare && share < kLargestShare) continue;
      found["imbalance"].push_back(
          {"imbalance", name,
           fmt::format("{:.1f} % of the supervised tokens; a 'weight' {} changes that", 100 * share,
                       share < kLargestShare ? "above 1 for its file" : "below 1 for its file")});
    }
  }
}

/// What is compared of a row, or of one of its examples.
struct RowView {
  std::size_t index;  ///< of its first example
  std::vector<std::int32_t> ids;
  std::string prompt, words;
};

/// Of `count` examples together.
RowView view_of(const Dataset& data, std::size_t index, std::int64_t count) {
  RowView view{index, {}, "", ""};
  for (std::size_t i = index; i < index + static_cast<std::size_t>(count); ++i) {
    const std::vector<std::int32_t>& ids = data.examples[i].input_ids;
    view.ids.insert(view.ids.end(), ids.begin(), ids.end());
    if (i >= data.texts.size()) continue;
    if (i == index) view.prompt = view.words = data.texts[i].prompt;
    view.words += "\n" + data.texts[i].reference;
  }
  return view;
}

/// A view for each row.
std::vector<RowView> row_views(const Dataset& data) {
  std::vector<RowView> views;
  for (const std::size_t index : rows_once(data))
    views.push_back(view_of(data, index, data.examples_per_row));
  return views;
}

/// A view for each example of each row: of a pair, one for either answer.
std::vector<RowView> example_views(const Dataset& data) {
  std::vector<RowView> views;
  for (const std::size_t index : rows_once(data)) {
    for (std::int64_t i = 0; i < data.examples_per_row; ++i)
      views.push_back(view_of(data, index + static_cast<std::size_t>(i), 1));
  }
  return views;
}

/// What a row has in common with one that was seen.
struct Match {
  enum class Kind { same, near, prompt } kind;
  std::size_t index;  ///< the other's first example
  double share = 1;   ///< of words
};

/// Rows that were seen, by what they are made of.
class SeenRows {
 public:
  /// `views` are all that will be added or looked for.
  explicit SeenRows(const std::vector<const std::vector<RowView>*>& views)
      : similar_(all_words(views)) {}

  void add(const RowView& view) {
    ids_.emplace(view.ids, view.index);
    if (!view.prompt.empty()) prompts_.emplace(view.prompt, view.index);
    similar_.add(view.words);
    added_.push_back(view.index);
  }

  std::optional<Match> find(const RowView& view) {
    const auto same = ids_.find(view.ids);
    if (same != ids_.end()) return Match{Match::Kind::same, same->second};
    const SimilarRows::Match* near = similar_.find(view.words);
    if (near != nullptr) return Match{Match::Kind::near, added_[near->row], near->share};
    const auto prompt = prompts_.find(view.prompt);
    if (prompt == prompts_.end()) return std::nullopt;
    return Match{Match::Kind::prompt, prompt->second};
  }

 private:
  static std::vector<std::string> all_words(const std::vector<const std::vector<RowView>*>& views) {
    std::vector<std::string> texts;
    for (const std::vector<RowView>* list : views) {
      for (const RowView& view : *list) texts.push_back(view.words);
    }
    return texts;
  }

  SimilarRows similar_;
  std::vector<std::size_t> added_;
  std::map<std::vector<std::int32_t>, std::size_t> ids_;
  std::map<std::string, std::size_t> prompts_;
};

/// An answer that is good in one row and bad in another: of pairs chosen and rejected, else by its
/// label.
void lint_contradictions(const Dataset& data, const std::vector<RowView>& rows,
                         std::map<std::string, std::vector<Finding>>& found) {
  const bool pairs = data.examples_per_row == 2;
  if (!pairs && data.labels.empty()) return;
  std::map<std::vector<std::int32_t>, std::size_t> good;
  for (const RowView& row : rows) {
    const std::size_t index = row.index;
    if (pairs || data.labels[index] != 0) good.emplace(data.examples[index].input_ids, index);
  }
  for (const RowView& row : rows) {
    const std::size_t index = row.index;
    if (!pairs && data.labels[index] != 0) continue;
    const auto other = good.find(data.examples[index + (pairs ? 1 : 0)].input_ids);
    if (other == good.end() || other->second == index) continue;
    const std::string place = data.where(data.examples[other->second]);
    found["contradiction"].push_back({"contradiction", data.where(data.examples[index]),
                                      pairs ? "its rejected answer is the chosen one of " + place
                                            : "undesirable here, and desirable in " + place});
  }
}

/// Several answers to a prompt are what preferences are made of; and an answer with the other label
/// is a contradiction, no repetition.
bool is_expected(const Dataset& data, std::size_t index, const Match& match) {
  if (match.kind == Match::Kind::prompt) return data.examples_per_row == 2 || !data.labels.empty();
  return !data.labels.empty() && data.labels[index] != data.labels[match.index];
}

std::string percent_as(double share, const std::string& other) {
  return share == 1.0 ? "the same words as " + other
                      : fmt::format("{:.0f} % as {}", std::min(99.0, 100 * share), other);
}

}  // namespace

std::vector<Finding> lint(const Dataset& data, const LintOptions& options) {
  std::map<std::string, std::vector<Finding>> found;
  const std::vector<RowView> rows = row_views(data);
  SeenRows seen({&rows});
  for (const RowView& row : rows) {
    const Example& example = data.examples[row.index];
    for (std::int64_t i = 0; i < data.examples_per_row; ++i)
      lint_example(data, row.index + static_cast<std::size_t>(i), options, found);
    if (data.examples_per_row == 2) lint_pair(data, row.index, found);
    const auto match = seen.find(row);
    if (match && !is_expected(data, row.index, *match)) {
      const std::string other = data.where(data.examples[match->index]);
      const std::string kind = match->kind == Match::Kind::same   ? "duplicate"
                               : match->kind == Match::Kind::near ? "near_duplicate"
                                                                  : "other_answer";
      found[kind].push_back({kind, data.where(example),
                             match->kind == Match::Kind::same ? "the same as " + other
                             : match->kind == Match::Kind::near
                                 ? percent_as(match->share, other)
                                 : "the prompt of " + other + " with another answer"});
    }
    seen.add(row);
  }
  lint_contradictions(data, rows, found);
  lint_labels(data, options, found);
  lint_sources(data, found);
  std::vector<Finding> all;
  for (auto& [kind, findings] : found) all.insert(all.end(), findings.begin(), findings.end());
  return all;
}

std::vector<Finding> lint_leakage(const Dataset& train, const Dataset& eval) {
  const std::vector<RowView> trained = example_views(train), held_out = example_views(eval);
  SeenRows seen({&trained, &held_out});
  for (const RowView& row : trained) seen.add(row);
  std::vector<Finding> found;
  for (const RowView& row : held_out) {
    const std::string where = eval.where(eval.examples[row.index]);
    const auto match = seen.find(row);
    if (!match || (!found.empty() && found.back().where == where)) continue;  // one for a row
    const std::string other = train.where(train.examples[match->index]);
    found.push_back({"leakage", where,
                     match->kind == Match::Kind::same ? "trained on as " + other
                     : match->kind == Match::Kind::near
                         ? percent_as(match->share, other) + ", which is trained on"
                         : "its prompt is trained on as " + other + ", with another answer"});
  }
  return found;
}

}  // namespace finetune
