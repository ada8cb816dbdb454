#include "commands/verb_list.h"
#include "finetune/base/text.h"
#include "finetune/config/keys.h"

#include <fmt/format.h>

namespace finetune {

namespace {

/// Text as roff takes it: no escapes, no line that begins with a request.
std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool begins_line = out.empty() || out.back() == '\n';
    if (begins_line && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string bold(const std::string& text) { return "\\fB" + roff(text) + "\\fR"; }
std::string italic(const std::string& text) { return "\\fI" + roff(text) + "\\fR"; }

std::string option_text(const VerbOption& option) {
  std::string text =
      ".TP\n" + (option.name.starts_with("-") ? bold(option.name) : italic(option.name));
  if (option.value == VerbOption::Value::words) {
    text += " " + roff(option.type);
  } else if (!option.type.empty() && option.name.starts_with("-")) {
    text += " " + italic(option.type);
  }
  return text + "\n" + roff(option.help) + "\n";
}

std::string verb_text(const VerbEntry& verb) {
  std::string text = ".SS finetune " + roff(verb.name()) + "\n" + roff(verb.help) + ".\n";
  for (const VerbOption& word : verb.positionals) text += option_text(word);
  for (const VerbOption& option : verb.options) {
    const bool everywhere =
        option.name == "--help" || option.name == "--verbose" || option.name == "--quiet";
    if (!everywhere) text += option_text(option);
  }
  if (verb.has_settings)
    text += ".TP\n" + italic("KEY=VALUE") +
            " ...\nSettings that win over the file; see CONFIGURATION.\n";
  if (!verb.example.empty())
    text += ".PP\nExample:\n.PP\n.nf\n.RS 4\n" + roff(verb.example) + ".RE\n.fi\n";
  return text;
}

constexpr std::string_view kHead =
    R"(.TH FINETUNE 1 "" "finetune )" FINETUNE_VERSION R"(" "User Commands"
.SH NAME
finetune \- adapt pretrained language models to a domain
.SH SYNOPSIS
.B finetune
.I VERB
.RI [ OPTION ...]
.RI [ KEY=VALUE ...]
.SH DESCRIPTION
Trains a pretrained language model on instructions, from a model folder as it was downloaded and a file of JSON
Lines, with LoRA, Q\-LoRA, bottleneck adapters, (IA)3, or in whole; evaluates it, asks it, and merges the result.
The result opens in PEFT and transformers. Nothing is fetched from a network, and nothing is reported to anyone.
.PP
Logs go to standard error, results to standard output.
.SH OPTIONS
Every verb has these:
.TP
\fB\-\-help\fR
Options and a command that works.
.TP
\fB\-\-verbose\fR, \fB\-\-quiet\fR
Say more, or warnings and errors only.
.SH VERBS
)";

constexpr std::string_view kTail = R"(.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
A defect of the program.
.TP
.B 2
Usage or configuration.
.TP
.B 3
Data.
.TP
.B 4
Files of a model, tokenizer, adapter or checkpoint.
.TP
.B 5
Memory, disk or device.
.TP
.B 6
Training stopped itself: a loss or gradient was not finite.
.TP
.BR 130 ", " 143
Interrupted, after saving.
.SH ENVIRONMENT
.TP
.B FINETUNE_CACHE_DIR
A folder where tokenized data and quantized weights are kept between runs.
.TP
.B NO_COLOR
No colours on a terminal.
.SH FILES
.TP
.I runs/NAME
The output folder of a run after NAME.yaml: the adapter or model, checkpoints, metrics.jsonl, report.html,
config.yaml with every setting.
)";

}  // namespace

std::string manual_page(const std::vector<VerbEntry>& verbs) {
  std::string text(kHead);
  for (const VerbEntry& verb : verbs) {
    if (!verb.has_verbs) text += verb_text(verb);
  }
  text +=
      ".SH CONFIGURATION\n"
      "A flat YAML file, read with \\fB\\-\\-config\\fR, or KEY=VALUE on the command line. An "
      "unknown key is\n"
      "an error. \\fBfinetune train \\-\\-show\\-config\\fR prints every value and where it is "
      "from.\n";
  for (const ConfigKey& key : config_keys()) {
    text += ".TP\n" + bold(key.key);
    if (!key.values.empty()) text += " " + roff(join(key.values, "|"));
    text += "\n" + roff(key.help) + "\n";
  }
  return text + std::string(kTail);
}

}  // namespace finetune
