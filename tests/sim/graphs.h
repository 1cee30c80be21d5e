// Random workflow definitions from the whole language, with inputs and scripts for their tasks.
#ifndef FLUX_TESTS_SIM_GRAPHS_H_
#define FLUX_TESTS_SIM_GRAPHS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "flux/v1/definition.pb.h"
#include "tests/sim/dice.h"
#include "tests/sim/script.h"

namespace flux::sim {

struct Program;

// How large a definition may grow, and how much of what lets executions not end by themselves or
// end early it holds.
struct GraphBounds {
  uint32_t steps_max = 30;  // over all scopes
  uint32_t depth_max = 3;   // of nested bodies
  uint32_t root_steps_max = 8;
  uint32_t body_steps_max = 4;
  uint32_t turns_max = 4;  // of a loop
  bool parks = false;
  bool deadlines = false;  // schedule_to_close and execution timeouts
  bool waits = false;      // long sleeps; else they are of a second or two
  bool events = false;
  bool pages = false;
  bool continues = false;
  uint32_t fragment_depth_max = 2;  // of what fragments go on as, beside themselves
  bool undoes = false;
  bool early = false;  // joins and maps that finish early, or tolerate failures
  std::vector<const Program*> children = {};    // what child steps may start
  std::vector<std::string> event_targets = {};  // workflow ids that emit steps may name
};

// A definition and all that decides what becomes of it.
struct Program {
  v1::Definition definition;
  std::vector<v1::Payload> inputs;
  v1::Definition next_version;  // what its executions can be migrated to; without scopes: nothing
  Scripts scripts;
  std::vector<std::shared_ptr<const v1::Definition>> fragments;  // that tasks go on as
  std::vector<std::string> events;                               // names that some step waits for
  std::vector<std::string> emits;  // names that some step sends to another execution
  bool parks = false;              // some task parks where it would fail
};

inline constexpr const char* kQueues[] = {"default", "second"};

// A valid definition of the name: the same for the same dice and bounds.
Program MakeProgram(const std::string& name, const GraphBounds& bounds, Dice& dice);

// Can a start be refused for its inputs? A map of the root scope over one of them looks at it then.
bool MayBeRefused(const v1::Definition& definition);

// Makes another version of the program, to which its executions can be moved at any time: more
// steps behind those that are there, and tasks at other queues.
void AddNextVersion(Program* program, Dice& dice);

// A loop of many turns, so that an execution's history outgrows its state.
Program MakeLongProgram(const std::string& name, uint64_t turns, Dice& dice);

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_GRAPHS_H_
