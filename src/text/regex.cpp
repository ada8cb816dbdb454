#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include "text/regex.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "text/regex_syntax.h"
#include "text/utf8.h"

#include <pcre2.h>

#include <memory>

namespace finetune {

namespace {

using CodePointer = std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)>;

CodePointer compile(const std::string& pattern, int& error, std::size_t& offset) {
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  return {pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                        &offset, context.get()),
          &pcre2_code_free};
}

/// What one thread needs for matching; a match is only asked for its bounds.
struct Workspace {
  static constexpr std::size_t kStackBytes = std::size_t{1} << 20;
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match{
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free};
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context{
      pcre2_match_context_create(nullptr), &pcre2_match_context_free};
  std::unique_ptr<pcre2_jit_stack, decltype(&pcre2_jit_stack_free)> stack{
      pcre2_jit_stack_create(std::size_t{1} << 15, kStackBytes, nullptr), &pcre2_jit_stack_free};
  Workspace() { pcre2_jit_stack_assign(context.get(), nullptr, stack.get()); }
};

}  // namespace

struct Regex::Code {
  CodePointer code;
};

Regex::Regex(const std::string& pattern, const std::string& where) {
  int error = 0;
  std::size_t offset = 0;
  const std::string translated = pcre2_syntax(pattern, is_property);
  code_ = std::make_unique<Code>(Code{compile(translated, error, offset)});
  if (code_->code == nullptr) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    fail(ErrorKind::model, "{}: regular expression '{}' does not compile ({} at byte {} of '{}')",
         where, pattern, reinterpret_cast<const char*>(message), offset, translated);
  }
  pcre2_jit_compile(code_->code.get(),
                    PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
}

Regex::~Regex() = default;

bool Regex::is_property(const std::string& property) {
  int error = 0;
  std::size_t offset = 0;
  return compile(property, error, offset) != nullptr;
}

void Regex::for_each(std::string_view text, const std::function<void(ByteSpan)>& found) const {
  thread_local const Workspace workspace;
  std::size_t position = 0, last_end = std::string_view::npos;
  while (position <= text.size()) {
    const auto match = [&](std::uint32_t options) {
      return pcre2_match(code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                         position, PCRE2_NO_UTF_CHECK | options, workspace.match.get(),
                         workspace.context.get());
    };
    int count = match(0);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) count = match(PCRE2_NO_JIT);
    if (count == PCRE2_ERROR_NOMATCH) return;
    if (count < 0) {
      fail(ErrorKind::data,
           "the tokenizer's regular expression gave up on a text of {} bytes (PCRE2 error {})",
           text.size(), count);
    }
    const std::size_t* bounds = pcre2_get_ovector_pointer(workspace.match.get());
    const ByteSpan span{bounds[0], bounds[1]};
    if (span.begin >= span.end && span.end == last_end) {
      position = span.end + (span.end < text.size() ? code_point_at(text, span.end).size : 1);
      continue;
    }
    if (span.begin > span.end) return;  // \K inside of a lookahead; there is no such match
    position = last_end = span.end;
    found(span);
  }
}

}  // namespace finetune
