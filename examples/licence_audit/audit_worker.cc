// A worker that has the audit's tasks. Stateless: kill it whenever you like.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "audit.h"
#include "flux/worker.h"
#include "ledger.h"
#include "tasks.h"

namespace licence_audit {
namespace {

// Sleeps for `pace_ms`, but not longer than anybody wants the result.
void Pace(const flux::TaskContext& context, int pace_ms) {
  const absl::Time until = absl::Now() + absl::Milliseconds(pace_ms);
  while (!context.cancelled() && absl::Now() < until) {
    absl::SleepFor(std::min(absl::Milliseconds(50), until - absl::Now()));
  }
}

template <typename T>
absl::StatusOr<T> OrUnreadable(absl::StatusOr<T> value) {
  if (value.ok()) return value;
  return kUnreadable(std::string(value.status().message()));
}

void RegisterTasks(flux::Worker& worker, const Ledger& ledger) {
  worker.Register(kList,
                  [&ledger](flux::TaskContext& context,
                            const std::string& root) -> absl::StatusOr<std::vector<std::string>> {
                    if (auto status = ledger.Append("list", root, context.fencing_token());
                        !status.ok())
                      return status;
                    return OrUnreadable(ListFiles(root));
                  });
  worker.Register(kParse,
                  [&ledger](flux::TaskContext& context, const std::string& path,
                            int pace_ms) -> absl::StatusOr<ParsedFile> {
                    if (auto status = ledger.Append("parse", path, context.fencing_token());
                        !status.ok())
                      return status;
                    Pace(context, pace_ms);
                    return OrUnreadable(ReadAndParse(path));
                  });
  worker.Register(kIdentify,
                  [&ledger](flux::TaskContext& context,
                            const ParsedFile& file) -> absl::StatusOr<FileFindings> {
                    if (auto status = ledger.Append("identify", file.path, context.fencing_token());
                        !status.ok())
                      return status;
                    return Identify(file);
                  });
  worker.Register(
      kNormalise,
      [&ledger](flux::TaskContext& context,
                const FileFindings& file) -> absl::StatusOr<FileLicences> {
        if (auto status = ledger.Append("normalise", file.path, context.fencing_token());
            !status.ok())
          return status;
        return Normalise(file);
      });
  worker.Register(kAggregate,
                  [&ledger](flux::TaskContext& context,
                            const std::vector<FileLicences>& files) -> absl::StatusOr<Report> {
                    if (auto status = ledger.Append("aggregate", "all", context.fencing_token());
                        !status.ok())
                      return status;
                    return Aggregate(files);
                  });
}

}  // namespace
}  // namespace licence_audit

int main(int argc, char** argv) {
  CLI::App app("Runs the tasks of the licence audit until SIGTERM.");
  flux::WorkerOptions options;
  options.target = "127.0.0.1:4510";
  options.slots = 4;
  std::string ledger_path;
  app.add_option("--address", options.target, "the coordinator's host:port")->capture_default_str();
  app.add_option("--slots", options.slots, "tasks at once")->capture_default_str();
  app.add_option("--id", options.id, "the worker's name to people; default host:pid");
  app.add_option("--ledger", ledger_path, "append a line to this file for each task begun");
  CLI11_PARSE(app, argc, argv);
  absl::StatusOr<licence_audit::Ledger> ledger = licence_audit::Ledger::Open(ledger_path);
  absl::Status status = ledger.status();
  if (status.ok()) {
    flux::Worker worker(options);
    licence_audit::RegisterTasks(worker, *ledger);
    status = worker.Run();
  }
  if (!status.ok()) {
    std::cerr << "audit_worker: " << status.message() << "\n";
    return 1;
  }
  return 0;
}
