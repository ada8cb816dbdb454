#include "finetune/generate/generate.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/random.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <utility>

namespace finetune {

namespace {

/// New tokens of prompts that one pass takes; a longer prompt gets a pass of its own.
constexpr std::int64_t kPromptTokens = 4096;
constexpr std::int64_t kCacheBytes = std::int64_t{2} << 30;  // keys and values of all slots
constexpr std::int64_t kLeastSlots = 8;

/// Decodes sequences in slots. When one ends the next prompt takes its slot, buffers and all.
class Decoder {
 public:
  Decoder(const CausalLM& model, const GenerateOptions& options,
          const std::vector<std::vector<std::int32_t>>& prompts)
      : model_(model),
        options_(options),
        prompts_(prompts),
        copies_(static_cast<std::size_t>(options.copies)),
        results_(prompts.size() * copies_) {
    FT_CHECK(options.slots > 0 && options.copies > 0, "{} slots, {} copies", options.slots,
             options.copies);
    FT_CHECK(options.streams.empty() || options.streams.size() == prompts.size(),
             "{} streams of {} prompts", options.streams.size(), prompts.size());
    cache_.layers.resize(model.layers.size());
    slots_ = slots_within(kCacheBytes);
    for (std::size_t i = 0; i < prompts.size(); ++i) check_prompt(i);
  }

  std::vector<Generation> run() {
    while (fill(), !active_.empty()) {
      if (interrupt_signal() != 0) {
        for (const Slot& slot : active_) results_[slot.index].finish_reason = "interrupted";
        for (; next_ < results_.size(); ++next_) results_[next_].finish_reason = "interrupted";
        break;
      }
      step();
    }
    return std::move(results_);
  }

 private:
  struct Slot {
    std::size_t index;           // of the answer
    std::int64_t room;           // tokens it may still write
    std::int32_t token;          // the last one
    std::int64_t followers = 0;  // the next answers, which begin with this one's cache
    bool ended = false;
  };

  const std::vector<std::int32_t>& prompt_of(std::size_t index) const {
    return prompts_[index / copies_];
  }

  std::uint64_t stream_of(std::size_t index) const {
    if (options_.streams.empty()) return index;
    return mix_seed({options_.streams[index / copies_], index % copies_});
  }

  /// As many slots as asked for, or as their caches fit into so many bytes.
  std::int64_t slots_within(std::int64_t bytes) const {
    std::size_t longest = 0;
    for (const std::vector<std::int32_t>& prompt : prompts_)
      longest = std::max(longest, prompt.size());
    const ModelConfig& config = model_.config;
    const std::int64_t tokens = static_cast<std::int64_t>(longest) +
                                std::min(options_.max_new_tokens, config.longest_sequence());
    const std::int64_t each = 2 * config.num_hidden_layers * config.num_key_value_heads *
                              config.head_dim *
                              static_cast<std::int64_t>(c10::elementSize(model_.compute_dtype));
    const std::int64_t most = bytes / each / std::max<std::int64_t>(1, tokens);
    return std::min(options_.slots, std::max(kLeastSlots, most));
  }

  void check_prompt(std::size_t index) const {
    const auto length = static_cast<std::int64_t>(prompts_[index].size());
    const std::int64_t limit = model_.config.longest_sequence();
    FT_CHECK(length > 0, "empty prompt {}", index);
    if (length >= limit) {
      fail(ErrorKind::data,
           "a prompt of {} tokens leaves no room for an answer; this model reads {} in all", length,
           limit);
    }
  }

  /// Gives the slots of ended sequences, and new ones up to the limit, to the next prompts; takes
  /// away those that are left over.
  void fill() {
    std::int64_t tokens = 0;
    std::int64_t free = slots_ - std::count_if(active_.begin(), active_.end(),
                                               [](const Slot& slot) { return !slot.ended; });
    const auto take = [&](std::size_t s) {
      const auto length = static_cast<std::int64_t>(prompt_of(next_).size());
      const std::int64_t room =
          std::min(options_.max_new_tokens, model_.config.longest_sequence() - length);
      const auto siblings = static_cast<std::int64_t>(copies_ - 1 - next_ % copies_);
      const std::int64_t followers = std::min(siblings, free - 1);
      active_[s] = {next_, room, 0, followers};
      cache_.lengths[s] = 0;
      next_ += static_cast<std::size_t>(followers) + 1;
      free -= followers + 1;
      tokens += length;
    };
    const auto fits = [&] {
      return free > 0 && next_ < results_.size() &&
             (tokens == 0 ||
              tokens + static_cast<std::int64_t>(prompt_of(next_).size()) <= kPromptTokens);
    };
    for (std::size_t s = 0; s < active_.size() && fits(); ++s) {
      if (active_[s].ended) take(s);
    }
    drop_ended();
    while (fits()) {
      active_.emplace_back();
      cache_.lengths.push_back(0);
      for (LayerCache& layer : cache_.layers) {
        layer.keys.emplace_back();
        layer.values.emplace_back();
      }
      take(active_.size() - 1);
    }
  }

  void step() {
    std::vector<std::int64_t> ids, starts = {0};
    for (std::size_t s = 0; s < active_.size(); ++s) {
      const std::vector<std::int32_t>&prompt = prompt_of(active_[s].index),
            &answer = results_[active_[s].index].ids;
      // Where angles change with the length, the whole text again, as transformers does.
      if (cache_.lengths[s] > 0 && model_.config.angles_change_at(cache_.lengths[s] + 1))
        cache_.lengths[s] = 0;
      if (cache_.lengths[s] == 0) {
        ids.insert(ids.end(), prompt.begin(), prompt.end());
        ids.insert(ids.end(), answer.begin(), answer.end());
      } else {
        ids.push_back(active_[s].token);
      }
      starts.push_back(static_cast<std::int64_t>(ids.size()));
    }
    const Tensor input = at::tensor(ids, at::kLong).to(model_.device);
    const Tensor hidden = model_.hidden_states(input, starts, cache_);
    std::vector<std::int64_t> last(starts.begin() + 1, starts.end());
    for (std::int64_t& row : last) --row;
    add_followers(last);
    choose(hidden, last);
  }

  /// Gives the other answers to a prompt that was just read slots with copies of its cache. `last`:
  /// of each slot, the row of the hidden states that its next token is chosen from.
  void add_followers(std::vector<std::int64_t>& last) {
    for (std::size_t s = 0, count = active_.size(); s < count; ++s) {
      for (std::int64_t i = std::exchange(active_[s].followers, 0); i > 0; --i) {
        Slot follower = active_[s];
        follower.index += static_cast<std::size_t>(i);
        active_.push_back(follower);
        last.push_back(last[s]);
        cache_.lengths.push_back(cache_.lengths[s]);
        for (LayerCache& layer : cache_.layers) {
          layer.keys.push_back(layer.keys[s].clone());
          layer.values.push_back(layer.values[s].clone());
        }
      }
    }
  }

  /// Chooses the next token of every sequence.
  void choose(const Tensor& hidden, const std::vector<std::int64_t>& last) {
    const Tensor rows = hidden.index_select(0, at::tensor(last, at::kLong).to(model_.device));
    const Tensor logits = head_logits(rows, model_.head());
    if (options_.sampling.greedy() && options_.sampling.repetition_penalty == 1) {
      const Tensor best = logits.argmax(-1).cpu();
      for (std::size_t s = 0; s < active_.size(); ++s)
        active_[s].token = static_cast<std::int32_t>(best.const_data_ptr<std::int64_t>()[s]);
    } else {
      draw(logits.to(at::kCPU, at::kFloat).contiguous());
    }
    for (Slot& slot : active_) {
      slot.ended = ends(slot);
      if (slot.ended && options_.on_finish) options_.on_finish(slot.index, results_[slot.index]);
    }
  }

  void draw(const Tensor& logits) {
    const auto width = static_cast<std::size_t>(logits.size(1));
    const float* first = logits.const_data_ptr<float>();
    at::parallel_for(0, logits.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto s = static_cast<std::size_t>(begin); s < static_cast<std::size_t>(end); ++s) {
        Slot& slot = active_[s];
        const std::vector<std::int32_t>& answer = results_[slot.index].ids;
        std::vector<std::int32_t> seen;
        if (options_.sampling.repetition_penalty != 1) {
          seen = prompt_of(slot.index);
          seen.insert(seen.end(), answer.begin(), answer.end());
        }
        slot.token = choose_token({first + s * width, width}, seen, options_.sampling,
                                  stream_of(slot.index), answer.size());
      }
    });
  }

  bool ends(Slot& slot) {
    Generation& result = results_[slot.index];
    const auto finish = [&](const char* reason) {
      result.finish_reason = reason;
      return true;
    };
    const auto& stops = options_.stop_ids;
    if (std::find(stops.begin(), stops.end(), slot.token) != stops.end()) {
      result.stop_id = slot.token;
      return finish("stop");
    }
    if (slot.room <= 0) return finish("length");
    result.ids.push_back(slot.token);
    if (options_.on_token && options_.on_token(slot.index, result.ids)) return finish("stop");
    return --slot.room > 0 ? false : finish("length");
  }

  void drop_ended() {
    std::vector<std::size_t> kept;
    for (std::size_t s = 0; s < active_.size(); ++s) {
      if (!active_[s].ended) kept.push_back(s);
    }
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
  std::size_t copies_;
  std::int64_t slots_ = 0;
  std::vector<Generation> results_;  // of the first prompt's copies, then of the second's ...
  std::size_t next_ = 0;             // answer that has no slot yet
  std::vector<Slot> active_;
  KvCache cache_;
};

}  // namespace

std::vector<Generation> generate(const CausalLM& model,
                                 const std::vector<std::vector<std::int32_t>>& prompts,
                                 const GenerateOptions& options) {
  for (const std::vector<std::int32_t>& prompt : prompts) {
    for (const std::int32_t id : prompt) {
      if (id < model.config.vocab_size) continue;
      fail(ErrorKind::model,
           "the prompt holds the token id {}, but the model has embeddings for {} tokens "
           "(vocab_size). Is it the tokenizer of this model? finetune resize-vocab gives the model "
           "embeddings for added tokens",
           id, model.config.vocab_size);
    }
  }
  const at::NoGradGuard no_grad;
  return Decoder(model, options, prompts).run();
}

}  // namespace finetune
