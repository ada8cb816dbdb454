#include "commands/inspect.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "finetune/text/tokenizer.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finetune {

namespace {

using nlohmann::json;

struct InspectTokensOptions {
  std::string model;
  bool add_special_tokens = false;
  int repeat = 0;
};

/// The JSON string of one line of standard input.
std::string parse_line(const std::string& line, std::size_t number) {
  if (const std::size_t bad = find_invalid_utf8(line); bad != std::string::npos) {
    fail(ErrorKind::data,
         "standard input:{}: not UTF-8 at byte {}; a line is one JSON string in UTF-8", number,
         bad);
  }
  try {
    const json value = json::parse(line);
    if (value.is_string()) return value.get<std::string>();
    fail(ErrorKind::data, "standard input:{}: a line is one JSON string, this one is {}", number,
         value.type_name());
  } catch (const json::exception& error) {
    fail(ErrorKind::data, "standard input:{}: a line is one JSON string in UTF-8 ({})", number,
         without_exception_name(error.what()));
  }
}

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
    fail(ErrorKind::resource, "standard output cannot be written; is the disk full?");
  }
}

/// JSON leaves a few characters as they are that many readers take for the end of a line.
std::string on_one_line(const std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kBreaks[] = {
      {"\xC2\x85", "\\u0085"}, {"\xE2\x80\xA8", "\\u2028"}, {"\xE2\x80\xA9", "\\u2029"}};
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const auto* found = std::find_if(std::begin(kBreaks), std::end(kBreaks), [&](const auto& item) {
      return text.compare(at, item.first.size(), item.first) == 0;
    });
    result += found == std::end(kBreaks) ? std::string_view(text).substr(at, 1) : found->second;
    at += found == std::end(kBreaks) ? 1 : found->first.size();
  }
  return result;
}

/// Encodes all texts several times and prints the processor's time of the fastest pass: one thread,
/// nothing but the encoding.
void measure(const Tokenizer& tokenizer, const std::vector<std::string>& texts, int repeat) {
  std::size_t bytes = 0, tokens = 0;
  for (const std::string& text : texts) bytes += text.size();
  double best = 0;
  for (int pass = 0; pass < repeat; ++pass) {
    tokens = 0;
    const std::clock_t start = std::clock();
    for (const std::string& text : texts) tokens += tokenizer.encode(text).ids.size();
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    best = pass == 0 ? seconds : std::min(best, seconds);
  }
  print(json({{"bytes", bytes}, {"tokens", tokens}, {"encode_seconds", best}}).dump() + "\n");
}

void run_inspect_tokens(const InspectTokensOptions& options) {
  const auto tokenizer = load_tokenizer(options.model);
  std::vector<std::string> texts;  // to be measured
  std::string line;
  for (std::size_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    std::string text = parse_line(line, number);
    if (options.repeat > 0) {
      texts.push_back(std::move(text));
      continue;
    }
    const Encoding encoding = options.add_special_tokens ? tokenizer->encode_with_specials(text)
                                                         : tokenizer->encode(text);
    const std::string decoded = tokenizer->decode(encoding.ids, false);
    nlohmann::ordered_json result;
    result["ids"] = encoding.ids;
    result["decoded"] = decoded;
    print(on_one_line(result.dump(-1, ' ', false, json::error_handler_t::replace)) + "\n");
  }
  if (options.repeat > 0) measure(*tokenizer, texts, options.repeat);
  std::fflush(stdout);
}

}  // namespace

void add_inspect_tokens(CLI::App& inspect) {
  auto options = std::make_shared<InspectTokensOptions>();
  CLI::App* verb = inspect.add_subcommand("tokens", "Encode texts and decode them again");
  verb->footer(
      "Reads one JSON string a line from standard input and prints {\"ids\", \"decoded\"} a line:\n"
      "  echo '\"Hello world\"' | finetune inspect tokens --model models/base");
  verb->add_option("--model", options->model, "Folder with the tokenizer's files")
      ->required()
      ->type_name("DIR");
  verb->add_flag("--add-special-tokens", options->add_special_tokens,
                 "Add BOS and EOS as the tokenizer does by default");
  verb->add_option("--repeat", options->repeat,
                   "Print the seconds of the fastest of so many passes instead (scripts/bench)")
      ->group("");
  verb->final_callback([options] { run_inspect_tokens(*options); });
}

}  // namespace finetune
