// Starts the audit, waits for its report and writes it. Started again with the same id it finds the
// same execution.
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "audit.h"
#include "flux/client.h"
#include "workflow.h"

namespace {

struct Options {
  std::string address = "127.0.0.1:4510";
  std::string id = "licence-audit";
  std::string root = "/usr/share/doc";
  std::string report = "report.json";
  int pace_ms = 0;
  int rows = 20;
};

// An execution outlives its coordinator; its client should, too.
constexpr absl::Duration kPatience = absl::Minutes(2);

absl::Status Run(const Options& options) {
  absl::StatusOr<flux::Client> client =
      flux::Client::Connect(options.address, {.deadline = kPatience});
  if (!client.ok()) return client.status();
  absl::StatusOr<flux::Run<licence_audit::Report>> run =
      client->Start(licence_audit::kLicenceAudit,
                    {.id = options.id, .conflict = flux::ConflictPolicy::kUseExisting},
                    options.root, options.pace_ms);
  if (!run.ok()) return run.status();
  std::cerr << (run->started() ? "started " : "found ") << run->id() << ", run " << run->run_id()
            << std::endl;
  absl::StatusOr<licence_audit::Report> report = run->Result();
  if (!report.ok()) return report.status();
  const std::string json = licence_audit::ReportJson(*report);
  if (absl::Status status = licence_audit::WriteFile(options.report, json); !status.ok()) {
    return status;
  }
  std::cout << licence_audit::ReportTable(*report, options.rows);
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Audits the licences of a Debian system as a Flux workflow.");
  Options options;
  app.add_option("--address", options.address, "the coordinator's host:port")
      ->capture_default_str();
  app.add_option("--id", options.id, "workflow id")->capture_default_str();
  app.add_option("--root", options.root, "directory of */copyright files, as the workers see it")
      ->capture_default_str();
  app.add_option("--report", options.report, "where the JSON report goes")->capture_default_str();
  app.add_option("--pace-ms", options.pace_ms, "slow each file down by this much, to watch")
      ->check(CLI::Range(0, 60'000))
      ->capture_default_str();
  app.add_option("--rows", options.rows, "licences in the table")
      ->check(CLI::Range(0, 10'000))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (absl::Status status = Run(options); !status.ok()) {
    std::cerr << "audit_client: " << status.message() << "\n";
    return 1;
  }
  return 0;
}
