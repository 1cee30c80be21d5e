#include "tests/core/states.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace flux::engine::testing {
namespace {

uint32_t TaskBody(DefinitionBuilder& b, const char* task) {
  const uint32_t body = b.Scope(1);
  b.Result(body, FromStep(b.Task(body, task, {FromParameter(0)})));
  return body;
}

}  // namespace

DefinitionBuilder DefinitionOf(State state, const StateOptions& options) {
  DefinitionBuilder b("states");
  b.Task(0, "first");
  const v1::Input note = FromStep(b.Wait(0, "note", "note"));
  const uint32_t s = kStepS;
  switch (state) {
    case State::kSleeping:
      b.Sleep(0, "s", 60'000);
      b.After(0, s, 1);
      break;
    case State::kAwaiting:
      b.Wait(0, "s", "go", 0, "", {note});
      break;
    case State::kSending:
      b.Emit(0, "s", "go", note, Literal("\"other\""));
      break;
    case State::kChild:
      b.Child(0, "s", "sub", {note});
      break;
    case State::kUnderWay:
      b.Map(0, "s", TaskBody(b, "inner"), {note});
      break;
    case State::kBlock:
      b.Block(0, "s", TaskBody(b, "inner"), {note});
      break;
    case State::kLoop:
      b.Loop(0, "s", TaskBody(b, "inner"), {note}, 2);
      break;
    case State::kSwitch:
      b.Switch(0, "s", {note, Literal("5")}, {{"[1,2]", TaskBody(b, "inner")}});
      break;
    default:
      b.Task(0, "s", {note});
  }
  if (state == State::kPending) b.After(0, s, 0);
  if (state == State::kParked) b.step(0, s).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  if (state == State::kCatch) b.Catch(0, s, {}, TaskBody(b, "mend"));
  const uint32_t beside = b.Task(0, "beside");
  if (state == State::kCancelled) {
    b.Early(0, "join", {FromStep(0), FromStep(s)}, 1);
  } else {
    b.Task(0, "next", {FromStep(s)});
  }
  if (options.undoable) b.Undo(0, b.Task(0, "kept"), "kept");
  b.Result(0, FromStep(beside + 1));
  return b;
}

std::unique_ptr<Driver> In(State state, const StateOptions& options) {
  auto run = std::make_unique<Driver>(
      DefinitionOf(state, options).Compile(), std::vector<v1::Payload>{}, 1'000'000, 1,
      [&](v1::ExecutionStarted& started) { started.set_execution_timeout_ms(options.timeout_ms); });
  if (options.undoable) run->Complete("kept", "1");
  EXPECT_EQ(*run->Send("note", "[1,2]"), Verdict::kAccepted);
  switch (state) {
    case State::kBackingOff:
      run->FailTask("s", "io");
      break;
    case State::kParked:
    case State::kCatch:
    case State::kClosedFailed:
      run->FailTask("s", "io", true);
      break;
    case State::kContinued: {
      DefinitionBuilder more("more", 1);
      more.Result(0, FromStep(more.Task(0, "inner", {FromParameter(0)})));
      run->Continue("s", more.definition(), {Json("1")});
      break;
    }
    case State::kCompleted:
      run->Complete("s", "1");
      break;
    case State::kSkipped:
      run->SkipResult("s");
      break;
    case State::kCancelled:
      run->Complete("first", "1");
      break;
    case State::kChild:
      run->ChildStarted(run->Pending(v1::OUTBOX_KIND_START_CHILD).number);
      break;
    default:
      break;
  }
  run->Reload();
  return run;
}

void EndIt(Driver& run) {
  if (IsPaused(run.live)) {
    EXPECT_EQ(run.Try(Resume{"ann", ""}), "");
  }
  const auto waits = [&](const char* kind) {
    const std::vector<std::string> outbox = run.Outbox();
    return std::find(outbox.begin(), outbox.end(), kind) != outbox.end();
  };
  for (int i = 0; i < 20 && !run.live.closed(); ++i) {
    for (const char* step : {"s", "beside"}) {
      if (run.StateOf(step) == v1::STEP_STATE_PARKED) {
        EXPECT_EQ(run.Retry(step), "");
      }
    }
    RunAll(run, "1");
    if (run.live.closed()) break;
    run.Advance(60'000);
    if (run.live.closed() || run.StateOf("s") != v1::STEP_STATE_WAITING) continue;
    const auto& plan = run.live.state().Plan(*run.live.state().FindFrame(0), kStepS);
    switch (plan.kind) {
      case v1::Step::kWaitEvent:
        EXPECT_EQ(*run.Send("go", "1"), Verdict::kAccepted);
        break;
      case v1::Step::kEmit:
        EXPECT_EQ(run.Settle(run.Pending(v1::OUTBOX_KIND_EMIT).number), Verdict::kAccepted);
        break;
      case v1::Step::kChild: {
        char child = 'c';
        if (waits("START_CHILD")) {
          run.ChildStarted(run.Pending(v1::OUTBOX_KIND_START_CHILD).number, child = 'd');
        }
        EXPECT_EQ(run.ChildClosed("s", v1::EXECUTION_STATUS_COMPLETED, "1", child),
                  Verdict::kAccepted);
        break;
      }
      default:
        break;
    }
  }
  EXPECT_TRUE(run.live.closed());
}

}  // namespace flux::engine::testing
