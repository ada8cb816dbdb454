#include "finetune/base/error.h"
#include "finetune/formats/safetensors.h"
#include "finetune/model/write_model.h"
#include "model/adapter_slots.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>

#include <limits>

namespace finetune {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kProbes = 4;
constexpr std::string_view kWeight = ".weight", kBias = ".bias";

/// What the adapter makes of the base's tensors.
class Merger {
 public:
  Merger(const PeftAdapter& adapter, const ModelConfig& config) : adapter_(adapter) {
    embeddings_ = config.names.prefix + config.names.embeddings;
    head_ = config.names.heads.front();
    for (const std::string& module : {embeddings_, head_})
      touches_ends_ = touches_ends_ || adapter.modules.contains(module) ||
                      adapter.saved.contains(module + std::string(kWeight));
    untie_ = config.tie_word_embeddings && touches_ends_;
  }

  /// True when a tied head and its embeddings become different tensors.
  bool untie() const { return untie_; }
  const std::string& embeddings() const { return embeddings_; }
  const std::string& head() const { return head_; }

  bool changes(const std::string& name) const {
    return adapter_.saved.contains(name) || adapter_.modules.contains(module_of(name, kWeight)) ||
           adapter_.ia3.contains(module_of(name, kWeight)) || output_factors(name).defined();
  }

  /// The tensor of this name with the adapter in it, float32.
  Tensor merged(const std::string& name, const Tensor& stored) const {
    const auto saved = adapter_.saved.find(name);
    if (saved != adapter_.saved.end()) return saved->second.to(at::kFloat);
    if (const Tensor factors = output_factors(name); factors.defined())
      return stored.to(at::kFloat) * factors.flatten().to(at::kFloat);
    const Linear linear = live(name, stored);
    return is_embedding(name) ? merged_weight(stored.t(), linear).t()
                              : merged_weight(stored, linear);
  }

  /// The module of a weight with its adapter, over the float32 base; of embeddings the transpose.
  Linear live(const std::string& name, const Tensor& stored) const {
    const std::string module = module_of(name, kWeight);
    const Tensor weight = is_embedding(name) ? stored.t() : stored;
    Linear linear;
    linear.name = module;
    linear.weight = FrozenWeight(weight.to(at::kFloat).contiguous());
    if (const auto lora = adapter_.modules.find(module); lora != adapter_.modules.end())
      linear.lora = lora_of(adapter_, lora->second, weight, at::kCPU);
    if (const auto ia3 = adapter_.ia3.find(module); ia3 != adapter_.ia3.end())
      linear.ia3 = Ia3{ia3->second.to(at::kFloat), ia3->second.size(0) == 1};
    return linear;
  }

  bool is_embedding(const std::string& name) const {
    const auto lora = adapter_.modules.find(module_of(name, kWeight));
    return lora != adapter_.modules.end() && lora->second.embedding;
  }

 private:
  static std::string module_of(const std::string& name, std::string_view ending) {
    return name.ends_with(ending) ? name.substr(0, name.size() - ending.size()) : "";
  }

  /// (IA)3 on the output scales the bias too.
  Tensor output_factors(const std::string& name) const {
    const auto ia3 = adapter_.ia3.find(module_of(name, kBias));
    return ia3 == adapter_.ia3.end() || ia3->second.size(0) == 1 ? Tensor() : ia3->second;
  }

  const PeftAdapter& adapter_;
  std::string embeddings_, head_;
  bool touches_ends_ = false, untie_ = false;
};

std::string shape_problem(const std::string& module, const Tensor& weight,
                          const std::vector<std::int64_t>& needed, const char* what) {
  if (weight.sizes().vec() == needed) return "";
  return fmt::format("{}: the model's weight is {}, the {} of the adapter {}", module,
                     format_shape(weight.sizes().vec()), what, format_shape(needed));
}

void check_fits(const fs::path& base, const std::map<std::string, Tensor>& weights,
                const PeftAdapter& adapter) {
  std::vector<std::string> problems;
  const auto check = [&](const std::string& name, const auto& problem_of) {
    const auto found = weights.find(name);
    const std::string problem = found == weights.end() ? name + ": this model has no such tensor"
                                                       : problem_of(found->second);
    if (!problem.empty()) problems.push_back(problem);
  };
  for (const auto& [module, lora] : adapter.modules) {
    std::vector<std::int64_t> shape = {lora.b.size(0), lora.a.size(1)};
    if (lora.embedding) std::swap(shape[0], shape[1]);
    check(module + std::string(kWeight),
          [&](const Tensor& weight) { return shape_problem(module, weight, shape, "update"); });
  }
  for (const auto& [module, factors] : adapter.ia3) {
    check(module + std::string(kWeight), [&](const Tensor& weight) {
      std::vector<std::int64_t> shape = weight.sizes().vec();
      shape[factors.size(0) == 1 ? 1 : 0] = factors.numel();
      return shape_problem(module, weight, shape, "scaled weight");
    });
  }
  for (const auto& [name, tensor] : adapter.saved) {
    check(name, [&](const Tensor& weight) {
      return shape_problem(name, weight, tensor.sizes().vec(), "tensor");
    });
  }
  if (problems.empty()) return;
  fail(ErrorKind::model, "the adapter does not fit {}:\n{}\nIt was trained on: {}", base.string(),
       join_problems(problems), adapter.base_model_name_or_path);
}

double half_ulp(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return 1.0 / 256.0;
  if (dtype == at::kHalf) return 1.0 / 2048.0;
  return std::numeric_limits<float>::epsilon() / 2.0;
}

/// Compares a reopened folder with base and adapter.
class MergeCheck {
 public:
  MergeCheck(std::map<std::string, Tensor> base, const Merger& merger, const fs::path& output)
      : base_(std::move(base)),
        merged_(read_model_tensors(output)),
        merger_(merger),
        output_(output) {}

  MergeReport run() {
    for (const auto& [name, tensor] : base_) {
      ++report_.tensors;
      if (!merged_.contains(name)) wrong(name, "is not there");
      if (!merger_.changes(name)) {
        check_copied(name);
        continue;
      }
      ++report_.merged;
      if (name.ends_with(kWeight) && tensor.dim() == 2) check_products(name);
      check_values(name);
    }
    if (update_square_ > 0) report_.lost_to_rounding = std::sqrt(lost_square_ / update_square_);
    return report_;
  }

 private:
  void check_copied(const std::string& name) const {
    const Tensor& stored = merged_.at(name);
    if (!at::equal(stored, base_.at(name).to(stored.scalar_type())))
      wrong(name, "differs from the base");
  }

  /// The products of the stored weight against those of base and live adapter. Rounding the weight
  /// W' to its type may change a product by half an ulp of |W'| |x|; summing in float32 by a little
  /// more.
  void check_products(const std::string& name) {
    const Linear linear = merger_.live(name, base_.at(name));
    if (!linear.lora && !linear.ia3) return;
    const Tensor& stored = merged_.at(name);
    const Tensor weight =
        (merger_.is_embedding(name) ? stored.t() : stored).to(at::kFloat).contiguous();
    const Tensor x =
        at::empty({kProbes, weight.size(1)}, at::kFloat)
            .normal_(0.0, 1.0, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{7}));
    const Tensor live = linear.forward(x, {});
    const Tensor difference = (at::mm(x, weight.t()) - live).abs();
    const Tensor scale = at::mm(x.abs(), (weight.abs() + linear.weight.dense().abs()).t());
    const double allowed = 2.0 * half_ulp(stored.scalar_type()) + 1e-5;
    if (!difference.le(scale * allowed).all().item<bool>())
      wrong(name, "does not give what base and adapter give");
    const double relative =
        difference.max().item<double>() / std::max(live.abs().max().item<double>(), 1e-30);
    report_.largest_difference = std::max(report_.largest_difference, relative);
  }

  /// What rounding to the stored type took of the update.
  void check_values(const std::string& name) {
    const Tensor base = base_.at(name).to(at::kFloat), exact = merger_.merged(name, base_.at(name)),
                 stored = merged_.at(name).to(at::kFloat);
    const double allowed = 2.0 * half_ulp(merged_.at(name).scalar_type());
    if (!(stored - exact).abs().le(exact.abs() * allowed + 1e-30).all().item<bool>())
      wrong(name, "is not base and adapter together");
    update_square_ += (exact - base).square().sum(at::kDouble).item<double>();
    lost_square_ += (stored - exact).square().sum(at::kDouble).item<double>();
  }

  [[noreturn]] void wrong(const std::string& name, const char* what) const {
    fail(ErrorKind::internal, "{}: after merging, '{}' {}; do not use this folder",
         output_.string(), name, what);
  }

  std::map<std::string, Tensor> base_, merged_;
  const Merger& merger_;
  fs::path output_;
  MergeReport report_;
  double update_square_ = 0, lost_square_ = 0;
};

}  // namespace

MergeReport merge_adapter(const fs::path& base, const PeftAdapter& adapter, const fs::path& output,
                          std::optional<at::ScalarType> dtype) {
  const Merger merger(adapter, read_model_config(base));
  std::map<std::string, Tensor> weights = read_model_tensors(base);
  if (merger.untie()) {
    const std::string embeddings = merger.embeddings() + std::string(kWeight),
                      head = merger.head() + std::string(kWeight);
    if (!weights.contains(head)) weights[head] = weights[embeddings];
    if (!weights.contains(embeddings)) weights[embeddings] = weights[head];
  }
  check_fits(base, weights, adapter);
  const auto change = [&](const std::string& name, const Tensor& stored) {
    return merger.changes(name) ? merger.merged(name, stored) : stored;
  };
  write_model_folder(base, output, {change, dtype, merger.untie()});
  return MergeCheck(std::move(weights), merger, output).run();
}

}  // namespace finetune
