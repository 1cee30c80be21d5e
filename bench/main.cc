// flux-bench: how fast, with the physical ceiling of the same machine measured in the same run.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>

#include "bench/ceiling.h"
#include "bench/shared.h"
#include "bench/workloads.h"
#include "flux/worker.h"

namespace flux::bench {
namespace {

// "b-<slot>-<number>"; anything else counts as slot 0.
std::pair<size_t, uint64_t> ParseId(std::string_view id) {
  uint64_t parts[2] = {0, 0};
  size_t part = 0;
  if (id.substr(0, 2) != "b-") return {0, 0};
  for (char c : id.substr(2)) {
    if (c == '-') {
      if (++part > 1) break;
    } else if (c >= '0' && c <= '9') {
      parts[part] = parts[part] * 10 + static_cast<uint64_t>(c - '0');
    }
  }
  return {parts[0], parts[1]};
}

int RunWorker(const std::string& address, int fd, uint32_t slots) {
  Shared* shared = Shared::Map(fd);
  if (shared == nullptr) return 1;
  WorkerOptions options;
  options.target = address;
  // The functions take no time: one thread runs them, and the credit beyond it keeps it fed.
  options.slots = 1;
  options.prefetch = slots + slots / 4 + 1;
  Worker worker(std::move(options));
  worker.RegisterRaw("bench.step", [shared](TaskContext& context, std::vector<Payload> inputs) {
    const auto [slot, number] = ParseId(context.workflow_id());
    shared->Step(slot, number);
    return internal::RawOutcome::Value(std::move(inputs.at(0)));
  });
  const absl::Status status = worker.Run();
  if (!status.ok()) std::cerr << "flux-bench worker: " << status << "\n";
  return status.ok() ? 0 : 1;
}

int Main(int argc, char** argv) {
  CLI::App app{
      "flux-bench: measures a coordinator and a worker of its own, on a temporary directory, fsync "
      "on."};
  app.name("flux-bench");
  app.require_subcommand(1);
  app.footer(
      "Prints one JSON object. ceiling_steps_per_s is what the same gRPC streams and one fsynced "
      "RocksDB value a\n"
      "batch reach in the same run with no engine between; ratio is steps_per_s over it.\n\n"
      "Examples:\n"
      "  flux-bench chain --in-flight 1024 --steps 100 --seconds 10\n"
      "  flux-bench chain --in-flight 1 --steps 1000000 --once\n"
      "  flux-bench map --steps 100000\n"
      "  flux-bench idle --steps 100000\n"
      "  flux-bench list --executions 1000000");
  Options options;
  bool json = false;
  struct Workload {
    const char* name;
    const char* help;
    absl::StatusOr<Answer> (*run)(const Options&);
  };
  static constexpr Workload kWorkloads[] = {
      {"ceiling", "The least any such system can do", RunCeiling},
      {"chain", "Executions of sequential tasks", RunChain},
      {"map", "One execution, a map over many items", RunMap},
      {"start", "Acknowledged starts", RunStart},
      {"idle", "Executions asleep: memory, disk and restart", RunIdle},
      {"list", "Pages and counts of a store with many executions", RunList},
  };
  const Workload* chosen = nullptr;
  for (const Workload& workload : kWorkloads) {
    CLI::App* sub = app.add_subcommand(workload.name, workload.help);
    sub->add_option("--in-flight", options.in_flight, "Executions (items, starts) at a time [1024]")
        ->check(CLI::Range(1u, 60'000u));
    sub->add_option("--steps", options.steps,
                    "Steps of a chain [100; above 10000 it is a loop of one task], items of a map, "
                    "sleepers [100000]; starts: a limit");
    sub->add_option("--executions", options.executions, "list: how many there are [1000000]")
        ->check(CLI::Range(uint64_t{100}, uint64_t{100'000'000}));
    sub->add_option("--seconds", options.seconds,
                    "Length of the measured window; list: of each query [10]")
        ->check(CLI::Range(0.1, 3600.0));
    sub->add_option("--payload-bytes", options.payload_bytes, "Of each input and output [16]")
        ->check(CLI::Range(0u, 4u << 20));
    sub->add_option("--ceiling-seconds", options.ceiling_seconds,
                    "Length of the ceiling's window; 0 leaves it out [3]");
    sub->add_flag("--once", options.once, "chain: one round of executions instead of a window");
    sub->add_flag("--json", json, "One line instead of an indented object");
    sub->callback([&chosen, &workload] { chosen = &workload; });
  }
  std::string address, data, port_file;
  int fd = -1;
  uint32_t slots = 1;
  const auto hidden = [&](const char* name) {
    CLI::App* sub = app.add_subcommand(name)->group("");
    sub->add_option("--address", address);
    sub->add_option("--shared-fd", fd);
    sub->add_option("--slots", slots);
    sub->add_option("--data", data);
    sub->add_option("--port-file", port_file);
    sub->add_option("--in-flight", options.in_flight);
    sub->add_option("--payload-bytes", options.payload_bytes);
    return sub;
  };
  CLI::App* worker = hidden("worker");
  CLI::App* ceiling_server = hidden("ceiling-server");
  CLI::App* ceiling_worker = hidden("ceiling-worker");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (worker->parsed()) return RunWorker(address, fd, slots);
  if (ceiling_server->parsed()) {
    return CeilingServer(data, port_file, options.in_flight, options.payload_bytes);
  }
  if (ceiling_worker->parsed()) {
    Shared* shared = Shared::Map(fd);
    return shared == nullptr ? 1 : CeilingWorker(address, shared);
  }
  signal(SIGPIPE, SIG_IGN);
  const absl::StatusOr<Answer> answer = chosen->run(options);
  if (!answer.ok()) {
    std::cerr << "flux-bench: " << answer.status() << "\n";
    return 1;
  }
  std::cout << answer->dump(json ? -1 : 2) << "\n";
  return 0;
}

}  // namespace
}  // namespace flux::bench

int main(int argc, char** argv) { return flux::bench::Main(argc, argv); }
