#include "commands/inspect.h"
#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "finetune/dataset/dataset.h"
#include "finetune/dataset/lint.h"
#include "finetune/report/report.h"

#include <nlohmann/json.hpp>

#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <optional>

namespace finetune {

using nlohmann::ordered_json;

namespace {

struct InspectDataOptions {
  ConfigOptions config;
  std::string model;
  std::int64_t samples = 2;
  bool json = false;
};

/// The text without what would move the cursor or change the colours of a terminal.
std::string visible(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

/// The row as text, its supervised tokens between `open` and `close`.
std::string marked_text(const Example& example, const Tokenizer& tokenizer, std::string_view open,
                        std::string_view close) {
  std::string marked;
  for (const RowPart& part : row_parts(example, tokenizer)) {
    const std::string text = visible(part.text);
    marked += part.supervised ? std::string(open) + text + std::string(close) : text;
  }
  return marked;
}

std::string percent(std::int64_t part, std::int64_t whole) {
  return fmt::format(
      "{:.1f} %",
      whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

class DataReport {
 public:
  DataReport(const InspectDataOptions& options, const Config& config)
      : options_(options), config_(config), text_(load_text_tools(config)) {}

  /// Evaluation data are read as the run reads them.
  void add(const std::string& name, const std::vector<DatasetSpec>& specs) {
    if (specs.empty()) return;
    DatasetOptions data_options =
        dataset_options(config_, read_model_config(config_.model_name_or_path).longest_sequence());
    const std::int64_t max_length =
        std::exchange(data_options.max_length, std::numeric_limits<std::int64_t>::max());
    data_options.keep_texts = data_options.allow_same_answers = true;
    Dataset dataset = open_dataset(specs, *text_.tokenizer, *text_.chat_template, data_options);
    std::vector<std::int64_t> lengths;
    for (const Example& example : dataset.examples)
      lengths.push_back(static_cast<std::int64_t>(example.input_ids.size()));
    std::sort(lengths.begin(), lengths.end());
    const auto over = static_cast<std::int64_t>(
        lengths.end() - std::upper_bound(lengths.begin(), lengths.end(), max_length));
    if (options_.json) {
      add_json(name, dataset, lengths, max_length, over);
    } else {
      add_text(name, dataset, lengths, max_length, over);
    }
    const LintOptions lint_options{max_length, text_.stop_ids, config_.desirable_weight,
                                   config_.undesirable_weight};
    for (Finding& finding : lint(dataset, lint_options)) findings_.push_back(std::move(finding));
    if (train_) {
      for (Finding& finding : lint_leakage(*train_, dataset))
        findings_.push_back(std::move(finding));
    } else {
      train_ = std::move(dataset);
    }
  }

  void print() {
    if (options_.json) {
      json_["findings"] = ordered_json::array();
      for (const Finding& finding : findings_) {
        json_["findings"].push_back(
            {{"kind", finding.kind}, {"where", finding.where}, {"what", finding.what}});
      }
    } else {
      add_findings();
    }
    write_output("-", options_.json
                          ? json_.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n"
                          : out_);
  }

 private:
  /// At most ten of a kind; the rest is counted.
  void add_findings() {
    constexpr std::int64_t kShown = 10;
    std::map<std::string, std::int64_t> counts;
    for (const Finding& finding : findings_) ++counts[finding.kind];
    out_ += findings_.empty() ? "lint: nothing found\n" : "lint:\n";
    for (const auto& [kind, count] : counts) {
      out_ += fmt::format("  {}: {}\n", kind, format_count(count));
      std::int64_t shown = 0;
      for (const Finding& finding : findings_) {
        if (finding.kind == kind && shown++ < kShown)
          out_ += fmt::format("    {}: {}\n", finding.where, finding.what);
      }
      if (count > kShown) out_ += fmt::format("    and {} more\n", format_count(count - kShown));
    }
  }

  std::size_t sample_count(const Dataset& dataset) const {
    return std::min(dataset.examples.size(), static_cast<std::size_t>(options_.samples));
  }

  void add_text(const std::string& name, const Dataset& dataset,
                const std::vector<std::int64_t>& lengths, std::int64_t max_length,
                std::int64_t over) {
    const auto& summary = dataset.summary;
    out_ += fmt::format("{}: {} rows of {}, template {}\n", name, format_count(summary.rows),
                        join(dataset.files, ", "), text_.chat_template->name());
    out_ += fmt::format("  {} tokens, {} supervised ({})\n", format_count(summary.tokens),
                        format_count(summary.supervised_tokens),
                        percent(summary.supervised_tokens, summary.tokens));
    out_ += fmt::format("  lengths: {} to {} tokens, half of them up to {}\n", lengths.front(),
                        lengths.back(), lengths[lengths.size() / 2]);
    for (const LengthBucket& bucket : length_histogram(lengths)) {
      const auto bar =
          static_cast<std::size_t>(bucket.rows * 40 / static_cast<std::int64_t>(lengths.size()));
      out_ += fmt::format("  {:>7} to {:<7} {:>8}  {}\n", bucket.from, bucket.to,
                          format_count(bucket.rows), std::string(bar, '#'));
    }
    out_ += fmt::format(
        "  above max_length {}: {} ({}){}\n", max_length, format_count(over),
        percent(over, static_cast<std::int64_t>(lengths.size())),
        over == 0 ? "" : fmt::format("; overlength: {}", to_string(config_.overlength)));
    const bool colour = isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
    for (std::size_t i = 0; i < sample_count(dataset); ++i) {
      const Example& example = dataset.examples[i];
      out_ += fmt::format("\n  {} ({} tokens, {} supervised)\n{}\n", dataset.where(example),
                          example.input_ids.size(), example.supervised_tokens,
                          marked_text(example, *text_.tokenizer, colour ? "\x1b[7m" : "[[",
                                      colour ? "\x1b[0m" : "]]"));
    }
    out_ += "\n";
  }

  void add_json(const std::string& name, const Dataset& dataset,
                const std::vector<std::int64_t>& lengths, std::int64_t max_length,
                std::int64_t over) {
    ordered_json entry = {{"name", name},
                          {"files", dataset.files},
                          {"rows", dataset.summary.rows},
                          {"template", text_.chat_template->name()},
                          {"tokens", dataset.summary.tokens},
                          {"supervised_tokens", dataset.summary.supervised_tokens},
                          {"shortest", lengths.front()},
                          {"median", lengths[lengths.size() / 2]},
                          {"longest", lengths.back()},
                          {"max_length", max_length},
                          {"over_length", over},
                          {"overlength", to_string(config_.overlength)}};
    entry["histogram"] = ordered_json::array();
    for (const LengthBucket& bucket : length_histogram(lengths)) {
      entry["histogram"].push_back(
          {{"from", bucket.from}, {"to", bucket.to}, {"rows", bucket.rows}});
    }
    entry["samples"] = ordered_json::array();
    for (std::size_t i = 0; i < sample_count(dataset); ++i) {
      const Example& example = dataset.examples[i];
      entry["samples"].push_back(
          {{"file", dataset.files[static_cast<std::size_t>(example.origin.file)]},
           {"line", example.origin.line},
           {"tokens", example.input_ids.size()},
           {"supervised_tokens", example.supervised_tokens},
           {"text", marked_text(example, *text_.tokenizer, "[[", "]]")}});
    }
    json_["datasets"].push_back(std::move(entry));
  }

  const InspectDataOptions& options_;
  const Config& config_;
  TextTools text_;
  std::vector<Finding> findings_;
  std::optional<Dataset> train_;  ///< the first data, for what they share with the others
  std::string out_;
  ordered_json json_ = {{"datasets", ordered_json::array()}};
};

void run_inspect_data(const InspectDataOptions& options) {
  Config config = read_config(options.config);
  if (!options.model.empty()) config.model_name_or_path = options.model;
  if (options.config.show_config) return write_output("-", show_config(config));
  if (config.datasets.empty() && config.eval_datasets.empty()) {
    fail(ErrorKind::config, "there are no data to look at; give --config FILE, or datasets=FILE");
  }
  validate(config, ConfigUse::generate);
  DataReport report(options, config);
  report.add("datasets", config.datasets);
  report.add("eval_datasets", config.eval_datasets);
  report.print();
}

}  // namespace

void add_inspect_data(CLI::App& inspect) {
  auto options = std::make_shared<InspectDataOptions>();
  CLI::App* verb = add_verb(
      inspect, "data", "Count rows and lengths, and show which tokens are trained",
      "finetune inspect data --config configs/lora.yaml", std::make_shared<CommonOptions>());
  add_config_options(*verb, options->config);
  verb->add_option("--model", options->model, "Base model; instead of a configuration")
      ->type_name("DIR");
  verb->add_option("--samples", options->samples, "Rows to show")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  verb->add_flag("--json", options->json, "Print JSON");
  verb->final_callback([options] { run_inspect_data(*options); });
}

}  // namespace finetune
