// Faults as data: which strike, and how often. One plan a run, drawn from the seed, printed with
// it, and changed by name from the command line.
#ifndef FLUX_TESTS_SIM_FAULTS_H_
#define FLUX_TESTS_SIM_FAULTS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "tests/sim/dice.h"

namespace flux::sim {

// Chances are in 1/1,000 of what they say; times are in milliseconds. Zero: never.
struct FaultPlan {
  int64_t faults_ms = 20'000;  // faults strike for so long; then everything must end

  // fluxd
  int64_t crash_every_ms = 0;  // mean time between crashes
  int64_t power_permille = 0;  // of the crashes: power is lost, and with it what was not synced
  int64_t torn_permille = 0;   // of the crashes: the write under way is torn
  int64_t down_ms = 0;         // longest time until it is up again
  int64_t stall_permille = 0;  // of turns: the loop stands still for up to 3 s
  int64_t step_permille = 0;   // of completed store writes: it dies right there
  int64_t jump_every_ms = 0;   // mean time between jumps of the wall clock
  int64_t jump_ms = 0;         // how far it may be off then, either way

  // its disk
  int64_t disk_us = 300;       // longest time of a write
  int64_t slow_permille = 0;   // of writes: takes up to 2 s
  int64_t error_permille = 0;  // of writes: fails
  int64_t full_every_ms = 0;   // mean time between times when the disk is full
  int64_t read_permille = 0;   // of reads: fails
  int64_t open_permille = 0;   // of the writes and reads of an opening: fails

  // the network
  int64_t delay_us = 500;           // longest time of a message
  int64_t break_every_ms = 0;       // mean time between streams that break, a worker
  int64_t double_permille = 0;      // of messages: arrives twice
  int64_t reorder_permille = 0;     // of messages: may be overtaken
  int64_t lose_reply_permille = 0;  // of answers to clients: lost

  // workers
  int64_t death_every_ms = 0;      // mean time between a worker's deaths
  int64_t drain_every_ms = 0;      // mean time between a worker's orderly restarts
  int64_t hang_permille = 0;       // of tasks: never answered
  int64_t slow_task_permille = 0;  // of tasks: takes up to 30 s
  int64_t lie_permille = 0;        // of results: another follows that must be refused
  int64_t garbage_permille = 0;    // of results: malformed, or over a limit

  // people
  int64_t cancel_permille = 0;   // of executions: cancelled, or terminated
  int64_t operate_permille = 0;  // of executions: an operator pauses, skips, rewinds and so on
  int64_t again_permille = 0;    // of acknowledged starts and events: sent again
  int64_t look_permille = 0;     // of executions: watched, described and verified while they run

  // Each kind of fault is there in some plans only, now and then many at once.
  static FaultPlan FromSeed(Dice& dice);
  static FaultPlan None();

  // "name=value". InvalidArgument: no such name, or no number.
  absl::Status Set(std::string_view assignment);
  // "name=value name=value", what differs from None().
  std::string Text() const;
  // A line a field, for --help.
  static std::string Help();
};

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_FAULTS_H_
