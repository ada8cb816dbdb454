#include "commands/answer_scoring.h"

#include "finetune/base/error.h"
#include "finetune/formats/jsonl.h"
#include "finetune/scores/scorer.h"

#include <algorithm>

namespace finetune {

using nlohmann::ordered_json;

namespace {

std::string scorer_line(const VariantResult& result, const EvalRow& row) {
  const ordered_json line = {{"file", result.data},        {"line", row.line},
                             {"variant", result.variant},  {"source", row.source},
                             {"tags", row.tags},           {"prompt", row.prompt},
                             {"reference", row.reference}, {"prediction", *row.prediction}};
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

/// The text under `key`; without a fallback it has to be there.
std::string text_of(const ordered_json& row, const char* key, const std::string& where,
                    const std::string* fallback) {
  const auto member = row.find(key);
  if (member == row.end() || member->is_null()) {
    if (fallback != nullptr) return *fallback;
    fail(ErrorKind::data, "{}: \"{}\" is missing; expected {{\"prediction\", \"reference\"}}",
         where, key);
  }
  if (!member->is_string()) fail(ErrorKind::data, "{}: \"{}\" is no text", where, key);
  return member->get<std::string>();
}

EvalRow answer_of(const JsonRow& row, const std::string& where, const std::string& data,
                  const Config& config) {
  const std::string nothing;
  const ordered_json& value = row.value;
  EvalRow answer;
  const auto line = value.find("line");
  const bool has_line = line != value.end() && line->is_number_integer();
  answer.line = has_line ? line->get<std::int64_t>() : row.line;
  answer.prediction = text_of(value, "prediction", where, nullptr);
  answer.reference = text_of(value, "reference", where, nullptr);
  answer.prompt = text_of(value, "prompt", where, &nothing);
  answer.source = text_of(value, "source", where, &data);
  const auto tags = value.find("tags");
  if (tags != value.end() && tags->is_array()) {
    for (const ordered_json& tag : *tags) {
      if (tag.is_string()) answer.tags.push_back(tag.get<std::string>());
    }
  }
  const std::string check = config.format_check.value_or("");
  answer.format_check = text_of(value, "format_check", where, &check);
  return answer;
}

}  // namespace

AnswerScoring::AnswerScoring(const Config& config) : scorer_(config.scorer) {
  if (config.terms) glossary_.emplace(*config.terms);
}

void AnswerScoring::need(const std::string& check, const std::string& where) {
  if (!check.empty() && checks_.find(check) == checks_.end())
    checks_.emplace(check, FormatCheck(check, where + ": format_check"));
}

void AnswerScoring::score(VariantResult& result) const {
  std::vector<Answer> answers;
  std::vector<EvalRow*> answered;
  std::vector<std::string> lines;
  for (EvalRow& row : result.rows) {
    if (!row.prediction) continue;
    answered.push_back(&row);
    answers.push_back({*row.prediction, row.reference,
                       row.format_check.empty() ? nullptr : &checks_.at(row.format_check)});
    if (scorer_) lines.push_back(scorer_line(result, row));
  }
  std::vector<AnswerScores> scores = score_answers(answers, glossary_ ? &*glossary_ : nullptr);
  std::vector<double> own;
  if (!lines.empty()) own = run_scorer({*scorer_}, lines);
  for (std::size_t i = 0; i < answered.size(); ++i) {
    if (!own.empty()) scores[i][Measure::scorer] = own[i];
    answered[i]->scores = std::move(scores[i]);
  }
}

EvalReport score_file(const std::string& file, const Config& config) {
  EvalReport report;
  AnswerScoring scoring(config);
  JsonRowReader reader(file, file, config.max_row_bytes);
  while (const auto row = reader.next()) {
    const std::string where = fmt::format("{}:{}", file, row->line);
    if (!row->value.is_object()) fail(ErrorKind::data, "{}: expected a JSON object", where);
    const std::string base = "base";
    const std::string data = text_of(row->value, "file", where, &file),
                      variant = text_of(row->value, "variant", where, &base);
    auto found = std::find_if(report.results.begin(), report.results.end(), [&](const auto& r) {
      return r.data == data && r.variant == variant;
    });
    if (found == report.results.end())
      found = report.results.insert(found, {data, variant, {}, {}});
    found->rows.push_back(answer_of(*row, where, data, config));
    scoring.need(found->rows.back().format_check, where);
    report.expects_json |= is_json_container(found->rows.back().reference);
  }
  for (VariantResult& result : report.results) scoring.score(result);
  return report;
}

}  // namespace finetune
