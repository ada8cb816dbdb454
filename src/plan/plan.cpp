#include "finetune/plan/plan.h"

#include "finetune/base/error.h"
#include "finetune/base/machine.h"
#include "finetune/base/text.h"
#include "finetune/model/adapters.h"
#include "finetune/model/placement.h"
#include "finetune/nn/loss.h"
#include "finetune/train/step_plan.h"
#include "plan/calibration.h"
#include "plan/mapped_model.h"

#include <algorithm>
#include <cmath>

namespace finetune {

namespace {

/// Multiplications and additions that a calibration may take; beyond it, part of a batch will do.
constexpr double kCalibrationFlops = 2e12;

std::uint64_t bytes_of(double bytes) { return static_cast<std::uint64_t>(std::max(0.0, bytes)); }

/// Bytes of a model's tensors, told from the headers of its files.
struct ModelBytes {
  std::uint64_t stored = 0, linears_float = 0, linears_stored = 0, others_elements = 0,
                largest_linear = 0;
};

ModelBytes bytes_of_model(CausalLM& model) {
  ModelBytes bytes;
  for (const Linear* linear : model.linears()) {
    const auto elements = static_cast<std::uint64_t>(linear->weight.out_features()) *
                          static_cast<std::uint64_t>(linear->weight.in_features());
    bytes.linears_float += elements;
    bytes.linears_stored += linear->weight.bytes();
    bytes.largest_linear = std::max(bytes.largest_linear, elements);
  }
  bytes.stored = bytes.linears_stored;
  model.visit_other_tensors([&](const std::string&, Tensor& tensor, bool) {
    bytes.others_elements += static_cast<std::uint64_t>(tensor.numel());
    bytes.stored += tensor.nbytes();
  });
  return bytes;
}

/// Resident weights: mapped where the type is that of the files; else the copy, and for dense
/// ones the pages of the file that were read for it.
std::uint64_t weight_bytes(const Config& config, const ModelBytes& model, at::ScalarType stored,
                           at::ScalarType dtype, double stored_share, bool was_quantized) {
  const std::uint64_t size = c10::elementSize(dtype);
  const std::uint64_t others = model.others_elements * size;
  const std::uint64_t others_file = stored == dtype ? 0 : model.others_elements * 2;
  if (was_quantized) return model.linears_stored + others + others_file;
  if (config.quantization != Quantization::none) {
    const auto dense = static_cast<double>(model.linears_float * size);
    return bytes_of(dense * stored_share) + others + others_file;
  }
  if (stored == dtype) return model.stored;
  return model.stored + model.linears_float * size + others;
}

/// The rows of the largest micro-batch that a calibration has time for, at least one.
std::vector<std::int64_t> rows_to_measure(const RunRows& rows, const Dataset& data,
                                          const ModelBytes& model, std::size_t layers) {
  const double block = static_cast<double>(model.linears_float) /
                       static_cast<double>(std::max<std::size_t>(layers, 1));
  const auto most = static_cast<std::int64_t>(kCalibrationFlops / (50.0 * std::max(block, 1.0)));
  std::vector<std::int64_t> chosen;
  std::int64_t tokens = 0;
  for (const std::int64_t index : rows.largest) {
    const auto length =
        static_cast<std::int64_t>(data.examples[static_cast<std::size_t>(index)].input_ids.size());
    if (!chosen.empty() && tokens + length > most) break;
    chosen.push_back(index);
    tokens += length;
  }
  const auto each = static_cast<std::size_t>(data.examples_per_row);
  if (chosen.size() < each)
    return {rows.largest.begin(), rows.largest.begin() + data.examples_per_row};
  chosen.resize(chosen.size() / each * each);
  return chosen;
}

/// Of a tile of logits of `bytes_each`; a reward model has no vocabulary.
double logits_bytes(std::int64_t supervised, std::int64_t vocabulary, std::size_t bytes_each) {
  if (vocabulary == 0) return 0;
  return static_cast<double>(std::min(supervised, logits_tile_rows(vocabulary))) *
         static_cast<double>(vocabulary) * static_cast<double>(bytes_each);
}

std::int64_t evaluations(const Config& config, std::int64_t steps, double epochs) {
  if (config.eval_steps) return 1 + (steps + *config.eval_steps - 1) / *config.eval_steps;
  return 1 + static_cast<std::int64_t>(std::ceil(epochs));
}

/// Cheapest first: what costs nothing, then time, then what changes the result.
std::vector<std::string> advise(const Config& config, const Plan& plan, std::int64_t batch_rows) {
  std::vector<std::string> advice;
  const auto saved = [&](double share) {
    const double moving = static_cast<double>(plan.component("activations")) +
                          static_cast<double>(plan.component("workspace"));
    return format_bytes(bytes_of(share * moving));
  };
  if (batch_rows > 1) {
    const std::int64_t half = std::max<std::int64_t>(1, batch_rows / 2);
    advice.push_back(fmt::format(
        "per_device_train_batch_size: {} with gradient_accumulation_steps: {} saves about {}; the "
        "result is the same",
        half, config.gradient_accumulation_steps * ((batch_rows + half - 1) / half), saved(0.5)));
  }
  if (config.gradient_checkpointing != Recompute::on) {
    advice.push_back(fmt::format(
        "gradient_checkpointing: true saves about {}; the result is the same, a step takes a third "
        "longer",
        saved(0.8)));
  }
  if (config.method == Method::full) {
    if (config.optim == Optim::adamw)
      advice.push_back(fmt::format("optim: adamw_8bit saves {}",
                                   format_bytes(plan.component("optimizer") * 3 / 4)));
    if (!config.optimizer_in_backward)
      advice.push_back(fmt::format("optimizer_in_backward: true with max_grad_norm: 0 saves {}",
                                   format_bytes(plan.component("gradients"))));
    advice.push_back("method: lora trains a hundredth of the weights");
  } else if (config.quantization == Quantization::none) {
    advice.push_back(
        fmt::format("quantization: nf4 saves about {} of the weights, and costs a little quality",
                    format_bytes(plan.component("weights") / 4 * 3)));
  }
  advice.push_back(
      "max_length: a smaller one with overlength: drop or truncate leaves long rows out or cuts "
      "them");
  return advice;
}

void judge(const Config& config, Plan& plan) {
  const MemoryLimits limits = memory_limits();
  // What this process holds of the machine already will be free for the run.
  plan.memory_limit_bytes = limits.usable_bytes() + (limits.group_bounds() ? 0 : resident_bytes());
  plan.limit = memory_bound(limits);
  plan.free_disk_bytes = free_disk_bytes(config.output_dir);
  const bool memory = plan.peak_memory_bytes <= plan.memory_limit_bytes;
  plan.fits = memory && plan.disk_bytes <= plan.free_disk_bytes;
  if (!memory) plan.advice = advise(config, plan, config.per_device_train_batch_size);
  if (plan.disk_bytes > plan.free_disk_bytes) {
    plan.advice.push_back(fmt::format(
        "save_total_limit: 1, or an output_dir on a disk with {} free; {} are free here",
        format_bytes(plan.disk_bytes), format_bytes(plan.free_disk_bytes)));
  }
}

std::uint64_t disk_of(const Config& config, const TrainedCount& trained, std::uint64_t optimizer,
                      const ModelBytes& model) {
  const std::uint64_t exact = 4 * trained.values + optimizer;
  const auto checkpoints = static_cast<std::uint64_t>(config.save_total_limit) + 1;
  const std::uint64_t result = config.method == Method::full ? model.stored : 4 * trained.values;
  const std::uint64_t frozen =
      config.method == Method::full && model.others_elements + model.linears_float > trained.values
          ? 4 * (model.others_elements + model.linears_float - trained.values)
          : 0;
  constexpr std::uint64_t kSmallFiles = std::uint64_t{4} << 20;  // tokenizer, metrics, report
  return checkpoints * (exact + frozen) + 2 * result + kSmallFiles;
}

/// The model as the plan needs it: its tensors mapped, not read, and its adapter attached.
struct Sized {
  CausalLM model;
  ModelBytes bytes;
  TrainedCount trained;
  at::ScalarType stored = at::kFloat, dtype = at::kFloat;
  bool was_quantized = false;
};

Sized size_up(const Config& config, const Config& counted) {
  Sized sized;
  sized.stored = stored_dtype(config.model_name_or_path);
  sized.model = map_model(config);
  sized.was_quantized = sized.model.quantized();
  sized.bytes = bytes_of_model(sized.model);
  if (config.method != Method::full) attach_new_adapter(sized.model, counted);
  sized.trained = count_trained(trained_of(sized.model, counted));
  sized.dtype = resolve_dtype(config.dtype, at::kCPU, sized.stored, ModelUse::train);
  sized.model.compute_dtype = sized.dtype;
  return sized;
}

/// Bytes that the largest micro-batch needs, from those of the measured one.
struct Moving {
  std::uint64_t activations = 0, logits = 0, workspace = 0;
};

Moving moving_bytes(const Calibration& measured, const RunRows& rows, std::int64_t vocabulary,
                    at::ScalarType dtype) {
  const BatchCost& batch = measured.batch;
  const double scale = static_cast<double>(rows.largest_tokens) / static_cast<double>(batch.tokens);
  const double kept = batch.kept_bytes * scale;
  // Products of a half type pass on their way to the float32 tile, which stays.
  const std::size_t half = dtype == at::kFloat ? 0 : c10::elementSize(dtype);
  const double passing = logits_bytes(batch.supervised_tokens, vocabulary, half);
  double transient = batch.peak_bytes - batch.kept_bytes;
  if (scale > 1.0) {
    transient = std::max(0.0, transient - passing) * scale +
                logits_bytes(rows.largest_supervised, vocabulary, half);
  }
  transient = std::max(transient, measured.eval_peak_bytes - kept);
  const auto most = std::max(rows.largest_supervised, measured.eval_supervised_tokens);
  return {bytes_of(kept), bytes_of(logits_bytes(most, vocabulary, 4)), bytes_of(transient)};
}

void plan_time(const Config& config, const Calibration& measured, const RunRows& rows,
               const TrainedCount& trained, const Dataset& train_data, const Dataset* eval_data,
               Plan& plan) {
  const auto steps = static_cast<double>(std::max<std::int64_t>(rows.steps, 1));
  const auto tokens = static_cast<double>(measured.batch.tokens);
  plan.step_seconds = measured.batch.seconds / tokens * static_cast<double>(rows.tokens) / steps +
                      measured.optimizer_seconds * static_cast<double>(trained.padded);
  plan.total_seconds = plan.step_seconds * steps;
  if (eval_data == nullptr) return;
  const double epochs = static_cast<double>(rows.tokens) /
                        static_cast<double>(std::max<std::int64_t>(train_data.summary.tokens, 1));
  plan.total_seconds += static_cast<double>(evaluations(config, rows.steps, epochs)) *
                        static_cast<double>(eval_data->summary.tokens) *
                        measured.batch.forward_seconds / tokens;
}

}  // namespace

std::uint64_t Plan::component(const std::string& name) const {
  const auto found = std::find_if(components.begin(), components.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  return found == components.end() ? 0 : found->second;
}

Plan plan_run(const Config& config, const Dataset& train_data, const Dataset* eval_data) {
  if (!resolve_device(config.device).is_cpu()) {
    fail(ErrorKind::config,
         "plan measures runs on the CPU in this version, and this one is for {}; use device: cpu",
         resolve_device(config.device).str());
  }
  StepPlan steps(config, train_data);
  const RunRows rows = run_rows(steps, train_data);
  const Config counted = countable(config);
  Sized sized = size_up(config, counted);
  const bool has_logits = config.stage != Stage::reward;
  const std::int64_t vocabulary = has_logits ? sized.model.config.vocab_size : 0;
  const auto chosen = rows_to_measure(rows, train_data, sized.bytes, sized.model.layers.size());
  const std::size_t blocks = sized.model.layers.size();
  sized.model.layers.resize(std::min(blocks, kCalibrationBlocks));
  const ModelBytes few = bytes_of_model(sized.model);
  const Calibration measured =
      calibrate(sized.model, blocks, counted, train_data, chosen, eval_data);
  const auto weights = [&](const ModelBytes& model) {
    return weight_bytes(config, model, sized.stored, sized.dtype, measured.stored_share,
                        sized.was_quantized);
  };
  const Moving moving = moving_bytes(measured, rows, vocabulary, sized.dtype);
  const bool quantized = sized.was_quantized || config.quantization != Quantization::none;
  const std::uint64_t buffer =
      quantized ? sized.bytes.largest_linear * c10::elementSize(sized.dtype) : 0;
  const std::uint64_t element = c10::elementSize(trained_dtype(config));
  const std::uint64_t padded = sized.trained.padded;
  const std::uint64_t optimizer = optimizer_bytes(config, sized.trained);

  Plan plan;
  plan.steps = rows.steps;
  plan.trained_parameters = static_cast<std::int64_t>(sized.trained.values);
  plan.largest_batch_tokens = rows.largest_tokens;
  // What the measured process had besides what is counted below, for its few blocks.
  const auto tile_rows =
      std::max(measured.batch.supervised_tokens, measured.eval_supervised_tokens);
  const std::uint64_t counted_bytes =
      weights(few) + measured.parameter_bytes + buffer +
      bytes_of(logits_bytes(tile_rows, vocabulary, 4)) +
      bytes_of(std::max(measured.measured.peak_bytes, measured.eval_peak_bytes));
  plan.components = {
      {"program", measured.resident_bytes - std::min(counted_bytes, measured.resident_bytes)},
      {"weights", weights(sized.bytes)},
      {"adapters", element * padded},
      {"gradients", config.optimizer_in_backward ? 0 : 4 * padded},
      {"optimizer", optimizer},
      {"activations", moving.activations},
      {"logits", moving.logits},
      {"workspace", moving.workspace + buffer}};
  for (const auto& [name, bytes] : plan.components) plan.peak_memory_bytes += bytes;
  plan.disk_bytes = disk_of(config, sized.trained, optimizer, sized.bytes);
  plan_time(config, measured, rows, sized.trained, train_data, eval_data, plan);
  judge(config, plan);
  return plan;
}

}  // namespace finetune
