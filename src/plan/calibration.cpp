#include "plan/calibration.h"

#include "finetune/base/error.h"
#include "finetune/base/machine.h"
#include "finetune/base/stopwatch.h"
#include "finetune/train/objectives.h"
#include "plan/alive_bytes.h"
#include "plan/mapped_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>

namespace finetune {

namespace {

constexpr int kMostWarmUps = 6;
constexpr int kRounds = 3;  // the fastest counts: other work only adds
constexpr std::size_t kFewerBlocks = 2;

/// Puts what is left of the model into the type, and the form, that training has it in.
void convert(CausalLM& model, const Config& config, at::ScalarType dtype) {
  model.compute_dtype = dtype;
  for (Linear* linear : model.linears()) {
    if (!linear->weight.quantized()) {
      const Tensor weight = linear->weight.dense();
      switch (config.quantization) {
        case Quantization::none:
          linear->weight = FrozenWeight(weight.to(dtype));
          break;
        case Quantization::nf4:
          linear->weight = FrozenWeight(nf4_quantize(weight, config.double_quant));
          break;
        case Quantization::int8:
          linear->weight = FrozenWeight(int8_quantize(weight));
          break;
      }
    }
    if (linear->bias.defined() && !linear->bias.requires_grad())
      linear->bias = linear->bias.to(dtype);
  }
  model.visit_other_tensors([&](const std::string&, Tensor& tensor, bool) {
    if (!tensor.requires_grad()) tensor = tensor.to(dtype);
  });
}

/// As the trainer holds them: leaves with a gradient to add to.
void make_leaves(const std::vector<TrainableParameter>& parameters, at::ScalarType dtype) {
  for (const TrainableParameter& parameter : parameters) {
    Tensor leaf = parameter.slot->detach().to(dtype, false, /*copy=*/true);
    leaf.requires_grad_(true);
    leaf.mutable_grad() = at::zeros_like(leaf.detach());
    *parameter.slot = leaf;
    if (parameter.frozen != nullptr) *parameter.frozen = FrozenWeight(leaf.detach());
  }
}

BatchCost measure(const CausalLM& model, const Config& config, const Objective& objective,
                  const Batch& batch, int rounds = kRounds) {
  BatchCost cost;
  cost.tokens = batch.tokens;
  cost.supervised_tokens = batch.supervised_tokens();
  cost.seconds = std::numeric_limits<double>::infinity();
  const ForwardContext context{true, 1, config.neftune_noise_alpha};
  for (int round = 0; round < rounds; ++round) {
    const auto memory = std::make_shared<AliveBytes>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, memory);
    const Stopwatch watch;
    const LossSum loss = objective.loss(model, batch, context);
    const double forward = watch.seconds();
    cost.kept_bytes = static_cast<double>(memory->alive);
    (loss.sum / static_cast<double>(loss.count)).backward();
    const double seconds = watch.seconds();
    if (seconds < cost.seconds) {
      cost.seconds = seconds;
      cost.forward_seconds = forward;
    }
    cost.peak_bytes = static_cast<double>(memory->peak);
  }
  return cost;
}

/// The `batch_size` longest rows, as an evaluation scores them.
Batch largest_eval_batch(const Dataset& data, std::int64_t batch_size, bool share_prefixes) {
  std::vector<std::int64_t> longest(data.examples.size());
  std::iota(longest.begin(), longest.end(), std::int64_t{0});
  const auto length = [&](std::int64_t i) {
    return data.examples[static_cast<std::size_t>(i)].input_ids.size();
  };
  std::stable_sort(longest.begin(), longest.end(),
                   [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
  longest.resize(std::min(longest.size(), static_cast<std::size_t>(batch_size)));
  return make_batch(data, longest, share_prefixes);
}

double eval_peak(const CausalLM& model, const Batch& batch) {
  const auto memory = std::make_shared<AliveBytes>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, memory);
  score_batch(model, batch);
  return static_cast<double>(memory->peak);
}

double optimizer_seconds() {
  const at::NoGradGuard no_grad;
  constexpr std::int64_t kElements = std::int64_t{1} << 22;
  const Tensor value = at::zeros({kElements}), gradient = at::ones({kElements});
  const Tensor first = at::zeros({kElements}), second = at::zeros({kElements});
  const Tensor steps = at::ones({});
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    const Stopwatch watch;
    at::_fused_adamw_({value}, {gradient}, {first}, {second}, {}, {steps}, 1e-4, 0.9, 0.999, 0.0,
                      1e-8, false, false);
    best = std::min(best, watch.seconds());
  }
  return best / static_cast<double>(kElements);
}

/// Of all blocks, from what `few` and `more` of them cost.
double extrapolated(double few_cost, std::size_t few, double more_cost, std::size_t more,
                    std::size_t all) {
  const double each = std::max(0.0, more_cost - few_cost) / static_cast<double>(more - few);
  return more_cost + each * static_cast<double>(all - more);
}

}  // namespace

Calibration calibrate(CausalLM& model, std::size_t blocks, const Config& config,
                      const Dataset& data, const std::vector<std::int64_t>& indices,
                      const Dataset* eval_data) {
  const std::size_t used = model.layers.size();
  model.recompute_blocks = config.gradient_checkpointing == Recompute::on;
  Calibration result;
  reset_peak_memory();
  convert(model, config, model.compute_dtype);
  const CausalLM::LinearBytes bytes = model.linear_bytes();
  result.stored_share = static_cast<double>(bytes.stored) / static_cast<double>(bytes.dense);
  const std::vector<TrainableParameter> parameters = trained_of(model, config);
  if (parameters.empty()) {
    fail(ErrorKind::config,
         "the first {} blocks have nothing to train, and the plan is measured on them", used);
  }
  make_leaves(parameters, trained_dtype(config));
  for (const TrainableParameter& parameter : parameters)
    result.parameter_bytes += parameter.slot->nbytes() + parameter.slot->grad().nbytes();
  const bool share_prefixes = shares_prefixes(config, model);
  const auto objective = make_objective(config, model, data,
                                        std::vector<double>(data.examples.size()), share_prefixes);
  const Batch batch = make_batch(data, indices, share_prefixes);
  // Until the allocator keeps what it will keep: a run gets there in its first steps.
  std::uint64_t before = 0;
  for (int pass = 0; pass < kMostWarmUps && peak_memory_bytes() > before; ++pass) {
    before = peak_memory_bytes();
    measure(model, config, *objective, batch, 1);
  }
  result.batch = result.measured = measure(model, config, *objective, batch);
  if (eval_data != nullptr) {
    const Batch eval_batch =
        largest_eval_batch(*eval_data, config.eval_batch_size(), share_prefixes);
    result.eval_supervised_tokens = eval_batch.supervised_tokens();
    score_batch(model, eval_batch);  // so that its logits' memory is there, as it is for training
    result.eval_peak_bytes = eval_peak(model, eval_batch);
  }
  result.resident_bytes = peak_memory_bytes();
  if (blocks > used) {
    model.layers.resize(kFewerBlocks);
    const BatchCost fewer = measure(model, config, *objective, batch);
    for (const auto value : {&BatchCost::kept_bytes, &BatchCost::peak_bytes, &BatchCost::seconds,
                             &BatchCost::forward_seconds}) {
      result.batch.*value =
          extrapolated(fewer.*value, kFewerBlocks, result.measured.*value, used, blocks);
    }
  }
  result.optimizer_seconds = optimizer_seconds();
  return result;
}

}  // namespace finetune
