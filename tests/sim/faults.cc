#include "tests/sim/faults.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::sim {
namespace {

struct Field {
  const char* name;
  int64_t FaultPlan::*value;
  const char* help;
};

constexpr Field kFields[] = {
    {"faults-ms", &FaultPlan::faults_ms, "faults strike for so long; then everything must end"},
    {"crash-every-ms", &FaultPlan::crash_every_ms, "mean time between crashes of fluxd"},
    {"power", &FaultPlan::power_permille, "of crashes: what was not synced is lost"},
    {"torn", &FaultPlan::torn_permille, "of crashes: the write under way is torn"},
    {"down-ms", &FaultPlan::down_ms, "longest time until fluxd is up again"},
    {"stall", &FaultPlan::stall_permille, "of turns: the loop stands still for up to 3 s"},
    {"step-crash", &FaultPlan::step_permille, "of completed writes: fluxd dies right there"},
    {"jump-every-ms", &FaultPlan::jump_every_ms, "mean time between jumps of the wall clock"},
    {"jump-ms", &FaultPlan::jump_ms, "how far the clock may be off, either way"},
    {"disk-us", &FaultPlan::disk_us, "longest time of a write, microseconds"},
    {"disk-slow", &FaultPlan::slow_permille, "of writes: takes up to 2 s"},
    {"disk-error", &FaultPlan::error_permille, "of writes: fails"},
    {"disk-full-every-ms", &FaultPlan::full_every_ms, "mean time between full disks"},
    {"disk-read-error", &FaultPlan::read_permille, "of reads: fails"},
    {"open-error", &FaultPlan::open_permille, "of the store calls of an opening: fails"},
    {"delay-us", &FaultPlan::delay_us, "longest time of a message, microseconds"},
    {"break-every-ms", &FaultPlan::break_every_ms, "mean time between broken streams, a worker"},
    {"double", &FaultPlan::double_permille, "of messages: arrives twice"},
    {"reorder", &FaultPlan::reorder_permille, "of messages: may be overtaken"},
    {"lose-reply", &FaultPlan::lose_reply_permille, "of answers to clients: lost"},
    {"death-every-ms", &FaultPlan::death_every_ms, "mean time between deaths of a worker"},
    {"drain-every-ms", &FaultPlan::drain_every_ms, "mean time between drains of a worker"},
    {"hang", &FaultPlan::hang_permille, "of tasks: never answered"},
    {"slow-task", &FaultPlan::slow_task_permille, "of tasks: takes up to 30 s"},
    {"lie", &FaultPlan::lie_permille, "of results: a false one follows"},
    {"garbage", &FaultPlan::garbage_permille, "of results: malformed, or over a limit"},
    {"cancel", &FaultPlan::cancel_permille, "of executions: cancelled or terminated"},
    {"operate", &FaultPlan::operate_permille, "of executions: operators repair what is not broken"},
    {"again", &FaultPlan::again_permille, "of acknowledged starts and events: sent again"},
    {"look", &FaultPlan::look_permille, "of executions: looked at while they run"},
};

}  // namespace

FaultPlan FaultPlan::None() { return FaultPlan(); }

FaultPlan FaultPlan::FromSeed(Dice& dice) {
  FaultPlan plan;
  // A quiet run now and then; faults of a few kinds most of the time; all at once sometimes.
  const uint32_t density = dice.Pick({0u, 150u, 300u, 300u, 500u, 900u});
  const auto maybe = [&](int64_t* field, std::initializer_list<int64_t> values) {
    const int64_t value = dice.Pick(values);
    if (dice.Chance(density)) *field = value;
  };
  plan.faults_ms = dice.Pick({5'000, 20'000, 60'000});
  maybe(&plan.crash_every_ms, {300, 2'000, 10'000});
  plan.power_permille = dice.Pick({0, 500, 1'000});
  plan.torn_permille = dice.Pick({0, 500});
  plan.down_ms = dice.Pick({50, 500, 5'000});
  maybe(&plan.stall_permille, {1, 10});
  maybe(&plan.step_permille, {1, 10, 30});
  maybe(&plan.jump_every_ms, {1'000, 10'000});
  plan.jump_ms = dice.Pick({200, 20'000, 600'000});
  plan.disk_us = dice.Pick({100, 2'000, 20'000});
  maybe(&plan.slow_permille, {5, 50});
  maybe(&plan.error_permille, {1, 10});
  maybe(&plan.full_every_ms, {5'000, 20'000});
  maybe(&plan.read_permille, {1, 10});
  maybe(&plan.open_permille, {10, 50});
  plan.delay_us = dice.Pick({100, 2'000, 50'000});
  maybe(&plan.break_every_ms, {500, 3'000, 15'000});
  maybe(&plan.double_permille, {20, 200});
  maybe(&plan.reorder_permille, {20, 300});
  maybe(&plan.lose_reply_permille, {50, 300});
  maybe(&plan.death_every_ms, {1'000, 8'000});
  maybe(&plan.drain_every_ms, {1'000, 8'000});
  maybe(&plan.hang_permille, {5, 50});
  maybe(&plan.slow_task_permille, {10, 100});
  maybe(&plan.lie_permille, {50, 400});
  maybe(&plan.garbage_permille, {2, 20});
  maybe(&plan.cancel_permille, {100, 500});
  maybe(&plan.operate_permille, {100, 500});
  maybe(&plan.again_permille, {300});
  maybe(&plan.look_permille, {100, 700});
  return plan;
}

absl::Status FaultPlan::Set(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const std::string_view name = assignment.substr(0, equals);
  for (const Field& field : kFields) {
    if (name != field.name) continue;
    int64_t value = 0;
    if (equals == std::string_view::npos ||
        !absl::SimpleAtoi(ToAbsl(assignment.substr(equals + 1)), &value) || value < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", ToAbsl(assignment), "\": give a number, as in ", field.name, "=10"));
    }
    this->*field.value = value;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("there is no fault \"", ToAbsl(name), "\"; --help lists them"));
}

std::string FaultPlan::Text() const {
  const FaultPlan none;
  std::string text;
  for (const Field& field : kFields) {
    if (this->*field.value == none.*field.value) continue;
    absl::StrAppend(&text, text.empty() ? "" : " ", field.name, "=", this->*field.value);
  }
  return text.empty() ? "no faults" : text;
}

std::string FaultPlan::Help() {
  std::string text;
  for (const Field& field : kFields) {
    const std::string name = field.name;
    absl::StrAppend(&text, "  ", name, std::string(20 - name.size(), ' '), field.help, "\n");
  }
  return text;
}

}  // namespace flux::sim
