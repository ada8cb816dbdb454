#include "commands/verb_list.h"

#include "finetune/base/text.h"

namespace finetune {

namespace {

/// "TEXT:{cat,linear}" -> {"cat", "linear"}: how CLI11 writes a choice of words.
std::vector<std::string> words_in(const std::string& type) {
  std::vector<std::string> words;
  const std::size_t begin = type.find('{'), end = type.find('}');
  if (begin == std::string::npos || end == std::string::npos) return words;
  for (const std::string& word : CLI::detail::split(type.substr(begin + 1, end - begin - 1), ','))
    words.push_back(word);
  return words;
}

VerbOption describe(const CLI::Option& option) {
  using Value = VerbOption::Value;
  VerbOption result;
  const bool named = !option.get_lnames().empty();
  result.name = named ? "--" + option.get_lnames().front() : option.get_name(/*positional=*/true);
  result.help = option.get_description();
  if (named && option.get_items_expected_max() == 0) return result;
  const std::string type = option.get_type_name();
  result.words = words_in(type);
  result.type = type.substr(0, type.find(':'));
  if (!result.words.empty()) {
    result.value = Value::words;
    result.type = join(result.words, "|");
  } else if (result.type == "FILE" || result.type == "DIR") {
    result.value = result.type == "FILE" ? Value::file : Value::folder;
  } else {
    result.value = Value::other;
  }
  return result;
}

std::string without_blanks_before(const std::string& footer) {
  std::string lines;
  for (const std::string& line : CLI::detail::split(footer, '\n')) {
    if (line.starts_with("  ")) lines += line.substr(2) + "\n";
  }
  return lines;
}

void add_verbs(const CLI::App& parent, const std::vector<std::string>& path,
               std::vector<VerbEntry>& verbs) {
  for (const CLI::App* app : parent.get_subcommands([](const CLI::App*) { return true; })) {
    VerbEntry verb;
    verb.path = path;
    verb.path.push_back(app->get_name());
    verb.help = app->get_description();
    verb.example = without_blanks_before(app->get_footer());
    verb.has_verbs = !app->get_subcommands([](const CLI::App*) { return true; }).empty();
    for (const CLI::Option* option : app->get_options()) {
      if (option->get_name(/*positional=*/true) == "settings") {
        verb.has_settings = true;
      } else if (option->get_positional()) {
        verb.positionals.push_back(describe(*option));
      } else {
        verb.options.push_back(describe(*option));
      }
    }
    const std::vector<std::string> own = verb.path;
    verbs.push_back(std::move(verb));
    add_verbs(*app, own, verbs);
  }
}

}  // namespace

std::string VerbEntry::name() const { return join(path, " "); }

std::vector<VerbEntry> list_verbs(const CLI::App& program) {
  std::vector<VerbEntry> verbs;
  add_verbs(program, {}, verbs);
  return verbs;
}

}  // namespace finetune
