#include "finetune/report/report.h"

#include "commands/session.h"
#include "finetune/base/file.h"
#include "finetune/commands/commands.h"

#include <filesystem>

namespace finetune {

namespace {

struct ReportOptions {
  std::vector<std::string> runs;
  std::string output;
};

void run_report(const ReportOptions& options) {
  std::vector<nlohmann::ordered_json> runs;
  for (const std::string& folder : options.runs) runs.push_back(read_run(folder));
  const std::filesystem::path first = options.runs.front();
  const std::filesystem::path output =
      !options.output.empty() ? std::filesystem::path(options.output)
      : runs.size() == 1      ? first / kReportPageFile
                              : std::filesystem::path("comparison.html");
  write_file_atomically(output, report_page(runs));
  write_output("-", output.string() + "\n");
}

}  // namespace

void add_report(CLI::App& program) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* verb =
      add_verb(program, "report", "Draw the report of a run again, or compare two runs",
               "finetune report runs/lora", std::make_shared<CommonOptions>());
  verb->add_option("runs", options->runs, "Output folders of train, one or two")
      ->type_name("DIR")
      ->required()
      ->expected(1, 2);
  verb->add_option("--output", options->output,
                   "The page; without it report.html of the run, or comparison.html")
      ->type_name("FILE");
  verb->final_callback([options] { run_report(*options); });
}

}  // namespace finetune
