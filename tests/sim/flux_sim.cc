// flux-sim: simulated lives of a coordinator, thousands of them, each decided by its seed.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "tests/sim/faults.h"
#include "tests/sim/simulator.h"

namespace flux::sim {
namespace {

struct Range {
  uint64_t first = 1;
  uint64_t last = 200;
};

bool ParseRange(const std::string& text, Range* range) {
  const size_t dots = text.find("..");
  if (dots == std::string::npos) return false;
  return absl::SimpleAtoi(text.substr(0, dots), &range->first) &&
         absl::SimpleAtoi(text.substr(dots + 2), &range->last) && range->first <= range->last;
}

struct Totals {
  std::atomic<uint64_t> next{0};
  std::mutex mutex;  // of what follows, and of the output
  uint64_t seeds = 0;
  uint64_t failures = 0;
  uint64_t executions = 0;
  uint64_t deliveries = 0;
  uint64_t crashes = 0;
  int64_t simulated_ms = 0;
  std::chrono::steady_clock::time_point told = std::chrono::steady_clock::now();
};

constexpr auto kProgressEvery = std::chrono::seconds(10);

thread_local volatile uint64_t seed_under_way = 0;

// A crash of the engine is a failure of the seed that it came in, which must be known.
extern "C" void OnCrash(int signal) {
  char text[] = "flux-sim: crashed in seed                     \n";
  char* at = text + sizeof(text) - 3;
  for (uint64_t seed = seed_under_way; seed > 0; seed /= 10) {
    *at-- = static_cast<char>('0' + seed % 10);
  }
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
  (void)std::signal(signal, SIG_DFL);
  (void)raise(signal);
}

std::string Command(const SimOptions& options, const std::string& bug) {
  std::string command = absl::StrCat("flux-sim --seed ", options.seed);
  if (options.quiet) absl::StrAppend(&command, " --no-faults");
  for (const std::string& fault : options.faults) absl::StrAppend(&command, " --fault ", fault);
  if (!bug.empty()) absl::StrAppend(&command, " --bug ", bug);
  return command;
}

void Work(const SimOptions& options, const std::string& bug, const Range& range, uint64_t stop,
          Totals* totals) {
  while (true) {
    const uint64_t seed = range.first + totals->next.fetch_add(1);
    if (seed > range.last) return;
    SimOptions one = options;
    one.seed = seed;
    seed_under_way = seed;
    const SimReport report = Simulate(one);
    std::lock_guard<std::mutex> lock(totals->mutex);
    ++totals->seeds;
    totals->executions += report.executions;
    totals->deliveries += report.deliveries;
    totals->crashes += report.crashes;
    totals->simulated_ms += report.simulated_ms;
    const auto now = std::chrono::steady_clock::now();
    if (now - totals->told >= kProgressEvery) {
      totals->told = now;
      std::cerr << "flux-sim: " << totals->seeds << " of " << range.last - range.first + 1
                << " seeds, " << totals->failures << " failed\n";
    }
    if (report.problems.empty()) continue;
    ++totals->failures;
    std::cout << "seed " << seed << " failed, with " << report.plan << "\n";
    for (const std::string& problem : report.problems) std::cout << "  " << problem << "\n";
    std::cout << "  replay: " << Command(one, bug) << " --verbose\n" << std::flush;
    if (stop != 0 && totals->failures >= stop) totals->next.store(range.last);
  }
}

int Main(int argc, char** argv) {
  CLI::App app{
      "Runs the real engine against simulated workers, clients, clocks, networks and disks, on one "
      "thread a\nseed, with faults, and checks what comes of it. Equal options, equal runs."};
  app.name("flux-sim");
  std::string bugs, faults = FaultPlan::Help();
  for (const BugInfo& info : Bugs()) {
    absl::StrAppend(&bugs, "  ", info.name, std::string(20 - std::string(info.name).size(), ' '),
                    info.help, "\n");
  }
  app.footer(absl::StrCat(
      "Faults, by name (chances are in 1/1,000; 0 is never). Each seed draws its own plan:\n",
      faults, "\nPlanted bugs, which the run must find:\n", bugs,
      "\nExamples:\n"
      "  flux-sim --seeds 1..2000\n"
      "  flux-sim --seed 17 --verbose\n"
      "  flux-sim --seeds 1..100 --no-faults --fault crash-every-ms=500 --fault power=1000\n"
      "  flux-sim --seeds 1..1000 --bug early-ack --stop-after 1\n"
      "\nExit status: 0 if no seed failed, 1 if one did, 2 for a mistake in the arguments.\n"
      "The last line is a summary."));
  SimOptions options;
  std::string seeds = "1..200", bug;
  uint64_t seed = 0, stop = 0;
  unsigned jobs = 1;
  auto* range_option = app.add_option("--seeds", seeds, "Seeds A..B, both included [1..200]");
  auto* seed_option = app.add_option("--seed", seed, "One seed")->excludes(range_option);
  app.add_option("--fault", options.faults, "NAME=VALUE over what the seed says; repeatable");
  app.add_flag("--no-faults", options.quiet, "No faults but those given with --fault");
  app.add_option("--bug", bug, "Plants a bug");
  app.add_option("--jobs", jobs, "Seeds at once [1]")->check(CLI::Range(1u, 64u));
  app.add_option("--stop-after", stop, "Stop after so many failures [never]");
  app.add_flag("--verbose", options.verbose, "Print what happens, with simulated seconds");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  Range range;
  if (seed_option->count() > 0) {
    range = {seed, seed};
  } else if (!ParseRange(seeds, &range)) {
    std::cerr << "flux-sim: --seeds " << seeds << " is no range: give A..B, as in 1..2000\n";
    return 2;
  }
  if (!bug.empty()) {
    const auto found = BugOf(bug);
    if (!found.ok()) {
      std::cerr << "flux-sim: " << found.status().message() << "\n";
      return 2;
    }
    options.bug = *found;
  }
  if (absl::Status status = CheckOptions(options); !status.ok()) {
    std::cerr << "flux-sim: " << status.message() << "\n";
    return 2;
  }

  for (const int signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL}) {
    (void)std::signal(signal, OnCrash);
  }
  Totals totals;
  const auto began = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < jobs; ++i) {
    threads.emplace_back([&] { Work(options, bug, range, stop, &totals); });
  }
  Work(options, bug, range, stop, &totals);
  for (std::thread& thread : threads) thread.join();
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf(
      "%llu seeds, %llu failed; %llu executions, %llu deliveries, %llu crashes; %.1f seeds/s, %.0f "
      "simulated seconds a second\n",
      static_cast<unsigned long long>(totals.seeds),
      static_cast<unsigned long long>(totals.failures),
      static_cast<unsigned long long>(totals.executions),
      static_cast<unsigned long long>(totals.deliveries),
      static_cast<unsigned long long>(totals.crashes), static_cast<double>(totals.seeds) / took,
      static_cast<double>(totals.simulated_ms) / 1000 / took);
  return totals.failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace flux::sim

int main(int argc, char** argv) { return flux::sim::Main(argc, argv); }
