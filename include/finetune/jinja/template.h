#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune::jinja {

/// A range of rendered bytes that a string of one message was copied into.
struct Tracked {
  std::size_t begin = 0;  ///< byte offsets in Rendered::text
  std::size_t end = 0;
  std::int32_t message = -1;  ///< index into `messages`
  std::int32_t turn = -1;     ///< the message of the innermost loop over messages that wrote it; -1
                              ///< outside of such loops
  bool operator==(const Tracked&) const = default;
};

/// A range of rendered bytes inside {% generation %}.
struct Generated {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const Generated&) const = default;
};

/// What a template wrote.
struct Rendered {
  std::string text;                   ///< UTF-8
  std::vector<Tracked> tracked;       ///< ascending, disjoint
  std::vector<Generated> generation;  ///< ascending, disjoint
};

/// What rendering may use up. A template comes with a model from elsewhere: it can neither hang nor
/// fill the memory.
struct RenderOptions {
  std::int64_t max_steps = 10'000'000;
  std::size_t max_output_bytes = std::size_t{64} << 20;
  std::size_t max_memory_bytes = std::size_t{512} << 20;  ///< alive at one time
  std::optional<std::int64_t>
      now;  ///< what strftime_now formats, in seconds since 1970 as local time; absent: the clock
};

struct Block;

/// A parsed template of the Jinja language as transformers renders chat templates: trim_blocks and
/// lstrip_blocks, break and continue, {% generation %}, an immutable sandbox. docs/templates.md
/// says what is supported. Immutable; can be rendered from several threads.
class Template {
 public:
  /// The empty template.
  Template();

  /// `where` is what messages call the template, usually its path. Throws Error(model) "where:line:
  /// ..." for text that is not UTF-8, does not parse, nests too deeply, or uses a tag, filter or
  /// test that does not exist.
  static Template parse(std::string_view source, std::string where);

  /// Renders with the members of the object `variables`. The strings inside `messages` are tracked,
  /// but for role, name, tool_call_id and weight. Throws Error(data) "where:line: ..." for what the
  /// template refuses (raise_exception) or does wrong, and when a limit is exceeded.
  Rendered render(const nlohmann::ordered_json& variables, const RenderOptions& options = {}) const;

  /// True when there is a {% generation %} block.
  bool has_generation() const;
  const std::string& where() const;

 private:
  struct Parsed;
  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace finetune::jinja
