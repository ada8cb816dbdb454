#include "commands/text_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace finetune {

std::string TextTable::text() const {
  std::size_t label = 0;
  std::vector<std::size_t> widths;
  for (const Line& line : lines_) {
    label = std::max(label, line.label.size());
    widths.resize(std::max(widths.size(), line.cells.size()), 0);
    for (std::size_t i = 0; i < line.cells.size(); ++i)
      widths[i] = std::max(widths[i], line.cells[i].size());
  }
  std::string out;
  for (const Line& line : lines_) {
    out += fmt::format("  {:{}}", line.label, label);
    for (std::size_t i = 0; i < line.cells.size(); ++i)
      out += fmt::format("  {:>{}}", line.cells[i], std::max<std::size_t>(widths[i], 10));
    out += "\n";
  }
  return out;
}

}  // namespace finetune
