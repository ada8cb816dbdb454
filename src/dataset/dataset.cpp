#include "finetune/dataset/dataset.h"

#include "dataset/row_formats.h"
#include "dataset/tokenize.h"
#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"
#include "finetune/base/random.h"
#include "finetune/base/text.h"
#include "finetune/formats/jsonl.h"

#include <algorithm>
#include <cmath>

namespace finetune {

namespace {

/// Purposes of random streams.
constexpr std::uint64_t kWeightStream = 0x77656967;
constexpr std::uint64_t kSplitStream = 0x73706c69;

/// The examples of one file, once each.
struct FileRows {
  std::vector<Example> examples;
  std::vector<RowText> texts;
};

/// Reads all files; collects what is wrong with them.
class DatasetReader {
 public:
  DatasetReader(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const DatasetOptions& options)
      : tokenizer_(tokenizer), template_(chat_template), options_(options) {}

  void add_file(const DatasetSpec& spec) {
    RowFormatReader format(spec);
    FileRows rows;
    dataset_.files.push_back(spec.path);
    try {
      JsonRowReader reader(spec.path, spec.path, options_.max_row_bytes);
      while (read_row(reader, format, spec.path, rows)) {
      }
      identity_ += fmt::format("{} {} {} {}\n", file_hash(spec.path, ErrorKind::data), spec.format, spec.weight,
                               nlohmann::json(spec.fields).dump());
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::data) throw;
      problems_.emplace_back(error.what());
    }
    append_weighted(std::move(rows), spec.weight);
  }

  Dataset finish() {
    if (!problems_.empty()) throw Error(ErrorKind::data, join_problems(problems_));
    if (dataset_.examples.empty()) {
      fail(ErrorKind::data, "{}: no row is left of {} ({} above max_length {} dropped); expected at least one",
           join(dataset_.files, ", "), dataset_.summary.rows, dataset_.summary.dropped, options_.max_length);
    }
    for (const Example& example : dataset_.examples) {
      const auto tokens = static_cast<std::int64_t>(example.input_ids.size());
      dataset_.summary.tokens += tokens;
      dataset_.summary.supervised_tokens += example.supervised_tokens;
      dataset_.summary.longest = std::max(dataset_.summary.longest, tokens);
    }
    identity_ += fmt::format("{} {} {} {} {} {} {}\n", template_.name(), tokenizer_.vocab_size(), options_.max_length,
                             to_string(options_.overlength), options_.train_on_prompt, options_.seed,
                             nlohmann::json(options_.system_prompt.value_or("")).dump());
    // The tokens themselves: another tokenizer of the same size, or another wording of a template, is another data set.
    for (const Example& example : dataset_.examples) {
      identity_ += content_hash(std::as_bytes(std::span(example.input_ids)));
      identity_ += content_hash(std::as_bytes(std::span(example.supervised)));
    }
    dataset_.content_hash = content_hash(identity_);
    return std::move(dataset_);
  }

 private:
  /// False at the end of the file. A row that is wrong becomes a problem; a file that cannot be read on throws.
  bool read_row(JsonRowReader& reader, RowFormatReader& format, const std::string& path, FileRows& rows) {
    std::optional<JsonRow> row;
    try {
      row = reader.next();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::data) throw;
      // The reader goes on where it can, and says that the file is over where it cannot.
      problems_.emplace_back(error.what());
      ++dataset_.summary.rows;
      return true;
    }
    if (!row) return false;
    ++dataset_.summary.rows;
    try {
      add_row(*row, format, rows);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::data) throw;
      problems_.push_back(fmt::format("{}:{}: {}{}", path, row->line,
                                      row->element == 0 ? "" : fmt::format("element {}: ", row->element),
                                      error.what()));
    }
    return true;
  }

  void add_row(const JsonRow& row, RowFormatReader& format, FileRows& rows) {
    RowContent content = format.read(row.value);
    if (options_.system_prompt && !content.text && content.messages.front().role != "system") {
      content.messages.insert(content.messages.begin(),
                              Message{.role = "system", .content = *options_.system_prompt});
    }
    Example example = tokenize_row(content, tokenizer_, template_, options_.train_on_prompt);
    if (example.supervised_tokens == 0) {
      fail(ErrorKind::data, "none of its {} tokens is supervised; expected an answer to learn from",
           example.input_ids.size());
    }
    if (!fit_length(example)) return;
    example.origin = {static_cast<std::int32_t>(dataset_.files.size()) - 1,
                      row.element == 0 ? row.line : row.element};
    if (options_.keep_texts) rows.texts.push_back(row_text(content, tokenizer_, template_));
    rows.examples.push_back(std::move(example));
  }

  /// Applies `overlength`; false when the row is dropped.
  bool fit_length(Example& example) {
    const auto length = static_cast<std::int64_t>(example.input_ids.size());
    if (length <= options_.max_length) return true;
    if (options_.overlength == Overlength::drop) {
      ++dataset_.summary.dropped;
      return false;
    }
    if (options_.overlength == Overlength::error) {
      fail(ErrorKind::data,
           "it has {} tokens; expected at most {} (max_length): raise it, or set 'overlength' to truncate or drop",
           length, options_.max_length);
    }
    truncate(example, options_.max_length);
    if (example.supervised_tokens == 0) {
      fail(ErrorKind::data,
           "it has {} tokens, and the first {} (max_length) have no supervised one; raise max_length, or set "
           "'overlength: drop'",
           length, options_.max_length);
    }
    ++dataset_.summary.truncated;
    return true;
  }

  /// Whole passes over the file, then the rows chosen for the fraction.
  void append_weighted(FileRows rows, double weight) {
    const auto count = static_cast<std::int64_t>(rows.examples.size());
    const auto passes = static_cast<std::int64_t>(std::floor(weight));
    const auto extra = static_cast<std::int64_t>(
        std::llround((weight - static_cast<double>(passes)) * static_cast<double>(count)));
    const auto append = [&](std::size_t index, bool last) {
      dataset_.examples.push_back(last ? std::move(rows.examples[index]) : rows.examples[index]);
      if (!rows.texts.empty()) dataset_.texts.push_back(rows.texts[index]);
    };
    for (std::int64_t pass = 0; pass < passes; ++pass) {
      for (std::int64_t i = 0; i < count; ++i) {
        append(static_cast<std::size_t>(i), extra == 0 && pass + 1 == passes);
      }
    }
    if (extra == 0) return;
    const auto file = static_cast<std::uint64_t>(dataset_.files.size());
    std::vector<std::int64_t> chosen = permutation(count, mix_seed({options_.seed, kWeightStream, file}));
    chosen.resize(static_cast<std::size_t>(extra));
    std::sort(chosen.begin(), chosen.end());
    for (const std::int64_t index : chosen) append(static_cast<std::size_t>(index), true);
  }

  const Tokenizer& tokenizer_;
  const ChatTemplate& template_;
  const DatasetOptions& options_;
  Dataset dataset_;
  std::string identity_;  ///< what content_hash is of
  std::vector<std::string> problems_;
};

/// Index of the row that each example came from, rows counted in the order of their first example.
std::vector<std::int64_t> row_indices(const Dataset& dataset, std::int64_t& rows) {
  std::map<std::pair<std::int32_t, std::int64_t>, std::int64_t> seen;
  std::vector<std::int64_t> indices;
  for (const Example& example : dataset.examples) {
    const auto next = static_cast<std::int64_t>(seen.size());
    indices.push_back(seen.try_emplace({example.origin.file, example.origin.line}, next).first->second);
  }
  rows = static_cast<std::int64_t>(seen.size());
  return indices;
}

void add_example(Dataset& to, Dataset& from, std::size_t index) {
  Example& example = from.examples[index];
  const auto tokens = static_cast<std::int64_t>(example.input_ids.size());
  to.summary.tokens += tokens;
  to.summary.supervised_tokens += example.supervised_tokens;
  to.summary.longest = std::max(to.summary.longest, tokens);
  to.examples.push_back(std::move(example));
  if (!from.texts.empty()) to.texts.push_back(std::move(from.texts[index]));
}

}  // namespace

std::string Dataset::where(const Example& example) const {
  return fmt::format("{}:{}", files.at(static_cast<std::size_t>(example.origin.file)), example.origin.line);
}

DatasetOptions dataset_options(const Config& config, std::int64_t model_max_length) {
  DatasetOptions options;
  options.max_length = config.max_length;
  if (model_max_length > 0 && model_max_length < config.max_length) {
    options.max_length = model_max_length;
    if (config.is_given("max_length")) {
      log_warning("data", "max_length {} is lowered to {}, the longest text the model was made for", config.max_length,
                  model_max_length);
    }
  }
  options.overlength = config.overlength;
  options.train_on_prompt = config.train_on_prompt;
  options.system_prompt = config.system_prompt;
  options.max_row_bytes = config.max_row_bytes;
  options.seed = static_cast<std::uint64_t>(config.seed);
  return options;
}

Dataset open_dataset(const std::vector<DatasetSpec>& specs, const Tokenizer& tokenizer,
                     const ChatTemplate& chat_template, const DatasetOptions& options) {
  DatasetReader reader(tokenizer, chat_template, options);
  for (const DatasetSpec& spec : specs) reader.add_file(spec);
  return reader.finish();
}

std::pair<Dataset, Dataset> split_dataset(Dataset dataset, double fraction, std::uint64_t seed) {
  std::int64_t rows = 0;
  const std::vector<std::int64_t> row_of = row_indices(dataset, rows);
  if (rows < 2) {
    fail(ErrorKind::data, "{}: {} row cannot be split into training and evaluation; expected at least two",
         join(dataset.files, ", "), rows);
  }
  const auto wanted = static_cast<std::int64_t>(std::llround(fraction * static_cast<double>(rows)));
  const std::int64_t held_out = std::clamp<std::int64_t>(wanted, 1, rows - 1);
  const std::vector<std::int64_t> order = permutation(rows, mix_seed({seed, kSplitStream}));
  std::vector<bool> is_held_out(static_cast<std::size_t>(rows), false);
  for (std::int64_t i = 0; i < held_out; ++i) is_held_out[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = true;

  std::pair<Dataset, Dataset> parts;
  for (Dataset* part : {&parts.first, &parts.second}) part->files = dataset.files;
  for (std::size_t i = 0; i < dataset.examples.size(); ++i) {
    const bool second = is_held_out[static_cast<std::size_t>(row_of[i])];
    add_example(second ? parts.second : parts.first, dataset, i);
  }
  parts.first.summary.rows = dataset.summary.rows - held_out;
  parts.first.summary.dropped = dataset.summary.dropped;
  parts.first.summary.truncated = dataset.summary.truncated;
  parts.second.summary.rows = held_out;
  const std::string identity = fmt::format("{} {} {}", dataset.content_hash, fraction, seed);
  parts.first.content_hash = content_hash(identity + " first");
  parts.second.content_hash = content_hash(identity + " second");
  return parts;
}

}  // namespace finetune
