// An execution with a step in each state there is.
#ifndef FLUX_TESTS_CORE_STATES_H_
#define FLUX_TESTS_CORE_STATES_H_

#include <memory>

#include "tests/core/harness.h"

namespace flux::engine::testing {

// What the step "s" is in.
enum class State {
  kPending,
  kScheduled,
  kBackingOff,
  kParked,
  kSleeping,
  kAwaiting,  // an event
  kSending,
  kChild,
  kUnderWay,  // a map, its bodies open
  kBlock,     // under way, and so the two that follow
  kLoop,
  kSwitch,
  kCatch,      // a task that failed; the body of its catch clause is open
  kContinued,  // a task that went on as a fragment
  kCompleted,
  kSkipped,
  kCancelled,
  kClosedFailed,  // the execution failed there
};

inline constexpr struct {
  State state;
  const char* name;
} kStates[] = {
    {State::kPending, "pending"},        {State::kScheduled, "scheduled"},
    {State::kBackingOff, "backing off"}, {State::kParked, "parked"},
    {State::kSleeping, "sleeping"},      {State::kAwaiting, "awaiting an event"},
    {State::kSending, "sending"},        {State::kChild, "awaiting a child"},
    {State::kUnderWay, "map under way"}, {State::kBlock, "block under way"},
    {State::kLoop, "loop under way"},    {State::kSwitch, "switch under way"},
    {State::kCatch, "catch clause"},     {State::kContinued, "went on as a fragment"},
    {State::kCompleted, "completed"},    {State::kSkipped, "skipped"},
    {State::kCancelled, "cancelled"},    {State::kClosedFailed, "failed"},
};

// "s" reads what "note" took of the event of that name, "[1,2]" (a sleep comes after it); "next"
// reads "s" ("join" where it is cancelled), and "beside" keeps the execution open; a pending "s"
// runs after "first".
struct StateOptions {
  bool undoable = false;  // "kept" is done and can be undone
  int64_t timeout_ms = 0;
};
DefinitionBuilder DefinitionOf(State state, const StateOptions& options = {});
inline constexpr uint32_t kStepS = 2;
std::unique_ptr<Driver> In(State state, const StateOptions& options = {});

// Lets it go on until it has closed, each task and whatever else it waits for with the result 1.
void EndIt(Driver& run);

}  // namespace flux::engine::testing

#endif  // FLUX_TESTS_CORE_STATES_H_
