#include "finetune/train/trainer.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/log.h"
#include "finetune/base/machine.h"
#include "finetune/base/random.h"
#include "finetune/base/stopwatch.h"
#include "finetune/base/text.h"
#include "finetune/train/evaluate.h"
#include "finetune/train/objectives.h"
#include "train/artifact.h"
#include "train/backward_updates.h"
#include "train/checkpoint.h"
#include "train/disk.h"
#include "train/example_source.h"
#include "train/flat_parameters.h"
#include "train/metrics.h"
#include "train/nonfinite.h"
#include "train/optimizer.h"
#include "train/progress.h"
#include "train/rehearse.h"
#include "train/rollouts.h"
#include "train/schedule.h"
#include "train/source_loss.h"
#include "train/telemetry.h"

#include <ATen/TensorOperators.h>

#include <cmath>
#include <optional>

namespace finetune {

using nlohmann::ordered_json;

namespace {

constexpr std::uint64_t kDropoutStream = 0x64726f70;
constexpr std::int64_t kMostNonfiniteInARow = 3;
constexpr std::int64_t kMostDumps = 3;

}  // namespace

/// State of one run, from start to end.
class Trainer::Loop {
 public:
  Loop(TrainInputs inputs, RunDir& run)
      : config_(inputs.config),
        model_(inputs.model),
        train_data_(inputs.train_data),
        eval_data_(inputs.eval_data),
        on_evaluation_(std::move(inputs.on_evaluation)),
        run_(run),
        reference_(std::move(inputs.reference)),
        eval_reference_(std::move(inputs.eval_reference)),
        parameters_(inputs.parameters, trained_dtype(config_), !config_.optimizer_in_backward),
        optimizer_(config_, parameters_),
        share_prefixes_(shares_prefixes(config_, model_)),
        source_(make_source(inputs.sampling)),
        schedule_(config_, source_->total_steps()),
        artifact_(config_.method, model_, parameters_, config_.model_name_or_path),
        sources_(train_data_),
        keep_best_(config_.resolved_load_best_model_at_end()) {
    std::map<std::string, std::string> hashes = {{"datasets", train_data_.content_hash}};
    if (eval_data_ != nullptr) hashes["eval_datasets"] = eval_data_->content_hash;
    identity_ = run_identity(config_, hashes);
    if (config_.optimizer_in_backward) in_backward_.emplace(parameters_, optimizer_);
  }

  TrainReport run(const TrainStart& start) {
    const Stopwatch watch;
    if (!make_objectives()) return report_;
    if (start.resume) restore(start.allow_changed);
    check_disk();
    rehearse(*source_, *objective_, model_, config_, share_prefixes_);
    metrics_.emplace(run_.path() / kMetricsFile, restored_ ? state_.step : -1);
    telemetry_.emplace(config_, run_.path(), restored_ ? state_.step : -1, source_->total_steps());
    if (!restored_ && eval_data_ != nullptr) report_.first_eval_loss = evaluate_now(0.0).loss;
    // Where a rollback before the first checkpoint goes.
    if (!restored_ && config_.on_nonfinite == OnNonfinite::rollback) save_checkpoint();
    if (state_.evaluation_pending) judge(evaluate_now(source_->epoch(state_.step)));
    Progress progress(source_->total_steps(), state_.step);
    progress_ = &progress;
    while (state_.step < source_->total_steps() && !finished_early() && interrupt_signal() == 0) {
      const std::optional<StepExamples> examples = next_examples();
      if (examples && train_step(*examples)) after_step(examples->planned);
    }
    if (interrupt_signal() != 0 && state_.step > 0 && last_saved_ != state_.step) save_checkpoint();
    progress.clear();
    progress_ = nullptr;
    telemetry_->finish();
    if (interrupt_signal() == 0) save_final_result();
    fill_report(watch.seconds());
    return report_;
  }

 private:
  std::unique_ptr<ExampleSource> make_source(const SamplingTools* sampling) const {
    if (sampling == nullptr) return std::make_unique<RowSource>(config_, train_data_);
    return std::make_unique<Rollouts>(config_, model_, parameters_, train_data_, *sampling,
                                      share_prefixes_);
  }

  /// The reference of a preference stage is the state before the first step, so this comes before a
  /// checkpoint is restored. False when interrupted.
  bool make_objectives() {
    objective_ = source_->objective();
    eval_objective_ = source_->objective();
    if (objective_) return true;
    objective_ =
        make_objective(config_, model_, train_data_, std::move(reference_), share_prefixes_);
    if (eval_data_ != nullptr)
      eval_objective_ =
          make_objective(config_, model_, *eval_data_, std::move(eval_reference_), share_prefixes_);
    return interrupt_signal() == 0;
  }

  void restore(bool allow_changed) {
    const auto restored = restore_checkpoint(run_, identity_, allow_changed, artifact_, optimizer_);
    if (!restored) {
      log_info("resume", "no checkpoint in {}; starting from the beginning", run_.path().string());
      return;
    }
    state_ = *restored;
    source_->restore(run_.checkpoint(state_.step));
    restored_ = true;
    last_saved_ = state_.step;
    if (state_.best_step > 0 && keep_best_ &&
        !std::filesystem::exists(run_.path() / artifact_.weights_file())) {
      log_warning(
          "resume",
          "the best state so far (step {}) is gone from {}; choosing among the steps from here",
          state_.best_step, run_.path().string());
      state_.best_step = 0;
      state_.best_eval_loss = std::numeric_limits<double>::infinity();
    }
    log_info("resume", "continuing after step {} of {}", state_.step, source_->total_steps());
  }

  void check_disk() const {
    std::uint64_t state_bytes = 0;
    for (const auto& [name, tensor] : optimizer_.state()) state_bytes += tensor.nbytes();
    const auto values = static_cast<std::uint64_t>(
        config_.method == Method::full ? model_.parameter_count() : parameters_.size());
    check_run_space(run_.path(), config_, 4 * values, state_bytes, source_->total_steps());
  }

  /// Nothing when interrupted.
  std::optional<StepExamples> next_examples() {
    step_watch_ = Stopwatch();
    try {
      return source_->step(state_.step + 1);
    } catch (const Error& error) {
      progress_->clear();
      fail(error.kind(), "step {}: {}\n{}", state_.step + 1, error.what(), keep_last_good_state());
    }
  }

  /// One optimizer step: gradients of all micro-batches, check, clip, apply. False when an
  /// interrupt came in the middle: nothing has changed then.
  bool train_step(const StepExamples& examples) {
    const PlannedStep& planned = examples.planned;
    const std::int64_t step = state_.step + 1;
    const std::int64_t count = loss_count(*objective_, examples),
                       supervised = supervised_tokens(examples.data, planned);
    extras_.clear();
    const double rate = schedule_.learning_rate(step);
    begin_gradients(step, rate);
    sources_.begin_step();
    double loss = 0;
    std::int64_t tokens = 0;
    for (std::size_t micro = 0; micro < planned.micro_batches.size(); ++micro) {
      if (micro > 0 && interrupt_signal() != 0) return false;
      const Batch batch = make_batch(examples.data, planned.micro_batches[micro], share_prefixes_)
                              .to(model_.device);
      const ForwardContext context = context_of(step, micro);
      const LossSum result = objective_->loss(model_, batch, context);
      sources_.add(batch, result.token_nll);
      add_means(extras_, result.extras, count);
      const Tensor mean = result.sum / static_cast<double>(count);
      loss += mean.item<double>();
      // Before the backward pass, which may apply what it finds.
      if (!std::isfinite(loss)) {
        leave_out(examples, micro, fmt::format("the loss is {}", loss), "");
        return true;
      }
      mean.backward();
      tokens += batch.tokens;
    }
    const double norm =
        in_backward_ ? in_backward_->finish() : clip_gradients(parameters_, config_.max_grad_norm);
    if (!std::isfinite(norm)) {
      const std::string name = nonfinite_parameter();
      leave_out(examples, 0, "the gradient of " + name + " is not finite", name);
      return true;
    }
    if (!in_backward_) optimizer_.step(step, rate);
    state_.step = step;
    state_.nonfinite_in_a_row = 0;
    report_.tokens += tokens;
    extras_.insert(extras_.end(), examples.measured.begin(), examples.measured.end());
    ProgressState shown{step, planned.epoch, loss, rate, tokens, step_watch_.seconds()};
    if (!examples.measured.empty()) shown.reward = examples.measured.front().value;
    tell_step(shown, norm, supervised);
    return true;
  }

  ForwardContext context_of(std::int64_t step, std::size_t micro) const {
    return {true,
            mix_seed({static_cast<std::uint64_t>(config_.seed), kDropoutStream,
                      static_cast<std::uint64_t>(step), micro}),
            config_.neftune_noise_alpha};
  }

  void begin_gradients(std::int64_t step, double rate) {
    if (in_backward_) {
      in_backward_->begin(step, rate);
    } else {
      Tensor(parameters_.gradients()).zero_();
    }
  }

  void tell_step(const ProgressState& shown, double norm, std::int64_t supervised) {
    progress_->show(shown);
    if (shown.step % config_.logging_steps != 0 && shown.step != source_->total_steps()) return;
    ordered_json line = {
        {"step", shown.step},
        {"epoch", shown.epoch},
        {"loss", shown.loss},
        {"learning_rate", shown.learning_rate},
        {"grad_norm", norm},
        {"tokens", shown.tokens},
        {"supervised_tokens", supervised},
        {"step_seconds", shown.step_seconds},
        {"tokens_per_second", static_cast<double>(shown.tokens) / shown.step_seconds},
        {"peak_memory_bytes", peak_memory_bytes()}};
    for (const NamedSum& extra : extras_) line[extra.name] = extra.value;
    if (const ordered_json means = sources_.means(); !means.is_null())
      line["loss_by_source"] = means;
    write_metrics(line);
  }

  void write_metrics(const ordered_json& line) {
    telemetry_->tell(line);
    const auto write = [&](const std::string& file, const std::function<void()>& content) {
      save_patiently(fmt::format("a line of {} for step {}", file, state_.step),
                     config_.disk_retry_seconds, [&] {
                       run_.check_present();
                       content();
                     });
    };
    write(kMetricsFile, [&] { metrics_->write(line); });
    write(kTensorboardFolder, [&] { telemetry_->write(); });
  }

  /// Evaluation, then checkpoint: what a checkpoint of step n says includes the evaluation at step
  /// n.
  void after_step(const PlannedStep& planned) {
    const bool last = state_.step == source_->total_steps();
    const auto due = [&](const std::optional<std::int64_t>& every) {
      return last || (every ? state_.step % *every == 0 : planned.ends_epoch);
    };
    if (eval_data_ != nullptr && due(config_.eval_steps)) judge(evaluate_now(planned.epoch));
    if (due(config_.save_steps) || finished_early() || interrupt_signal() != 0) save_checkpoint();
  }

  EvalResult evaluate_now(double epoch) {
    if (progress_ != nullptr) progress_->clear();
    const Stopwatch watch;
    EvalResult result =
        eval_objective_->evaluate(model_, *eval_data_, config_.eval_batch_size(), share_prefixes_);
    if (interrupt_signal() != 0) return result;
    tell_evaluation(result, epoch, watch.seconds());
    if (on_evaluation_) on_evaluation_(state_.step);
    return result;
  }

  void tell_evaluation(const EvalResult& result, double epoch, double seconds) {
    ordered_json line = {{"step", state_.step}, {"epoch", epoch}, {"eval_loss", result.loss}};
    const std::string text = describe_evaluation(result, config_.stage == Stage::sft, line);
    log_info("eval", "step {}: {} ({})", state_.step, text, format_seconds(seconds));
    write_metrics(line);
  }

  /// Keeps the state in the run folder when it is the best so far.
  void judge(const EvalResult& result) {
    state_.evaluation_pending =
        interrupt_signal() != 0;  // then it is incomplete, and the resumed run does it
    if (state_.evaluation_pending) return;
    if (result.loss < state_.best_eval_loss) {
      state_.best_eval_loss = result.loss;
      state_.best_step = state_.step;
      state_.evaluations_without_gain = 0;
      if (keep_best_) save_result();
    } else {
      ++state_.evaluations_without_gain;
    }
  }

  bool finished_early() const {
    return config_.early_stopping_patience > 0 &&
           state_.evaluations_without_gain >= config_.early_stopping_patience;
  }

  void save_checkpoint() {
    save_patiently(fmt::format("the checkpoint of step {}", state_.step),
                   config_.disk_retry_seconds, [&] {
                     run_.check_present();
                     write_checkpoint(run_, state_, identity_, artifact_, optimizer_, *source_);
                     const std::vector<std::int64_t> steps = run_.complete_checkpoints();
                     const auto limit = static_cast<std::size_t>(config_.save_total_limit);
                     for (std::size_t i = 0; i + limit < steps.size(); ++i)
                       run_.remove_checkpoint(steps[i]);
                   });
    last_saved_ = state_.step;
  }

  void save_result() {
    save_patiently("the result", config_.disk_retry_seconds, [&] {
      run_.check_present();
      artifact_.save_result(run_.path());
    });
  }

  void save_final_result() {
    if (!keep_best_ || state_.best_step == 0) save_result();
  }

  std::string nonfinite_parameter() const {
    const std::string name =
        in_backward_ ? in_backward_->nonfinite() : first_nonfinite_gradient(parameters_);
    return name.empty() ? "the sum of all parameters" : name;
  }

  /// Saves the state before this step, unless the backward pass has changed it already, and says
  /// where it is.
  std::string keep_last_good_state() {
    const bool changed = in_backward_ && in_backward_->any_applied();
    if (!changed && state_.step > 0 && last_saved_ != state_.step) save_checkpoint();
    const std::string place =
        last_saved_ > 0 ? run_.checkpoint(last_saved_).string() : "the base model";
    if (!changed)
      return "Nothing of this step was applied, and the state before it is " +
             std::string(last_saved_ > 0 ? "saved in " : "") + place;
    return "optimizer_in_backward had applied the gradients before it, so this state was not "
           "saved; the last good one is " +
           place;
  }

  /// A step whose loss or gradient is not finite: told, kept for repetition, and left out or the
  /// end of the run. `place`: where it appeared, or "" for this to find out.
  void leave_out(const StepExamples& examples, std::size_t micro, const std::string& what,
                 const std::string& place) {
    const PlannedStep& planned = examples.planned;
    progress_->clear();
    Nonfinite found{.step = state_.step + 1, .micro_batch = micro, .what = what, .place = place};
    const Batch batch = make_batch(examples.data, planned.micro_batches[micro]).to(model_.device);
    const ForwardContext context = context_of(found.step, micro);
    investigate(model_, examples.data, planned, batch, context, found);
    const std::string told = describe(found, dump(found, batch, context));
    if (config_.on_nonfinite == OnNonfinite::stop) stop_nonfinite(told);
    ++state_.nonfinite_steps;
    if (++state_.nonfinite_in_a_row > kMostNonfiniteInARow)
      stop_nonfinite(
          fmt::format("{} steps in a row are not finite; {}", state_.nonfinite_in_a_row, told));
    const bool back = config_.on_nonfinite == OnNonfinite::rollback;
    if (back)
      restore_values(run_.checkpoint(run_.complete_checkpoints().back()), artifact_, optimizer_);
    log_warning("train", "{}\nThe step is left out{} (on_nonfinite: {})", told,
                back ? fmt::format(", weights and optimizer are those of {} again",
                                   run_.checkpoint(run_.complete_checkpoints().back()).string())
                     : "",
                to_string(config_.on_nonfinite));
    state_.step = found.step;
    write_metrics({{"step", found.step},
                   {"epoch", planned.epoch},
                   {"nonfinite", what},
                   {"on_nonfinite", to_string(config_.on_nonfinite)}});
  }

  /// Writes what repeats the step, for the first ones of a run; returns where it is.
  std::string dump(const Nonfinite& found, const Batch& batch, const ForwardContext& context) {
    if (state_.nonfinite_steps >= kMostDumps) return "no further batch is kept";
    const std::filesystem::path folder =
        run_.path() / fmt::format("{}{}", kNonfinitePrefix, found.step);
    save_patiently("the batch of " + folder.string(), config_.disk_retry_seconds, [&] {
      run_.check_present();
      write_dump(folder, found, batch, context.seed);
      if (config_.method != Method::full) artifact_.save_exact(folder);
    });
    return "its batch is kept in " + folder.string();
  }

  [[noreturn]] void stop_nonfinite(const std::string& told) {
    fail(ErrorKind::training,
         "{}\n{}. Try a lower learning_rate, more warm-up, or dtype: float32, and look at these "
         "rows; on_nonfinite: skip leaves such steps out",
         told, keep_last_good_state());
  }

  void fill_report(double seconds) {
    report_.steps = state_.step;
    report_.total_steps = source_->total_steps();
    report_.trained_parameters = parameters_.size();
    report_.best_eval_loss = state_.best_step > 0 ? state_.best_eval_loss : 0;
    report_.best_step = state_.best_step;
    report_.seconds = seconds;
    report_.stopped_early = finished_early();
    report_.nonfinite_steps = state_.nonfinite_steps;
  }

  const Config& config_;
  CausalLM& model_;
  const Dataset& train_data_;
  const Dataset* eval_data_;
  std::function<void(std::int64_t step)> on_evaluation_;
  RunDir& run_;
  std::vector<double> reference_, eval_reference_;  // moved to the objectives
  FlatParameters parameters_;
  Optimizer optimizer_;
  std::optional<BackwardUpdates> in_backward_;
  bool share_prefixes_;
  std::unique_ptr<ExampleSource> source_;
  Schedule schedule_;
  Artifact artifact_;
  SourceLoss sources_;
  std::unique_ptr<Objective> objective_, eval_objective_;
  std::vector<NamedSum> extras_;  // of this step, means
  bool keep_best_;
  RunIdentity identity_;
  TrainerState state_;
  Stopwatch step_watch_;  // with the making of its examples
  bool restored_ = false;
  std::int64_t last_saved_ = -1;
  std::optional<MetricsFile> metrics_;
  std::optional<Telemetry> telemetry_;
  Progress* progress_ = nullptr;
  TrainReport report_;
};

Trainer::Trainer(TrainInputs inputs, RunDir& run)
    : loop_(std::make_unique<Loop>(std::move(inputs), run)) {}

Trainer::~Trainer() = default;

TrainReport Trainer::run(const TrainStart& start) { return loop_->run(start); }

}  // namespace finetune
