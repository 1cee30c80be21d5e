// The same audit without Flux: one process, one loop. deploy/demo compares its report with the
// workflow's.
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "audit.h"

namespace {

absl::Status Run(const std::string& root, const std::string& report_path) {
  using namespace licence_audit;  // NOLINT: the audit's own program
  absl::StatusOr<std::vector<std::string>> paths = ListFiles(root);
  if (!paths.ok()) return paths.status();
  std::vector<FileLicences> files;
  for (const std::string& path : *paths) {
    absl::StatusOr<ParsedFile> parsed = ReadAndParse(path);
    if (!parsed.ok()) return parsed.status();
    files.push_back(Normalise(Identify(*parsed)));
  }
  const std::string json = ReportJson(Aggregate(files));
  if (report_path != "-") return WriteFile(report_path, json);
  std::cout << json;
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Audits the licences of a Debian system in one process, as the measure of audit_client.");
  std::string root = "/usr/share/doc";
  std::string report = "-";
  app.add_option("--root", root, "directory of */copyright files")->capture_default_str();
  app.add_option("--report", report, "where the JSON report goes; - for stdout")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (absl::Status status = Run(root, report); !status.ok()) {
    std::cerr << "audit_plain: " << status.message() << "\n";
    return 1;
  }
  return 0;
}
