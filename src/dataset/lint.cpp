#include "finetune/dataset/lint.h"

#include "finetune/base/random.h"
#include "finetune/base/text.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>
#include <unordered_map>

namespace finetune {

namespace {

constexpr std::size_t kShingle = 4;  // tokens of a stretch
constexpr std::size_t kHashes = 32, kBand = 4;
constexpr std::int64_t kShortAnswer = 2;  // supervised tokens, the stop token included
constexpr double kLargestShare = 0.9, kSmallestShare = 0.01;

/// Hashes of a row's stretches of kShingle tokens, sorted and without repetition.
std::vector<std::uint64_t> shingles(const std::vector<std::int32_t>& ids) {
  std::vector<std::uint64_t> hashes;
  const std::size_t width = std::min(kShingle, ids.size());
  for (std::size_t i = 0; i + width <= ids.size(); ++i) {
    std::uint64_t hash = 0;
    for (std::size_t k = 0; k < width; ++k)
      hash = mix_seed({hash, static_cast<std::uint64_t>(ids[i + k])});
    hashes.push_back(hash);
  }
  std::sort(hashes.begin(), hashes.end());
  hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
  return hashes;
}

double jaccard(const std::vector<std::uint64_t>& a, const std::vector<std::uint64_t>& b) {
  std::size_t common = 0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) ++common;
    const bool first = a[i] <= b[j], second = b[j] <= a[i];
    i += first ? 1 : 0;
    j += second ? 1 : 0;
  }
  const std::size_t all = a.size() + b.size() - common;
  return all == 0 ? 1.0 : static_cast<double>(common) / static_cast<double>(all);
}

/// Finds a row that is the same, or nearly. Candidates come from bands of minimal hashes (Broder
/// 1997), and are then compared in full.
class SimilarRows {
 public:
  struct Match {
    std::size_t row;
    double share;  ///< 1 exactly for the same tokens
  };

  const Match* find(const std::vector<std::int32_t>& ids) {
    const auto own = shingles(ids);
    best_ = {0, 0.0};
    for (const std::uint64_t key : bands(own)) {
      const auto bucket = buckets_.find(key);
      if (bucket == buckets_.end()) continue;
      for (const std::size_t row : bucket->second) {
        const bool same = *rows_[row].ids == ids;
        const double share = same ? 1.0 : std::min(jaccard(own, rows_[row].shingles), 0.999);
        if (share > best_.share) best_ = {row, share};
      }
    }
    return best_.share >= kNearDuplicate ? &best_ : nullptr;
  }

  void add(const std::vector<std::int32_t>& ids) {
    Row row{&ids, shingles(ids)};
    for (const std::uint64_t key : bands(row.shingles)) {
      std::vector<std::size_t>& bucket = buckets_[key];
      if (bucket.size() < kBucket) bucket.push_back(rows_.size());
    }
    rows_.push_back(std::move(row));
  }

 private:
  static constexpr std::size_t kBucket = 64;  // thousands of equal rows stay cheap
  struct Row {
    const std::vector<std::int32_t>* ids;
    std::vector<std::uint64_t> shingles;
  };

  static std::vector<std::uint64_t> bands(const std::vector<std::uint64_t>& hashes) {
    std::array<std::uint64_t, kHashes> least;
    least.fill(std::numeric_limits<std::uint64_t>::max());
    for (const std::uint64_t hash : hashes) {
      for (std::size_t h = 0; h < kHashes; ++h) least[h] = std::min(least[h], mix_seed({hash, h}));
    }
    std::vector<std::uint64_t> keys;
    for (std::size_t band = 0; band < kHashes; band += kBand) {
      std::uint64_t key = band;
      for (std::size_t h = band; h < band + kBand; ++h) key = mix_seed({key, least[h]});
      keys.push_back(key);
    }
    return keys;
  }

  std::vector<Row> rows_;
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> buckets_;
  Match best_{0, 0.0};
};

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

/// What looks like text that was read in the wrong encoding, or "".
std::string strange_encoding(const std::string& text) {
  if (text.find("\xef\xbf\xbd") != std::string::npos) return "the replacement character U+FFFD";
  for (const char* mark : {"â€™", "â€œ", "â€“", "Ã©", "Ã¤", "Ã¶", "Ã¼", "Ã¨", "Â°", "ï»¿"}) {
    if (text.find(mark) != std::string::npos)
      return fmt::format("'{}', which looks like UTF-8 read as Latin-1", mark);
  }
  if (text.find("\xe2\x80\x8b") != std::string::npos) return "a zero-width space";
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

/// The tokens of a row: of a pair both answers'.
std::vector<std::int32_t> row_ids(const Dataset& data, std::size_t index) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < data.examples_per_row; ++i) {
    const auto& more = data.examples[index + static_cast<std::size_t>(i)].input_ids;
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
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

/// An answer that is good in one row and bad in another: of pairs chosen and rejected, else by its
/// label.
void lint_contradictions(const Dataset& data, const std::vector<std::size_t>& rows,
                         std::map<std::string, std::vector<Finding>>& found) {
  const bool pairs = data.examples_per_row == 2;
  if (!pairs && data.labels.empty()) return;
  std::map<std::vector<std::int32_t>, std::size_t> good;
  for (const std::size_t index : rows) {
    if (pairs || data.labels[index] != 0) good.emplace(data.examples[index].input_ids, index);
  }
  for (const std::size_t index : rows) {
    if (!pairs && data.labels[index] != 0) continue;
    const auto other = good.find(data.examples[index + (pairs ? 1 : 0)].input_ids);
    if (other == good.end() || other->second == index) continue;
    const std::string place = data.where(data.examples[other->second]);
    found["contradiction"].push_back({"contradiction", data.where(data.examples[index]),
                                      pairs ? "its rejected answer is the chosen one of " + place
                                            : "undesirable here, and desirable in " + place});
  }
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

void lint_sources(const Dataset& data, std::map<std::string, std::vector<Finding>>& found) {
  if (data.files.size() < 2) return;
  std::vector<std::int64_t> tokens(data.files.size());
  for (const Example& example : data.examples)
    tokens[static_cast<std::size_t>(example.origin.file)] += example.supervised_tokens;
  const auto all = static_cast<double>(std::max<std::int64_t>(data.summary.supervised_tokens, 1));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const double share = static_cast<double>(tokens[i]) / all;
    if (share > kSmallestShare && share < kLargestShare) continue;
    found["imbalance"].push_back(
        {"imbalance", data.files[i],
         fmt::format("{:.1f} % of the supervised tokens; 'weight' of the other files changes that",
                     100 * share)});
  }
}

}  // namespace

std::vector<Finding> lint(const Dataset& data, const LintOptions& options) {
  std::map<std::string, std::vector<Finding>> found;
  SimilarRows similar;
  std::vector<std::size_t> added;
  std::vector<std::vector<std::int32_t>> ids;  // of the rows added
  const std::vector<std::size_t> rows = rows_once(data);
  ids.reserve(rows.size());
  for (const std::size_t index : rows) {
    const Example& example = data.examples[index];
    for (std::int64_t i = 0; i < data.examples_per_row; ++i)
      lint_example(data, index + static_cast<std::size_t>(i), options, found);
    if (data.examples_per_row == 2) lint_pair(data, index, found);
    ids.push_back(row_ids(data, index));
    const SimilarRows::Match* match = similar.find(ids.back());
    const bool other_label = match != nullptr && !data.labels.empty() &&
                             data.labels[index] != data.labels[added[match->row]];
    if (match != nullptr && !other_label) {
      const std::string kind = match->share == 1.0 ? "duplicate" : "near_duplicate";
      const std::string other = data.where(data.examples[added[match->row]]);
      found[kind].push_back({kind, data.where(example),
                             match->share == 1.0
                                 ? "the same as " + other
                                 : fmt::format("{:.0f} % as {}", 100 * match->share, other)});
    }
    similar.add(ids.back());
    added.push_back(index);
  }
  lint_contradictions(data, rows, found);
  lint_labels(data, options, found);
  lint_sources(data, found);
  std::vector<Finding> all;
  for (auto& [kind, findings] : found) all.insert(all.end(), findings.begin(), findings.end());
  return all;
}

std::vector<Finding> lint_leakage(const Dataset& train, const Dataset& eval) {
  SimilarRows similar;
  const auto examples = [](const Dataset& data) {
    std::vector<std::size_t> all;
    for (const std::size_t row : rows_once(data)) {
      for (std::int64_t i = 0; i < data.examples_per_row; ++i)
        all.push_back(row + static_cast<std::size_t>(i));
    }
    return all;
  };
  const std::vector<std::size_t> trained = examples(train);
  for (const std::size_t index : trained) similar.add(train.examples[index].input_ids);
  std::vector<Finding> found;
  std::string last;
  for (const std::size_t index : examples(eval)) {
    const Example& example = eval.examples[index];
    const SimilarRows::Match* match = similar.find(example.input_ids);
    if (match == nullptr || eval.where(example) == last) continue;  // one finding a row
    last = eval.where(example);
    const std::string other = train.where(train.examples[trained[match->row]]);
    found.push_back({"leakage", eval.where(example),
                     match->share == 1.0 ? "trained on as " + other
                                         : fmt::format("{:.0f} % as {}, which is trained on",
                                                       100 * match->share, other)});
  }
  return found;
}

}  // namespace finetune
