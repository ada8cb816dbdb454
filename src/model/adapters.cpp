#include "finetune/model/adapters.h"

#include "finetune/base/error.h"
#include "finetune/base/random.h"
#include "finetune/formats/safetensors.h"
#include "finetune/model/write_model.h"
#include "finetune/nn/generator.h"
#include "model/adapter_slots.h"
#include "model/bottlenecks.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>

namespace finetune {

namespace {

/// Every key of rank_pattern and alpha_pattern must be a pattern that selects something.
template <typename T>
void check_pattern(const std::map<std::string, T>& pattern, const std::string& key,
                   const std::vector<AdapterSlot>& slots) {
  for (const auto& [name, value] : pattern) {
    try {
      if (std::any_of(slots.begin(), slots.end(),
                      [&](const AdapterSlot& slot) { return pattern_matches(name, slot.name); })) {
        continue;
      }
    } catch (const std::regex_error& error) {
      fail(ErrorKind::config, "{}: '{}' is no regular expression ({})", key, name, error.what());
    }
    fail(ErrorKind::config,
         "{}: '{}' matches no adapted module; a key is a module's name, its end after a dot, or a "
         "regular expression for one of them, such as {}",
         key, name, slots.front().name);
  }
}

/// What the configuration says besides the adapter that it continues must agree with it.
void check_continued(CausalLM& model, const Config& config, const PeftAdapter& adapter) {
  const PeftLora& first = adapter.modules.begin()->second;
  check_given(config, "lora_rank", config.lora_rank, first.rank());
  check_given(config, "lora_alpha", config.lora_alpha, first.alpha);
  check_given(config, "use_rslora", config.use_rslora, adapter.use_rslora);
  check_given(config, "use_dora", config.use_dora, adapter.use_dora());
  check_not_given(config, {"rank_pattern", "alpha_pattern", "modules_to_save"});
  if (!config.is_given("target_modules")) return;
  for (const AdapterSlot& slot : select_slots(model, config)) {
    if (*slot.lora) continue;
    fail(ErrorKind::config,
         "{}: target_modules includes {}, which the adapter {} does not adapt; leave "
         "target_modules out",
         config.origins.at("target_modules"), slot.name, config.init_lora_weights.path);
  }
}

void continue_adapter(CausalLM& model, const Config& config) {
  const PeftAdapter adapter = read_peft_adapter(config.init_lora_weights.path);
  if (adapter.type != PeftAdapter::Type::lora) {
    fail(ErrorKind::config, "init_lora_weights: {} is an (IA)3 adapter; expected LoRA",
         config.init_lora_weights.path);
  }
  if (adapter.scores && config.stage != Stage::reward) {
    fail(ErrorKind::config,
         "init_lora_weights: {} is the adapter of a reward model, which writes no text; expected "
         "one of a language model, or stage: reward",
         config.init_lora_weights.path);
  }
  attach_adapter(model, adapter);
  check_continued(model, config, adapter);
  for (const AdapterSlot& slot : adapter_slots(model)) {
    if (*slot.lora) (*slot.lora)->dropout = config.lora_dropout;
  }
}

/// Puts the attached matrices under new ones, or leaves them alone as a constant update.
void stack(const AdapterSlot& slot, std::optional<Lora> lower, std::optional<Lora> upper) {
  if (!lower) {
    *slot.lora = std::move(upper);
    return;
  }
  if (!upper) {
    upper = *lower;
    upper->a = lower->a.narrow(0, 0, 0).clone();
    upper->b = lower->b.narrow(1, 0, 0).clone();
    upper->constant_a = lower->whole_a();
    upper->constant_b = lower->whole_b();
  } else {
    const Tensor a = lower->whole_a(), b = lower->whole_b() * (lower->scaling / upper->scaling);
    upper->constant_a = upper->constant_a.defined() ? at::cat({upper->constant_a, a}, 0) : a;
    upper->constant_b = upper->constant_b.defined() ? at::cat({upper->constant_b, b}, 1) : b;
  }
  *slot.lora = std::move(upper);
}

void attach_new_lora(CausalLM& model, const Config& config) {
  if (config.stack_on_adapter) {
    const PeftAdapter lower = read_peft_adapter(*config.stack_on_adapter);
    if (lower.use_dora() || lower.type != PeftAdapter::Type::lora || !lower.saved.empty()) {
      fail(ErrorKind::config,
           "stack_on_adapter: {} is more than a low-rank update; merge it into the base first",
           *config.stack_on_adapter);
    }
    attach_adapter(model, lower);
  }
  const std::vector<AdapterSlot> selected = select_slots(model, config);
  check_pattern(config.rank_pattern, "rank_pattern", selected);
  check_pattern(config.alpha_pattern, "alpha_pattern", selected);
  std::map<std::string, Lora> fresh;
  const auto stored = config.init_lora_weights.kind == LoraInit::Kind::loftq
                          ? read_model_tensors(config.model_name_or_path)
                          : std::map<std::string, Tensor>();
  for (const AdapterSlot& slot : selected)
    fresh[slot.name] = new_lora(slot, config, stored, model.device);
  for (const AdapterSlot& slot : adapter_slots(model)) {
    const auto found = fresh.find(slot.name);
    stack(slot, *slot.lora,
          found == fresh.end() ? std::nullopt : std::optional<Lora>(found->second));
  }
}

void attach_new_ia3(CausalLM& model, const Config& config) {
  const ParameterNames& names = model.config.names;
  const std::vector<std::string> on_input =
      config.is_given("feedforward_modules")
          ? config.feedforward_modules
          : std::vector<std::string>{names.mlp + "." + names.down};
  for (const AdapterSlot& slot : select_slots(model, config)) {
    if (slot.linear == nullptr) {
      fail(ErrorKind::config, "target_modules: {} is no linear of the blocks; (IA)3 scales those",
           slot.name);
    }
    Ia3 ia3;
    ia3.on_input = std::any_of(on_input.begin(), on_input.end(),
                               [&](const std::string& wanted) { return named(slot.name, wanted); });
    ia3.factors = ia3.on_input ? at::ones({1, slot.in_features()}, at::kFloat)
                               : at::ones({slot.out_features(), 1}, at::kFloat);
    ia3.factors = ia3.factors.to(model.device);
    slot.linear->ia3 = ia3;
  }
}

std::string shape_problem(const AdapterSlot& slot, const PeftLora& lora) {
  if (lora.embedding != slot.embedding)
    return fmt::format("{}: the adapter has it as {}", slot.name,
                       lora.embedding ? "an embedding" : "a linear");
  if (lora.a.size(1) != slot.in_features()) {
    return fmt::format("{}.lora_A is {}; this model needs [{}, {}]", slot.name,
                       format_shape(lora.a.sizes().vec()), lora.a.size(0), slot.in_features());
  }
  if (lora.b.size(0) != slot.out_features()) {
    return fmt::format("{}.lora_B is {}; this model needs [{}, {}]", slot.name,
                       format_shape(lora.b.sizes().vec()), slot.out_features(), lora.b.size(1));
  }
  return "";
}

std::string ia3_problem(const AdapterSlot& slot, const Tensor& factors) {
  if (slot.linear == nullptr) return slot.name + ": (IA)3 scales linears of the blocks only";
  const std::int64_t needed = factors.size(0) == 1 ? slot.in_features() : slot.out_features();
  if (factors.numel() == needed) return "";
  return fmt::format("{}.ia3_l is {}; this model needs {} values", slot.name,
                     format_shape(factors.sizes().vec()), needed);
}

void check_fits(const std::map<std::string, AdapterSlot>& slots, const PeftAdapter& adapter) {
  std::vector<std::string> problems;
  const auto check = [&](const std::string& name, const auto& problem_of) {
    const auto slot = slots.find(name);
    const std::string problem =
        slot == slots.end() ? name + ": this model has no such module" : problem_of(slot->second);
    if (!problem.empty()) problems.push_back(problem);
  };
  for (const auto& [name, lora] : adapter.modules)
    check(name, [&](const AdapterSlot& slot) { return shape_problem(slot, lora); });
  for (const auto& [name, factors] : adapter.ia3)
    check(name, [&](const AdapterSlot& slot) { return ia3_problem(slot, factors); });
  if (problems.empty()) return;
  fail(
      ErrorKind::model, "the adapter does not fit this base model:\n{}\nIt was trained on: {}",
      join_problems(problems),
      adapter.base_model_name_or_path.empty() ? "(not recorded)" : adapter.base_model_name_or_path);
}

void restore_lora(const AdapterSlot& slot, const PeftLora& saved, const std::string& where) {
  Lora& lora = **slot.lora;
  const std::int64_t rank = lora.a.size(0), whole = lora.whole_a().size(0);
  if (!saved.a.defined() || saved.rank() != whole) {
    fail(ErrorKind::model, "{}: '{}' has no matrices of rank {}", where, slot.name, whole);
  }
  fill_tensor(lora.a.detach(), saved.a.narrow(0, 0, rank), slot.name + ".lora_A", where);
  fill_tensor(lora.b.detach(), saved.b.narrow(1, 0, rank), slot.name + ".lora_B", where);
  if (lora.magnitude.defined())
    fill_tensor(lora.magnitude.detach(), saved.magnitude, slot.name + ".lora_magnitude_vector",
                where);
  if (!lora.constant_a.defined()) return;
  fill_tensor(lora.constant_a, saved.a.narrow(0, rank, whole - rank), slot.name + ".lora_A", where);
  fill_tensor(lora.constant_b, saved.b.narrow(1, rank, whole - rank), slot.name + ".lora_B", where);
}

Tensor on_cpu(const Tensor& tensor) {
  return tensor.defined() ? tensor.detach().cpu().contiguous() : Tensor();
}

/// How the base was held while the adapter was trained: merging needs the same weights.
void record_quantization(const CausalLM& model, PeftAdapter& adapter) {
  for (const Linear* linear : model.linears()) {
    if (!linear->weight.quantized()) continue;
    const Nf4Tensor* nf4 = linear->weight.nf4();
    adapter.quantization = nf4 != nullptr ? Quantization::nf4 : Quantization::int8;
    adapter.double_quant = nf4 == nullptr || nf4->double_quant();
    return;
  }
}

/// True when no other module ends like one of these.
bool suffixes_are_exact(const std::vector<AdapterSlot>& slots, const std::set<std::string>& names) {
  std::set<std::string> suffixes;
  for (const std::string& name : names) suffixes.insert(last_part(name));
  return std::none_of(slots.begin(), slots.end(), [&](const AdapterSlot& slot) {
    return !names.contains(slot.name) && suffixes.contains(last_part(slot.name));
  });
}

std::vector<std::string> written_names(const std::set<std::string>& names, bool as_suffixes) {
  std::set<std::string> written;
  for (const std::string& name : names) written.insert(as_suffixes ? last_part(name) : name);
  return {written.begin(), written.end()};
}

void attach_configured(CausalLM& model, const Config& config) {
  const bool continues = config.init_lora_weights.kind == LoraInit::Kind::adapter;
  if (config.method == Method::adapter)
    return continues ? continue_bottlenecks(model, config) : attach_new_bottlenecks(model, config);
  if (config.method == Method::ia3) {
    attach_new_ia3(model, config);
  } else if (continues) {
    return continue_adapter(model, config);
  } else {
    attach_new_lora(model, config);
  }
  train_modules(model, config.modules_to_save);
}

/// Small numbers, as transformers begins the head of a sequence classifier.
void add_score_head(CausalLM& model, std::uint64_t seed) {
  constexpr std::uint64_t kScoreStream = 0x73636f72;
  constexpr double kDeviation = 0.02;
  model.score =
      at::empty({1, model.config.hidden_size}, at::kFloat)
          .normal_(0.0, kDeviation, seeded_generator(at::kCPU, mix_seed({seed, kScoreStream})))
          .to(model.device);
  std::vector<std::string> names = model.modules_to_save;
  train_modules(model, {kScoreHead});
  names.emplace_back(kScoreHead);
  model.modules_to_save = std::move(names);
}

}  // namespace

void attach_new_adapter(CausalLM& model, const Config& config) {
  attach_configured(model, config);
  if (config.stage == Stage::reward && !model.score.defined())
    add_score_head(model, static_cast<std::uint64_t>(config.seed));
}

void attach_adapter(CausalLM& model, const SavedAdapter& saved) {
  if (const auto* bottlenecks = std::get_if<BottleneckAdapter>(&saved))
    return attach_bottlenecks(model, *bottlenecks);
  const PeftAdapter& adapter = std::get<PeftAdapter>(saved);
  std::map<std::string, AdapterSlot> slots;
  for (const AdapterSlot& slot : adapter_slots(model)) slots[slot.name] = slot;
  check_fits(slots, adapter);
  for (const auto& [name, stored] : adapter.modules) {
    const AdapterSlot& slot = slots.at(name);
    *slot.lora = lora_of(adapter, stored, slot.weight(), model.device);
  }
  for (const auto& [name, factors] : adapter.ia3) {
    slots.at(name).linear->ia3 =
        Ia3{factors.to(model.device, at::kFloat, false, true), factors.size(0) == 1};
  }
  if (adapter.scores)
    model.score =
        at::zeros({1, model.config.hidden_size}, at::TensorOptions(model.device).dtype(at::kFloat));
  train_modules(model, adapter.modules_to_save);
  const at::NoGradGuard no_grad;
  visit_trained_modules(model, [&](const std::string& name, Tensor& slot, bool) {
    const auto found = adapter.saved.find(name);
    fill_tensor(slot, found == adapter.saved.end() ? Tensor() : found->second, name, "the adapter");
  });
}

SavedAdapter adapter_of(CausalLM& model) {
  if (const auto bottlenecks = bottlenecks_of(model)) return *bottlenecks;
  PeftAdapter adapter;
  adapter.fan_in_fan_out = model.config.transposed_linears;
  adapter.modules_to_save = model.modules_to_save;
  adapter.scores = model.score.defined();
  record_quantization(model, adapter);
  std::set<std::string> adapted, on_input;
  const std::vector<AdapterSlot> slots = adapter_slots(model);
  for (const AdapterSlot& slot : slots) {
    if (slot.linear != nullptr && slot.linear->ia3) {
      adapter.type = PeftAdapter::Type::ia3;
      adapter.ia3[slot.name] = on_cpu(slot.linear->ia3->factors);
      adapted.insert(slot.name);
      if (slot.linear->ia3->on_input) on_input.insert(slot.name);
    }
    if (!*slot.lora) continue;
    const Lora& lora = **slot.lora;
    const Tensor a = on_cpu(lora.whole_a());
    // A constant part makes the rank larger; the scaling stays.
    const double alpha = lora.constant_a.defined()
                             ? lora.scaling / lora_scaling(1.0, a.size(0), lora.use_rslora)
                             : lora.alpha;
    adapter.modules[slot.name] = {a, on_cpu(lora.whole_b()), on_cpu(lora.magnitude), alpha,
                                  slot.embedding};
    adapter.use_rslora = lora.use_rslora;
    adapter.lora_dropout = lora.dropout;
    adapted.insert(slot.name);
  }
  const bool as_suffixes =
      suffixes_are_exact(slots, adapted) && suffixes_are_exact(slots, on_input);
  adapter.target_modules = written_names(adapted, as_suffixes);
  adapter.feedforward_modules = written_names(on_input, as_suffixes);
  visit_trained_modules(model, [&](const std::string& name, Tensor& slot, bool) {
    adapter.saved[name] = on_cpu(slot);
  });
  return adapter;
}

void restore_adapter(CausalLM& model, const SavedAdapter& values, const std::string& where) {
  if (const auto* bottlenecks = std::get_if<BottleneckAdapter>(&values))
    return restore_bottlenecks(model, *bottlenecks, where);
  const PeftAdapter& adapter = std::get<PeftAdapter>(values);
  const at::NoGradGuard no_grad;
  for (const AdapterSlot& slot : adapter_slots(model)) {
    if (*slot.lora) {
      const auto saved = adapter.modules.find(slot.name);
      restore_lora(slot, saved == adapter.modules.end() ? PeftLora() : saved->second, where);
    }
    if (slot.linear != nullptr && slot.linear->ia3) {
      const auto saved = adapter.ia3.find(slot.name);
      fill_tensor(slot.linear->ia3->factors.detach(),
                  saved == adapter.ia3.end() ? Tensor() : saved->second, slot.name + ".ia3_l",
                  where);
    }
  }
  visit_trained_modules(model, [&](const std::string& name, Tensor& slot, bool) {
    const auto saved = adapter.saved.find(name);
    fill_tensor(slot.detach(), saved == adapter.saved.end() ? Tensor() : saved->second, name,
                where);
  });
}

void detach_adapters(CausalLM& model) {
  for (const AdapterSlot& slot : adapter_slots(model)) slot.lora->reset();
  for (const BottleneckSlot& slot : bottleneck_slots(model)) slot.bottleneck->reset();
  for (Linear* linear : model.linears()) {
    linear->ia3.reset();
    if (model.originals.contains(linear->name + ".weight")) linear->trained = Tensor();
  }
  const auto put_back = [&](const std::string& name, Tensor& tensor) {
    const auto original = model.originals.find(name);
    if (original != model.originals.end()) tensor = original->second;
  };
  for (Linear* linear : model.linears()) put_back(linear->name + ".bias", linear->bias);
  model.visit_other_tensors(
      [&](const std::string& name, Tensor& tensor, bool) { put_back(name, tensor); });
  if (model.config.tie_word_embeddings) model.lm_head = Tensor();
  model.score = Tensor();
  model.originals.clear();
  model.modules_to_save.clear();
}

}  // namespace finetune
