#include "finetune/base/error.h"
#include "finetune/formats/safetensors.h"
#include "finetune/model/write_model.h"

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
constexpr std::string_view kWeight = ".weight";

/// The pair that updates the tensor of this name, or nullptr.
const PeftAdapter::Pair* pair_of(const PeftAdapter& adapter, const std::string& name) {
  if (!name.ends_with(kWeight)) return nullptr;
  const auto found = adapter.modules.find(name.substr(0, name.size() - kWeight.size()));
  return found == adapter.modules.end() ? nullptr : &found->second;
}

/// scaling * B A in float32
Tensor update_of(const PeftAdapter& adapter, const PeftAdapter::Pair& pair) {
  return at::mm(pair.b.to(at::kFloat), pair.a.to(at::kFloat)).mul_(adapter.config.scaling());
}

void check_fits(const fs::path& base, const std::map<std::string, Tensor>& weights,
                const PeftAdapter& adapter) {
  std::vector<std::string> problems;
  for (const auto& [module, pair] : adapter.modules) {
    const auto found = weights.find(module + std::string(kWeight));
    const std::vector<std::int64_t> shape = {pair.b.size(0), pair.a.size(1)};
    if (found == weights.end()) {
      problems.push_back(fmt::format("{}: this model has no such linear", module));
    } else if (found->second.sizes().vec() != shape) {
      problems.push_back(
          fmt::format("{}: the model's weight is {}, the update of lora_A and lora_B is {}", module,
                      format_shape(found->second.sizes().vec()), format_shape(shape)));
    }
  }
  if (problems.empty()) return;
  fail(ErrorKind::model, "the adapter does not fit {}:\n{}\nIt was trained on: {}", base.string(),
       join_problems(problems), adapter.config.base_model_name_or_path);
}

double half_ulp(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return 1.0 / 256.0;
  if (dtype == at::kHalf) return 1.0 / 2048.0;
  return std::numeric_limits<float>::epsilon() / 2.0;
}

/// Compares a reopened folder with base and adapter.
class MergeCheck {
 public:
  MergeCheck(std::map<std::string, Tensor> base, const PeftAdapter& adapter, const fs::path& output)
      : base_(std::move(base)),
        merged_(read_model_tensors(output)),
        adapter_(adapter),
        output_(output) {}

  MergeReport run() {
    for (const auto& [name, tensor] : base_) {
      ++report_.tensors;
      const PeftAdapter::Pair* pair = pair_of(adapter_, name);
      if (pair != nullptr) {
        check_merged(name, *pair);
      } else {
        check_copied(name);
      }
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

  /// y = W' x against W x + s B (A x), which is what the live adapter computes. Rounding W' to its
  /// type may change y by half an ulp of |W'| |x|; summing in float32 by a little more.
  void check_merged(const std::string& name, const PeftAdapter::Pair& pair) {
    ++report_.merged;
    const Tensor stored = merged_.at(name), weight = stored.to(at::kFloat),
                 base = base_.at(name).to(at::kFloat);
    const Tensor x =
        at::empty({weight.size(1), kProbes}, at::kFloat)
            .normal_(0.0, 1.0, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{7}));
    const Tensor live =
        at::mm(base, x) +
        at::mm(pair.b.to(at::kFloat), at::mm(pair.a.to(at::kFloat), x)) * adapter_.config.scaling();
    const Tensor difference = (at::mm(weight, x) - live).abs();
    const Tensor scale = at::mm(weight.abs() + base.abs(), x.abs());
    const double allowed = 2.0 * half_ulp(stored.scalar_type()) + 1e-5;
    if (!difference.le(scale * allowed).all().item<bool>())
      wrong(name, "does not give what base and adapter give");
    const double relative =
        difference.max().item<double>() / std::max(live.abs().max().item<double>(), 1e-30);
    report_.largest_difference = std::max(report_.largest_difference, relative);
    const Tensor update = update_of(adapter_, pair);
    update_square_ += update.square().sum(at::kDouble).item<double>();
    lost_square_ += (weight - base - update).square().sum(at::kDouble).item<double>();
  }

  [[noreturn]] void wrong(const std::string& name, const char* what) const {
    fail(ErrorKind::internal, "{}: after merging, '{}' {}; do not use this folder",
         output_.string(), name, what);
  }

  std::map<std::string, Tensor> base_, merged_;
  const PeftAdapter& adapter_;
  fs::path output_;
  MergeReport report_;
  double update_square_ = 0, lost_square_ = 0;
};

}  // namespace

MergeReport merge_adapter(const fs::path& base, const PeftAdapter& adapter, const fs::path& output,
                          std::optional<at::ScalarType> dtype) {
  std::map<std::string, Tensor> weights = read_model_tensors(base);
  check_fits(base, weights, adapter);
  write_model_folder(base, output, dtype, [&](const std::string& name, const Tensor& stored) {
    const PeftAdapter::Pair* pair = pair_of(adapter, name);
    return pair == nullptr ? stored : stored.to(at::kFloat).add(update_of(adapter, *pair));
  });
  return MergeCheck(std::move(weights), adapter, output).run();
}

}  // namespace finetune
