#include "finetune/dataset/dataset.h"

#include "dataset/cache.h"
#include "dataset/row_formats.h"
#include "dataset/row_hash.h"
#include "dataset/tokenize.h"
#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"
#include "finetune/base/random.h"
#include "finetune/base/stopwatch.h"
#include "finetune/base/text.h"
#include "finetune/formats/jsonl.h"

#include <ATen/Parallel.h>

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
  std::vector<RowText> texts;        ///< of each example
  std::vector<std::uint8_t> labels;  ///< of each row
  std::vector<std::optional<double>> margins;
};

constexpr std::size_t kBlockRows = 512;  // read one after another, then tokenized on all cores

/// One row on its way: what it says, then its tokens, or what is wrong with it.
struct PendingRow {
  std::int64_t line = 0, element = 0;
  RowContent content;
  std::vector<Example> examples;  ///< none: dropped, or a problem
  RowText notes;                  ///< what evaluation wants of the row beside its content
  std::vector<RowText> texts;
  std::string problem;  ///< "" or the whole message
  bool truncated = false;
};

/// Reads all files; collects what is wrong with them.
class DatasetReader {
 public:
  DatasetReader(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                const DatasetOptions& options)
      : tokenizer_(tokenizer), template_(chat_template), options_(options) {
    dataset_.examples_per_row = options.pairs ? 2 : 1;
  }

  void add_file(const DatasetSpec& spec) {
    RowFormatReader format(spec, options_.pairs                ? RowKind::pairs
                                 : options_.labelled           ? RowKind::labelled
                                 : options_.sampled_tokens > 0 ? RowKind::prompts
                                                               : RowKind::answers);
    FileRows rows;
    dataset_.files.push_back(spec.path);
    try {
      JsonRowReader reader(spec.path, spec.path, options_.max_row_bytes);
      while (read_block(reader, format, spec.path, rows)) {
      }
      identity_.add(fmt::format("{} {} {} {}\n", file_hash(spec.path, ErrorKind::data), spec.format,
                                spec.weight, nlohmann::json(spec.fields).dump()));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::data) throw;
      problems_.emplace_back(error.what());
    }
    append_weighted(std::move(rows), spec.weight);
  }

  Dataset finish() {
    if (!problems_.empty()) throw Error(ErrorKind::data, join_problems(problems_));
    if (dataset_.examples.empty()) {
      fail(ErrorKind::data,
           "{}: no row is left of {} ({} above max_length {} dropped); expected at least one",
           join(dataset_.files, ", "), dataset_.summary.rows, dataset_.summary.dropped,
           options_.max_length);
    }
    for (const Example& example : dataset_.examples) {
      const auto tokens = static_cast<std::int64_t>(example.input_ids.size());
      dataset_.summary.tokens += tokens;
      dataset_.summary.supervised_tokens += example.supervised_tokens;
      dataset_.summary.longest = std::max(dataset_.summary.longest, tokens);
    }
    identity_.add(fmt::format("{} {} {} {} {} {} {}\n", template_.name(), tokenizer_.vocab_size(),
                              options_.max_length, to_string(options_.overlength),
                              options_.train_on_prompt, options_.seed,
                              nlohmann::json(options_.system_prompt.value_or("")).dump()));
    // The tokens themselves: another tokenizer of the same size, or another wording of a template,
    // is another data set.
    for (const Example& example : dataset_.examples) {
      identity_.add(content_hash(std::as_bytes(std::span(example.input_ids))));
      identity_.add(content_hash(std::as_bytes(std::span(example.supervised))));
    }
    if (!dataset_.labels.empty()) identity_.add(nlohmann::json(dataset_.labels).dump());
    if (!dataset_.margins.empty()) identity_.add(nlohmann::json(dataset_.margins).dump());
    dataset_.content_hash = identity_.hex();
    return std::move(dataset_);
  }

 private:
  /// False at the end of the file. A row that is wrong becomes a problem; a file that cannot be
  /// read on throws.
  bool read_block(JsonRowReader& reader, RowFormatReader& format, const std::string& path,
                  FileRows& rows) {
    std::vector<PendingRow> block;
    bool more = true;
    while (block.size() < kBlockRows && (more = read_row(reader, format, path, block))) {
    }
    at::parallel_for(0, static_cast<std::int64_t>(block.size()), 8,
                     [&](std::int64_t begin, std::int64_t end) {
                       for (std::int64_t i = begin; i < end; ++i)
                         finish_row(block[static_cast<std::size_t>(i)], path);
                     });
    for (PendingRow& row : block) {
      if (!row.problem.empty()) {
        problems_.push_back(std::move(row.problem));
      } else if (row.examples.empty()) {
        ++dataset_.summary.dropped;
      } else {
        dataset_.summary.truncated += row.truncated ? 1 : 0;
        for (Example& example : row.examples) rows.examples.push_back(std::move(example));
        for (RowText& text : row.texts) rows.texts.push_back(std::move(text));
        if (options_.labelled) rows.labels.push_back(row.content.label ? 1 : 0);
        if (options_.pairs) rows.margins.push_back(row.content.margin);
      }
    }
    return more;
  }

  bool read_row(JsonRowReader& reader, RowFormatReader& format, const std::string& path,
                std::vector<PendingRow>& block) {
    std::optional<JsonRow> row;
    PendingRow pending;
    try {
      row = reader.next();
      if (!row) return false;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::data) throw;
      // The reader goes on where it can, and says that the file is over where it cannot.
      pending.problem = error.what();
    }
    ++dataset_.summary.rows;
    if (row) {
      pending.line = row->line;
      pending.element = row->element;
      note_problem(pending, path, [&] {
        pending.content = format.read(row->value);
        if (options_.keep_texts) pending.notes = read_notes(row->value);
      });
    }
    block.push_back(std::move(pending));
    return true;
  }

  /// Runs `work`; an Error(data) becomes the row's problem, with its place.
  template <typename Work>
  static void note_problem(PendingRow& row, const std::string& path, const Work& work) {
    try {
      work();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::data) throw;
      row.problem = fmt::format("{}:{}: {}{}", path, row.line,
                                row.element == 0 ? "" : fmt::format("element {}: ", row.element),
                                error.what());
    }
  }

  /// Renders and tokenizes one row; called from several threads at once.
  void finish_row(PendingRow& row, const std::string& path) const {
    if (row.problem.empty()) note_problem(row, path, [&] { tokenize(row); });
  }

  void tokenize(PendingRow& row) const {
    RowContent& content = row.content;
    std::vector<Example> examples;
    if (!add_example(content, row, examples)) return;
    if (options_.pairs) {
      content.messages = std::move(content.rejected);
      if (!add_example(content, row, examples)) return;
      if (examples[0].input_ids == examples[1].input_ids && !options_.allow_same_answers) {
        fail(ErrorKind::data,
             "the chosen and the rejected answer are the same {} tokens; expected two answers",
             examples[0].supervised_tokens);
      }
    }
    row.examples = std::move(examples);
  }

  /// False when the row is dropped.
  bool add_example(RowContent& content, PendingRow& row, std::vector<Example>& examples) const {
    if (options_.system_prompt && !content.text && content.messages.front().role != "system") {
      content.messages.insert(content.messages.begin(),
                              Message{.role = "system", .content = *options_.system_prompt});
    }
    Example example = tokenize_row(content, tokenizer_, template_, options_.train_on_prompt);
    if (example.supervised_tokens == 0 && options_.sampled_tokens == 0) {
      fail(ErrorKind::data, "none of its {} tokens is supervised; expected an answer to learn from",
           example.input_ids.size());
    }
    if (!fit_length(example, row) || !fit_samples(content, row)) return false;
    example.origin = {static_cast<std::int32_t>(dataset_.files.size()) - 1,
                      row.element == 0 ? row.line : row.element};
    if (options_.keep_texts) {
      RowText& text = row.texts.emplace_back(row_text(content, tokenizer_, template_));
      text.source = row.notes.source;
      text.tags = row.notes.tags;
      text.format_check = row.notes.format_check;
    }
    examples.push_back(std::move(example));
    return true;
  }

  /// Applies `overlength`; false when the row is dropped.
  bool fit_length(Example& example, PendingRow& row) const {
    const auto length = static_cast<std::int64_t>(example.input_ids.size());
    if (length <= options_.max_length) return true;
    if (options_.overlength == Overlength::drop) return false;
    if (options_.overlength == Overlength::error) {
      fail(ErrorKind::data,
           "it has {} tokens; expected at most {} (max_length): raise it, or set 'overlength' to "
           "truncate or drop",
           length, options_.max_length);
    }
    truncate(example, options_.max_length);
    if (example.supervised_tokens == 0 && options_.pairs) return false;
    if (example.supervised_tokens == 0) {
      fail(ErrorKind::data,
           "it has {} tokens, and the first {} (max_length) have no supervised one; raise "
           "max_length, or set "
           "'overlength: drop'",
           length, options_.max_length);
    }
    row.truncated = true;
    return true;
  }

  /// The same for a prompt with the answers that will be sampled to it.
  bool fit_samples(const RowContent& content, PendingRow& row) const {
    if (options_.sampled_tokens == 0) return true;
    if (content.text) {
      fail(ErrorKind::data,
           "a text without a prompt; expected a prompt that answers can be sampled to");
    }
    const std::string prompt = row_text(content, tokenizer_, template_).prompt;
    const auto tokens = static_cast<std::int64_t>(encode_prompt(tokenizer_, prompt).ids.size());
    if (tokens + options_.sampled_tokens <= options_.max_length) return true;
    if (options_.overlength == Overlength::drop) return false;
    fail(ErrorKind::data,
         "its prompt has {} tokens, with {} for an answer (max_completion_length) more than {} "
         "(max_length); change one of these, or set 'overlength: drop'",
         tokens, options_.sampled_tokens, options_.max_length);
  }

  /// Whole passes over the file, then the rows chosen for the fraction.
  void append_weighted(FileRows rows, double weight) {
    if (weight == 1.0 && dataset_.examples.empty()) {  // so that nothing is held twice
      dataset_.examples = std::move(rows.examples);
      dataset_.texts = std::move(rows.texts);
      dataset_.labels = std::move(rows.labels);
      if (std::any_of(rows.margins.begin(), rows.margins.end(),
                      [](const std::optional<double>& margin) { return margin.has_value(); })) {
        for (const std::optional<double>& margin : rows.margins)
          dataset_.margins.push_back(margin.value_or(0.0));
      }
      return;
    }
    const std::int64_t each = dataset_.examples_per_row;
    const auto count = static_cast<std::int64_t>(rows.examples.size()) / each;
    const auto passes = static_cast<std::int64_t>(std::floor(weight));
    const auto extra = static_cast<std::int64_t>(
        std::llround((weight - static_cast<double>(passes)) * static_cast<double>(count)));
    const auto append = [&](std::size_t index, bool last) {
      for (std::size_t i = index * static_cast<std::size_t>(each),
                       end = i + static_cast<std::size_t>(each);
           i < end; ++i) {
        dataset_.examples.push_back(last ? std::move(rows.examples[i]) : rows.examples[i]);
        if (!rows.texts.empty()) dataset_.texts.push_back(rows.texts[i]);
      }
      if (!rows.labels.empty()) dataset_.labels.push_back(rows.labels[index]);
      if (!rows.margins.empty()) add_margin(rows.margins[index]);
    };
    for (std::int64_t pass = 0; pass < passes; ++pass) {
      for (std::int64_t i = 0; i < count; ++i) {
        append(static_cast<std::size_t>(i), extra == 0 && pass + 1 == passes);
      }
    }
    if (extra == 0) return;
    const auto file = static_cast<std::uint64_t>(dataset_.files.size());
    std::vector<std::int64_t> chosen =
        permutation(count, mix_seed({options_.seed, kWeightStream, file}));
    chosen.resize(static_cast<std::size_t>(extra));
    std::sort(chosen.begin(), chosen.end());
    for (const std::int64_t index : chosen) append(static_cast<std::size_t>(index), true);
  }

  /// Margins are there from the first row that has one; the others' are 0.
  void add_margin(std::optional<double> margin) {
    if (!margin && dataset_.margins.empty()) return;
    dataset_.margins.resize(static_cast<std::size_t>(dataset_.rows()), 0.0);
    dataset_.margins.back() = margin.value_or(0.0);
  }

  const Tokenizer& tokenizer_;
  const ChatTemplate& template_;
  const DatasetOptions& options_;
  Dataset dataset_;
  StreamHash identity_;  ///< what content_hash is of
  std::vector<std::string> problems_;
};

/// Everything that shapes the tokens of these files, or "" where they are not to be cached.
std::string cache_key(const std::vector<DatasetSpec>& specs, const Tokenizer& tokenizer,
                      const ChatTemplate& chat_template, const DatasetOptions& options) {
  if (options.keep_texts || options.pairs || options.labelled || options.sampled_tokens > 0 ||
      tokenizer.fingerprint().empty() || chat_template.fingerprint().empty())
    return "";
  std::string identity =
      fmt::format("{} {} {} {} {} {} {} {}\n", FINETUNE_VERSION, tokenizer.fingerprint(),
                  chat_template.fingerprint(), options.max_length, to_string(options.overlength),
                  options.train_on_prompt, options.seed,
                  nlohmann::json(options.system_prompt.value_or("")).dump());
  for (const DatasetSpec& spec : specs) {
    std::error_code unreadable;
    if (!std::filesystem::is_regular_file(spec.path, unreadable))
      return "";  // reading says what is wrong
    identity += fmt::format("{} {} {} {} {}\n", file_hash(spec.path, ErrorKind::data), spec.format,
                            spec.weight, options.max_row_bytes, nlohmann::json(spec.fields).dump());
  }
  return content_hash(identity);
}

/// Index of the row that each example came from, rows counted in the order of their first example.
std::vector<std::int64_t> row_indices(const Dataset& dataset, std::int64_t& rows) {
  std::map<std::pair<std::int32_t, std::int64_t>, std::int64_t> seen;
  std::vector<std::int64_t> indices;
  for (const Example& example : dataset.examples) {
    const auto next = static_cast<std::int64_t>(seen.size());
    indices.push_back(
        seen.try_emplace({example.origin.file, example.origin.line}, next).first->second);
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
  const auto each = static_cast<std::size_t>(from.examples_per_row), row = index / each;
  if (index % each != 0) return;
  if (!from.labels.empty()) to.labels.push_back(from.labels[row]);
  if (!from.margins.empty()) to.margins.push_back(from.margins[row]);
}

}  // namespace

std::string Dataset::where(const Example& example) const {
  return fmt::format("{}:{}", files.at(static_cast<std::size_t>(example.origin.file)),
                     example.origin.line);
}

DatasetOptions dataset_options(const Config& config, std::int64_t model_max_length) {
  DatasetOptions options;
  options.max_length = config.max_length;
  if (model_max_length > 0 && model_max_length < config.max_length) {
    options.max_length = model_max_length;
    if (config.is_given("max_length")) {
      log_warning("data", "max_length {} is lowered to {}, the longest text the model was made for",
                  config.max_length, model_max_length);
    }
  }
  options.overlength = config.overlength;
  options.train_on_prompt = config.train_on_prompt;
  options.labelled = config.stage == Stage::kto;
  options.pairs = config.stage != Stage::sft && config.stage != Stage::grpo && !options.labelled;
  options.system_prompt = config.system_prompt;
  options.max_row_bytes = config.max_row_bytes;
  options.seed = static_cast<std::uint64_t>(config.seed);
  if (config.stage == Stage::grpo) options.sampled_tokens = config.max_completion_length;
  return options;
}

Dataset open_dataset(const std::vector<DatasetSpec>& specs, const Tokenizer& tokenizer,
                     const ChatTemplate& chat_template, const DatasetOptions& options) {
  const std::string key = cache_key(specs, tokenizer, chat_template, options);
  const DatasetCache cache;
  if (!key.empty()) {
    if (auto kept = cache.read(key)) {
      for (const DatasetSpec& spec : specs) kept->files.push_back(spec.path);
      return std::move(*kept);
    }
  }
  const Stopwatch watch;
  DatasetReader reader(tokenizer, chat_template, options);
  for (const DatasetSpec& spec : specs) reader.add_file(spec);
  Dataset dataset = reader.finish();
  // A file for what takes no time would only be litter.
  if (!key.empty() && watch.seconds() > 1.0) cache.write(key, dataset);
  return dataset;
}

std::pair<Dataset, Dataset> split_dataset(Dataset dataset, double fraction, std::uint64_t seed) {
  std::int64_t rows = 0;
  const std::vector<std::int64_t> row_of = row_indices(dataset, rows);
  if (rows < 2) {
    fail(ErrorKind::data,
         "{}: {} row cannot be split into training and evaluation; expected at least two",
         join(dataset.files, ", "), rows);
  }
  const auto wanted = static_cast<std::int64_t>(std::llround(fraction * static_cast<double>(rows)));
  const std::int64_t held_out = std::clamp<std::int64_t>(wanted, 1, rows - 1);
  const std::vector<std::int64_t> order = permutation(rows, mix_seed({seed, kSplitStream}));
  std::vector<bool> is_held_out(static_cast<std::size_t>(rows), false);
  for (std::int64_t i = 0; i < held_out; ++i)
    is_held_out[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = true;

  std::pair<Dataset, Dataset> parts;
  for (Dataset* part : {&parts.first, &parts.second}) {
    part->files = dataset.files;
    part->examples_per_row = dataset.examples_per_row;
  }
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
