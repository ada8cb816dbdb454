#include "finetune/scores/format_check.h"
#include "finetune/scores/text_scores.h"

#include <algorithm>
#include <vector>

// Parsers of Markdown repair what they read: an open fence ends with the text, a ragged table is
// padded. A score has to see the fault, so the two rules are here.

namespace finetune {

namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    lines.push_back(strip(text.substr(0, end)));
    text = end == text.npos ? std::string_view() : text.substr(end + 1);
  }
  return lines;
}

/// The fence that a line begins with ("```", "~~~~"), or nothing.
std::string_view fence_of(std::string_view line) {
  if (line.empty() || (line.front() != '`' && line.front() != '~')) return {};
  const std::size_t length = std::min(line.find_first_not_of(line.front()), line.size());
  return length < 3 ? std::string_view() : line.substr(0, length);
}

/// Splits off the code blocks; `open` tells of one without an end.
struct Blocks {
  std::vector<std::string_view> prose;
  std::int64_t count = 0;
  bool open = false;
};

Blocks read_blocks(std::string_view text) {
  Blocks blocks;
  std::string_view opened;
  for (const std::string_view line : lines_of(text)) {
    const std::string_view fence = fence_of(line);
    if (opened.empty()) {
      // A fence with backticks has none in what follows it, else it is code within a line.
      const bool inline_code =
          !fence.empty() && fence.front() == '`' && line.find('`', fence.size()) != line.npos;
      if (fence.empty() || inline_code) {
        blocks.prose.push_back(line);
      } else {
        opened = fence;
        ++blocks.count;
        blocks.prose.emplace_back();
      }
    } else if (!fence.empty() && fence.front() == opened.front() && fence.size() >= opened.size() &&
               fence.size() == line.size()) {
      opened = {};
    }
  }
  blocks.open = !opened.empty();
  return blocks;
}

/// Cells between the bars that no backslash escapes.
std::vector<std::string_view> cells_of(std::string_view line) {
  if (line.starts_with('|')) line.remove_prefix(1);
  if (line.ends_with('|') && !line.ends_with("\\|")) line.remove_suffix(1);
  std::vector<std::string_view> cells;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= line.size(); ++i) {
    if (i < line.size() && line[i] == '\\') {
      ++i;
    } else if (i >= line.size() || line[i] == '|') {
      cells.push_back(strip(line.substr(begin, std::min(i, line.size()) - begin)));
      begin = i + 1;
    }
  }
  return cells;
}

bool is_dashes(std::string_view cell) {
  if (cell.starts_with(':')) cell.remove_prefix(1);
  if (cell.ends_with(':')) cell.remove_suffix(1);
  return !cell.empty() && cell.find_first_not_of('-') == cell.npos;
}

bool is_delimiter(std::string_view line) {
  if (line.find('|') == line.npos) return false;
  const auto cells = cells_of(line);
  return std::all_of(cells.begin(), cells.end(), is_dashes);
}

}  // namespace

Markdown markdown_table(std::string_view text) {
  const std::vector<std::string_view> lines = read_blocks(text).prose;
  Markdown found = Markdown::none;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!is_delimiter(lines[i])) continue;
    const std::size_t width = cells_of(lines[i]).size();
    if (i == 0 || lines[i - 1].empty() || cells_of(lines[i - 1]).size() != width)
      return Markdown::broken;
    for (++i; i < lines.size() && lines[i].find('|') != std::string_view::npos; ++i) {
      if (cells_of(lines[i]).size() > width) return Markdown::broken;
    }
    found = Markdown::valid;
  }
  return found;
}

Markdown code_blocks(std::string_view text) {
  const Blocks blocks = read_blocks(text);
  if (blocks.open) return Markdown::broken;
  return blocks.count == 0 ? Markdown::none : Markdown::valid;
}

}  // namespace finetune
