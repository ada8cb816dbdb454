#include "finetune/model/model_config.h"

#include "fuzz/fuzz.h"

/// config.json of a model.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace finetune;
  static const fuzz::Folder folder;
  folder.write("config.json", fuzz::text_of(data, size));
  fuzz::only_errors([] {
    const ModelConfig config = read_model_config(folder.path());
    fuzz::promise(config.layers.size() == static_cast<std::size_t>(config.num_hidden_layers),
                  "every layer has its switches");
    fuzz::promise(config.num_key_value_heads > 0 &&
                      config.num_attention_heads % config.num_key_value_heads == 0,
                  "the heads share the keys evenly");
    for (const LayerConfig& layer : config.layers)
      fuzz::promise(layer.rope < static_cast<std::int64_t>(config.ropes.size()),
                    "the angles of a layer are there");
  });
  return 0;
}
