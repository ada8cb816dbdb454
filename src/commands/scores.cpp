#include "commands/scores.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace finetune {

std::string_view strip(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\f\v";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool is_json_container(std::string_view text) {
  text = strip(text);
  if (text.empty() || (text.front() != '{' && text.front() != '[')) return false;
  return nlohmann::json::accept(text);
}

GenerationScores score_answers(const std::vector<ScoredAnswer>& answers) {
  GenerationScores scores;
  if (answers.empty()) return scores;
  scores.expects_json = std::any_of(answers.begin(), answers.end(), [](const ScoredAnswer& answer) {
    return is_json_container(answer.reference);
  });
  std::int64_t exact = 0, valid = 0;
  for (const ScoredAnswer& answer : answers) {
    if (strip(answer.prediction) == strip(answer.reference)) ++exact;
    if (scores.expects_json && !is_json_container(answer.reference)) continue;
    ++scores.json_rows;
    if (is_json_container(answer.prediction)) ++valid;
  }
  scores.exact_match = static_cast<double>(exact) / static_cast<double>(answers.size());
  scores.valid_json = static_cast<double>(valid) / static_cast<double>(scores.json_rows);
  return scores;
}

}  // namespace finetune
