#include "finetune/config/config.h"

#include "fuzz/fuzz.h"

/// A configuration file. What could be read can be written, and means the same when read again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace finetune;
  static const fuzz::Folder folder;
  const auto path = folder.write("config.yaml", fuzz::text_of(data, size));
  fuzz::only_errors([&] {
    const Config config = load_config({path, {}});
    const Config again = load_config({folder.write("again.yaml", resolved_yaml(config)), {}});
    fuzz::promise(config_values(config) == config_values(again),
                  "config.yaml of the output folder means the same configuration");
    show_config(config);
    for (const ConfigUse use : {ConfigUse::train, ConfigUse::eval, ConfigUse::plan})
      fuzz::only_errors([&] { validate(config, use); });
  });
  // The same bytes as a word of the command line.
  const std::string word(fuzz::text_of(data, size));
  fuzz::only_errors([&] { load_config({std::nullopt, {word}}); });
  return 0;
}
