#include "train/checkpoint.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/formats/safetensors.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <set>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr int kStateVersion = 2;

/// Settings that do not change what is computed.
const std::set<std::string, std::less<>> kFree = {
    "output_dir",   "overwrite_output_dir", "save_total_limit", "disk_retry_seconds",
    "eval_samples", "tensorboard",          "prometheus_file"};

ordered_json read_state(const fs::path& path) {
  ordered_json state = ordered_json::parse(read_file(path, ErrorKind::model), nullptr, false);
  if (!state.is_object()) fail(ErrorKind::model, "{}: expected a JSON object", path.string());
  return state;
}

/// Why the checkpoint cannot be used, or "".
std::string damage(const fs::path& folder, const ordered_json& state) {
  if (state.value("version", 0) != kStateVersion)
    return "its trainer_state.json is of another version";
  for (const auto& [name, hash] : state.at("files").items()) {
    if (!fs::exists(folder / name)) return name + " is missing";
    if (file_hash(folder / name, ErrorKind::model) != hash.get<std::string>())
      return name + " is not as it was written";
  }
  return "";
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
  return state;
}

}  // namespace

RunIdentity run_identity(const Config& config,
                         const std::map<std::string, std::string>& data_hashes) {
  RunIdentity identity;
  for (const auto& [key, value] : config_values(config)) {
    if (!kFree.contains(key)) identity.values[key] = value;
  }
  for (const auto& [name, hash] : data_hashes) identity.values["content of " + name] = hash;
  return identity;
}

void write_checkpoint(const RunDir& run, const TrainerState& state, const RunIdentity& identity,
                      const Artifact& artifact, const Optimizer& optimizer) {
  const fs::path folder = run.checkpoint(state.step);
  if (fs::exists(folder)) run.remove_checkpoint(state.step);
  make_folder(folder);
  artifact.save_exact(folder);
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, tensor] : optimizer.state()) tensors[name] = tensor.cpu();
  write_safetensors(folder / kOptimizerFile, tensors, {});
  ordered_json json = {
      {"version", kStateVersion}, {"program", FINETUNE_VERSION}, {"step", state.step}};
  json["best_eval_loss"] =
      std::isfinite(state.best_eval_loss) ? ordered_json(state.best_eval_loss) : ordered_json();
  json["best_step"] = state.best_step;
  json["evaluations_without_gain"] = state.evaluations_without_gain;
  json["evaluation_pending"] = state.evaluation_pending;
  json["settings"] = identity.values;
  for (const std::string& name : {artifact.weights_file(), std::string(kOptimizerFile)}) {
    json["files"][name] = file_hash(folder / name, ErrorKind::resource);
  }
  write_file_atomically(folder / kTrainerStateFile, json.dump(2) + "\n");
}

std::optional<TrainerState> restore_checkpoint(const RunDir& run, const RunIdentity& identity,
                                               bool allow_changed, const Artifact& artifact,
                                               Optimizer& optimizer) {
  run.remove_incomplete_checkpoints();
  const std::vector<std::int64_t> steps = run.complete_checkpoints();
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path folder = run.checkpoint(*step);
    try {
      const ordered_json json = read_state(folder / kTrainerStateFile);
      const std::string problem = damage(folder, json);
      if (!problem.empty()) fail(ErrorKind::model, "{}", problem);
      check_identity(json, identity, folder, allow_changed);
      artifact.load_exact(folder);
      optimizer.load(read_tensors(folder / kOptimizerFile), folder.string());
      return parse_state(json);
    } catch (const ordered_json::exception& error) {
      log_warning("resume", "{} cannot be used ({}); going back to the one before", folder.string(),
                  error.what());
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::model) throw;
      log_warning("resume", "{} cannot be used ({}); going back to the one before", folder.string(),
                  error.what());
    }
    run.remove_checkpoint(*step);
  }
  return std::nullopt;
}

}  // namespace finetune
