#include "finetune/report/report.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/machine.h"
#include "finetune/base/text.h"
#include "finetune/formats/adapter_folder.h"
#include "finetune/train/run_dir.h"
#include "report/page.h"

#include <ATen/TensorOperators.h>
#include <ATen/Version.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/mm.h>
#include <torch/version.h>

#include <cmath>
#include <fstream>
#include <map>
#include <sstream>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr std::size_t kPoints = 1500;  // of a curve: more than a screen can show

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

/// The objects of a file of JSON lines; a line that a killed process left half written is skipped.
std::vector<ordered_json> json_lines(const fs::path& path) {
  std::vector<ordered_json> lines;
  if (!fs::exists(path)) return lines;
  std::istringstream text(read_file(path, ErrorKind::resource));
  for (std::string line; std::getline(text, line);) {
    ordered_json object = ordered_json::parse(line, nullptr, false);
    if (object.is_object()) lines.push_back(std::move(object));
  }
  return lines;
}

/// Every n-th, and the last.
ordered_json thinned(const std::vector<ordered_json>& lines) {
  ordered_json kept = ordered_json::array();
  const std::size_t stride = lines.size() / kPoints + 1;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i % stride == 0 || i + 1 == lines.size()) kept.push_back(lines[i]);
  }
  return kept;
}

void read_metrics(const fs::path& folder, ordered_json& run) {
  std::vector<ordered_json> steps, evaluations;
  for (ordered_json& line : json_lines(folder / kMetricsFile)) {
    if (line.contains("loss"))
      steps.push_back(std::move(line));
    else if (line.contains("eval_loss"))
      evaluations.push_back(std::move(line));
  }
  run["steps"] = thinned(steps);
  run["evaluations"] = thinned(evaluations);
}

/// The answers at the first and the last evaluation, side by side.
ordered_json answers_of(const std::vector<ordered_json>& samples) {
  std::map<std::string, ordered_json> by_row;
  std::vector<std::string> order;
  for (const ordered_json& sample : samples) {
    const std::string where = sample.value("where", "");
    if (!by_row.contains(where)) {
      order.push_back(where);
      by_row[where] = {{"where", where},
                       {"prompt", sample.value("prompt", "")},
                       {"reference", sample.value("reference", "")},
                       {"before_step", sample.value("step", 0)},
                       {"before", sample.value("answer", "")}};
    }
    by_row[where]["after_step"] = sample.value("step", 0);
    by_row[where]["after"] = sample.value("answer", "");
  }
  ordered_json answers = ordered_json::array();
  for (const std::string& where : order) answers.push_back(by_row[where]);
  return answers;
}

ordered_json describe_lora(const std::string& name, const PeftAdapter& adapter,
                           const PeftLora& lora) {
  const at::NoGradGuard no_grad;
  Tensor a = lora.a.to(at::kDouble), b = lora.b.to(at::kDouble);
  // The singular values of B A are those of the small product of their triangular factors.
  const Tensor left = std::get<1>(at::linalg_qr(b)), right = std::get<1>(at::linalg_qr(a.t()));
  const Tensor values = at::linalg_svdvals(at::mm(left, right.t())) * adapter.scaling(lora);
  const double norm = values.square().sum().sqrt().item<double>();
  double effective = 0;
  if (norm > 0) {
    const Tensor p = values / values.sum();
    effective = std::exp(-(p * p.clamp_min(1e-300).log()).sum().item<double>());
  }
  return {{"module", name}, {"rank", lora.rank()}, {"norm", norm}, {"effective_rank", effective}};
}

/// Of every file of weights in the folder, not of its checkpoints.
ordered_json weight_hashes(const fs::path& folder) {
  std::map<std::string, std::string> hashes;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.path().extension() == ".safetensors")
      hashes[entry.path().string()] = file_hash(entry.path(), ErrorKind::resource);
  }
  return hashes;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

}  // namespace

ordered_json describe_config(const Config& config) {
  ordered_json settings = ordered_json::array();
  for (const auto& [key, value] : config_values(config)) {
    const auto origin = config.origins.find(key);
    settings.push_back({{"key", key},
                        {"value", value},
                        {"origin", origin == config.origins.end() ? "default" : origin->second}});
  }
  return settings;
}

ordered_json describe_environment() {
  return {{"finetune", FINETUNE_VERSION},
          {"libtorch", TORCH_VERSION},
          {"processor", processor_name()},
          {"cores", usable_cores()},
          {"memory", format_bytes(memory_limits().total_bytes)}};
}

ordered_json describe_adapter(const fs::path& folder) {
  ordered_json modules = ordered_json::array();
  if (!fs::exists(folder / kAdapterWeightsFile) || !fs::exists(folder / kAdapterConfigFile))
    return modules;
  const SavedAdapter saved = read_adapter(folder);
  const auto* adapter = std::get_if<PeftAdapter>(&saved);
  if (adapter == nullptr) return modules;
  for (const auto& [name, lora] : adapter->modules)
    modules.push_back(describe_lora(name, *adapter, lora));
  return modules;
}

ordered_json read_run(const fs::path& folder) {
  if (!fs::exists(folder / kMetricsFile)) {
    fail(ErrorKind::config, "{}: holds no run: {} is missing; expected an output_dir of train",
         folder.string(), kMetricsFile);
  }
  ordered_json run = ordered_json::object();
  if (fs::exists(folder / kReportJsonFile)) {
    run =
        ordered_json::parse(read_file(folder / kReportJsonFile, ErrorKind::config), nullptr, false);
    if (!run.is_object())
      fail(ErrorKind::config, "{}: expected a JSON object", (folder / kReportJsonFile).string());
  }
  run["name"] = folder.string();
  read_metrics(folder, run);
  run["answers"] = answers_of(json_lines(folder / kSamplesFile));
  run["adapter"] = describe_adapter(folder);
  ordered_json& hashes = run["hashes"] = weight_hashes(folder);
  for (const ordered_json& setting : run.value("config", ordered_json::array())) {
    const fs::path base = setting.value("key", "") == "model_name_or_path"
                              ? fs::path(setting.value("value", ""))
                              : fs::path();
    if (!base.empty() && fs::is_directory(base)) hashes.update(weight_hashes(base));
  }
  return run;
}

std::string report_page(const std::vector<ordered_json>& runs) {
  std::string json = dump({{"runs", runs}});
  // "</script>" in a text must not end the element that holds it.
  for (std::size_t at = 0; (at = json.find('<', at)) != std::string::npos; at += 6)
    json.replace(at, 1, "\\u003c");
  std::string page(report_page_template());
  const std::string place = "{{report}}";
  const std::size_t at = page.find(place);
  FT_CHECK(at != std::string::npos, "the page has no place for the report");
  return page.replace(at, place.size(), json);
}

void write_report(const fs::path& folder, ordered_json about) {
  write_file_atomically(folder / kReportJsonFile, dump(about) + "\n");
  const ordered_json run = read_run(folder);
  write_file_atomically(folder / kReportJsonFile,
                        run.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  write_file_atomically(folder / kReportPageFile, report_page({run}));
}

}  // namespace finetune
