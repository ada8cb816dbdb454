#include "commands/session.h"
#include "finetune/base/file.h"
#include "finetune/base/machine.h"
#include "finetune/base/stopwatch.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/report/report.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cstdlib>

namespace finetune {

using nlohmann::ordered_json;

namespace {

/// Fastest of a few square products, in floating-point operations a second.
double product_speed(at::ScalarType dtype) {
  constexpr std::int64_t kSize = 768;
  const Tensor a = at::full({kSize, kSize}, 0.5, dtype), b = at::full({kSize, kSize}, 0.25, dtype);
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    const Stopwatch watch;
    at::mm(a, b);
    best = std::max(best, 2.0 * kSize * kSize * kSize / watch.seconds());
  }
  return best;
}

std::vector<std::string> processor_features() {
  std::vector<std::string> features;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) features.emplace_back("avx2");
  if (__builtin_cpu_supports("avx512f")) features.emplace_back("avx512f");
  if (__builtin_cpu_supports("avx512vnni")) features.emplace_back("avx512vnni");
  if (__builtin_cpu_supports("avx512bf16")) features.emplace_back("avx512bf16");
#endif
  return features;
}

/// What would make runs faster, or possible.
std::vector<std::string> advice(double float32, double bfloat16, const MemoryLimits& limits) {
  std::vector<std::string> lines;
  if (bfloat16 > 1.3 * float32)
    lines.emplace_back("bfloat16 products are faster here: dtype: auto takes them");
  if (bfloat16 < 0.8 * float32)
    lines.emplace_back("bfloat16 products are slower here: keep dtype: auto or float32");
  if (const char* threads = std::getenv("OMP_NUM_THREADS");
      threads != nullptr && std::atoi(threads) < usable_cores()) {
    lines.push_back(fmt::format(
        "OMP_NUM_THREADS is {} and {} cores may be used; num_threads in the configuration decides",
        threads, usable_cores()));
  }
  if (limits.group_bytes && *limits.group_bytes < limits.total_bytes / 2)
    lines.emplace_back(
        "this container may use less than half of the machine's memory; finetune plan says whether "
        "a run fits");
  if (std::getenv("FINETUNE_CACHE_DIR") == nullptr)
    lines.emplace_back(
        "FINETUNE_CACHE_DIR is not set; with it tokenized data and NF4 weights are kept between "
        "runs");
  return lines;
}

ordered_json examine() {
  at::set_num_threads(usable_cores());
  const MemoryLimits limits = memory_limits();
  const double float32 = product_speed(at::kFloat), bfloat16 = product_speed(at::kBFloat16);
  const bool cuda = at::hasCUDA() && at::getNumGPUs() > 0;
  ordered_json report = describe_environment();
  report["features"] = processor_features();
  report["float32_gflops"] = float32 / 1e9;
  report["bfloat16_gflops"] = bfloat16 / 1e9;
  report["memory_bytes"] = limits.total_bytes;
  report["available_memory_bytes"] = limits.available_bytes;
  report["memory_limit_bytes"] =
      limits.group_bytes ? ordered_json(*limits.group_bytes) : ordered_json(nullptr);
  report["free_disk_bytes"] = free_disk_bytes(".");
  report["cuda_devices"] = cuda ? static_cast<int>(at::getNumGPUs()) : 0;
  report["advice"] = advice(float32, bfloat16, limits);
  return report;
}

std::string text_of(const ordered_json& report) {
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("{:12}{}\n", name, value);
  };
  line("finetune", report["finetune"].get<std::string>() + ", LibTorch " +
                       report["libtorch"].get<std::string>());
  line("processor", fmt::format("{}, {} cores usable", report["processor"].get<std::string>(),
                                report["cores"].get<int>()));
  line("features", join(report["features"].get<std::vector<std::string>>(), ", "));
  line("products", fmt::format("{:.0f} GFLOP/s in float32, {:.0f} in bfloat16",
                               report["float32_gflops"].get<double>(),
                               report["bfloat16_gflops"].get<double>()));
  const ordered_json& limit = report["memory_limit_bytes"];
  line("memory", fmt::format("{}, {} available{}", report["memory"].get<std::string>(),
                             format_bytes(report["available_memory_bytes"].get<std::uint64_t>()),
                             limit.is_null() ? ""
                                             : ", limit of this container " +
                                                   format_bytes(limit.get<std::uint64_t>())));
  line("disk", format_bytes(report["free_disk_bytes"].get<std::uint64_t>()) + " free here");
  line("cuda", report["cuda_devices"] == 0
                   ? std::string("none; device: auto is the CPU")
                   : fmt::format("{} devices", report["cuda_devices"].get<int>()));
  for (const auto& advice_line : report["advice"])
    text += "- " + advice_line.get<std::string>() + "\n";
  return text;
}

}  // namespace

void add_doctor(CLI::App& program) {
  auto json = std::make_shared<bool>(false);
  CLI::App* verb = add_verb(program, "doctor", "Look at this installation and this machine",
                            "finetune doctor", std::make_shared<CommonOptions>());
  verb->add_flag("--json", *json, "Print JSON");
  verb->final_callback([json] {
    const ordered_json report = examine();
    write_output("-", *json ? report.dump(2) + "\n" : text_of(report));
  });
}

}  // namespace finetune
