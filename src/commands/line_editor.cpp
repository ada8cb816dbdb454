#include "commands/line_editor.h"

#include <histedit.h>
#include <unistd.h>
#include <clocale>
#include <iostream>

namespace finetune {

struct LineEditor::Terminal {
  EditLine* edit;
  History* history;
};

namespace {

char prompt_text[] = "> ";

char* prompt(EditLine*) { return prompt_text; }

}  // namespace

LineEditor::LineEditor() {
  if (isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0) return;
  // Characters alone: numbers stay written with a point.
  if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1)
    std::setlocale(LC_CTYPE, "C.UTF-8");
  EditLine* edit = el_init("finetune", stdin, stdout, stderr);
  if (edit == nullptr) return;
  terminal_ = std::make_unique<Terminal>(Terminal{edit, history_init()});
  HistEvent event;
  history(terminal_->history, &event, H_SETSIZE, 1000);
  el_set(edit, EL_PROMPT, prompt);
  el_set(edit, EL_EDITOR, "emacs");
  el_set(edit, EL_HIST, history, terminal_->history);
  // What a Ctrl-D typed while no line was read leaves behind; libedit would quote the next
  // character.
  el_set(edit, EL_BIND, "^@", "em-delete-or-list", nullptr);
}

LineEditor::~LineEditor() {
  if (!terminal_) return;
  el_end(terminal_->edit);
  history_end(terminal_->history);
}

std::optional<std::string> LineEditor::read() {
  std::string line;
  if (!terminal_) {
    if (!std::getline(std::cin, line)) return std::nullopt;
    if (line.ends_with('\r')) line.pop_back();
    return line;
  }
  int count = 0;
  const char* text = el_gets(terminal_->edit, &count);
  if (text == nullptr || count <= 0) return std::nullopt;
  line.assign(text, static_cast<std::size_t>(count));
  HistEvent event;
  if (line.find_first_not_of(" \n") != line.npos)
    history(terminal_->history, &event, H_ENTER, text);
  while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
  return line;
}

}  // namespace finetune
