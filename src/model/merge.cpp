#include "finetune/base/error.h"
#include "finetune/formats/safetensors.h"
#include "finetune/model/write_model.h"
#include "model/adapter_slots.h"
#include "model/base_tensors.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <atomic>
#include <cstring>
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
    const Tensor weight = merged_weight(linear.weight.dense(), linear);
    return is_embedding(name) ? weight.t() : weight;
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

void check_fits(const fs::path& folder, const BaseTensors& base, const PeftAdapter& adapter) {
  std::vector<std::string> problems;
  const auto check = [&](const std::string& name, const std::string& module, const char* what,
                         const auto& needed) {
    if (!base.has(name)) {
      problems.push_back(name + ": this model has no such tensor");
      return;
    }
    const std::vector<std::int64_t> shape = base.shape(name), expected = needed(shape);
    if (shape == expected) return;
    problems.push_back(fmt::format("{}: the model's weight is {}, the {} of the adapter {}", module,
                                   format_shape(shape), what, format_shape(expected)));
  };
  using Shape = std::vector<std::int64_t>;
  for (const auto& [module, lora] : adapter.modules) {
    Shape shape = {lora.b.size(0), lora.a.size(1)};
    if (lora.embedding) std::swap(shape[0], shape[1]);
    check(module + std::string(kWeight), module, "update", [&](const Shape&) { return shape; });
  }
  for (const auto& [module, factors] : adapter.ia3) {
    check(module + std::string(kWeight), module, "scaled weight", [&](Shape shape) {
      shape[factors.size(0) == 1 ? 1 : 0] = factors.numel();
      return shape;
    });
  }
  for (const auto& [name, tensor] : adapter.saved)
    check(name, name, "tensor", [&](const Shape&) { return tensor.sizes().vec(); });
  if (problems.empty()) return;
  fail(ErrorKind::model, "the adapter does not fit {}:\n{}\nIt was trained on: {}", folder.string(),
       join_problems(problems), adapter.base_model_name_or_path);
}

double half_ulp(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return 1.0 / 256.0;
  if (dtype == at::kHalf) return 1.0 / 2048.0;
  return std::numeric_limits<float>::epsilon() / 2.0;
}

/// On all threads, which at::equal is not; most of a model is compared so.
bool same_bytes(const Tensor& x, const Tensor& y) {
  const Tensor a = x.contiguous(), b = y.contiguous();
  const auto* left = static_cast<const std::byte*>(a.const_data_ptr());
  const auto* right = static_cast<const std::byte*>(b.const_data_ptr());
  std::atomic<bool> same = a.sizes() == b.sizes();
  at::parallel_for(0, same ? a.nbytes() : 0, 1 << 20, [&](std::int64_t begin, std::int64_t end) {
    if (std::memcmp(left + begin, right + begin, end - begin) != 0) same = false;
  });
  return same;
}

/// How a stored weight differs from what it was made of.
struct Difference {
  double update_square = 0;  ///< |exact - before|^2
  double lost_square = 0;    ///< |stored - exact|^2
  bool within = true;        ///< no number is further away than `allowed` of the exact one
};

/// One pass over three tensors of a shape; tensor operations would make seven.
Difference compare(const Tensor& before, const Tensor& exact, const Tensor& stored,
                   double allowed) {
  constexpr std::int64_t kPiece = 1 << 16;  // pieces, not threads, decide the order of the sums
  const auto flat = [](const Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); };
  const Tensor x = flat(before), y = flat(exact), z = flat(stored);
  const float *base = x.const_data_ptr<float>(), *meant = y.const_data_ptr<float>(),
              *written = z.const_data_ptr<float>();
  const std::int64_t count = y.numel();
  std::vector<Difference> pieces((count + kPiece - 1) / kPiece);
  at::parallel_for(0, pieces.size(), 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t piece = first; piece < last; ++piece) {
      Difference& sum = pieces[piece];
      for (std::int64_t i = piece * kPiece; i < std::min(count, (piece + 1) * kPiece); ++i) {
        const double update = static_cast<double>(meant[i]) - base[i],
                     lost = static_cast<double>(written[i]) - meant[i];
        sum.update_square += update * update;
        sum.lost_square += lost * lost;
        sum.within = sum.within && std::abs(lost) <= std::abs(meant[i]) * allowed + 1e-30;
      }
    }
  });
  Difference total;
  for (const Difference& piece : pieces) {
    total.update_square += piece.update_square;
    total.lost_square += piece.lost_square;
    total.within = total.within && piece.within;
  }
  return total;
}

/// Compares a reopened folder with base and adapter.
class MergeCheck {
 public:
  MergeCheck(const BaseTensors& base, const Merger& merger, const fs::path& output, bool requantize)
      : base_(base), merged_(output), merger_(merger), output_(output), requantize_(requantize) {}

  MergeReport run() {
    for (const std::string& name : base_.full_names()) {
      ++report_.tensors;
      if (base_.quantization(name) != Quantization::none) ++report_.dequantized;
      if (!merged_.has(name)) wrong(name, "is not there");
      if (merger_.changes(name)) {
        ++report_.merged;
        check_changed(name);
      } else {
        check_copied(name);
      }
      base_.release(name);
      merged_.release(name);
    }
    if (update_square_ > 0) report_.lost_to_rounding = std::sqrt(lost_square_ / update_square_);
    return report_;
  }

 private:
  bool requantized_again(const std::string& name) const {
    return requantize_ && base_.quantization(name) == Quantization::nf4;
  }

  void check_copied(const std::string& name) const {
    const Tensor stored = merged_.tensor(name);
    if (!same_bytes(stored, base_.tensor(name).to(stored.scalar_type())))
      wrong(name, "differs from the base");
  }

  void check_changed(const std::string& name) {
    const Tensor before = base_.tensor(name), exact = merger_.merged(name, before),
                 stored = merged_.tensor(name);
    if (requantized_again(name)) {
      // The quantized sum of base and adapter, bit for bit.
      const Nf4Tensor expected = requantized(base_, name, before, exact);
      if (!at::equal(stored, nf4_dequantize(expected, at::kFloat)))
        wrong(name, "is not base and adapter together");
    } else if (name.ends_with(kWeight) && before.dim() == 2) {
      check_products(name, before, stored);
    }
    check_values(name, before, exact, stored);
  }

  /// The products of the stored weight against those of base and live adapter, with probes of -1
  /// and 1. Rounding the weight W' to its type may change a product by half an ulp of |W'| |x|;
  /// summing in float32 by a little more.
  void check_products(const std::string& name, const Tensor& before, const Tensor& stored) {
    const Linear linear = merger_.live(name, before);
    if (!linear.lora && !linear.ia3) return;
    const Tensor weight =
        (merger_.is_embedding(name) ? stored.t() : stored).to(at::kFloat).contiguous();
    const Tensor x =
        at::empty({kProbes, weight.size(1)}, at::kFloat)
            .bernoulli_(0.5, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{7}))
            .mul_(2.0)
            .sub_(1.0);
    const Tensor live = linear.forward(x, {});
    const Tensor difference = (at::mm(x, weight.t()) - live).abs();
    const Tensor scale = at::linalg_vector_norm(weight, 1, {1}) +
                         at::linalg_vector_norm(linear.weight.dense(), 1, {1});
    const double allowed = 2.0 * half_ulp(stored.scalar_type()) + 1e-5;
    if (!difference.le(scale * allowed).all().item<bool>())
      wrong(name, "does not give what base and adapter give");
    const double relative =
        difference.max().item<double>() / std::max(live.abs().max().item<double>(), 1e-30);
    report_.largest_difference = std::max(report_.largest_difference, relative);
  }

  /// Every number against the exact one, and what rounding to the stored type took of the update.
  void check_values(const std::string& name, const Tensor& before, const Tensor& exact,
                    const Tensor& stored) {
    const Difference difference =
        compare(before, exact, stored, 2.0 * half_ulp(stored.scalar_type()));
    // NF4 is further away than rounding; its bits were compared already.
    if (!difference.within && !requantized_again(name))
      wrong(name, "is not base and adapter together");
    update_square_ += difference.update_square;
    lost_square_ += difference.lost_square;
  }

  [[noreturn]] void wrong(const std::string& name, const char* what) const {
    fail(ErrorKind::internal, "{}: after merging, '{}' {}; do not use this folder",
         output_.string(), name, what);
  }

  const BaseTensors& base_;
  BaseTensors merged_;
  const Merger& merger_;
  fs::path output_;
  bool requantize_;
  MergeReport report_;
  double update_square_ = 0, lost_square_ = 0;
};

/// Throws where an NF4 checkpoint cannot be written.
void check_requantize(const fs::path& folder, const BaseTensors& base,
                      const MergeOptions& options) {
  const bool stored = base.any_stored_nf4();
  if (!stored && options.trained.kind != Quantization::nf4) {
    fail(ErrorKind::config,
         "--requantize: {} is not quantized, and the adapter was trained over quantization: {}; "
         "expected nf4, which --quantization nf4 says",
         folder.string(), to_string(options.trained.kind));
  }
  if (!stored && base.config().moe.num_experts > 0) {
    fail(ErrorKind::config,
         "--requantize: transformers does not quantize the experts of {}; leave it out",
         base.config().model_type);
  }
}

}  // namespace

MergeReport merge_adapter(const fs::path& base, const PeftAdapter& adapter, const fs::path& output,
                          const MergeOptions& options) {
  BaseTensors tensors(base, options.trained);
  if (options.requantize) check_requantize(base, tensors, options);
  const Merger merger(adapter, tensors.config());
  if (merger.untie()) {
    const std::string embeddings = merger.embeddings() + std::string(kWeight),
                      head = merger.head() + std::string(kWeight);
    if (!tensors.has(head)) {
      tensors.add_twin(head, embeddings);
    } else if (!tensors.has(embeddings)) {
      tensors.add_twin(embeddings, head);
    }
  }
  check_fits(base, tensors, adapter);
  const auto change = [&](const std::string& name, const Tensor& stored) {
    return merger.changes(name) ? merger.merged(name, stored) : stored;
  };
  write_model_folder(base, output,
                     {change, options.dtype, merger.untie(), options.trained, options.requantize});
  return MergeCheck(tensors, merger, output, options.requantize).run();
}

}  // namespace finetune
