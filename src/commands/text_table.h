#pragma once

#include <string>
#include <vector>

namespace finetune {

/// A table of text: a label, then a cell for each column, aligned to the right.
class TextTable {
 public:
  void add(std::string label, std::vector<std::string> cells) {
    lines_.push_back({std::move(label), std::move(cells)});
  }

  std::string text() const;

 private:
  struct Line {
    std::string label;
    std::vector<std::string> cells;
  };
  std::vector<Line> lines_;
};

}  // namespace finetune
