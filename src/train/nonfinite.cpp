#include "train/nonfinite.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/formats/safetensors.h"
#include "finetune/train/evaluate.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <nlohmann/json.hpp>

#include <charconv>
#include <cmath>

namespace finetune {

namespace {

bool is_finite(const Tensor& values) { return values.isfinite().all().item<bool>(); }

/// "model.layers.3" of "model.layers.3.self_attn.o_proj".
std::string block_name(const DecoderLayer& layer) {
  std::string name = layer.attention.o_proj.name;
  for (int part = 0; part < 2; ++part) name.resize(std::min(name.size(), name.rfind('.')));
  return name;
}

/// The hidden states after the first `count` blocks.
Tensor hidden_after(const CausalLM& model, std::size_t count, const Batch& batch,
                    const ForwardContext& context) {
  CausalLM part = model;  // shares all tensors
  part.layers.resize(count);
  return part.hidden_states(batch.input_ids, batch.starts, context);
}

/// The number of the block in a parameter's name, or -1.
int block_of(const std::string& name) {
  const std::size_t digits = name.find_first_of("0123456789");
  int block = -1;
  if (digits != std::string::npos && digits > 0 && name[digits - 1] == '.')
    std::from_chars(name.data() + digits, name.data() + name.size(), block);
  return block;
}

}  // namespace

std::string first_nonfinite_place(const CausalLM& model, const Batch& batch,
                                  const ForwardContext& context) {
  const at::NoGradGuard no_grad;
  if (!is_finite(hidden_after(model, 0, batch, context)))
    return model.embeddings_name() + " or " + model.norm.name;
  if (is_finite(hidden_after(model, model.layers.size(), batch, context)))
    return "the head or the loss";
  std::size_t finite = 0, broken = model.layers.size();
  while (broken - finite > 1) {
    const std::size_t middle = (finite + broken) / 2;
    (is_finite(hidden_after(model, middle, batch, context)) ? finite : broken) = middle;
  }
  return block_name(model.layers[broken - 1]);
}

std::string first_nonfinite_gradient(const FlatParameters& parameters) {
  const FlatParameter* first = nullptr;
  for (const FlatParameter& parameter : parameters.parameters()) {
    const FlatSpan& span = parameter.span;
    if (is_finite(parameters.gradients().narrow(0, span.begin, span.count))) continue;
    if (first == nullptr || block_of(parameter.name) > block_of(first->name)) first = &parameter;
  }
  return first == nullptr ? "" : first->name;
}

void investigate(const CausalLM& model, const Dataset& dataset, const PlannedStep& planned,
                 const Batch& batch, const ForwardContext& context, Nonfinite& found) {
  std::vector<std::int64_t> indices = planned.micro_batches[found.micro_batch];
  found.in_loss = found.place.empty();
  if (found.in_loss) {
    found.place = first_nonfinite_place(model, batch, context);
  } else {
    for (std::size_t i = 0; i < planned.micro_batches.size(); ++i) {
      const auto& others = planned.micro_batches[i];
      if (i != found.micro_batch) indices.insert(indices.end(), others.begin(), others.end());
    }
  }
  find_rows(model, dataset, indices, found);
}

std::string describe(const Nonfinite& found, const std::string& kept) {
  return fmt::format(
      "step {}: {}; {}{}. {}:\n{}", found.step, found.what,
      found.in_loss ? "it first appears in " + found.place + "; " : "", kept,
      found.rows_are_culprits ? "Rows that are not finite by themselves" : "The rows of this step",
      join_problems(found.rows));
}

void find_rows(const CausalLM& model, const Dataset& dataset,
               const std::vector<std::int64_t>& indices, Nonfinite& found) {
  std::vector<std::string> all;
  for (const std::int64_t index : indices) {
    const std::string row = dataset.where(dataset.examples[static_cast<std::size_t>(index)]);
    all.push_back(row);
    const Batch batch = make_batch(dataset, std::vector{index}).to(model.device);
    if (!is_finite(score_batch(model, batch).nll)) found.rows.push_back(row);
  }
  found.rows_are_culprits = !found.rows.empty();
  if (!found.rows_are_culprits) found.rows = all;
}

void write_dump(const std::filesystem::path& folder, const Nonfinite& found, const Batch& batch,
                std::uint64_t dropout_seed) {
  make_folder(folder);
  write_safetensors(folder / "batch.safetensors",
                    {{"input_ids", batch.input_ids.cpu()},
                     {"starts", at::tensor(batch.starts, at::kLong)},
                     {"target_rows", batch.target_rows.cpu()},
                     {"targets", batch.targets.cpu()}},
                    {});
  const nlohmann::ordered_json json = {
      {"step", found.step},          {"micro_batch", found.micro_batch},
      {"what", found.what},          {"place", found.place},
      {"rows", found.rows},          {"rows_are_nonfinite_alone", found.rows_are_culprits},
      {"dropout_seed", dropout_seed}};
  write_file_atomically(folder / "nonfinite.json", json.dump(2) + "\n");
}

}  // namespace finetune
