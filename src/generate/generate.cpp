#include "finetune/generate/generate.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

namespace finetune {

namespace {

/// Sequences that are decoded together. Finished ones leave, so their slots cost nothing.
class Decoder {
 public:
  Decoder(const CausalLM& model, const GenerateOptions& options,
          const std::vector<std::vector<std::int32_t>>& prompts)
      : model_(model), options_(options), prompts_(prompts), results_(prompts.size()) {
    cache_.layers.resize(model.layers.size());
  }

  std::vector<Generation> run() {
    start();
    while (!active_.empty()) {
      if (interrupt_signal() != 0) {
        for (const Slot& slot : active_) results_[slot.index].finish_reason = "interrupted";
        break;
      }
      step();
    }
    return std::move(results_);
  }

 private:
  struct Slot {
    std::size_t index;   // of the prompt
    std::int64_t room;   // tokens it may still write
    std::int32_t token;  // the last one
  };

  void start() {
    std::vector<std::int64_t> ids, starts = {0};
    for (std::size_t i = 0; i < prompts_.size(); ++i) {
      const auto length = static_cast<std::int64_t>(prompts_[i].size());
      const std::int64_t limit = model_.config.longest_sequence();
      FT_CHECK(length > 0, "empty prompt {}", i);
      if (length >= limit) {
        fail(ErrorKind::data,
             "a prompt of {} tokens leaves no room for an answer; this model reads {} in all",
             length, limit);
      }
      ids.insert(ids.end(), prompts_[i].begin(), prompts_[i].end());
      starts.push_back(static_cast<std::int64_t>(ids.size()));
      active_.push_back({i, std::min(options_.max_new_tokens, limit - length), 0});
    }
    for (LayerCache& layer : cache_.layers) {
      layer.keys.resize(prompts_.size());
      layer.values.resize(prompts_.size());
    }
    cache_.lengths.assign(prompts_.size(), 0);
    choose(pass(ids, starts), starts);
  }

  void step() {
    std::vector<std::int64_t> ids, starts = {0};
    for (std::size_t s = 0; s < active_.size(); ++s) {
      if (model_.config.angles_change_at(cache_.lengths[s] +
                                         1)) {  // the whole text again, as transformers does
        const std::vector<std::int32_t>&prompt = prompts_[active_[s].index],
              &answer = results_[active_[s].index].ids;
        ids.insert(ids.end(), prompt.begin(), prompt.end());
        ids.insert(ids.end(), answer.begin(), answer.end());
        cache_.lengths[s] = 0;
      } else {
        ids.push_back(active_[s].token);
      }
      starts.push_back(static_cast<std::int64_t>(ids.size()));
    }
    choose(pass(ids, starts), starts);
  }

  Tensor pass(const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& starts) {
    const Tensor input = at::tensor(ids, at::kLong).to(model_.device);
    return model_.hidden_states(input, starts, cache_);
  }

  /// Takes the best next token of every sequence; those that end leave.
  void choose(const Tensor& hidden, const std::vector<std::int64_t>& starts) {
    std::vector<std::int64_t> last(starts.begin() + 1, starts.end());
    for (std::int64_t& row : last) --row;
    const Tensor rows = hidden.index_select(0, at::tensor(last, at::kLong).to(model_.device));
    const Tensor best = head_logits(rows, model_.head()).argmax(-1).cpu();
    std::vector<std::size_t> kept;
    for (std::size_t s = 0; s < active_.size(); ++s) {
      Slot& slot = active_[s];
      slot.token = static_cast<std::int32_t>(best.const_data_ptr<std::int64_t>()[s]);
      if (!ends(slot)) kept.push_back(s);
    }
    keep(kept);
  }

  bool ends(Slot& slot) {
    Generation& result = results_[slot.index];
    const auto& stops = options_.stop_ids;
    if (std::find(stops.begin(), stops.end(), slot.token) != stops.end()) {
      result.finish_reason = "stop";
      return true;
    }
    if (slot.room <= 0) {
      result.finish_reason = "length";
      return true;
    }
    result.ids.push_back(slot.token);
    if (--slot.room > 0) return false;
    result.finish_reason = "length";
    return true;
  }

  void keep(const std::vector<std::size_t>& kept) {
    if (kept.size() == active_.size()) return;
    const auto filter = [&](auto& list) {
      for (std::size_t i = 0; i < kept.size(); ++i) {
        if (i != kept[i]) list[i] = std::move(list[kept[i]]);
      }
      list.resize(kept.size());
    };
    filter(active_);
    filter(cache_.lengths);
    for (LayerCache& layer : cache_.layers) {
      filter(layer.keys);
      filter(layer.values);
    }
  }

  const CausalLM& model_;
  const GenerateOptions& options_;
  const std::vector<std::vector<std::int32_t>>& prompts_;
  std::vector<Generation> results_;
  std::vector<Slot> active_;
  KvCache cache_;
};

}  // namespace

std::vector<Generation> generate(const CausalLM& model,
                                 const std::vector<std::vector<std::int32_t>>& prompts,
                                 const GenerateOptions& options) {
  const at::NoGradGuard no_grad;
  return Decoder(model, options, prompts).run();
}

}  // namespace finetune
