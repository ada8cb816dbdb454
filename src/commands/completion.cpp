#include "commands/session.h"
#include "commands/verb_list.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/config/keys.h"

#include <fmt/format.h>

namespace finetune {

namespace {

using Value = VerbOption::Value;

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

/// In single quotes, for bash and zsh.
std::string shell_quoted(const std::string& text) {
  return "'" + replaced(text, "'", "'\\''") + "'";
}

/// In single quotes, for fish.
std::string fish_quoted(const std::string& text) {
  return "'" + replaced(replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
}

/// The names of options, and of the verbs of a verb.
std::string words_after(const VerbEntry& verb, const std::vector<VerbEntry>& verbs) {
  std::vector<std::string> words;
  for (const VerbEntry& other : verbs) {
    if (other.path.size() == verb.path.size() + 1 && other.path.front() == verb.path.front())
      words.push_back(other.path.back());
  }
  for (const VerbOption& option : verb.options) words.push_back(option.name);
  for (const VerbOption& word : verb.positionals) {
    for (const std::string& choice : word.words) words.push_back(choice);
  }
  return join(words, " ");
}

std::vector<std::string> first_words(const std::vector<VerbEntry>& verbs) {
  std::vector<std::string> words;
  for (const VerbEntry& verb : verbs) {
    if (verb.path.size() == 1) words.push_back(verb.path[0]);
  }
  return words;
}

/// True when a word without a name may be a file or a folder.
bool takes_path(const VerbEntry& verb) {
  for (const VerbOption& word : verb.positionals) {
    if (word.value == Value::file || word.value == Value::folder) return true;
  }
  return false;
}

/// `key) words='...';;` of each key that has words or a path.
std::string bash_keys() {
  std::string text, keys;
  for (const ConfigKey& key : config_keys()) {
    keys += key.key + "= ";
    if (!key.values.empty()) {
      text += fmt::format("    {}) _finetune_words {};;\n", key.key,
                          shell_quoted(join(key.values, " ")));
    } else if (key.is_path) {
      text += fmt::format("    {}) _finetune_files;;\n", key.key);
    }
  }
  return fmt::format("_finetune_keys={}\n\n_finetune_value() {{\n  case $1 in\n{}  esac\n}}\n\n",
                     shell_quoted(keys), text);
}

/// `"verb --option") ...;;` of each option with a value.
std::string bash_options(const std::vector<VerbEntry>& verbs) {
  std::string text;
  for (const VerbEntry& verb : verbs) {
    for (const VerbOption& option : verb.options) {
      if (option.value == Value::none) continue;
      const std::string what = option.value == Value::file     ? "_finetune_files"
                               : option.value == Value::folder ? "_finetune_files -d"
                               : option.value == Value::words
                                   ? "_finetune_words " + shell_quoted(join(option.words, " "))
                                   : ":";
      text += fmt::format("    {}) {}; return;;\n", shell_quoted(verb.name() + " " + option.name),
                          what);
    }
  }
  return text;
}

constexpr std::string_view kBashHead =
    R"(# Completion of finetune for bash, made by `finetune completion bash`.

_finetune_words() {
  COMPREPLY+=($(compgen -W "$1" -- "$cur"))
}

_finetune_files() {
  compopt -o filenames 2>/dev/null
  local IFS=$'\n'
  COMPREPLY+=($(compgen ${1:--f} -- "$cur"))
}

)";

constexpr std::string_view kBashBody = R"(_finetune() {
  local cur=${COMP_WORDS[COMP_CWORD]} verb='' key='' word i
  local previous=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  # bash makes words of their own of the `=` in key=value, unless COMP_WORDBREAKS has none.
  if [[ $cur == '=' ]]; then
    key=$previous cur=''
  elif [[ $previous == '=' ]]; then
    key=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case "${verb:+$verb }$word" in
      VERBS) verb="${verb:+$verb }$word";;
    esac
  done
  if [[ -n $key ]]; then
    _finetune_value "$key"
    return
  fi
  case "$verb $previous" in
OPTIONS  esac
  case $verb in
WORDS  esac
  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}

complete -F _finetune finetune
)";

/// A description inside the brackets or after the colon of zsh's specifications.
std::string zsh_text(std::string text) {
  for (const char* special : {"\\", "[", "]", ":"})
    text = replaced(std::move(text), special, std::string("\\") + special);
  return text;
}

std::string zsh_action(const VerbOption& option) {
  switch (option.value) {
    case Value::none:
      return "";
    case Value::file:
      return ":file:_files";
    case Value::folder:
      return ":folder:_files -/";
    case Value::words:
      return ":word:(" + join(option.words, " ") + ")";
    case Value::other:
      return ":" + zsh_text(option.type) + ":";
  }
  return "";
}

/// The call of _arguments for one verb.
std::string zsh_arguments(const VerbEntry& verb) {
  std::string text = "_arguments";
  for (const VerbOption& option : verb.options)
    text += " \\\n        " + shell_quoted("*" + option.name + "[" + zsh_text(option.help) + "]" +
                                           zsh_action(option));
  for (const VerbOption& word : verb.positionals)
    text += " \\\n        " + shell_quoted("*" + zsh_action(word));
  if (verb.has_settings) text += " \\\n        '*:setting:_finetune_setting'";
  return text;
}

/// `_describe` of the verbs after the given ones.
std::string zsh_verbs(const std::vector<std::string>& path, const std::vector<VerbEntry>& verbs) {
  std::string text;
  for (const VerbEntry& verb : verbs) {
    if (std::vector<std::string>(verb.path.begin(), verb.path.end() - 1) == path)
      text += " " + shell_quoted(verb.path.back() + ":" + replaced(verb.help, ":", "\\:"));
  }
  return "verbs=(" + text + " ); _describe verb verbs";
}

/// The condition under which fish offers what stands after these verbs.
std::string fish_condition(const VerbEntry& verb) {
  std::vector<std::string> seen;
  for (const std::string& word : verb.path) seen.push_back("__fish_seen_subcommand_from " + word);
  return fish_quoted(join(seen, "; and "));
}

std::string fish_option(const VerbEntry& verb, const VerbOption& option) {
  std::string text = fmt::format("complete -c finetune -n {} -l {} -d {}", fish_condition(verb),
                                 option.name.substr(2), fish_quoted(option.help));
  if (option.value == Value::file) text += " -r -F";
  if (option.value == Value::folder) text += " -x -a '(__fish_complete_directories)'";
  if (option.value == Value::words) text += " -x -a " + fish_quoted(join(option.words, " "));
  if (option.value == Value::other) text += " -x";
  return text + "\n";
}

std::string fish_settings() {
  std::string text, paths;
  for (const ConfigKey& key : config_keys()) {
    text += fmt::format("complete -c finetune -n __finetune_takes_settings -a {} -d {}\n",
                        fish_quoted(key.key + "="), fish_quoted(key.help));
    for (const std::string& word : key.values)
      text += fmt::format("complete -c finetune -n {} -a {}\n",
                          fish_quoted("__finetune_takes_settings; and __finetune_after " + key.key),
                          fish_quoted(key.key + "=" + word));
    if (key.is_path) paths += (paths.empty() ? "" : "|") + key.key;
  }
  return text +
         "complete -c finetune -n __finetune_takes_settings -a '(__finetune_paths)'\n"
         "\nfunction __finetune_paths\n"
         "    set -l token (commandline -ct)\n"
         "    if string match -qr '^(" +
         paths +
         ")=' -- $token\n"
         "        set -l parts (string split -m 1 = -- $token)\n"
         "        for path in (__fish_complete_path $parts[2])\n"
         "            echo $parts[1]=$path\n"
         "        end\n"
         "    end\n"
         "end\n";
}

}  // namespace

std::string bash_completion(const std::vector<VerbEntry>& verbs) {
  std::vector<std::string> names;
  std::string words =
      fmt::format("    '') _finetune_words {};;\n",
                  shell_quoted(join(first_words(verbs), " ") + " --help --version"));
  for (const VerbEntry& verb : verbs) {
    names.push_back(shell_quoted(verb.name()));
    words += fmt::format("    {}) _finetune_words {}{}{};;\n", shell_quoted(verb.name()),
                         shell_quoted(words_after(verb, verbs)),
                         takes_path(verb) ? "; _finetune_files" : "",
                         verb.has_settings ? "; _finetune_words \"$_finetune_keys\"" : "");
  }
  std::string body(kBashBody);
  body = replaced(std::move(body), "VERBS)", join(names, "|") + ")");
  body = replaced(std::move(body), "OPTIONS", bash_options(verbs));
  body = replaced(std::move(body), "WORDS  esac", words + "  esac");
  return std::string(kBashHead) + bash_keys() + body;
}

std::string zsh_completion(const std::vector<VerbEntry>& verbs) {
  std::string keys, values, paths, cases;
  for (const ConfigKey& key : config_keys()) {
    keys += "    " + shell_quoted(key.key + ":" + replaced(key.help, ":", "\\:")) + "\n";
    if (!key.values.empty())
      values += fmt::format("      {}) compadd -- {};;\n", key.key, join(key.values, " "));
    if (key.is_path) paths += (paths.empty() ? "" : "|") + key.key;
  }
  for (const VerbEntry& verb : verbs) {
    const std::string place = verb.path.size() == 1 ? verb.path[0] : "'" + verb.name() + "'";
    cases += fmt::format("      {})\n        {};;\n", place,
                         verb.has_verbs ? zsh_verbs(verb.path, verbs) : zsh_arguments(verb));
  }
  std::vector<std::string> groups;
  for (const VerbEntry& verb : verbs) {
    if (verb.has_verbs) groups.push_back(verb.path[0]);
  }
  return "#compdef finetune\n# Completion of finetune for zsh, made by `finetune completion "
         "zsh`.\n\n"
         "_finetune_setting() {\n"
         "  if compset -P 1 '*='; then\n"
         "    case ${IPREFIX%=} in\n" +
         values + "      " + paths +
         ") _files;;\n"
         "    esac\n"
         "    return\n"
         "  fi\n"
         "  local -a keys\n"
         "  keys=(\n" +
         keys +
         "  )\n"
         "  _describe -t settings setting keys -S =\n"
         "}\n\n"
         "_finetune() {\n"
         "  local -a verbs\n"
         "  local context state state_descr line verb\n"
         "  typeset -A opt_args\n"
         "  _arguments -C '--help[Help]' '--version[Version]' '1:verb:->verb' '*::rest:->rest'\n"
         "  case $state in\n"
         "    verb)\n"
         "      " +
         zsh_verbs({}, verbs) +
         ";;\n"
         "    rest)\n"
         "      verb=$words[1]\n"
         "      if [[ $verb == (" +
         join(groups, "|") +
         ") ]] && ((CURRENT > 2)); then\n"
         "        verb=\"$verb $words[2]\"\n"
         "        shift words\n"
         "        ((CURRENT--))\n"
         "      fi\n"
         "      case $verb in\n" +
         cases +
         "      esac;;\n"
         "  esac\n"
         "}\n\n"
         "if [[ $funcstack[1] == _finetune ]]; then\n  _finetune \"$@\"\nelse\n"
         "  compdef _finetune finetune\nfi\n";
}

std::string fish_completion(const std::vector<VerbEntry>& verbs) {
  std::string text =
      "# Completion of finetune for fish, made by `finetune completion fish`.\n\n"
      "complete -c finetune -f\n"
      "complete -c finetune -n __fish_use_subcommand -l version -d 'Version'\n";
  std::vector<std::string> with_settings;
  for (const VerbEntry& verb : verbs) {
    const bool first = verb.path.size() == 1;
    std::string condition = "__fish_use_subcommand";
    if (!first) {
      std::vector<std::string> siblings;
      for (const VerbEntry& other : verbs) {
        if (other.path.size() > 1 && other.path[0] == verb.path[0])
          siblings.push_back(other.path.back());
      }
      condition =
          fmt::format("__fish_seen_subcommand_from {}; and not __fish_seen_subcommand_from {}",
                      verb.path[0], join(siblings, " "));
    }
    text += fmt::format("complete -c finetune -n {} -a {} -d {}\n", fish_quoted(condition),
                        verb.path.back(), fish_quoted(verb.help));
    for (const VerbOption& option : verb.options) text += fish_option(verb, option);
    for (const VerbOption& word : verb.positionals) {
      const std::string what = word.value == Value::folder  ? "'(__fish_complete_directories)'"
                               : word.value == Value::words ? fish_quoted(join(word.words, " "))
                                                            : "'(__fish_complete_path)'";
      text += fmt::format("complete -c finetune -n {} -a {}\n", fish_condition(verb), what);
    }
    if (verb.has_settings) with_settings.push_back(verb.path.back());
  }
  text += "\nfunction __finetune_takes_settings\n    __fish_seen_subcommand_from " +
          join(with_settings, " ") +
          "\nend\n\nfunction __finetune_after\n    string match -q -- \"$argv[1]=*\" (commandline "
          "-ct)\nend\n\n";
  return text + fish_settings();
}

void add_completion(CLI::App& program) {
  auto shell = std::make_shared<std::string>();
  CLI::App* verb =
      add_verb(program, "completion", "Print what makes a shell complete verbs, options and keys",
               "finetune completion bash > ~/.local/share/bash-completion/completions/finetune",
               std::make_shared<CommonOptions>());
  verb->add_option("shell", *shell, "The shell")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  verb->final_callback([shell, &program] {
    const std::vector<VerbEntry> verbs = list_verbs(program);
    write_output("-", *shell == "bash"  ? bash_completion(verbs)
                      : *shell == "zsh" ? zsh_completion(verbs)
                                        : fish_completion(verbs));
  });
}

void add_man(CLI::App& program) {
  CLI::App* verb = add_verb(program, "man", "Print the manual page, for man",
                            "finetune man > finetune.1", std::make_shared<CommonOptions>());
  verb->final_callback([&program] { write_output("-", manual_page(list_verbs(program))); });
}

}  // namespace finetune
