#include "finetune/base/error.h"
#include "finetune/base/random.h"
#include "model/adapter_slots.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <cmath>

namespace finetune {

namespace {

constexpr std::uint64_t kInitStream = 0x696e6974;  // apart from the streams of order and dropout

struct Pair {
  Tensor a, b;  // [R, I], [O, R]
};

Pair standard_start(const AdapterSlot& slot, std::int64_t rank, bool gaussian,
                    const at::Generator& generator) {
  Tensor a = at::empty({rank, slot.in_features()}, at::kFloat);
  Tensor b = at::zeros({slot.out_features(), rank}, at::kFloat);
  if (slot.embedding) return {a.zero_(), b.normal_(0.0, 1.0, generator)};
  if (gaussian) return {a.normal_(0.0, 1.0 / static_cast<double>(rank), generator), b};
  const double bound = 1.0 / std::sqrt(static_cast<double>(slot.in_features()));
  return {a.uniform_(-bound, bound, generator), b};
}

/// The `rank` largest singular values of `weight` [O, I], their roots on both sides:
/// B A = U_R S_R V_R^T / scaling.
Pair split(const Tensor& u, const Tensor& s, const Tensor& vh, std::int64_t rank, double scaling) {
  const Tensor root = (s.narrow(0, 0, rank) / scaling).sqrt();
  return {root.unsqueeze(1) * vh.narrow(0, 0, rank), u.narrow(1, 0, rank) * root};
}

Pair singular_start(const Tensor& weight, std::int64_t rank, double scaling) {
  const auto [u, s, vh] = at::linalg_svd(weight, /*full_matrices=*/false);
  return split(u, s, vh, rank, scaling);
}

/// The same by subspace iteration, for large matrices. Source: Halko et al. 2011, arXiv 0909.4061,
/// algorithm 4.4.
Pair approximate_start(const Tensor& weight, std::int64_t rank, double scaling, std::int64_t rounds,
                       const at::Generator& generator) {
  const Tensor probes = at::empty({weight.size(1), rank}, at::kFloat).normal_(0, 1, generator);
  const auto basis = [](const Tensor& columns) { return std::get<0>(at::linalg_qr(columns)); };
  Tensor q = basis(at::mm(weight, probes));
  for (std::int64_t i = 0; i < rounds; ++i) q = basis(at::mm(weight, basis(at::mm(weight.t(), q))));
  const auto [u, s, vh] = at::linalg_svd(at::mm(q.t(), weight), false);
  return split(at::mm(q, u), s, vh, rank, scaling);
}

/// B and A are the first columns of Q and rows of R. Source: Büyükakyüz 2024, arXiv 2406.01775.
Pair qr_start(const Tensor& weight, std::int64_t rank) {
  const auto [q, r] = at::linalg_qr(weight);
  return {r.narrow(0, 0, rank).contiguous(), q.narrow(1, 0, rank).contiguous()};
}

/// The value of the one key that matches the module; PEFT takes the first, so two that differ are
/// refused.
template <typename T>
T pattern_value(const std::map<std::string, T>& pattern, const std::string& module,
                const std::string& key, T fallback) {
  const std::string* matched = nullptr;
  for (const auto& [name, value] : pattern) {
    if (!pattern_matches(name, module)) continue;
    if (matched != nullptr && pattern.at(*matched) != value) {
      fail(ErrorKind::config, "{}: '{}' and '{}' both match {}, with different values", key,
           *matched, name, module);
    }
    matched = &name;
  }
  return matched == nullptr ? fallback : pattern.at(*matched);
}

void check_rank(const AdapterSlot& slot, std::int64_t rank, const char* init) {
  const std::int64_t most = std::min(slot.out_features(), slot.in_features());
  if (rank <= most) return;
  fail(ErrorKind::config,
       "init_lora_weights: {} needs a rank of at most {} for {}, whose weight is [{}, {}]; "
       "lora_rank "
       "is {}",
       init, most, slot.name, slot.out_features(), slot.in_features(), rank);
}

/// What the stored weight lost when it was quantized.
Tensor quantization_error(const AdapterSlot& slot, const Config& config,
                          const std::map<std::string, Tensor>& stored) {
  const Tensor full = stored.at(slot.name + ".weight").to(at::kFloat);
  if (full.sizes() != slot.weight().sizes()) {
    fail(ErrorKind::config,
         "init_lora_weights: loftq needs the weights before quantization, and {} holds quantized "
         "ones",
         config.model_name_or_path);
  }
  return full - slot.weight().cpu().to(at::kFloat);
}

Pair start_of(const AdapterSlot& slot, const Config& config,
              const std::map<std::string, Tensor>& stored, std::int64_t rank, double scaling,
              const at::Generator& generator) {
  const LoraInit& init = config.init_lora_weights;
  const auto weight = [&] { return slot.weight().cpu().to(at::kFloat); };
  if (!slot.embedding && init.kind == LoraInit::Kind::pissa) {
    check_rank(slot, rank, "pissa");
    return init.pissa_niter > 0
               ? approximate_start(weight(), rank, scaling, init.pissa_niter, generator)
               : singular_start(weight(), rank, scaling);
  }
  if (!slot.embedding && init.kind == LoraInit::Kind::olora) {
    check_rank(slot, rank, "olora");
    return qr_start(weight(), rank);
  }
  if (slot.linear != nullptr && init.kind == LoraInit::Kind::loftq) {
    check_rank(slot, rank, "loftq");
    return singular_start(quantization_error(slot, config, stored), rank, scaling);
  }
  return standard_start(slot, rank, init.kind == LoraInit::Kind::gaussian, generator);
}

/// The lengths of the rows of the weight with its update: DoRA begins where the base is.
Tensor row_lengths(const AdapterSlot& slot, const Lora& lora) {
  if (slot.linear == nullptr) {
    fail(ErrorKind::config,
         "use_dora: {} is no linear of the blocks; DoRA of embeddings and head is not in this "
         "version, leave it out of target_modules",
         slot.name);
  }
  return (slot.weight().to(at::kFloat) + delta_weight(lora)).norm(2, {1});
}

}  // namespace

Lora new_lora(const AdapterSlot& slot, const Config& config,
              const std::map<std::string, Tensor>& stored, const at::Device& device) {
  const std::int64_t rank =
      pattern_value(config.rank_pattern, slot.name, "rank_pattern", config.lora_rank);
  Lora lora;
  lora.alpha = pattern_value(config.alpha_pattern, slot.name, "alpha_pattern", config.lora_alpha);
  lora.use_rslora = config.use_rslora;
  lora.scaling = lora_scaling(lora.alpha, rank, config.use_rslora);
  lora.dropout = config.lora_dropout;
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(
      mix_seed({static_cast<std::uint64_t>(config.seed), kInitStream, slot.index}));
  const Pair start = start_of(slot, config, stored, rank, lora.scaling, generator);
  lora.a = start.a.to(device);
  lora.b = start.b.to(device);
  const LoraInit::Kind init = config.init_lora_weights.kind;
  const bool off_base =
      !slot.embedding && (init == LoraInit::Kind::pissa || init == LoraInit::Kind::olora);
  if (off_base) {
    lora.constant_a = lora.a.clone();
    lora.constant_b = lora.b.neg();
  }
  if (config.use_dora) lora.magnitude = row_lengths(slot, lora);
  return lora;
}

Lora lora_of(const PeftAdapter& adapter, const PeftLora& stored, const Tensor& weight,
             const at::Device& device) {
  const auto master = [&](const Tensor& tensor) {
    return tensor.defined() ? tensor.to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true)
                            : Tensor();
  };
  Lora lora;
  lora.a = master(stored.a);
  lora.b = master(stored.b);
  lora.magnitude = master(stored.magnitude);
  lora.alpha = stored.alpha;
  lora.use_rslora = adapter.use_rslora;
  lora.scaling = adapter.scaling(stored);
  if (adapter.init_lora_weights.empty() || stored.embedding) return lora;
  const Tensor base = weight.cpu().to(at::kFloat);
  const Pair start = adapter.init_lora_weights == "pissa"
                         ? singular_start(base, stored.rank(), lora.scaling)
                         : qr_start(base, stored.rank());
  lora.constant_a = start.a.to(device);
  lora.constant_b = start.b.neg().to(device);
  return lora;
}

}  // namespace finetune
