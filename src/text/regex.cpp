#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include "finetune/base/error.h"
#include "text/utf8.h"

#include <pcre2.h>

namespace finetune {

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern, const std::string& where) : code_(std::make_unique<Code>()) {
  int error = 0;
  std::size_t offset = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (code_->code == nullptr) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    fail(ErrorKind::model, "{}: regular expression '{}' does not compile at byte {}: {}", where, pattern,
         offset, reinterpret_cast<const char*>(message));
  }
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
}

Regex::~Regex() = default;

void Regex::for_each(std::string_view text, const std::function<void(ByteSpan)>& found) const {
  using MatchData = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;
  const MatchData match(pcre2_match_data_create_from_pattern(code_->code, nullptr),
                        &pcre2_match_data_free);
  const std::size_t* bounds = pcre2_get_ovector_pointer(match.get());
  std::size_t position = 0;
  while (position < text.size()) {
    const int count = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                  position, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (count == PCRE2_ERROR_NOMATCH) return;
    if (count < 0) {
      fail(ErrorKind::data, "the tokenizer's regular expression gave up on a text of {} bytes (PCRE2 error {})",
           text.size(), count);
    }
    if (bounds[1] > bounds[0]) {
      found({bounds[0], bounds[1]});
      position = bounds[1];
    } else {
      position = bounds[1] + (bounds[1] < text.size() ? code_point_at(text, bounds[1]).size : 1);
    }
  }
}

}  // namespace finetune
