#include "finetune/rewards/rewards.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "finetune/scores/format_check.h"
#include "finetune/scores/scorer.h"
#include "finetune/scores/text_scores.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

namespace finetune {

namespace {

enum class Kind { answer, number, regex, schema, length, command, adapter };

struct Word {
  const char* name;
  Kind kind;
  const char* argument;  ///< what stands after the colon; nullptr: nothing
};

constexpr Word kWords[] = {
    {"answer", Kind::answer, nullptr},    {"number", Kind::number, nullptr},
    {"regex", Kind::regex, "PATTERN"},    {"schema", Kind::schema, "FILE"},
    {"length", Kind::length, "TOKENS"},   {"command", Kind::command, "COMMAND"},
    {"adapter", Kind::adapter, "FOLDER"},
};

std::string list_of_words() {
  std::vector<std::string> words;
  for (const Word& word : kWords)
    words.push_back(word.argument == nullptr ? word.name
                                             : fmt::format("{}:{}", word.name, word.argument));
  return join(words, ", ");
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Whether the commas of a number stand between thousands: "1,234,567.8".
bool commas_group(std::string_view number) {
  const std::string_view whole = number.substr(0, number.find('.'));
  std::size_t group = 0;
  bool first = true;
  for (std::size_t i = 0; i <= whole.size(); ++i) {
    if (i < whole.size() && whole[i] != ',') {
      ++group;
      continue;
    }
    if (first ? group == 0 || group > 3 : group != 3) return false;
    first = false;
    group = 0;
  }
  return number.find(',', whole.size()) == number.npos;
}

/// What a command reads of an answer.
std::string command_line(const Completion& answer) {
  const nlohmann::ordered_json line = {{"prompt", answer.prompt},
                                       {"completion", answer.completion},
                                       {"reference", answer.reference},
                                       {"completion_ids", answer.ids}};
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

bool same_number(std::optional<double> a, std::optional<double> b) {
  constexpr double kRelative = 1e-9;  // of what reading a decimal rounds away
  return a && b && std::abs(*a - *b) <= kRelative * std::max({1.0, std::abs(*a), std::abs(*b)});
}

}  // namespace

struct Rewards::Function {
  Kind kind = Kind::answer;
  double weight = 1;
  std::optional<FormatCheck> check = std::nullopt;  // regex, schema
  std::int64_t tokens = 0;                          // length
  std::string command = {}, folder = {};
  AnswerJudge judge = {};  // adapter

  /// One entry of `reward_funcs`. Throws Error(config).
  static Function read(const std::string& text, const std::string& where);
  double of(const Completion& answer) const;
};

Rewards::Function Rewards::Function::read(const std::string& text, const std::string& where) {
  const std::size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  const std::string argument = colon == text.npos ? "" : text.substr(colon + 1);
  const Word* word = std::find_if(std::begin(kWords), std::end(kWords),
                                  [&](const Word& each) { return name == each.name; });
  if (word == std::end(kWords)) {
    fail(ErrorKind::config, "{}: '{}' is no reward; expected one of: {}", where, text,
         list_of_words());
  }
  if (word->argument == nullptr && colon != text.npos)
    fail(ErrorKind::config, "{}: '{}': {} takes no argument", where, text, name);
  if (word->argument != nullptr && argument.empty())
    fail(ErrorKind::config, "{}: '{}': expected {}:{}", where, text, name, word->argument);
  Function function{.kind = word->kind};
  switch (word->kind) {
    case Kind::regex:
      function.check.emplace(argument, where + ": regex:", FormatText::pattern);
      break;
    case Kind::schema:
      function.check.emplace(argument, where + ": schema", FormatText::schema_file);
      break;
    case Kind::length: {
      const char* end = argument.data() + argument.size();
      const auto [stop, code] = std::from_chars(argument.data(), end, function.tokens);
      if (code != std::errc() || stop != end || function.tokens < 1)
        fail(ErrorKind::config, "{}: '{}': expected a number of tokens above 0", where, text);
      break;
    }
    case Kind::command:
      function.command = argument;
      break;
    case Kind::adapter:
      function.folder = argument;
      break;
    case Kind::answer:
    case Kind::number:
      break;
  }
  return function;
}

double Rewards::Function::of(const Completion& answer) const {
  switch (kind) {
    case Kind::answer:
      return normalize_answer(answer.completion) == normalize_answer(answer.reference) ? 1 : 0;
    case Kind::number:
      return same_number(last_number(answer.completion), last_number(answer.reference)) ? 1 : 0;
    case Kind::regex:
    case Kind::schema:
      return check->accepts(answer.completion) ? 1 : 0;
    case Kind::length: {
      const double over = static_cast<double>(answer.ids.size()) / static_cast<double>(tokens) - 1;
      return 1 - std::clamp(over, 0.0, 1.0);
    }
    case Kind::command:
    case Kind::adapter:
      break;
  }
  fail(ErrorKind::internal, "a command or an adapter rewards all answers at once");
}

Rewards::Rewards(const Config& config, const OpenJudge& open_judge) {
  const auto place = [&](const char* key) {
    const auto found = config.origins.find(key);
    return (found == config.origins.end() ? "" : found->second + ": ") + key;
  };
  std::vector<std::string> problems;
  const std::string where = place("reward_funcs");
  for (const std::string& text : config.reward_funcs) {
    try {
      functions_.push_back(Function::read(text, where));
    } catch (const Error& error) {
      const std::string_view what = error.what();
      problems.push_back(what.starts_with(where) ? std::string(what)
                                                 : fmt::format("{}: '{}': {}", where, text, what));
    }
    const std::string name = text.substr(0, text.find(':'));
    const auto before = std::count_if(names_.begin(), names_.end(), [&](const std::string& other) {
      return other == name || other.starts_with(name + "_");
    });
    names_.push_back(before == 0 ? name : fmt::format("{}_{}", name, before + 1));
  }
  if (config.reward_funcs.empty())
    problems.push_back(
        fmt::format("{} is empty; expected what rewards an answer: {}", where, list_of_words()));
  const std::vector<double>& weights = config.reward_weights;
  if (!weights.empty() && weights.size() != config.reward_funcs.size()) {
    problems.push_back(
        fmt::format("{} has {} numbers, and reward_funcs {} rewards; expected one "
                    "for each",
                    place("reward_weights"), weights.size(), config.reward_funcs.size()));
  }
  if (!problems.empty()) throw Error(ErrorKind::config, join_problems(problems));
  for (std::size_t i = 0; i < weights.size(); ++i) functions_[i].weight = weights[i];
  for (Function& function : functions_) {
    if (function.kind == Kind::adapter) function.judge = open_judge(function.folder);
  }
}

Rewards::~Rewards() = default;

std::string Rewards::reference_problem(const std::string& reference) const {
  for (const Function& function : functions_) {
    if (function.kind == Kind::number && !last_number(reference))
      return "its answer has no number, and reward_funcs has 'number'; expected one";
    if (function.kind == Kind::answer && normalize_answer(reference).empty())
      return "its answer has no word to compare with, and reward_funcs has 'answer'";
  }
  return "";
}

std::optional<RewardTable> Rewards::of(const std::vector<Completion>& answers) const {
  RewardTable table;
  table.total.resize(answers.size());
  for (const Function& function : functions_) {
    std::vector<double> rewards;
    if (function.kind == Kind::command) {
      std::vector<std::string> lines;
      for (const Completion& answer : answers) lines.push_back(command_line(answer));
      rewards = run_scorer({function.command, "reward_funcs: command"}, lines);
    } else if (function.kind == Kind::adapter) {
      rewards = function.judge(answers);
    } else {
      for (const Completion& answer : answers) rewards.push_back(function.of(answer));
    }
    if (rewards.size() != answers.size()) return std::nullopt;
    for (std::size_t i = 0; i < rewards.size(); ++i) table.total[i] += function.weight * rewards[i];
    table.by_function.push_back(std::move(rewards));
  }
  return table;
}

std::optional<double> last_number(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0 && !is_digit(text[end - 1])) --end;
  if (end == 0) return std::nullopt;
  std::size_t begin = end;
  bool point = false;
  while (begin > 0) {
    const char c = text[begin - 1];
    if (c == '.' && point) break;  // of an address or a version the last two parts
    if (!is_digit(c) && c != '.' && c != ',') break;
    point |= c == '.';
    --begin;
  }
  while (text[begin] == ',') ++begin;
  std::string number(text.substr(begin, end - begin));
  if (number.find(',') != number.npos) {
    const std::size_t last = number.rfind(',');
    if (commas_group(number)) {
      std::erase(number, ',');
    } else {
      begin += last + 1;
      number.erase(0, last + 1);
    }
  }
  double value = 0;
  std::from_chars(number.data(), number.data() + number.size(), value);
  const bool minus = begin > 0 && text[begin - 1] == '-' &&
                     (begin < 2 || !std::isalnum(static_cast<unsigned char>(text[begin - 2])));
  return minus ? -value : value;
}

}  // namespace finetune
