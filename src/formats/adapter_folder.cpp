#include "finetune/formats/adapter_folder.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"

#include <nlohmann/json.hpp>

namespace finetune {

namespace fs = std::filesystem;

namespace {

template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

}  // namespace

SavedAdapter read_adapter(const fs::path& folder) {
  if (!fs::is_directory(folder))
    fail(ErrorKind::model, "{}: no such folder; expected an adapter folder", folder.string());
  const auto config =
      nlohmann::json::parse(read_file(folder / kAdapterConfigFile, ErrorKind::model), nullptr,
                            /*allow_exceptions=*/false);
  // Every file of PEFT has peft_type, every one of the adapters library model_type and config.
  if (config.is_object() && !config.contains("peft_type") && config.contains("config"))
    return read_bottleneck_adapter(folder);
  return read_peft_adapter(folder);
}

bool is_reward_adapter(const SavedAdapter& adapter) {
  const auto* peft = std::get_if<PeftAdapter>(&adapter);
  return peft != nullptr && peft->scores;
}

SavedAdapter read_text_adapter(const fs::path& folder) {
  SavedAdapter adapter = read_adapter(folder);
  if (is_reward_adapter(adapter)) {
    fail(
        ErrorKind::model,
        "{}: is the adapter of a reward model (task_type SEQ_CLS): it gives an answer a number and "
        "writes no text; expected an adapter of a language model. 'finetune eval stage=reward' "
        "takes this one",
        folder.string());
  }
  return adapter;
}

void write_adapter(const fs::path& folder, const SavedAdapter& adapter) {
  std::visit(Overloaded{[&](const PeftAdapter& peft) { write_peft_adapter(folder, peft); },
                        [&](const BottleneckAdapter& bottleneck) {
                          write_bottleneck_adapter(folder, bottleneck);
                        }},
             adapter);
}

std::map<std::string, Tensor> stored_tensors(const SavedAdapter& adapter) {
  return std::visit(Overloaded{[](const PeftAdapter& peft) { return peft_tensors(peft); },
                               [](const BottleneckAdapter& bottleneck) {
                                 return bottleneck_tensors(bottleneck);
                               }},
                    adapter);
}

std::string& base_model(SavedAdapter& adapter) {
  return std::visit([](auto& any) -> std::string& { return any.base_model_name_or_path; }, adapter);
}

const std::string& base_model(const SavedAdapter& adapter) {
  return std::visit(
      [](const auto& any) -> const std::string& { return any.base_model_name_or_path; }, adapter);
}

}  // namespace finetune
