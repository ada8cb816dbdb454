#include "commands/eval_report.h"

#include "commands/eval_groups.h"
#include "commands/text_table.h"
#include "finetune/base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace finetune {

using nlohmann::ordered_json;

namespace {

constexpr int kResamples = 1000;

std::string value_text(Measure measure, double value) {
  if (is_share(measure)) return fmt::format("{:.1f} %", 100 * value);
  return fmt::format("{:.{}f}", value, measure == Measure::scorer ? 3 : 1);
}

std::string estimate_text(const Estimate& estimate) {
  const bool share = is_share(estimate.measure);
  const auto end = [&](double value) {
    return fmt::format("{:.{}f}", share ? 100 * value : value,
                       estimate.measure == Measure::scorer ? 3 : 1);
  };
  return fmt::format("{} [{}, {}]", value_text(estimate.measure, estimate.value), end(estimate.low),
                     end(estimate.high));
}

const Estimate* find(const std::vector<Estimate>& estimates, Measure measure) {
  for (const Estimate& estimate : estimates) {
    if (estimate.measure == measure) return &estimate;
  }
  return nullptr;
}

/// On one line, cut to what a terminal shows; `end` keeps the end in place of the beginning.
std::string excerpt(const std::string& text, bool end = false) {
  constexpr std::size_t kWidth = 110;
  std::string line;
  for (const char c : text) line += c == '\n' || c == '\r' || c == '\t' ? ' ' : c;
  if (line.size() <= kWidth) return line;
  const auto inside = [&](std::size_t at) {  // of a character of several bytes
    return at < line.size() && (static_cast<unsigned char>(line[at]) & 0xc0) == 0x80;
  };
  std::size_t cut = end ? line.size() - kWidth : kWidth;
  while (inside(cut)) ++cut;
  return end ? "..." + line.substr(cut) : line.substr(0, cut) + "...";
}

using Columns = std::vector<const VariantResult*>;

/// One table for each way to group, with the measures that say most.
std::string groups_text(const char* title, const Columns& columns,
                        RowGroups (*group)(const VariantResult&), std::uint64_t seed) {
  std::vector<RowGroups> groups;
  for (const VariantResult* column : columns) groups.push_back(group(*column));
  if (groups.front().empty()) return "";
  TextTable table;
  std::vector<std::string> head = {"rows"};
  const RowQuality quality = row_quality(*columns.front());
  for (const VariantResult* column : columns) {
    head.push_back(column->variant + " loss");
    if (quality.generated) {
      head.push_back("exact");
      head.push_back("chrF");
    }
  }
  table.add(title, head);
  for (const auto& [name, first] : groups.front()) {
    std::vector<std::string> cells = {format_count(static_cast<std::int64_t>(first.size()))};
    for (const RowGroups& column : groups) {
      const auto found = column.find(name);
      const auto rows = found == column.end() ? std::vector<const EvalRow*>() : found->second;
      const double loss = group_loss(rows);
      cells.push_back(std::isfinite(loss) ? fmt::format("{:.4f}", loss) : "-");
      if (!quality.generated) continue;
      const auto estimates = group_estimates(rows, 0, seed);
      for (const Measure measure : {Measure::exact_match, Measure::chrf}) {
        const Estimate* estimate = find(estimates, measure);
        cells.push_back(estimate == nullptr ? "-" : value_text(measure, estimate->value));
      }
    }
    table.add("  " + excerpt(name, true), cells);
  }
  return "\n" + table.text();
}

std::string quality_text(double value, const RowQuality& quality) {
  return fmt::format("{:.4g}", quality.generated ? value : -value);
}

std::string worst_text(const EvalReport& report, const VariantResult& result) {
  const RowQuality quality = row_quality(result);
  const auto rows = worst_rows(result, report.shown_rows);
  if (rows.empty()) return "";
  std::string out = fmt::format("\n  worst rows of {} by {}\n", result.variant, quality.label);
  for (const std::size_t i : rows) {
    const EvalRow& row = result.rows[i];
    out += fmt::format("    {}:{}  {}\n", result.data, row.line,
                       quality_text(*quality_of(row, quality), quality));
    if (!row.prompt.empty()) out += "      prompt     " + excerpt(row.prompt, true) + "\n";
    out += "      reference  " + excerpt(row.reference) + "\n";
    if (row.prediction) out += "      answer     " + excerpt(*row.prediction) + "\n";
  }
  return out;
}

std::string regressions_text(const EvalReport& report, const VariantResult& result) {
  const VariantResult* base = base_of(report, result);
  if (base == nullptr) return "";
  const RowQuality quality = row_quality(result);
  const Comparison comparison = compare(*base, result);
  std::string out = fmt::format("\n  {} against base by {}: {} of {} rows better, {} worse\n",
                                result.variant, quality.label, format_count(comparison.better),
                                format_count(static_cast<std::int64_t>(result.rows.size())),
                                format_count(comparison.worse));
  std::int64_t left = report.shown_rows;
  for (const auto& [row, before, after] : comparison.regressions) {
    if (left-- == 0) break;
    out += fmt::format("    {}:{}  {} -> {}\n", result.data, result.rows[row].line,
                       quality_text(before, quality), quality_text(after, quality));
  }
  return out;
}

std::string data_text(const EvalReport& report, const Columns& columns) {
  const VariantResult& first = *columns.front();
  TextTable table;
  const auto add = [&](const std::string& label, const auto& cell) {
    std::vector<std::string> cells;
    for (const VariantResult* column : columns) cells.push_back(cell(*column));
    table.add(label, cells);
  };
  add("", [](const VariantResult& r) { return r.variant; });
  if (first.result.supervised_tokens > 0) {
    add("loss", [](const VariantResult& r) { return fmt::format("{:.4f}", r.result.loss); });
    add("perplexity",
        [](const VariantResult& r) { return fmt::format("{:.3f}", r.result.perplexity()); });
    add("token accuracy", [](const VariantResult& r) {
      return fmt::format("{:.1f} %", 100 * r.result.token_accuracy);
    });
  }
  std::vector<std::vector<Estimate>> estimates;
  for (const VariantResult* column : columns)
    estimates.push_back(group_estimates(all_rows(*column), kResamples, report.seed));
  for (std::size_t m = 0; m < kMeasures; ++m) {
    const auto measure = static_cast<Measure>(m);
    const Estimate* any = find(estimates.front(), measure);
    if (any == nullptr || (measure == Measure::valid_json && !report.expects_json)) continue;
    std::vector<std::string> cells;
    for (const auto& column : estimates) {
      const Estimate* estimate = find(column, measure);
      cells.push_back(estimate == nullptr ? "-" : estimate_text(*estimate));
    }
    const bool part = any->rows < static_cast<std::int64_t>(first.rows.size());
    table.add(
        measure_label(measure) + (part ? fmt::format(" ({} rows)", format_count(any->rows)) : ""),
        cells);
  }
  return table.text();
}

ordered_json measures_json(const std::vector<Estimate>& estimates) {
  ordered_json out = ordered_json::object();
  for (const Estimate& estimate : estimates) out[measure_name(estimate.measure)] = estimate.value;
  return out;
}

ordered_json groups_json(const char* key, const RowGroups& groups, std::uint64_t seed) {
  ordered_json out = ordered_json::array();
  for (const auto& [name, rows] : groups) {
    ordered_json entry = {{key, name}, {"examples", rows.size()}, {"loss", group_loss(rows)}};
    entry.update(measures_json(group_estimates(rows, 0, seed)));
    out.push_back(entry);
  }
  return out;
}

ordered_json row_json(const EvalRow& row) {
  ordered_json out = {{"line", row.line},
                      {"loss", row.loss()},
                      {"prompt", row.prompt},
                      {"reference", row.reference}};
  if (row.prediction) out["prediction"] = *row.prediction;
  return out;
}

ordered_json comparison_json(const EvalReport& report, const VariantResult& result) {
  const Comparison comparison = compare(*base_of(report, result), result);
  const RowQuality quality = row_quality(result);
  const double sign = quality.generated ? 1 : -1;
  ordered_json out = {{"by", quality.label},
                      {"better", comparison.better},
                      {"worse", comparison.worse},
                      {"rows", ordered_json::array()}};
  for (const auto& [row, before, after] : comparison.regressions) {
    out["rows"].push_back(
        {{"line", result.rows[row].line}, {"base", sign * before}, {"value", sign * after}});
  }
  return out;
}

ordered_json result_json(const EvalReport& report, const VariantResult& result) {
  ordered_json entry = {
      {"data", result.data}, {"variant", result.variant}, {"examples", result.rows.size()}};
  if (result.result.supervised_tokens > 0) {  // not where answers alone were scored
    entry["supervised_tokens"] = result.result.supervised_tokens;
    entry["loss"] = result.result.loss;
    entry["perplexity"] = result.result.perplexity();
    entry["token_accuracy"] = result.result.token_accuracy;
  }
  const auto estimates = group_estimates(all_rows(result), kResamples, report.seed);
  entry.update(measures_json(estimates));
  if (!estimates.empty()) entry["confidence_95"] = ordered_json::object();
  for (const Estimate& estimate : estimates)
    entry["confidence_95"][measure_name(estimate.measure)] = {estimate.low, estimate.high};
  if (const RowGroups groups = by_source(result); !groups.empty())
    entry["by_source"] = groups_json("source", groups, report.seed);
  if (const RowGroups groups = by_tag(result); !groups.empty())
    entry["by_tag"] = groups_json("tag", groups, report.seed);
  entry["worst"] = ordered_json::array();
  for (const std::size_t i : worst_rows(result, report.shown_rows))
    entry["worst"].push_back(row_json(result.rows[i]));
  if (base_of(report, result) != nullptr) entry["regressions"] = comparison_json(report, result);
  return entry;
}

}  // namespace

ordered_json report_json(const EvalReport& report) {
  ordered_json out = {{"model", report.model}};
  const auto& adapters = report.adapters;
  out["adapter"] = adapters.empty()       ? ordered_json()
                   : adapters.size() == 1 ? ordered_json(adapters.front())
                                          : ordered_json(adapters);
  out["results"] = ordered_json::array();
  for (const VariantResult& result : report.results)
    out["results"].push_back(result_json(report, result));
  return out;
}

std::string report_text(const EvalReport& report) {
  std::vector<std::string> files;
  for (const VariantResult& result : report.results) {
    if (std::find(files.begin(), files.end(), result.data) == files.end())
      files.push_back(result.data);
  }
  std::string out;
  for (const std::string& file : files) {
    Columns columns;
    for (const VariantResult& result : report.results) {
      if (result.data == file) columns.push_back(&result);
    }
    const VariantResult& first = *columns.front();
    out += fmt::format("\n{} ({} rows, {} supervised tokens)\n", file,
                       format_count(static_cast<std::int64_t>(first.rows.size())),
                       format_count(first.result.supervised_tokens));
    out += data_text(report, columns);
    out += groups_text("by source", columns, by_source, report.seed);
    out += groups_text("by tag", columns, by_tag, report.seed);
    for (const VariantResult* column : columns) out += regressions_text(report, *column);
    if (report.shown_rows > 0) out += worst_text(report, *columns.back());
  }
  return out;
}

std::string report_predictions(const EvalReport& report) {
  std::string out;
  for (const VariantResult& result : report.results) {
    for (const EvalRow& row : result.rows) {
      ordered_json line = {{"file", result.data},
                           {"line", row.line},
                           {"variant", result.variant},
                           {"nll", row.nll},
                           {"supervised_tokens", row.supervised_tokens},
                           {"prompt", row.prompt},
                           {"reference", row.reference}};
      line["prediction"] = row.prediction ? ordered_json(*row.prediction) : ordered_json();
      if (row.scores) line["scores"] = ordered_json::object();
      for (std::size_t m = 0; row.scores && m < kMeasures; ++m) {
        if (row.scores->values[m])
          line["scores"][measure_name(static_cast<Measure>(m))] = *row.scores->values[m];
      }
      out += line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
    }
  }
  return out;
}

}  // namespace finetune
