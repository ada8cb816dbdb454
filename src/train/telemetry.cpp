#include "train/telemetry.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/log.h"

#include <algorithm>

namespace finetune {

namespace {

/// The exporter reads the file about every fifteen seconds.
constexpr auto kBetweenWrites = std::chrono::seconds(5);

/// Name in metrics.jsonl -> TensorBoard's tag; the folder part groups the charts.
std::string tag_of(const std::string& name) {
  return name.starts_with("eval_") ? "eval/" + name.substr(5) : "train/" + name;
}

/// A label's text in Prometheus' format.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '\\' || c == '"') result += '\\';
    result += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return result;
}

}  // namespace

Telemetry::Telemetry(const Config& config, const std::filesystem::path& run, std::int64_t last_step,
                     std::int64_t total_steps)
    : prometheus_file_(config.prometheus_file.value_or("")), run_(config.output_dir) {
  if (config.tensorboard)
    events_.emplace(run / kTensorboardFolder, last_step < 0 ? 0 : last_step + 1);
  newest_["step"] = static_cast<double>(std::max<std::int64_t>(last_step, 0));
  newest_["total_steps"] = static_cast<double>(total_steps);
}

void Telemetry::tell(const nlohmann::ordered_json& line) {
  const auto step = line.value("step", std::int64_t{0});
  for (const auto& [name, value] : line.items()) {
    if (!value.is_number()) continue;
    newest_[name] = value.get<double>();
    if (events_ && name != "step") events_->scalar(step, tag_of(name), value.get<double>());
  }
}

void Telemetry::write() {
  if (events_) events_->flush();
  if (std::chrono::steady_clock::now() - written_ > kBetweenWrites) write_prometheus();
}

void Telemetry::finish() { write_prometheus(); }

void Telemetry::write_prometheus() {
  if (prometheus_file_.empty()) return;
  written_ = std::chrono::steady_clock::now();
  std::string text;
  for (const auto& [name, value] : newest_) {
    text += fmt::format("# TYPE finetune_{0} gauge\nfinetune_{0}{{run=\"{1}\"}} {2}\n", name,
                        escaped(run_), value);
  }
  try {
    write_file_atomically(prometheus_file_, text);
  } catch (const Error& error) {  // a run does not end because nobody can watch it
    if (!refused_) log_warning("train", "prometheus_file: {}", error.what());
    refused_ = true;
  }
}

}  // namespace finetune
