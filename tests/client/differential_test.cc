// Runs in process behave as a server does: random definitions from the whole language, with the
// same scripted tasks, go through the interpreter of flux/testing.h and through the coordinator's
// core, and all that can be seen of the two runs must be equal.
//
// What each attempt answers is a function of the seed, the step and its inputs; how long it takes,
// of the seed, the step and the attempt. Spans differ by so much that two of them never end at one
// instant, so that in both worlds the same comes first. What follows from one thing at the same
// instant has no order that a server promises, so that a definition is run in two forms:
//
//   - spread: before each step that may fail as it begins stands a task of its own length. Then no
//     two steps begin at one instant, and everything is compared: the outcome, the time it took,
//     the labels, each attempt with its time, failure and labels, and, unless it fails, when each
//     step ended.
//   - as it is: then, where both fail at one instant, it may be with another failure; and what was
//     done at that very instant is not compared.
//
// What a server does has to be done in process; what is begun and given up at one instant may be
// seen in process alone, since on a server its task is never handed out.
//
// Left out, since time or chance decide it, or since a run in process does not have it:
//   - the words of failures that a coordinator itself makes: only their types are compared;
//   - jitter of retries, and workers that are too few, too late or lost;
//   - children, and events that steps send: more than one execution is the shard's affair, not the
//     core's (flux/testing.h's own tests run them);
//   - what operators do;
//   - starts that a server refuses, for an input that is no list.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/src/simulation.h"
#include "engine/core/core.h"
#include "flux/codec.h"
#include "flux/error.h"
#include "flux/internal/simulation.h"
#include "flux/task_context.h"
#include "tests/core/harness.h"
#include "tests/sim/dice.h"
#include "tests/sim/graphs.h"
#include "tests/sim/script.h"

namespace flux {
namespace {

using internal::RawOutcome;
using sim::Dice;

constexpr uint64_t kSeeds = 300;
constexpr int64_t kScale = 100'000;           // of a generated definition's spans
constexpr int64_t kTakesMsMax = 100'000'000;  // of most attempts; of some, it is longer
constexpr int64_t kEventsMsMax = 300'000'000;
constexpr int64_t kDayMs = 86'400'000;
constexpr size_t kAttemptsMax = 2'000;  // of a run that goes on like this for ever

// ---- what is run
// -------------------------------------------------------------------------------------------------

// Spans of days rather than milliseconds, and no chance.
void Stretch(v1::TaskStep* task) {
  v1::RetryPolicy* retry = task->mutable_retry();
  retry->set_no_jitter(true);
  retry->set_initial_backoff_ms(kScale * retry->initial_backoff_ms());
  retry->set_max_backoff_ms(kScale * retry->max_backoff_ms());
  v1::TaskTimeouts* timeouts = task->mutable_timeouts();
  timeouts->set_start_to_close_ms(kScale * timeouts->start_to_close_ms());
  timeouts->set_schedule_to_close_ms(kScale * timeouts->schedule_to_close_ms());
  timeouts->clear_schedule_to_start_ms();
  timeouts->clear_heartbeat_ms();
}

v1::Definition Stretched(v1::Definition definition) {
  definition.set_execution_timeout_ms(kScale * definition.execution_timeout_ms());
  for (v1::Scope& scope : *definition.mutable_scopes()) {
    for (v1::Step& step : *scope.mutable_steps()) {
      if (step.has_task()) Stretch(step.mutable_task());
      if (step.has_undo()) Stretch(step.mutable_undo()->mutable_task());
      if (step.sleep().duration_ms() > 0) {
        step.mutable_sleep()->set_duration_ms(kScale * step.sleep().duration_ms());
      }
      if (step.wait_event().timeout_ms() > 0) {
        step.mutable_wait_event()->set_timeout_ms(kScale * step.wait_event().timeout_ms());
      }
    }
  }
  return definition;
}

bool IsEarly(const v1::Step& step) {
  return step.has_join() && (step.join().first() > 0 || step.join().tolerated_failures() > 0);
}

// Another scope that does the same, in which each step but tasks and early joins waits for a task
// that begins when the step would have.
v1::Scope SpreadScope(const v1::Scope& scope) {
  v1::Scope spread;
  spread.set_parameters(scope.parameters());
  std::vector<uint32_t> places;  // of the scope's steps
  const auto move = [&](v1::Input* input) {
    if (input->source_case() == v1::Input::kStep) input->set_step(places[input->step()]);
  };
  for (v1::Step step : scope.steps()) {
    for (v1::Input& input : *step.mutable_inputs()) move(&input);
    for (uint32_t& after : *step.mutable_after()) after = places[after];
    for (v1::CatchClause& clause : *step.mutable_catches()) {
      for (v1::Input& capture : *clause.mutable_captures()) move(&capture);
    }
    if (!step.has_task() && !IsEarly(step)) {
      v1::Step* wait = spread.add_steps();
      wait->set_name("before-" + step.name());
      wait->mutable_task()->set_task("t0");
      wait->mutable_task()->mutable_timeouts()->set_start_to_close_ms(100 * kDayMs);
      std::set<uint32_t> after(step.after().begin(), step.after().end());
      const int awaited = step.has_block() ? 0 : step.has_switch_() ? 1 : step.inputs_size();
      for (int i = 0; i < awaited; ++i) {
        const v1::Input& input = step.inputs(i);
        if (input.source_case() == v1::Input::kStep) after.insert(input.step());
        if (input.source_case() == v1::Input::kParameter) {
          v1::Input* parameter = wait->add_inputs();
          parameter->set_parameter(input.parameter());
          parameter->set_optional(true);
        }
      }
      for (const uint32_t earlier : after) wait->add_after(earlier);
      step.add_after(static_cast<uint32_t>(spread.steps_size() - 1));
    }
    places.push_back(static_cast<uint32_t>(spread.steps_size()));
    *spread.add_steps() = std::move(step);
  }
  if (scope.has_result()) {
    *spread.mutable_result() = scope.result();
    move(spread.mutable_result());
  }
  return spread;
}

v1::Definition Spread(const v1::Definition& definition) {
  v1::Definition spread = definition;
  std::vector<std::pair<uint32_t, uint32_t>> ends;  // of loops: the body, and the step it reads
  for (v1::Scope& scope : *spread.mutable_scopes()) scope = SpreadScope(scope);
  for (v1::Scope& scope : *spread.mutable_scopes()) {
    for (v1::Step& step : *scope.mutable_steps()) {
      if (step.loop().done().source_case() != v1::Input::kStep) continue;
      const v1::Scope& before = definition.scopes(static_cast<int>(step.loop().body()));
      const v1::Scope& after = spread.scopes(static_cast<int>(step.loop().body()));
      const std::string& name = before.steps(static_cast<int>(step.loop().done().step())).name();
      const auto found = std::find_if(after.steps().begin(), after.steps().end(),
                                      [&](const v1::Step& one) { return one.name() == name; });
      step.mutable_loop()->mutable_done()->set_step(
          static_cast<uint32_t>(found - after.steps().begin()));
    }
  }
  return spread;
}

struct Sent {
  int64_t at_ms;
  std::string event;
  v1::Payload payload;
};

// Everything that decides a run.
struct Case {
  uint64_t seed = 0;
  bool spread = false;
  const sim::Program* program = nullptr;
  std::vector<Sent> events;  // in the order of time

  v1::Definition Form(const v1::Definition& definition) const {
    const v1::Definition stretched = Stretched(definition);
    return spread ? Spread(stretched) : stretched;
  }
  sim::Answer AnswerOf(const std::string& path, const std::vector<std::string>& inputs) const {
    return sim::AnswerOf(ScriptOf(path), seed, path, inputs);
  }
  // Of the steps that are not the program's own: no value, after a while.
  const sim::TaskScript& ScriptOf(const std::string& path) const {
    static const sim::TaskScript kNothing{.shape = sim::Shape::kNone};
    const auto found = program->scripts.find(sim::NameOf(path));
    return found == program->scripts.end() ? kNothing : found->second;
  }
  int64_t TakesMs(const std::string& path, uint32_t attempt) const {
    Dice dice(sim::Hash(absl::StrCat(path, " ", attempt), sim::Mix(seed)));
    return dice.Between(1, dice.OneIn(12) ? 4 * kTakesMsMax : kTakesMsMax);
  }
};

sim::GraphBounds BoundsOf(Dice& dice) {
  sim::GraphBounds bounds;
  bounds.parks = dice.OneIn(4);
  bounds.deadlines = dice.OneIn(3);
  bounds.waits = dice.OneIn(3);
  bounds.events = dice.OneIn(2);
  bounds.pages = dice.OneIn(2);
  bounds.continues = dice.OneIn(2);
  bounds.undoes = dice.OneIn(2);
  bounds.early = dice.OneIn(2);
  return bounds;
}

// Of some names, more than one: what a parked reader could not use, it may use the next of.
std::vector<Sent> EventsOf(const sim::Program& program, Dice& dice) {
  std::vector<Sent> events;
  for (const std::string& name :
       std::set<std::string>(program.events.begin(), program.events.end())) {
    for (uint64_t count = dice.Below(4); count > 0; --count) {
      events.push_back({dice.Between(1, kEventsMsMax), name,
                        sim::Json(absl::StrCat("\"told ", dice.Below(100), "\""))});
    }
  }
  std::sort(events.begin(), events.end(),
            [](const Sent& a, const Sent& b) { return a.at_ms < b.at_ms; });
  return events;
}

// ---- what came of it
// ---------------------------------------------------------------------------------------------

struct Moment {
  int64_t at_ms;
  std::string what;
  auto operator<=>(const Moment&) const = default;
};

struct Ran {
  std::string outcome;
  bool failed = false;
  std::optional<int64_t> closed_ms;
  std::map<std::string, std::string> labels;
  std::multiset<Moment> attempts;
  std::multiset<Moment> ended;
};

// Without the words of the coordinator's failures in it, which a catch clause may have made values.
std::string Plain(std::string text) {
  static constexpr std::string_view kType = "\"type\":\"flux.";
  static constexpr std::string_view kMessage = "\"message\":\"";
  for (size_t at = text.find(kType); at != std::string::npos; at = text.find(kType, at + 1)) {
    const size_t from = text.find(kMessage, at);
    if (from == std::string::npos) break;
    size_t end = from + kMessage.size();
    while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
    text.erase(from + kMessage.size(), end - from - kMessage.size());
  }
  return text;
}

std::string TextOf(const v1::Payload& payload) { return Plain(sim::TextOf(payload)); }

std::string TextOf(const std::string& type, const std::string& message) {
  return absl::StrCat("failed: ", type, absl::StartsWith(type, "flux.") ? "" : ": " + message);
}

std::string TextOf(const std::map<std::string, std::string>& labels) {
  return absl::StrJoin(labels, ",", absl::PairFormatter("="));
}

std::string AttemptText(const std::string& path, uint32_t attempt, const std::string& failure,
                        const std::map<std::string, std::string>& labels) {
  return absl::StrCat(path, " ", attempt, " ", failure, " ", TextOf(labels));
}

v1::Payload ToProto(const Payload& payload) {
  v1::Payload proto;
  proto.set_data(payload.data);
  proto.set_encoding(static_cast<v1::Encoding>(payload.encoding));
  proto.set_content_type(payload.content_type);
  proto.mutable_metadata()->insert(payload.metadata.begin(), payload.metadata.end());
  return proto;
}

// What the task at a path sets of the execution's labels: one that others set, too, and take away.
std::map<std::string, std::string> LabelsOf(const std::string& path) {
  const uint64_t hash = sim::Hash(path);
  if (hash % 3 != 0) return {};
  return {{absl::StrCat("of_", path), "set"},
          {"shared", hash % 2 == 0 ? "" : std::string(absl::StrCat(hash % 1000))}};
}

// And of its step's.
std::map<std::string, std::string> StepLabelsOf(const std::string& path) {
  const uint64_t hash = sim::Hash(path);
  if (hash % 5 != 0) return {};
  return {{"at", absl::StrCat(hash % 1000)}};
}

// ---- in process
// --------------------------------------------------------------------------------------------------

Failure FromProto(const v1::Failure& failure) {
  return {failure.type(), failure.message(), failure.non_retriable(), failure.source()};
}

RawOutcome Answer(const Case& run, TaskContext& context, const std::vector<Payload>& inputs) {
  std::vector<std::string> texts;
  for (const Payload& input : inputs) texts.push_back(TextOf(ToProto(input)));
  const std::string path = context.step();
  const sim::Answer answer = run.AnswerOf(path, texts);
  for (const auto& [key, value] : LabelsOf(path)) {
    EXPECT_TRUE(context.SetLabel(key, value).ok());
  }
  for (const auto& [key, value] : StepLabelsOf(path)) {
    EXPECT_TRUE(context.SetStepLabel(key, value).ok());
  }
  if (context.attempt() <= answer.failing_attempts) {
    return RawOutcome::Fail(FromProto(answer.transient));
  }
  switch (answer.end) {
    case sim::Answer::End::kValue:
      return RawOutcome::Value(internal::FromProto(answer.value));
    case sim::Answer::End::kSkip:
      return RawOutcome::Skipped();
    case sim::Answer::End::kFailure:
      return RawOutcome::Fail(FromProto(answer.failure));
    case sim::Answer::End::kContinue:
      break;
  }
  auto fragment = std::make_shared<internal::Fragment>();
  fragment->definition_bytes = run.Form(*answer.fragment).SerializeAsString();
  for (const v1::Payload& input : answer.inputs) {
    fragment->inputs.push_back(internal::FromProto(input));
  }
  return RawOutcome::Continue(absl::OkStatus(), std::move(fragment));
}

Ran RunInProcess(const Case& run) {
  TaskSet tasks;
  for (const char* name : {"t0", "t1", "t2"}) {
    tasks.RegisterRaw(name, [&run](TaskContext& context, const std::vector<Payload>& inputs) {
      return Answer(run, context, inputs);
    });
  }
  internal::TestScript script;
  script.takes = [&run](const TestAttempt& attempt) {
    return absl::Milliseconds(run.TakesMs(attempt.step, attempt.attempt));
  };
  for (const Sent& sent : run.events) {
    script.events.push_back({.at = absl::Milliseconds(sent.at_ms),
                             .workflow_id = "",
                             .event = sent.event,
                             .value = internal::FromProto(sent.payload)});
  }
  std::vector<Payload> inputs;
  for (const v1::Payload& input : run.program->inputs) {
    inputs.push_back(internal::FromProto(input));
  }
  const absl::StatusOr<internal::TestReport> report = internal::SimulateDefinition(
      tasks, script, run.Form(run.program->definition).SerializeAsString(), std::move(inputs));
  Ran ran;
  if (!report.ok()) {
    ran.outcome = report.status().ToString();
    return ran;
  }
  if (!report->stuck.empty()) {
    ran.outcome = "open";
  } else {
    ran.closed_ms = absl::ToInt64Milliseconds(report->elapsed);
    switch (report->outcome.kind) {
      case RawOutcome::Kind::kValue:
        ran.outcome = "completed with " + TextOf(ToProto(report->outcome.value));
        break;
      case RawOutcome::Kind::kFailure:
        ran.failed = true;
        ran.outcome = TextOf(report->outcome.failure.type, report->outcome.failure.message);
        break;
      default:
        ran.outcome = "skipped";
        break;
    }
  }
  ran.labels = report->labels;
  for (const TestAttempt& attempt : report->attempts) {
    ran.attempts.insert(
        {absl::ToInt64Milliseconds(attempt.at),
         AttemptText(attempt.step, attempt.attempt, attempt.failure, attempt.labels)});
  }
  for (const TestStep& step : report->steps) {
    if (step.state != "completed" && step.state != "skipped") continue;
    ran.ended.insert({absl::ToInt64Milliseconds(step.at), step.step + " " + step.state});
  }
  return ran;
}

// ---- on the coordinator's core
// -----------------------------------------------------------------------------------

// Workers that are always enough, and a clock that goes from one thing that is due to the next.
class CoreRun {
 public:
  explicit CoreRun(const Case& run, std::shared_ptr<const engine::Graph> graph)
      : run_(run),
        driver_(std::move(graph), run.program->inputs, kStartMs, run.seed,
                [](v1::ExecutionStarted& started) { started.clear_labels(); }) {
    driver_.check_each = false;
    driver_.keep_records = false;
  }

  // None: it does not end by itself.
  std::optional<Ran> Run() {
    while (true) {
      Begin();
      const std::optional<int64_t> next_ms = NextMs();
      if (!next_ms) break;
      if (ran_.attempts.size() + running_.size() > kAttemptsMax) return std::nullopt;
      driver_.Advance(std::max<int64_t>(*next_ms - driver_.now_ms, 0));
      while (next_event_ < run_.events.size() && run_.events[next_event_].at_ms <= now_ms()) {
        engine::SendEvent send;
        send.event = run_.events[next_event_].event;
        send.payload = run_.events[next_event_++].payload;
        // Refused once it fails or has closed, as in process.
        static_cast<void>(driver_.Do(std::move(send)));
      }
      while (!running_.empty() && running_.begin()->first <= driver_.now_ms) {
        const Attempt attempt = std::move(running_.begin()->second);
        running_.erase(running_.begin());
        End(attempt);
      }
    }
    Conclude();
    return std::move(ran_);
  }

 private:
  static constexpr int64_t kStartMs = 1'000'000;

  struct Attempt {
    engine::StepKey key;
    uint64_t delivery = 0;
    int64_t began_ms = 0;
    bool timed_out = false;
    v1::Task task;
  };

  int64_t now_ms() const { return driver_.now_ms - kStartMs; }

  std::optional<int64_t> NextMs() const {
    if (driver_.live.closed()) return std::nullopt;
    std::optional<int64_t> next = engine::NextTimerMs(driver_.live);
    const auto or_at = [&](int64_t at_ms) { next = std::min(next.value_or(at_ms), at_ms); };
    if (!running_.empty()) or_at(running_.begin()->first);
    if (next_event_ < run_.events.size()) or_at(kStartMs + run_.events[next_event_].at_ms);
    return next;
  }

  void Begin() {
    if (driver_.live.closed()) return;
    for (const engine::StepKey& key : engine::ReadyTasks(driver_.live)) {
      const engine::TaskOffer offer = engine::Offer(driver_.live, key);
      if (std::exchange(begun_[key], offer.delivery) == offer.delivery) continue;
      Attempt attempt{.key = key, .delivery = offer.delivery, .began_ms = now_ms(), .task = {}};
      EXPECT_TRUE(engine::FillTask(driver_.live, key, 1 << 30, &attempt.task).ok());
      const int64_t takes_ms = run_.TakesMs(attempt.task.step(), attempt.task.attempt());
      const int64_t limit_ms = offer.task->timeouts().start_to_close_ms();
      attempt.timed_out = takes_ms > limit_ms;
      running_.emplace(driver_.now_ms + std::min(takes_ms, limit_ms), std::move(attempt));
    }
  }

  void End(const Attempt& attempt) {
    v1::TaskResult result;
    std::string failure;
    const bool wanted = engine::IsCurrent(driver_.live, attempt.key, attempt.delivery);
    if (wanted && attempt.timed_out) {
      failure = errors::kStartToClose.name();
      engine::EndAttempt end;
      end.key = attempt.key;
      end.delivery = attempt.delivery;
      end.reason = engine::AttemptEnd::kStartToClose;
      EXPECT_TRUE(driver_.Do(std::move(end)).ok());
    } else if (wanted) {
      result = ResultOf(attempt.task);
      *result.mutable_token() = attempt.task.token();
      failure = result.failure().type();
      engine::ReportResult report;
      report.result = result;
      const absl::StatusOr<engine::Verdict> verdict = driver_.Do(std::move(report));
      EXPECT_TRUE(verdict.ok() && *verdict == engine::Verdict::kAccepted);
    }
    Note(attempt, failure, result.has_failure() ? v1::TaskResult() : result);
  }

  void Note(const Attempt& attempt, const std::string& failure, const v1::TaskResult& result) {
    ran_.attempts.insert({attempt.began_ms,
                          AttemptText(attempt.task.step(), attempt.task.attempt(), failure,
                                      {result.step_labels().begin(), result.step_labels().end()})});
  }

  // As a worker answers.
  v1::TaskResult ResultOf(const v1::Task& task) const {
    v1::TaskResult result;
    std::vector<std::string> inputs;
    for (const v1::TaskInput& input : task.inputs()) {
      const absl::StatusOr<Payload> part =
          internal::Project(internal::FromProto(input.payload()), input.pointer());
      if (!part.ok()) {
        result.mutable_failure()->set_type(std::string(errors::kBadInput.name()));
        result.mutable_failure()->set_non_retriable(true);
        return result;
      }
      inputs.push_back(TextOf(ToProto(*part)));
    }
    const sim::Answer answer = run_.AnswerOf(task.step(), inputs);
    for (const auto& [key, value] : LabelsOf(task.step())) {
      (*result.mutable_labels())[key] = value;
    }
    for (const auto& [key, value] : StepLabelsOf(task.step())) {
      (*result.mutable_step_labels())[key] = value;
    }
    if (task.attempt() <= answer.failing_attempts) {
      *result.mutable_failure() = answer.transient;
    } else if (answer.end == sim::Answer::End::kValue) {
      *result.mutable_value() = answer.value;
    } else if (answer.end == sim::Answer::End::kSkip) {
      result.set_skip(true);
    } else if (answer.end == sim::Answer::End::kFailure) {
      *result.mutable_failure() = answer.failure;
    } else {
      *result.mutable_continuation()->mutable_fragment() = run_.Form(*answer.fragment);
      for (const v1::Payload& input : answer.inputs) {
        *result.mutable_continuation()->add_inputs() = input;
      }
    }
    return result;
  }

  void Conclude() {
    for (const auto& [due_ms, attempt] : running_) Note(attempt, "", v1::TaskResult());
    v1::GetResultResponse response;
    engine::FillResult(driver_.live, &response);
    switch (response.status()) {
      case v1::EXECUTION_STATUS_COMPLETED:
        ran_.outcome = "completed with " + TextOf(response.result());
        break;
      case v1::EXECUTION_STATUS_SKIPPED:
        ran_.outcome = "skipped";
        break;
      case v1::EXECUTION_STATUS_FAILED:
        ran_.failed = true;
        ran_.outcome = TextOf(response.failure().type(), response.failure().message());
        break;
      default:
        ran_.outcome = "open";
        break;
    }
    if (driver_.live.closed()) ran_.closed_ms = now_ms();
    const auto& labels = driver_.live.state().labels;
    ran_.labels.insert(labels.begin(), labels.end());
    for (const v1::HistoryEvent& event : driver_.story) {
      const bool completed = event.type() == "step.completed";
      if (!completed && event.type() != "step.skipped") continue;
      if (sim::NameOf(event.step()) == "undo") continue;
      ran_.ended.insert(
          {event.time_ms() - kStartMs, event.step() + (completed ? " completed" : " skipped")});
    }
  }

  const Case& run_;
  engine::testing::Driver driver_;
  std::map<engine::StepKey, uint64_t> begun_;
  std::multimap<int64_t, Attempt> running_;  // by the time that they end
  size_t next_event_ = 0;
  Ran ran_;
};

// ---- the comparison
// ----------------------------------------------------------------------------------------------

// What was done on a server and not in process, for a message.
std::string Missing(const std::multiset<Moment>& core, const std::multiset<Moment>& process) {
  std::vector<Moment> only;
  std::set_difference(core.begin(), core.end(), process.begin(), process.end(),
                      std::back_inserter(only));
  std::string text;
  for (const Moment& moment : only) {
    absl::StrAppend(&text, "  on a server alone, at ", moment.at_ms, ": ", moment.what, "\n");
  }
  return text;
}

bool Refused(const engine::Graph& graph, const sim::Program& program) {
  v1::ExecutionStarted started;
  started.set_run_id(std::string(16, 'r'));
  for (const v1::Payload& input : program.inputs) *started.add_inputs() = input;
  return !engine::DecideStart(graph, std::move(started), 0).ok();
}

class Differential : public ::testing::TestWithParam<bool> {};

TEST_P(Differential, RunsInProcessGoAsOnAServer) {
  std::map<std::string, uint64_t> seen;  // how often runs came to what
  for (uint64_t seed = 1; seed <= kSeeds && !HasFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Dice dice(seed);
    const sim::GraphBounds bounds = BoundsOf(dice);
    const sim::Program program = sim::MakeProgram("random", bounds, dice);
    Case run;
    run.seed = seed;
    run.spread = GetParam();
    run.program = &program;
    run.events = EventsOf(program, dice);
    const v1::Definition definition = run.Form(program.definition);
    auto graph = engine::Graph::Compile(definition, "hash");
    ASSERT_TRUE(graph.ok()) << graph.status();
    if (Refused(**graph, program)) {
      ++seen["refused"];
      continue;
    }
    std::optional<Ran> core = CoreRun(run, *graph).Run();
    if (!core) {
      ++seen["endless"];
      continue;
    }
    Ran process = RunInProcess(run);
    ++seen[core->outcome.substr(0, core->outcome.find_first_of(": "))];
    const std::string what = definition.ShortDebugString();
    if (!run.spread && core->failed && process.failed && core->closed_ms == process.closed_ms) {
      process.outcome = core->outcome;
    }
    EXPECT_EQ(core->outcome, process.outcome) << what;
    EXPECT_EQ(core->closed_ms, process.closed_ms);
    EXPECT_EQ(core->labels, process.labels);
    EXPECT_EQ(Missing(core->attempts, process.attempts), "") << what;
    if (!core->failed) {
      EXPECT_EQ(Missing(core->ended, process.ended), "") << what;
    }
  }
  for (const auto& [what, count] : seen) RecordProperty(what, static_cast<int>(count));
  for (const char* what : {"completed", "skipped", "failed", "open"}) {
    EXPECT_GE(seen[what], kSeeds / 150) << what;
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, Differential, ::testing::Values(true, false),
                         [](const ::testing::TestParamInfo<bool>& form) {
                           return form.param ? "Spread" : "AsItIs";
                         });

}  // namespace
}  // namespace flux
