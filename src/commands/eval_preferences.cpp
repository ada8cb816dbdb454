#include "commands/eval_preferences.h"

#include "commands/text_table.h"
#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/train/objectives.h"

#include <algorithm>
#include <optional>
#include <string_view>

namespace finetune {

using nlohmann::ordered_json;

namespace {

/// A measure of EvalResult::extras in the table.
struct Measure {
  const char* name;
  const char* label;
  bool share;
};

constexpr Measure kMeasures[] = {{"logps/accuracies", "chosen likelier", true},
                                 {"rewards/accuracies", "chosen preferred", true},
                                 {"rewards/margins", "margin", false},
                                 {"rewards/chosen", "reward, chosen", false},
                                 {"rewards/rejected", "reward, rejected", false},
                                 {"accuracy", "chosen preferred", true},
                                 {"margin", "margin", false},
                                 {"min_reward", "lowest score", false},
                                 {"mean_reward", "mean score", false},
                                 {"max_reward", "highest score", false},
                                 {"kl", "KL to the reference", false},
                                 {"logps/chosen", "log p, chosen", false},
                                 {"logps/rejected", "log p, rejected", false}};

std::optional<double> find(const EvalResult& result, std::string_view name) {
  for (const NamedSum& extra : result.extras) {
    if (extra.name == name) return extra.value;
  }
  return std::nullopt;
}

std::string cell(const Measure& measure, std::optional<double> value) {
  if (!value) return "-";
  return measure.share ? fmt::format("{:.1f} %", 100 * *value) : fmt::format("{:.4f}", *value);
}

/// Whether it was measured against itself: every reward is 0.
bool is_reference(const EvalResult& result) {
  return find(result, "rewards/chosen") == 0.0 && find(result, "rewards/rejected") == 0.0;
}

/// Of the reference itself: where every reward is 0, none is preferred.
bool says_nothing(std::string_view name) { return name == "rewards/accuracies"; }

}  // namespace

void PreferenceEvaluation::set_reference(const CausalLM& model, const Dataset& data) {
  const bool compares =
      config_.stage == Stage::dpo || config_.stage == Stage::ipo || config_.stage == Stage::kto;
  if (!compares) return;
  references_[data.content_hash] = reference_log_probabilities(config_, model, data, false);
}

void PreferenceEvaluation::add(const CausalLM& model, const Dataset& data,
                               const std::string& variant) {
  if (config_.stage == Stage::reward && !model.score.defined()) {
    if (variant == "base") return;
    fail(ErrorKind::model,
         "the adapter '{}' has no head that makes scores; expected one that stage: reward trained",
         variant);
  }
  const auto known = references_.find(data.content_hash);
  const auto objective =
      make_objective(config_, model, data,
                     known == references_.end() ? std::vector<double>() : known->second, false);
  Result result{join(data.files, ", "),
                variant,
                data.rows(),
                objective->evaluate(model, data, config_.eval_batch_size(), false),
                {}};
  if (interrupt_signal() != 0) return;
  if (is_reference(result.measured))
    std::erase_if(result.measured.extras,
                  [](const NamedSum& extra) { return says_nothing(extra.name); });
  result.lines = lines_of(result, data);
  log_info("eval", "{} on {}: done", variant, result.data);
  results_.push_back(std::move(result));
}

std::vector<ordered_json> PreferenceEvaluation::lines_of(const Result& result,
                                                         const Dataset& data) const {
  const auto each = static_cast<std::size_t>(data.examples_per_row);
  const auto known = references_.find(data.content_hash);
  std::vector<ordered_json> lines;
  for (std::size_t i = 0; i < data.examples.size(); i += each) {
    ordered_json line = {
        {"file", data.files[static_cast<std::size_t>(data.examples[i].origin.file)]},
        {"line", data.examples[i].origin.line},
        {"variant", result.variant},
        {"prompt", data.texts[i].prompt}};
    const auto put = [&](const std::string& name, std::size_t example) {
      line[name] = data.texts[example].reference;
      line[name + "_tokens"] = data.examples[example].supervised_tokens;
      if (!result.measured.scores.empty()) {
        line[name + "_score"] = result.measured.scores[example];
        return;
      }
      const double log_probability = -result.measured.nll[example];
      line[name + "_log_probability"] = log_probability;
      if (known != references_.end())
        line[name + "_reward"] =
            config_.resolved_beta() * (log_probability - known->second[example]);
    };
    if (each == 2) {
      put("chosen", i);
      put("rejected", i + 1);
    } else {
      put("completion", i);
      line["label"] = data.labels[i] != 0;
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

ordered_json PreferenceEvaluation::json() const {
  ordered_json out = {{"model", config_.model_name_or_path}};
  out["adapter"] = adapters_.empty()       ? ordered_json()
                   : adapters_.size() == 1 ? ordered_json(adapters_.front())
                                           : ordered_json(adapters_);
  out["stage"] = to_string(config_.stage);
  out["reference"] = references_.empty() ? ordered_json()
                                         : ordered_json(config_.reference_adapter.value_or("base"));
  out["results"] = ordered_json::array();
  for (const Result& result : results_) {
    ordered_json entry = {{"data", result.data},
                          {"variant", result.variant},
                          {"examples", result.rows},
                          {"supervised_tokens", result.measured.supervised_tokens},
                          {"loss", result.measured.loss}};
    for (const NamedSum& extra : result.measured.extras) entry[extra.name] = extra.value;
    out["results"].push_back(std::move(entry));
  }
  return out;
}

std::string PreferenceEvaluation::text() const {
  std::vector<std::string> files;
  for (const Result& result : results_) {
    if (std::find(files.begin(), files.end(), result.data) == files.end())
      files.push_back(result.data);
  }
  std::string out;
  for (const std::string& file : files) {
    std::vector<const Result*> columns;
    for (const Result& result : results_) {
      if (result.data == file) columns.push_back(&result);
    }
    TextTable table;
    const auto add = [&](const std::string& label, const auto& cell_of) {
      std::vector<std::string> cells;
      for (const Result* column : columns) cells.push_back(cell_of(*column));
      table.add(label, cells);
    };
    add("", [](const Result& result) { return result.variant; });
    add("loss (" + to_string(config_.stage) + ")",
        [](const Result& result) { return fmt::format("{:.4f}", result.measured.loss); });
    for (const Measure& measure : kMeasures) {
      if (std::none_of(columns.begin(), columns.end(), [&](const Result* column) {
            return find(column->measured, measure.name).has_value();
          }))
        continue;
      add(measure.label,
          [&](const Result& result) { return cell(measure, find(result.measured, measure.name)); });
    }
    out += fmt::format("\n{} ({} rows{})\n{}", file, format_count(columns.front()->rows),
                       references_.empty() ? ""
                                           : ", rewards relative to " +
                                                 config_.reference_adapter.value_or("the base"),
                       table.text());
  }
  return out;
}

std::string PreferenceEvaluation::predictions() const {
  std::string out;
  for (const Result& result : results_) {
    for (const ordered_json& line : result.lines)
      out += line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  }
  return out;
}

}  // namespace finetune
