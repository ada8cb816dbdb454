#include "text/supervision.h"

#include "finetune/base/error.h"

#include <algorithm>

namespace finetune {

namespace {

/// Bytes that hold what one message says, with what the template puts between its parts.
struct Region {
  std::size_t begin = 0, end = 0;
  std::size_t message = 0;
  bool is_last = true;  ///< of its message
};

/// The tracked ranges of each message joined where no other message comes between them. What the
/// turn of another message repeats (the name of a called tool in its result) counts only where a
/// message has no place of its own.
std::vector<Region> find_regions(const std::vector<jinja::Tracked>& tracked, std::size_t messages) {
  const auto is_own = [](const jinja::Tracked& range) {
    return range.turn < 0 || range.turn == range.message;
  };
  std::vector<bool> has_own(messages, false);
  for (const jinja::Tracked& range : tracked) {
    if (is_own(range)) has_own[static_cast<std::size_t>(range.message)] = true;
  }
  std::vector<Region> regions;
  for (const jinja::Tracked& range : tracked) {
    const auto message = static_cast<std::size_t>(range.message);
    if (has_own[message] && !is_own(range)) continue;
    if (!regions.empty() && regions.back().message == message) {
      regions.back().end = range.end;
    } else {
      regions.push_back({range.begin, range.end, message, true});
    }
  }
  std::vector<bool> seen(messages, false);
  for (auto region = regions.rbegin(); region != regions.rend(); ++region) {
    region->is_last = !seen[region->message];
    seen[region->message] = true;
  }
  return regions;
}

bool is_special(const Tokenizer& tokenizer, std::int32_t id) {
  const std::int32_t one[] = {id};
  return tokenizer.decode(one, true).empty() && !tokenizer.decode(one, false).empty();
}

/// The first special token, or the EOS text, in the bytes [begin, end), all written by the template
/// itself.
std::optional<SpecialText> find_stop(const std::string& text, std::size_t begin, std::size_t end,
                                     const Tokenizer& tokenizer) {
  const std::string_view gap = std::string_view(text).substr(begin, end - begin);
  std::optional<SpecialText> stop;
  const Tokenizer::Specials& specials = tokenizer.specials();
  if (specials.eos_id && !specials.eos_token.empty()) {
    const std::size_t at = gap.find(specials.eos_token);
    if (at != gap.npos)
      stop = SpecialText{{begin + at, begin + at + specials.eos_token.size()}, *specials.eos_id};
  }
  const Encoding encoding = tokenizer.encode(gap);
  for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
    const ByteSpan span = {encoding.offsets[i].begin + begin, encoding.offsets[i].end + begin};
    if (stop && span.begin >= stop->span.begin) break;
    if (span.end > span.begin && is_special(tokenizer, encoding.ids[i]))
      return SpecialText{span, encoding.ids[i]};
  }
  return stop;
}

/// The text as a message can show it.
std::string shown(std::string_view text) {
  std::string short_text(text.substr(0, 60));
  while (!short_text.empty() && (static_cast<unsigned char>(short_text.back()) & 0xC0) == 0x80)
    short_text.pop_back();
  return text.empty() ? "the end of the text"
                      : nlohmann::json(short_text)
                            .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void add_span(std::vector<ByteSpan>& spans, std::size_t begin, std::size_t end) {
  if (begin < end) spans.push_back({begin, end});
}

/// Sorted and joined where they touch.
std::vector<ByteSpan> merge(std::vector<ByteSpan> spans) {
  std::sort(spans.begin(), spans.end(), [](ByteSpan a, ByteSpan b) { return a.begin < b.begin; });
  std::vector<ByteSpan> merged;
  for (const ByteSpan span : spans) {
    if (!merged.empty() && span.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, span.end);
    } else {
      merged.push_back(span);
    }
  }
  return merged;
}

class Supervision {
 public:
  Supervision(jinja::Rendered rendered, const std::vector<Message>& messages,
              const Tokenizer& tokenizer, const std::string& name)
      : messages_(messages),
        tokenizer_(tokenizer),
        name_(name),
        regions_(find_regions(rendered.tracked, messages.size())),
        generation_(std::move(rendered.generation)) {
    result_.text = std::move(rendered.text);
  }

  RenderedText run(bool has_generation) {
    require_answers();
    mark_bos();
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      if (!is_trained(regions_[i])) continue;
      if (!has_generation) add_span(result_.supervised, regions_[i].begin, regions_[i].end);
      if (regions_[i].is_last) add_stop(i);
    }
    if (has_generation) add_generation();
    result_.supervised = merge(std::move(result_.supervised));
    return std::move(result_);
  }

 private:
  bool is_trained(const Region& region) const {
    const Message& message = messages_[region.message];
    return message.role == "assistant" && message.trained;
  }

  /// Every trained answer must be in the text.
  void require_answers() const {
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      const Message& message = messages_[i];
      if (message.role != "assistant" || !message.trained) continue;
      if (std::any_of(regions_.begin(), regions_.end(),
                      [&](const Region& region) { return region.message == i; }))
        continue;
      fail(ErrorKind::data,
           "message {} is an answer that the template {} does not show; expected text in it, or "
           "\"weight\": 0 where it "
           "is not to be learned",
           i + 1, name_);
    }
  }

  void mark_bos() {
    const Tokenizer::Specials& specials = tokenizer_.specials();
    result_.has_bos = !specials.bos_token.empty() && result_.text.starts_with(specials.bos_token);
    if (result_.has_bos && specials.bos_id)
      result_.specials.push_back({{0, specials.bos_token.size()}, *specials.bos_id});
  }

  void add_stop(std::size_t index) {
    const Region& region = regions_[index];
    const std::size_t limit =
        index + 1 < regions_.size() ? regions_[index + 1].begin : result_.text.size();
    const auto stop = find_stop(result_.text, region.end, limit, tokenizer_);
    if (!stop) {
      fail(ErrorKind::data,
           "the template {} ends the answer of message {} with no special token that the tokenizer "
           "has: {} follows it; "
           "expected the EOS token or another special one, or a template that is made for this "
           "tokenizer",
           name_, region.message + 1,
           shown(std::string_view(result_.text).substr(region.end, limit - region.end)));
    }
    result_.specials.push_back(*stop);
    result_.supervised.push_back(stop->span);
  }

  /// The blocks that the template itself marks, but for those of answers that are not trained.
  void add_generation() {
    for (const jinja::Generated& block : generation_) {
      bool any = false, trained = false;
      const Region* before = nullptr;
      for (const Region& region : regions_) {
        if (region.begin < block.end && region.end > block.begin) {
          any = true;
          trained |= is_trained(region);
        } else if (region.end <= block.begin) {
          before = &region;
        }
      }
      // What ends a turn can be a block of its own.
      if (!any)
        trained = before == nullptr || messages_[before->message].role != "assistant" ||
                  is_trained(*before);
      if (trained) add_span(result_.supervised, block.begin, block.end);
    }
  }

  const std::vector<Message>& messages_;
  const Tokenizer& tokenizer_;
  const std::string& name_;
  std::vector<Region> regions_;
  std::vector<jinja::Generated> generation_;
  RenderedText result_;
};

}  // namespace

RenderedText supervise(jinja::Rendered rendered, const std::vector<Message>& messages,
                       bool has_generation, const Tokenizer& tokenizer, const std::string& name) {
  return Supervision(std::move(rendered), messages, tokenizer, name).run(has_generation);
}

}  // namespace finetune
