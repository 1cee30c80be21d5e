// One simulated life of a coordinator, its workers and its clients, decided by one seed.
//
//   const SimReport report = Simulate({.seed = 17});
//   if (!report.problems.empty()) …        // the same again for the same options
//
// A run draws programs (graphs.h), executions of them, options of the engine and a plan of faults
// (faults.h) from the seed. Faults strike for a while; then all is well and everything that can end
// must. It checks: no acknowledged start, command or result is lost; tokens are never used again;
// each outcome is recorded once, and is what its task answered; replay equals the live state; each
// execution comes to what the interpreter (reference.h) says; nothing is stuck.
#ifndef FLUX_TESTS_SIM_SIMULATOR_H_
#define FLUX_TESTS_SIM_SIMULATOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/bugs.h"

namespace flux::sim {

struct SimOptions {
  uint64_t seed = 1;
  std::vector<std::string> faults =
      {};  // "name=value" each, over what the seed says (FaultPlan::Set)
  Bug bug = Bug::kNone;
  bool quiet = false;    // no faults but those named in `faults`
  bool verbose = false;  // prints what happens, with its time, to standard output
};

struct SimReport {
  std::vector<std::string> problems;  // empty: all is well
  std::string plan;                   // of the faults
  int64_t simulated_ms = 0;
  uint64_t executions = 0;
  uint64_t deliveries = 0;  // of tasks
  uint64_t crashes = 0;
  uint64_t digest = 0;  // of everything the coordinator said: equal for equal options
};

// Blocks; safe to call from several threads at once. The options must be valid (CheckOptions).
SimReport Simulate(const SimOptions& options);

// InvalidArgument: an unknown fault, or no number.
absl::Status CheckOptions(const SimOptions& options);

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_SIMULATOR_H_
