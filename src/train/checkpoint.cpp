#include "train/checkpoint.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/formats/safetensors.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr int kStateVersion = 3;
constexpr const char* kChecksum = "checksum";

/// Settings that do not change what is computed.
const std::set<std::string, std::less<>> kFree = {
    "output_dir",         "overwrite_output_dir",    "save_total_limit",
    "disk_retry_seconds", "interrupt_grace_seconds", "eval_samples",
    "tensorboard",        "prometheus_file"};

/// The state without its checksum, which is checked.
ordered_json read_state(const fs::path& path) {
  ordered_json state = ordered_json::parse(read_file(path, ErrorKind::model), nullptr, false);
  if (!state.is_object()) fail(ErrorKind::model, "its trainer_state.json is no JSON object");
  if (state.value("version", 0) != kStateVersion)
    fail(ErrorKind::model, "its trainer_state.json is of another version");
  const std::string checksum = state.value(kChecksum, "");
  state.erase(kChecksum);
  if (content_hash(state.dump()) != checksum)
    fail(ErrorKind::model, "its trainer_state.json is not as it was written");
  return state;
}

/// The files of a checkpoint besides its state, sorted.
std::vector<std::string> payload(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != kTrainerStateFile) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// Why the checkpoint cannot be used, or "".
std::string damage(const fs::path& folder, const ordered_json& state) {
  for (const auto& [name, hash] : state.at("files").items()) {
    if (!fs::exists(folder / name)) return name + " is missing";
    if (file_hash(folder / name, ErrorKind::model) != hash.get<std::string>())
      return name + " is not as it was written";
  }
  return "";
}

/// Of every tensor its name, type, shape and first bytes: another model differs in all of them, and
/// nothing more is read of a model of many gigabytes.
std::string base_fingerprint(const fs::path& folder) {
  constexpr std::size_t kBytes = 4096;
  const WeightFolder weights(folder);
  std::string identity;
  for (const std::string& name : weights.names()) {
    const TensorInfo& info = *weights.find(name);
    const Tensor tensor = weights.tensor(name);
    identity +=
        fmt::format("{} {} {} {}\n", name, safetensors_dtype(info.dtype), format_shape(info.shape),
                    content_hash(std::span(static_cast<const std::byte*>(tensor.const_data_ptr()),
                                           std::min<std::size_t>(tensor.nbytes(), kBytes))));
  }
  return content_hash(identity);
}

void check_identity(const ordered_json& state, const RunIdentity& identity, const fs::path& folder,
                    bool allow_changed) {
  std::vector<std::string> changed;
  const ordered_json& saved = state.at("settings");
  for (const auto& [key, value] : identity.values) {
    const std::string before = saved.value(key, "(absent)");
    if (before != value) changed.push_back(fmt::format("{}: was {}, is {}", key, before, value));
  }
  if (changed.empty()) return;
  if (allow_changed) {
    log_warning("resume", "continuing with changed settings:\n{}", join_problems(changed));
    return;
  }
  fail(ErrorKind::config,
       "{}: this run was begun with other settings or data:\n{}\nRestore them, start anew with "
       "overwrite_output_dir=true, or "
       "continue nevertheless with --allow-changed",
       folder.string(), join_problems(changed));
}

std::map<std::string, Tensor> read_tensors(const fs::path& path) {
  const SafetensorsFile file(path);
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, info] : file.tensors()) tensors[name] = file.tensor(name);
  return tensors;
}

TrainerState parse_state(const ordered_json& json) {
  TrainerState state;
  state.step = json.at("step").get<std::int64_t>();
  if (!json.at("best_eval_loss").is_null())
    state.best_eval_loss = json.at("best_eval_loss").get<double>();
  state.best_step = json.at("best_step").get<std::int64_t>();
  state.evaluations_without_gain = json.at("evaluations_without_gain").get<std::int64_t>();
  state.evaluation_pending = json.at("evaluation_pending").get<bool>();
  state.nonfinite_steps = json.at("nonfinite_steps").get<std::int64_t>();
  state.nonfinite_in_a_row = json.at("nonfinite_in_a_row").get<std::int64_t>();
  return state;
}

}  // namespace

RunIdentity run_identity(const Config& config,
                         const std::map<std::string, std::string>& data_hashes) {
  RunIdentity identity;
  for (const auto& [key, value] : config_values(config)) {
    if (!kFree.contains(key)) identity.values[key] = value;
  }
  identity.values["content of model_name_or_path"] = base_fingerprint(config.model_name_or_path);
  for (const auto& [name, hash] : data_hashes) identity.values["content of " + name] = hash;
  return identity;
}

void write_checkpoint(const RunDir& run, const TrainerState& state, const RunIdentity& identity,
                      const Artifact& artifact, const Optimizer& optimizer,
                      const ExampleSource& source) {
  const fs::path folder = run.checkpoint(state.step);
  if (fs::exists(folder)) run.remove_checkpoint(state.step);
  make_folder(folder);
  artifact.save_exact(folder);
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, tensor] : optimizer.state()) tensors[name] = tensor.cpu();
  write_safetensors(folder / kOptimizerFile, tensors, {});
  source.save(folder, state.step);
  ordered_json json = {
      {"version", kStateVersion}, {"program", FINETUNE_VERSION}, {"step", state.step}};
  json["best_eval_loss"] =
      std::isfinite(state.best_eval_loss) ? ordered_json(state.best_eval_loss) : ordered_json();
  json["best_step"] = state.best_step;
  json["evaluations_without_gain"] = state.evaluations_without_gain;
  json["evaluation_pending"] = state.evaluation_pending;
  json["nonfinite_steps"] = state.nonfinite_steps;
  json["nonfinite_in_a_row"] = state.nonfinite_in_a_row;
  json["settings"] = identity.values;
  for (const std::string& name : payload(folder))
    json["files"][name] = file_hash(folder / name, ErrorKind::resource);
  json[kChecksum] = content_hash(json.dump());
  write_file_atomically(folder / kTrainerStateFile, json.dump(2) + "\n");
}

std::optional<TrainerState> restore_checkpoint(const RunDir& run, const RunIdentity& identity,
                                               bool allow_changed, const Artifact& artifact,
                                               Optimizer& optimizer) {
  run.remove_incomplete_checkpoints();
  const std::vector<std::int64_t> steps = run.complete_checkpoints();
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path folder = run.checkpoint(*step);
    std::string problem;
    try {
      const ordered_json json = read_state(folder / kTrainerStateFile);
      problem = damage(folder, json);
      if (problem.empty()) {
        check_identity(json, identity, folder, allow_changed);
        restore_values(folder, artifact, optimizer);
        return parse_state(json);
      }
    } catch (const ordered_json::exception& error) {
      problem = without_exception_name(error.what());
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::model) throw;
      problem = error.what();
    }
    log_warning("resume", "{} cannot be used ({}); it is kept as {}, and the one before is taken",
                folder.string(), problem, run.set_aside(*step).filename().string());
  }
  return std::nullopt;
}

void restore_values(const fs::path& folder, const Artifact& artifact, Optimizer& optimizer) {
  artifact.load_exact(folder);
  optimizer.load(read_tensors(folder / kOptimizerFile), folder.string());
}

}  // namespace finetune
