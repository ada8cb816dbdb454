#include "finetune/train/trainer.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/log.h"
#include "finetune/base/machine.h"
#include "finetune/base/random.h"
#include "finetune/base/text.h"
#include "finetune/train/evaluate.h"
#include "finetune/train/objective.h"
#include "finetune/train/step_plan.h"
#include "train/artifact.h"
#include "train/backward_updates.h"
#include "train/checkpoint.h"
#include "train/flat_parameters.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/progress.h"
#include "train/schedule.h"
#include "train/source_loss.h"
#include "train/telemetry.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>

#include <chrono>
#include <cmath>
#include <optional>
#include <set>

namespace finetune {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

namespace {

constexpr std::uint64_t kDropoutStream = 0x64726f70;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// The type that trained values are kept in between steps.
at::ScalarType trained_dtype(const Config& config) {
  return config.method == Method::full && config.pure_bf16 ? at::kBFloat16 : at::kFloat;
}

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
        parameters_(inputs.parameters, trained_dtype(config_), !config_.optimizer_in_backward),
        optimizer_(config_, parameters_),
        plan_(config_, train_data_),
        schedule_(config_, plan_.total_steps()),
        artifact_(config_.method, model_, parameters_, config_.model_name_or_path),
        sources_(train_data_),
        keep_best_(config_.resolved_load_best_model_at_end()) {
    std::map<std::string, std::string> hashes = {{"datasets", train_data_.content_hash}};
    if (eval_data_ != nullptr) hashes["eval_datasets"] = eval_data_->content_hash;
    identity_ = run_identity(config_, hashes);
    if (config_.optimizer_in_backward) in_backward_.emplace(parameters_, optimizer_);
  }

  TrainReport run(const TrainStart& start) {
    const auto begin = Clock::now();
    if (start.resume) restore(start.allow_changed);
    metrics_.emplace(run_.path() / kMetricsFile, restored_ ? state_.step : -1);
    telemetry_.emplace(config_, run_.path(), restored_ ? state_.step : -1, plan_.total_steps());
    if (!restored_ && eval_data_ != nullptr) report_.first_eval_loss = evaluate_now(0.0).loss;
    if (state_.evaluation_pending) judge(evaluate_now(plan_.step(state_.step).epoch));
    Progress progress(plan_.total_steps(), state_.step);
    progress_ = &progress;
    while (state_.step < plan_.total_steps() && !finished_early() && interrupt_signal() == 0) {
      const PlannedStep planned = plan_.step(state_.step + 1);
      train_step(planned);
      after_step(planned);
    }
    progress.clear();
    progress_ = nullptr;
    telemetry_->finish();
    if (interrupt_signal() == 0) save_final_result();
    fill_report(seconds_since(begin));
    return report_;
  }

 private:
  void restore(bool allow_changed) {
    const auto restored = restore_checkpoint(run_, identity_, allow_changed, artifact_, optimizer_);
    if (!restored) {
      log_info("resume", "no checkpoint in {}; starting from the beginning", run_.path().string());
      return;
    }
    state_ = *restored;
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
    log_info("resume", "continuing after step {} of {}", state_.step, plan_.total_steps());
  }

  /// One optimizer step: gradients of all micro-batches, check, clip, apply.
  void train_step(const PlannedStep& planned) {
    const auto begin = Clock::now();
    const std::int64_t step = state_.step + 1;
    const std::int64_t supervised = supervised_tokens(planned);
    const double rate = schedule_.learning_rate(step);
    begin_gradients(step, rate);
    sources_.begin_step();
    double loss = 0;
    std::int64_t tokens = 0;
    for (std::size_t micro = 0; micro < planned.micro_batches.size(); ++micro) {
      const Batch batch = make_batch(train_data_, planned.micro_batches[micro]).to(model_.device);
      const ForwardContext context{
          true,
          mix_seed({static_cast<std::uint64_t>(config_.seed), kDropoutStream,
                    static_cast<std::uint64_t>(step), micro}),
          config_.neftune_noise_alpha};
      const LossSum result = sft_objective(model_, batch, context, config_.label_smoothing);
      sources_.add(batch, result.token_nll);
      const Tensor mean = result.sum / static_cast<double>(supervised);
      loss += mean.item<double>();
      // Before the backward pass, which may apply what it finds.
      if (!std::isfinite(loss)) stop_nonfinite(planned, fmt::format("the loss is {}", loss));
      mean.backward();
      tokens += batch.tokens();
    }
    const double norm =
        in_backward_ ? in_backward_->finish() : clip_gradients(parameters_, config_.max_grad_norm);
    if (!std::isfinite(norm))
      stop_nonfinite(planned, "the gradient of " + first_nonfinite_gradient() + " is not finite");
    if (!in_backward_) optimizer_.step(step, rate);
    state_.step = step;
    report_.tokens += tokens;
    tell_step({step, planned.epoch, loss, rate, tokens, seconds_since(begin)}, norm, supervised);
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
    if (shown.step % config_.logging_steps != 0 && shown.step != plan_.total_steps()) return;
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
    if (const ordered_json means = sources_.means(); !means.is_null())
      line["loss_by_source"] = means;
    write_metrics(line);
  }

  void write_metrics(const ordered_json& line) {
    metrics_->write(line);
    telemetry_->tell(line);
  }

  /// Evaluation, then checkpoint: what a checkpoint of step n says includes the evaluation at step
  /// n.
  void after_step(const PlannedStep& planned) {
    const bool last = state_.step == plan_.total_steps();
    const auto due = [&](const std::optional<std::int64_t>& every) {
      return last || (every ? state_.step % *every == 0 : planned.ends_epoch);
    };
    if (eval_data_ != nullptr && due(config_.eval_steps)) judge(evaluate_now(planned.epoch));
    if (due(config_.save_steps) || finished_early() || interrupt_signal() != 0) save_checkpoint();
  }

  EvalResult evaluate_now(double epoch) {
    if (progress_ != nullptr) progress_->clear();
    const auto begin = Clock::now();
    EvalResult result = evaluate(model_, *eval_data_, config_.eval_batch_size());
    if (interrupt_signal() != 0) return result;
    log_info("eval", "step {}: loss {:.4f}, perplexity {:.3f}, token accuracy {:.1f} % ({})",
             state_.step, result.loss, result.perplexity(), 100 * result.token_accuracy,
             format_seconds(seconds_since(begin)));
    write_metrics({{"step", state_.step},
                   {"epoch", epoch},
                   {"eval_loss", result.loss},
                   {"eval_perplexity", result.perplexity()},
                   {"eval_token_accuracy", result.token_accuracy}});
    if (on_evaluation_) on_evaluation_(state_.step);
    return result;
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
      if (keep_best_) artifact_.save_result(run_.path());
    } else {
      ++state_.evaluations_without_gain;
    }
  }

  bool finished_early() const {
    return config_.early_stopping_patience > 0 &&
           state_.evaluations_without_gain >= config_.early_stopping_patience;
  }

  void save_checkpoint() {
    write_checkpoint(run_, state_, identity_, artifact_, optimizer_);
    last_saved_ = state_.step;
    const std::vector<std::int64_t> steps = run_.complete_checkpoints();
    const auto limit = static_cast<std::size_t>(config_.save_total_limit);
    for (std::size_t i = 0; i + limit < steps.size(); ++i) run_.remove_checkpoint(steps[i]);
  }

  void save_final_result() {
    if (!keep_best_ || state_.best_step == 0) artifact_.save_result(run_.path());
  }

  std::int64_t supervised_tokens(const PlannedStep& planned) const {
    std::int64_t count = 0;
    for (const auto& micro_batch : planned.micro_batches) {
      for (const std::int64_t index : micro_batch)
        count += train_data_.examples[static_cast<std::size_t>(index)].supervised_tokens;
    }
    return count;
  }

  std::string first_nonfinite_gradient() const {
    if (in_backward_)
      return in_backward_->nonfinite().empty() ? "all parameters" : in_backward_->nonfinite();
    const Tensor bad = parameters_.gradients().isfinite().logical_not().nonzero();
    return bad.numel() == 0 ? "the sum of all parameters"
                            : parameters_.name_at(bad.flatten()[0].item<std::int64_t>());
  }

  /// Saves the state before this step, unless the backward pass has changed it already, and says
  /// where it is.
  std::string keep_last_good_state() {
    const bool changed = in_backward_ && in_backward_->any_applied();
    if (!changed && state_.step > 0 && last_saved_ != state_.step) save_checkpoint();
    const std::string place =
        last_saved_ > 0 ? run_.checkpoint(last_saved_).string() : "the base model";
    if (!changed)
      return "nothing of this step was applied, and the state before it is " +
             std::string(last_saved_ > 0 ? "saved in " : "") + place;
    return "optimizer_in_backward had applied the gradients before it, so this state was not "
           "saved; the last good one is " +
           place;
  }

  [[noreturn]] void stop_nonfinite(const PlannedStep& planned, const std::string& what) {
    progress_->clear();
    const std::string kept = keep_last_good_state();
    std::set<std::string> rows;
    for (const auto& micro_batch : planned.micro_batches) {
      for (const std::int64_t index : micro_batch)
        rows.insert(train_data_.where(train_data_.examples[static_cast<std::size_t>(index)]));
    }
    fail(ErrorKind::training,
         "step {}: {}; {}. The rows of this step:\n{}\nTry a lower learning_rate, more warm-up, or "
         "dtype: float32, and look at these rows",
         state_.step + 1, what, kept, join_problems({rows.begin(), rows.end()}));
  }

  void fill_report(double seconds) {
    report_.steps = state_.step;
    report_.total_steps = plan_.total_steps();
    report_.trained_parameters = parameters_.size();
    report_.best_eval_loss = state_.best_step > 0 ? state_.best_eval_loss : 0;
    report_.best_step = state_.best_step;
    report_.seconds = seconds;
    report_.stopped_early = finished_early();
  }

  const Config& config_;
  CausalLM& model_;
  const Dataset& train_data_;
  const Dataset* eval_data_;
  std::function<void(std::int64_t step)> on_evaluation_;
  RunDir& run_;
  FlatParameters parameters_;
  Optimizer optimizer_;
  std::optional<BackwardUpdates> in_backward_;
  StepPlan plan_;
  Schedule schedule_;
  Artifact artifact_;
  SourceLoss sources_;
  bool keep_best_;
  RunIdentity identity_;
  TrainerState state_;
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
