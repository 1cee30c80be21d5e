// Random graphs under random commands, events, answers of other executions and operators: replay
// equals the live state at every step, snapshots continue as what they were taken of, effects equal
// what the state says, steps wait for what their graph says, and once everybody answers, everything
// ends.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>(engine_() % n); }
  bool OneIn(uint32_t n) { return Below(n) == 0; }

 private:
  std::mt19937_64 engine_;  // its sequence is fixed by the standard
};

class GraphMaker {
 public:
  // With steps of `steps_min` at least; fragments begin deeper, so that they stay small.
  GraphMaker(Dice& dice, uint32_t parameters, uint32_t steps_min, uint32_t depth = 0)
      : dice_(dice), builder_("random", parameters) {
    FillScope(0, depth, steps_min + dice_.Below(8));
  }

  std::shared_ptr<const Graph> Compile() const { return builder_.Compile(); }
  const v1::Definition& definition() const { return builder_.definition(); }

 private:
  // Any earlier step or parameter of the scope, or a literal.
  v1::Input AnyInput(uint32_t scope) {
    const v1::Scope& at = builder_.definition().scopes(static_cast<int>(scope));
    v1::Input input;
    const uint32_t steps = static_cast<uint32_t>(at.steps_size());
    if (steps > 0 && !dice_.OneIn(4)) {
      input = FromStep(dice_.Below(steps));
    } else if (at.parameters() > 0 && !dice_.OneIn(4)) {
      input = FromParameter(dice_.Below(at.parameters()));
    } else {
      static constexpr const char* kLiterals[] = {"1", "true", "[1,2,3]", "{\"a\":[4,5]}", "[]"};
      input = Literal(kLiterals[dice_.Below(5)]);
    }
    if (dice_.OneIn(40)) input.set_pointer("/a");
    if (dice_.OneIn(4)) input.set_optional(true);
    return input;
  }

  std::vector<v1::Input> Inputs(uint32_t scope, uint32_t at_least) {
    std::vector<v1::Input> inputs;
    const uint32_t count = at_least + dice_.Below(3);
    for (uint32_t i = 0; i < count; ++i) inputs.push_back(AnyInput(scope));
    return inputs;
  }

  uint32_t Body(uint32_t parameters, uint32_t depth) {
    const uint32_t scope = builder_.Scope(parameters);
    FillScope(scope, depth + 1, dice_.Below(4));
    return scope;
  }

  void FillScope(uint32_t scope, uint32_t depth, uint32_t steps) {
    for (uint32_t i = 0; i < steps; ++i) AddStep(scope, depth);
    builder_.Result(scope, AnyInput(scope));
  }

  void AddStep(uint32_t scope, uint32_t depth) {
    const std::string name = absl::StrCat("s", names_++);
    uint32_t step = 0;
    bool ordered = true;  // may come after other steps
    // Bodies are made first: they add scopes, not steps of this one.
    std::vector<v1::Input> inputs = Inputs(scope, 1);
    const uint32_t given = static_cast<uint32_t>(inputs.size());
    switch (depth >= 3 ? 8 + dice_.Below(12) : dice_.Below(20)) {
      default: {
        step = builder_.Task(scope, name, Inputs(scope, 0));
        v1::TaskStep* task = builder_.step(scope, step).mutable_task();
        task->mutable_retry()->set_max_attempts(2 + dice_.Below(3));
        if (dice_.OneIn(12)) {
          task->mutable_timeouts()->set_schedule_to_close_ms(1 + dice_.Below(4000));
        }
        if (dice_.OneIn(10)) builder_.step(scope, step).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
        if (dice_.OneIn(5)) builder_.Undo(scope, step, name);
        break;
      }
      case 8:
        step = builder_.Sleep(scope, name, dice_.Below(3000));
        break;
      case 9:
        step = builder_.Join(scope, name, std::move(inputs));
        break;
      case 10:
        step = dice_.OneIn(8) ? builder_.Fail(scope, name, "mine", std::move(inputs))
                              : builder_.Skip(scope, name, std::move(inputs));
        break;
      case 11:
      case 12: {
        const bool times_out = dice_.OneIn(2);
        step = builder_.Wait(scope, name, absl::StrCat("event-", dice_.Below(3)),
                             times_out ? 1 + dice_.Below(4000) : 0,
                             times_out && !dice_.OneIn(3) ? "\"default\"" : "", Inputs(scope, 0));
        break;
      }
      case 13:
        step = builder_.Emit(scope, name, "event-0", inputs[0],
                             dice_.OneIn(8) ? AnyInput(scope) : Literal("\"other\""));
        break;
      case 14: {
        step = builder_.Child(scope, name, "sub", std::move(inputs), dice_.OneIn(3));
        v1::ChildStep* child = builder_.step(scope, step).mutable_child();
        child->set_parent_close(static_cast<v1::ParentClosePolicy>(dice_.Below(4)));
        if (dice_.OneIn(6)) builder_.Undo(scope, step, name);
        break;
      }
      case 15:
        step =
            builder_.Early(scope, name, std::move(inputs), dice_.Below(given + 1), dice_.Below(2));
        ordered = false;
        break;
      case 0:
      case 1:
      case 2: {
        if (!dice_.OneIn(6)) inputs[0] = Literal("[10,20,30,40]");
        const uint32_t body = Body(given, depth);
        if (dice_.OneIn(4)) {
          const uint32_t page = Body(given, depth);
          step = builder_.Pages(scope, name, page, body, std::move(inputs), 1 + dice_.Below(3));
        } else {
          step = builder_.Map(scope, name, body, std::move(inputs), 1 + dice_.Below(3));
        }
        v1::MapStep* map = builder_.step(scope, step).mutable_map();
        if (dice_.OneIn(4)) map->set_first(1 + dice_.Below(4));
        if (dice_.OneIn(4)) map->set_tolerated_failures(1 + dice_.Below(2));
        if (dice_.OneIn(4)) map->set_tolerated_failure_permille(500);
        break;
      }
      case 3:
      case 4: {
        const uint32_t body = Body(given, depth);
        std::optional<v1::Input> done;
        if (dice_.OneIn(4)) done = FromParameter(0);
        step = builder_.Loop(scope, name, body, std::move(inputs), 1 + dice_.Below(3), done);
        break;
      }
      case 5: {
        const uint32_t body = Body(given, depth);
        step = builder_.Block(scope, name, body, std::move(inputs));
        break;
      }
      case 6:
      case 7: {
        if (!dice_.OneIn(4)) inputs[0] = Literal(dice_.OneIn(2) ? "true" : "1");
        const uint32_t yes = Body(given - 1, depth);
        const uint32_t no = Body(given - 1, depth);
        std::optional<uint32_t> otherwise;
        if (!dice_.OneIn(3)) otherwise = no;
        if (otherwise.has_value()) {
          step = builder_.Switch(scope, name, std::move(inputs), {{"true", yes}}, otherwise);
        } else {
          step = builder_.Switch(scope, name, std::move(inputs), {{"true", yes}, {"1", no}});
        }
        break;
      }
    }
    if (ordered && step > 0 && dice_.OneIn(4)) builder_.After(scope, step, dice_.Below(step));
    if (depth < 3 && dice_.OneIn(3)) {
      std::vector<v1::Input> captures;
      // Captures come before the step; AnyInput may now name the step itself, so draw again until
      // it does not.
      for (uint32_t i = dice_.Below(3); i > 0; --i) {
        v1::Input capture = AnyInput(scope);
        while (capture.source_case() == v1::Input::kStep && capture.step() >= step) {
          capture = AnyInput(scope);
        }
        captures.push_back(std::move(capture));
      }
      const uint32_t body = Body(static_cast<uint32_t>(captures.size()) + 1, depth);
      std::vector<std::string> types;
      if (dice_.OneIn(2)) types = {"mine"};
      builder_.Catch(scope, step, types, body, std::move(captures));
    }
  }

  Dice& dice_;
  DefinitionBuilder builder_;
  uint32_t names_ = 0;
};

v1::Payload AnyValue(Dice& dice) {
  switch (dice.Below(10)) {
    case 0:
      return Json("true");
    case 1:
      return Json("[1,[2,3],{\"a\":1}]");
    case 2:
      return ListPayload({Json("1"), Json("[5,6]"), ListPayload({Json("7")})});
    case 3:
      return Json("{\"a\":[1,2]}");
    case 4: {
      v1::Payload payload;
      payload.set_data("opaque");
      payload.set_encoding(v1::ENCODING_PROTOBUF);
      payload.set_content_type("a.Message");
      (*payload.mutable_metadata())["k"] = "v";
      (*payload.mutable_metadata())["j"] = "w";
      return payload;
    }
    case 5:
      return dice.OneIn(8) ? Json("\"" + std::string(70'000, 'x') + "\"") : Json("3");
    case 6: {
      v1::Payload none;
      none.set_encoding(v1::ENCODING_NONE);
      return none;
    }
    case 7:
      return Json("[]");
    case 8:
      return dice.OneIn(2) ? Json("{\"items\":[1,{\"a\":2}],\"next\":7}") : Json("{\"items\":[3]}");
    default:
      return Json(absl::StrCat(dice.Below(100)));
  }
}

uint64_t BlobFor(const Driver& run, const v1::Payload& payload) {
  return payload.data().size() > kBlobBytesMin ? NextBlob(run.live) : 0;
}

// Any step there is, and now and then one that is not.
StepKey AnyStep(const Driver& run, Dice& dice) {
  const auto& frames = run.live.state().frames;
  auto it = frames.begin();
  std::advance(it, dice.Below(static_cast<uint32_t>(frames.size())));
  const uint32_t steps = static_cast<uint32_t>(it->second->steps.size());
  if (dice.OneIn(30)) return {it->first + dice.Below(2) * 1'000'000, steps};
  return {it->first, steps == 0 ? 0 : dice.Below(steps)};
}

std::string AnyEvent(Dice& dice) { return absl::StrCat("event-", dice.Below(4)); }

// A command of an operator or of somebody outside. It is done, or refused with a reason and nothing
// changed.
void OneOfOperators(Driver& run, Dice& dice) {
  const StepKey chosen = AnyStep(run, dice);
  Command command;
  switch (dice.Below(16)) {
    case 15: {
      // Steps behind those there are fit whatever has begun.
      v1::Definition next = run.live.graph().definition();
      v1::Scope* root = next.mutable_scopes(0);
      const uint32_t steps = static_cast<uint32_t>(root->steps_size());
      v1::Step* step = root->add_steps();
      step->set_name(absl::StrCat("extra-", steps));
      step->mutable_task()->set_task("do.extra");
      if (steps > 0) *step->add_inputs() = FromStep(dice.Below(steps));
      auto graph = Graph::Compile(next, absl::StrCat("hash-", steps));
      ASSERT_TRUE(graph.ok()) << graph.status();
      const bool runs = run.live.state().status == v1::EXECUTION_STATUS_RUNNING;
      EXPECT_EQ(run.Do(Migrate{*graph, "ann", "why"}).ok(), runs);
      return;
    }
    case 0:
      command = Pause{"ann", "why"};
      break;
    case 1:
      command = Resume{"ann", "why"};
      break;
    case 2:
      command =
          Retry{dice.OneIn(3) ? std::nullopt : std::optional(chosen), "ann", "why", dice.OneIn(4)};
      break;
    case 3:
      command = Park{chosen, "ann", dice.OneIn(2) ? "why" : ""};
      break;
    case 4:
      command = Rewind{chosen, "ann", "why"};
      break;
    case 5: {
      Resolve resolve{chosen, std::nullopt, 0, "ann", "why"};
      if (!dice.OneIn(3)) {
        resolve.result = AnyValue(dice);
        resolve.blob = BlobFor(run, *resolve.result);
      }
      command = std::move(resolve);
      break;
    }
    case 6: {
      EditEvent edit;
      edit.event = AnyEvent(dice);
      if (dice.OneIn(3)) edit.number = 1 + dice.Below(9);
      edit.payload = AnyValue(dice);
      edit.blob = BlobFor(run, edit.payload);
      command = std::move(edit);
      break;
    }
    case 7: {
      ReplayEvent replay;
      replay.event = AnyEvent(dice);
      replay.payload = AnyValue(dice);
      replay.blob = BlobFor(run, replay.payload);
      command = std::move(replay);
      break;
    }
    case 8:
      command = CancelEvent{absl::StrCat("id-", dice.Below(4)), "ann", ""};
      break;
    case 9:
      if (!dice.OneIn(12)) return;
      command = Cancel{"enough", "ann"};
      break;
    case 10:
      if (!dice.OneIn(20)) return;
      command = Terminate{"enough", "ann"};
      break;
    default: {
      SendEvent send;
      send.event = AnyEvent(dice);
      send.payload = AnyValue(dice);
      if (dice.OneIn(2)) send.event_id = absl::StrCat("id-", dice.Below(20));
      if (dice.OneIn(4)) send.deliver_at_ms = run.now_ms + dice.Below(3'000);
      send.blob = BlobFor(run, send.payload);
      command = std::move(send);
    }
  }
  const uint64_t before = run.live.ordinal();
  const absl::StatusOr<Verdict> verdict = run.Do(std::move(command));
  if (!verdict.ok()) {
    EXPECT_FALSE(verdict.status().message().empty());
    EXPECT_EQ(run.live.ordinal(), before);
  }
}

// What other executions answer. False: nothing is on its way.
bool OneAnswer(Driver& run, Dice& dice, bool well) {
  const std::vector<uint64_t> pending = PendingOutbox(run.live);
  const auto& children = run.live.state().children;
  const uint32_t waiting = static_cast<uint32_t>(pending.size() + children.size());
  if (waiting == 0) return false;
  const uint32_t chosen = dice.Below(waiting);
  if (chosen < pending.size()) {
    // It can be built, or is settled with why it cannot.
    const absl::StatusOr<OutboxMessage> message = BuildOutboxMessage(run.live, pending[chosen]);
    SettleOutbox settle;
    settle.number = pending[chosen];
    if (!message.ok() || (!well && dice.OneIn(4))) {
      settle.failure.emplace();
      settle.failure->set_type(dice.OneIn(2) ? "mine" : "flux.not_found");
    } else {
      EXPECT_EQ(message->number, pending[chosen]);
      settle.workflow_id = message->start.workflow_id();
      settle.run_id = std::string(16, static_cast<char>('a' + dice.Below(20)));
    }
    EXPECT_EQ(*run.Do(std::move(settle)), Verdict::kAccepted);
    return true;
  }
  auto child = children.begin();
  std::advance(child, chosen - pending.size());
  const internal::StepState& step = *run.live.state().FindStep(*child);
  ReportChild report;
  report.ref = *child;
  report.generation = step.generation;
  report.run_id = step.extra->child->run_id;
  if (report.run_id.empty()) report.run_id = std::string(16, 'z');
  static constexpr v1::ExecutionStatus kEnds[] = {
      v1::EXECUTION_STATUS_COMPLETED, v1::EXECUTION_STATUS_SKIPPED, v1::EXECUTION_STATUS_FAILED,
      v1::EXECUTION_STATUS_CANCELLED, v1::EXECUTION_STATUS_TERMINATED};
  report.status = well ? kEnds[0] : kEnds[dice.Below(5)];
  if (report.status == v1::EXECUTION_STATUS_COMPLETED) {
    report.result = well ? Json("1") : AnyValue(dice);
    report.blob = BlobFor(run, report.result);
  } else {
    report.failure.set_type(dice.OneIn(2) ? "mine" : "");
  }
  ReportChild other = report;
  other.run_id = std::string(16, '!');
  if (!step.extra->child->run_id.empty()) {
    EXPECT_EQ(*run.Do(other), Verdict::kStale);
  }
  EXPECT_EQ(*run.Do(std::move(report)), Verdict::kAccepted);
  return true;
}

void OneCommand(Driver& run, Dice& dice) {
  if (dice.OneIn(5)) return OneOfOperators(run, dice);
  if (dice.OneIn(6) && OneAnswer(run, dice, /*well=*/false)) return;
  std::vector<std::string> ready = run.Ready();
  if (ready.empty() || dice.OneIn(6)) {
    run.Advance(dice.Below(2000));
    return;
  }
  const std::string path = ready[dice.Below(static_cast<uint32_t>(ready.size()))];
  switch (dice.Below(13)) {
    case 12: {
      const uint32_t inputs = dice.Below(3);
      const GraphMaker fragment(dice, inputs, 1, /*depth=*/2);
      std::vector<v1::Payload> given;
      for (uint32_t i = 0; i < inputs; ++i) given.push_back(AnyValue(dice));
      EXPECT_EQ(run.Continue(path, fragment.definition(), std::move(given)), Verdict::kAccepted);
      return;
    }
    case 0:
      EXPECT_EQ(run.FailTask(path, dice.OneIn(2) ? "mine" : "other", dice.OneIn(6)),
                Verdict::kAccepted);
      return;
    case 1:
      EXPECT_EQ(run.End(path, static_cast<AttemptEnd>(dice.Below(4))), Verdict::kAccepted);
      return;
    case 2:
      EXPECT_EQ(run.Redeliver(path), Verdict::kAccepted);
      return;
    case 3:
      EXPECT_EQ(run.SkipResult(path), Verdict::kAccepted);
      return;
    case 4: {
      // An old delivery, one never given, a wrong generation, a step that is not there.
      ReportResult command;
      command.result = run.ResultFor(path);
      command.result.mutable_value();
      v1::TaskToken* token = command.result.mutable_token();
      const uint32_t kind = dice.Below(4);
      if (kind == 0) token->set_delivery(token->delivery() - 1);
      if (kind == 1) token->set_delivery(token->delivery() + 1);
      if (kind == 2) token->set_generation(token->generation() + 1);
      if (kind == 3) token->set_frame(token->frame() + 1'000'000);
      const uint64_t before = run.live.ordinal();
      EXPECT_EQ(*run.Do(std::move(command)), Verdict::kStale);
      // That of an older delivery is told once in the history.
      const uint64_t told = run.live.ordinal() - before;
      EXPECT_LE(told, kind == 0 ? 1u : 0u);
      return;
    }
    default: {
      // Twice: the second time is a duplicate, or stale once its frame is gone.
      ReportResult again;
      again.result = run.ResultFor(path);
      *again.result.mutable_value() = Json("0");
      EXPECT_EQ(run.Complete(path, AnyValue(dice)), Verdict::kAccepted);
      if (dice.OneIn(4)) {
        const uint64_t before = run.live.ordinal();
        EXPECT_NE(*run.Do(std::move(again)), Verdict::kAccepted);
        EXPECT_EQ(run.live.ordinal(), before);
      }
    }
  }
}

// Everybody does what is waited for. False: nothing is waited for.
bool Further(Driver& run, Dice& dice) {
  if (IsPaused(run.live)) return run.Try(Resume{"ann", ""}).empty();
  const std::vector<std::string> ready = run.Ready();
  if (!ready.empty()) return run.Complete(ready[0], "1") == Verdict::kAccepted;
  if (NextTimerMs(run.live).has_value()) {
    run.Advance(std::max<int64_t>(*NextTimerMs(run.live) - run.now_ms, 0));
    return true;
  }
  if (OneAnswer(run, dice, /*well=*/true)) return true;
  if (!run.live.state().readers.empty()) {
    return *run.Send(run.live.state().readers.begin()->first, "1") == Verdict::kAccepted;
  }
  return run.Retry().empty();
}

std::string Shown(const Driver& run) {
  v1::DescribeExecutionResponse shown;
  DescribeExecution(run.live, 100, true, nullptr, &shown);
  return shown.DebugString();
}

void OneSeed(uint64_t seed, std::map<v1::ExecutionStatus, int>* ends, uint64_t* wide) {
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  Dice dice(seed);
  GraphMaker maker(dice, 2, 3);
  std::shared_ptr<const Graph> graph = maker.Compile();
  ASSERT_NE(graph, nullptr);
  v1::ExecutionStarted probe;
  std::vector<v1::Payload> inputs = {Json("[1,2,{\"a\":3}]"), Json("{\"a\":[true]}")};
  // A root map over the second input, which is no list, cannot start: such graphs get a list there
  // too.
  probe.set_run_id(std::string(16, 'r'));
  for (const v1::Payload& input : inputs) *probe.add_inputs() = input;
  if (!DecideStart(*graph, probe, 1).ok()) inputs[1] = inputs[0];
  probe.clear_inputs();
  for (const v1::Payload& input : inputs) *probe.add_inputs() = input;
  if (!DecideStart(*graph, probe, 1).ok()) return;

  const bool child = dice.OneIn(3);
  Driver run(graph, inputs, 5'000, seed, [&](v1::ExecutionStarted& started) {
    if (dice.OneIn(5)) started.set_execution_timeout_ms(1 + dice.Below(60'000));
    if (!child) return;
    started.mutable_parent()->set_workflow_id("mother");
    started.mutable_parent()->set_run_id(std::string(16, 'm'));
  });
  const uint32_t commands = dice.Below(60);
  for (uint32_t i = 0; i < commands; ++i) {
    if (!run.live.closed()) {
      OneCommand(run, dice);
    } else if (dice.OneIn(3)) {
      OneOfOperators(run, dice);  // it may run again
    } else if (!OneAnswer(run, dice, /*well=*/false) && dice.OneIn(4)) {
      break;
    }
    if (::testing::Test::HasFailure()) return;
    if (dice.OneIn(5)) run.Reload();
  }
  if (dice.OneIn(10) && !run.live.closed() && !run.live.state().compensating()) {
    ASSERT_TRUE(run.Do(Cancel{"enough", "tester"}).ok());
  }
  if (dice.OneIn(20) && !run.live.closed()) {
    ASSERT_TRUE(run.Do(Terminate{"enough", "tester"}).ok());
  }
  // No more faults: everything ends.
  for (int i = 0; i < 5'000 && !run.live.closed(); ++i) {
    ASSERT_TRUE(Further(run, dice))
        << "stuck: nothing is waited for, and it is not closed: " << Shown(run);
    if (::testing::Test::HasFailure()) return;
  }
  // Maps over the lists of maps can be wider than anybody waits for; how many are is checked at the
  // end, since one that goes on for ever looks like them.
  if (!run.live.closed()) {
    ++*wide;
    ASSERT_TRUE(run.Do(Terminate{"too wide", "tester"}).ok());
  }
  while (HasOutbox(run.live)) {
    ASSERT_TRUE(OneAnswer(run, dice, /*well=*/true));
  }
  EXPECT_EQ(NextTimerMs(run.live), std::nullopt);
  EXPECT_TRUE(ReadyTasks(run.live).empty());
  v1::DescribeExecutionResponse response;
  DescribeExecution(run.live, 3, true, nullptr, &response);
  ++(*ends)[run.status()];
}

TEST(CoreProperty, ReplayAndSnapshotsEqualTheLiveExecution) {
  uint64_t first = 1;
#ifdef FLUX_SANITIZED
  uint64_t count = 300;
#else
  uint64_t count = 1'500;
#endif
  if (const char* seeds = std::getenv("FLUX_CORE_SEEDS")) count = std::strtoull(seeds, nullptr, 10);
  if (const char* seed = std::getenv("FLUX_CORE_SEED")) {
    first = std::strtoull(seed, nullptr, 10);
    count = 1;
  }
  std::map<v1::ExecutionStatus, int> ends;
  uint64_t wide = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    OneSeed(seed, &ends, &wide);
    if (HasFailure()) {
      FAIL() << "seed " << seed << " failed; replay it with FLUX_CORE_SEED=" << seed;
    }
  }
  for (const auto& [status, number] : ends) {
    RecordProperty(v1::ExecutionStatus_Name(status), number);
  }
  if (count < 100) return;
  EXPECT_LE(wide, count / 200);
  // The generator reaches every way to end.
  for (const auto status :
       {v1::EXECUTION_STATUS_COMPLETED, v1::EXECUTION_STATUS_FAILED, v1::EXECUTION_STATUS_SKIPPED,
        v1::EXECUTION_STATUS_CANCELLED, v1::EXECUTION_STATUS_TERMINATED}) {
    EXPECT_GT(ends[status], 0) << v1::ExecutionStatus_Name(status);
  }
}

}  // namespace
}  // namespace flux::engine::testing
