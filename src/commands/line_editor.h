#pragma once

#include <memory>
#include <optional>
#include <string>

namespace finetune {

/// Reads lines from a person at a terminal (libedit: arrow keys, history, UTF-8), or from a pipe.
class LineEditor {
 public:
  LineEditor();
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  /// The next line without its end; nothing at the end of the input, or when a signal came.
  std::optional<std::string> read();
  bool at_terminal() const { return terminal_ != nullptr; }

 private:
  struct Terminal;
  std::unique_ptr<Terminal> terminal_;
};

}  // namespace finetune
