#include "finetune/jinja/template.h"

#include "fuzz/fuzz.h"

#include <nlohmann/json.hpp>

/// A template, with little to use up.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace finetune;
  static const nlohmann::ordered_json variables = nlohmann::ordered_json::parse(R"({
      "messages": [{"role": "system", "content": "Be brief."},
                   {"role": "user", "content": "Hi \u00e4 <b>", "n": 3},
                   {"role": "assistant", "content": " Yo! \n", "tool_calls": [{"a": 1.5}]}],
      "tools": null, "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true,
      "x": {"a": [1, -2, 1e300], "b": {}}, "s": "a\u0301\ud83d\udc4d", "y": true})");
  static const fuzz::Folder quiet;
  jinja::RenderOptions options;
  options.max_steps = 50'000;
  options.max_output_bytes = 1 << 20;
  options.max_memory_bytes = std::size_t{16} << 20;
  options.now = 0;
  fuzz::only_errors([&] {
    const auto parsed = jinja::Template::parse(fuzz::text_of(data, size), "template");
    const jinja::Rendered rendered = parsed.render(variables, options);
    std::size_t end = 0;
    for (const jinja::Tracked& part : rendered.tracked) {
      fuzz::promise(part.begin >= end && part.begin <= part.end, "tracked parts ascend");
      end = part.end;
    }
    fuzz::promise(end <= rendered.text.size(), "tracked parts are in the text");
  });
  return 0;
}
