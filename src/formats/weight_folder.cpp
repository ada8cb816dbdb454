#include "finetune/formats/safetensors.h"

#include <nlohmann/json.hpp>

#include <set>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

[[noreturn]] void fail_no_weights(const fs::path& folder) {
  if (fs::exists(folder / "pytorch_model.bin") ||
      fs::exists(folder / "pytorch_model.bin.index.json")) {
    fail(ErrorKind::model,
         "{}: holds pytorch_model.bin only; this program reads safetensors. Convert it once with:\n"
         "  python3 -c \"import sys, transformers as t; "
         "t.AutoModelForCausalLM.from_pretrained(sys.argv[1])"
         ".save_pretrained(sys.argv[2])\" {} {}-safetensors",
         folder.string(), folder.string(), folder.string());
  }
  if (fs::exists(folder / "adapter_config.json")) {
    fail(ErrorKind::model,
         "{}: holds an adapter, not a model; give it with --adapter, and its base model with "
         "--model",
         folder.string());
  }
  fail(ErrorKind::model, "{}: holds neither {} nor {}; expected the folder of a Hugging Face model",
       folder.string(), kSingleFile, kIndexFile);
}

/// tensor name -> shard file name, from the index.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const json index = json::parse(read_file(path, ErrorKind::model), nullptr, false);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    fail(ErrorKind::model, "{}: expected a JSON object with a \"weight_map\"", path.string());
  }
  std::map<std::string, std::string> shard_of;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string() ||
        fs::path(file.get<std::string>()).filename() != file.get<std::string>() ||
        file.get<std::string>().empty() || file.get<std::string>() == "..") {
      fail(ErrorKind::model, "{}: the shard of '{}' is {}; expected a file name in the same folder",
           path.string(), tensor, file.dump());
    }
    shard_of.emplace(tensor, file.get<std::string>());
  }
  return shard_of;
}

}  // namespace

WeightFolder::WeightFolder(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    fail(ErrorKind::model, "{}: no such folder; expected the folder of a Hugging Face model",
         folder.string());
  }
  if (fs::exists(folder / kSingleFile)) {
    open_shard(folder, kSingleFile);
    return;
  }
  if (!fs::exists(folder / kIndexFile)) fail_no_weights(folder);
  const auto indexed = read_index(folder / kIndexFile);
  std::set<std::string> files;
  for (const auto& [tensor, file] : indexed) files.insert(file);
  std::vector<std::string> problems;
  for (const std::string& file : files) {
    std::error_code absent;  // the name may be too long for any file
    if (fs::exists(folder / file, absent)) {
      open_shard(folder, file);
    } else {
      problems.push_back(fmt::format("{}: the shard {} is missing", folder.string(), file));
    }
  }
  for (const auto& [tensor, file] : indexed) {
    if (problems.empty() && find(tensor) == nullptr) {
      problems.push_back(fmt::format("{}: tensor '{}' of the index is not in the shards",
                                     (folder / file).string(), tensor));
    }
  }
  if (!problems.empty()) throw Error(ErrorKind::model, join_problems(problems));
}

void WeightFolder::open_shard(const fs::path& folder, const std::string& file_name) {
  shards_.push_back({file_name, SafetensorsFile(folder / file_name)});
  for (const auto& [name, info] : shards_.back().file.tensors()) {
    if (!shard_of_.emplace(name, shards_.size() - 1).second) {
      fail(ErrorKind::model, "{}: tensor '{}' is in {} too; expected every tensor once",
           (folder / file_name).string(), name, shards_[shard_of_.at(name)].file_name);
    }
  }
}

std::vector<std::string> WeightFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [name, shard] : shard_of_) names.push_back(name);
  return names;
}

const TensorInfo* WeightFolder::find(const std::string& name) const {
  const auto found = shard_of_.find(name);
  return found == shard_of_.end() ? nullptr : &shards_[found->second].file.tensors().at(name);
}

Tensor WeightFolder::tensor(const std::string& name) const {
  const auto found = shard_of_.find(name);
  if (found == shard_of_.end()) fail(ErrorKind::model, "there is no tensor '{}'", name);
  return shards_[found->second].file.tensor(name);
}

void WeightFolder::release(const std::string& name) const {
  shards_[shard_of_.at(name)].file.release(name);
}

}  // namespace finetune
