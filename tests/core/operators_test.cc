// What operators do: every command from every state of a step and of its execution, allowed or
// refused with its reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "tests/core/states.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

enum Op {
  kRetry,
  kPark,
  kResolve,
  kSkip,
  kRewind,
  kEdit,         // the event that the step has read
  kReplay,       // it
  kMigrateWork,  // to a version in which the step does something else
  kMigrate,      // to one that has a step more
  kPause,
  kResume,
  kCancel,
  kTerminate,
  kOps,
};

constexpr const char* kOpNames[] = {
    "retry",  "park",       "resolve", "skip",   "rewind", "edit event", "replay event",
    "change", "add a step", "pause",   "resume", "cancel", "terminate"};
static_assert(std::size(kOpNames) == kOps);

std::shared_ptr<const Graph> NewVersion(DefinitionBuilder b, bool other_work) {
  v1::Step& s = b.step(0, kStepS);
  if (other_work && s.has_sleep()) {
    s.mutable_sleep()->set_duration_ms(1'000);
  } else if (other_work) {
    *s.mutable_inputs(0) = Literal("[1,2]");
  } else {
    b.Task(0, "more");
  }
  b.definition().set_version("2");
  auto graph = Graph::Compile(b.definition(), "hash-of-the-second-version-------");
  EXPECT_TRUE(graph.ok()) << graph.status();
  return *graph;
}

std::string Do(Driver& run, State state, const StateOptions& options, Op op) {
  switch (op) {
    case kRetry:
      return run.Retry("s");
    case kPark:
      return run.Park("s");
    case kResolve:
      return run.Resolve("s", "7");
    case kSkip:
      return run.SkipStep("s");
    case kRewind:
      return run.Rewind("s");
    case kEdit:
      return run.Edit("note", "[1,2]");
    case kReplay:
      return run.Replay("note", "[1,2]");
    case kMigrateWork:
    case kMigrate:
      return run.Try(
          Migrate{NewVersion(DefinitionOf(state, options), op == kMigrateWork), "ann", "newer"});
    case kPause:
      return run.Try(Pause{"ann", "lunch"});
    case kResume:
      return run.Try(Resume{"ann", "back"});
    case kCancel:
      return run.Try(Cancel{"enough", "ann"});
    case kTerminate:
      return run.Try(Terminate{"stuck", "ann"});
    case kOps:
      break;
  }
  return "";
}

// ---- every command in every state of a step ----

struct Cell {
  v1::StepState then = v1::STEP_STATE_UNSPECIFIED;  // unspecified: as before
  const char* refused = "";                         // a part of the message
};

// Of the commands whose answer is the step's affair: to kMigrateWork.
struct Row {
  State state;
  Cell cells[kMigrateWork + 1];
};

const auto kSched = v1::STEP_STATE_SCHEDULED;
const auto kWaits = v1::STEP_STATE_WAITING;
const Cell kDone = {v1::STEP_STATE_COMPLETED};
const Cell kLeftOut = {v1::STEP_STATE_SKIPPED};
const Cell kSame = {};
const Cell kNoTask = {{}, "is no task: only a task that is scheduled or backing off"};
const Cell kOpen = {{}, "is under way: retry the step in it that fails, or rewind to it"};
const Cell kNotWaiting = {{}, "is waiting: only a task that is scheduled or backing off"};
const Cell kBegun = {{}, "step \"s\" is under way, and does something else in the new version"};

const Cell kReadScheduled = {{}, "has been read by s (scheduled): replay it with new data"};
const Cell kReadBackingOff = {{}, "has been read by s (backing off): replay it with new data"};
const Cell kReadWaiting = {{}, "has been read by s (waiting): replay it with new data"};

// In a running execution, paused or not.
const std::vector<Row>& Rows() {
  static const auto* rows = new std::vector<Row>{
      //  retry, park, resolve, skip, rewind, edit, replay, change
      {State::kPending,
       {{{}, "has not begun: it waits for other steps, and runs by itself once they are done"},
        {{}, "is pending: only a task that is scheduled or backing off can be parked"},
        kDone,
        kLeftOut,
        {{}, "has not begun: there is nothing to take back"},
        kSame,
        {v1::STEP_STATE_PENDING},
        kSame}},
      {State::kScheduled,
       {{kSched},
        {v1::STEP_STATE_PARKED},
        kDone,
        kLeftOut,
        {kSched},
        kReadScheduled,
        {kSched},
        kBegun}},
      {State::kBackingOff,
       {{kSched},
        {v1::STEP_STATE_PARKED},
        kDone,
        kLeftOut,
        {kSched},
        kReadBackingOff,
        {kSched},
        kBegun}},
      // New data are a reason to try again.
      {State::kParked,
       {{kSched},
        {{}, "is parked: only a task"},
        kDone,
        kLeftOut,
        {kSched},
        {kSched},
        {kSched},
        kBegun}},
      {State::kSleeping,
       {{kWaits}, kNoTask, kDone, kLeftOut, {kWaits}, kReadWaiting, {kWaits}, kBegun}},
      {State::kAwaiting,
       {{kWaits}, kNoTask, kDone, kLeftOut, {kWaits}, kReadWaiting, {kWaits}, kBegun}},
      {State::kSending,
       {{kWaits}, kNoTask, kDone, kLeftOut, {kWaits}, kReadWaiting, {kWaits}, kBegun}},
      {State::kChild,
       {{kWaits}, kNoTask, kDone, kLeftOut, {kWaits}, kReadWaiting, {kWaits}, kBegun}},
      {State::kUnderWay,
       {kOpen, kNoTask, kDone, kLeftOut, {kWaits}, kReadWaiting, {kWaits}, kBegun}},
      {State::kBlock, {kOpen, kNoTask, kDone, kLeftOut, {kWaits}, kReadWaiting, {kWaits}, kBegun}},
      {State::kLoop, {kOpen, kNoTask, kDone, kLeftOut, {kWaits}, kReadWaiting, {kWaits}, kBegun}},
      {State::kSwitch, {kOpen, kNoTask, kDone, kLeftOut, {kWaits}, kReadWaiting, {kWaits}, kBegun}},
      {State::kCatch,
       {kOpen, kNotWaiting, kDone, kLeftOut, {kSched}, kReadWaiting, {kSched}, kBegun}},
      {State::kContinued,
       {kOpen, kNotWaiting, kDone, kLeftOut, {kSched}, kReadWaiting, {kSched}, kBegun}},
      {State::kCompleted,
       {{{}, "is completed: to run it again, rewind to it"},
        {{}, "is completed: only a task"},
        {{}, "is completed already: rewind to it first"},
        {{}, "is completed already: rewind to it first"},
        {kSched},
        {{}, "has been read by s (completed): replay it with new data"},
        {kSched},
        kSame}},
      {State::kSkipped,
       {{{}, "is skipped: to run it again, rewind to it"},
        {{}, "is skipped: only a task"},
        {{}, "is skipped already: rewind to it first"},
        {{}, "is skipped already: rewind to it first"},
        {kSched},
        {{}, "has been read by s (skipped): replay it with new data"},
        {kSched},
        kSame}},
      // Its join is taken back with it, has enough without it, and cancels it again.
      {State::kCancelled,
       {{{}, "is cancelled: to run it again, rewind to it"},
        {{}, "is cancelled: only a task"},
        {{}, "is cancelled already: rewind to it first"},
        {{}, "is cancelled already: rewind to it first"},
        kSame,
        {{}, "has been read by s (cancelled): replay it with new data"},
        kSame,
        kSame}},
      {State::kClosedFailed,
       {{kSched},
        {{}, "is FAILED: only a running execution can have steps parked"},
        kDone,
        kLeftOut,
        {kSched},
        {{}, "is FAILED: only a running execution can have its events edited"},
        {kSched},
        {{}, "is FAILED: only a running execution can move to another version"}}},
  };
  return *rows;
}

const Row& RowOf(State state) {
  for (const Row& row : Rows()) {
    if (row.state == state) return row;
  }
  ADD_FAILURE() << "a state without a row";
  return Rows()[0];
}

// Does it and compares. What is done leaves the execution in `status`.
void Check(Driver& run, State state, const StateOptions& options, Op op, const Cell& cell,
           v1::ExecutionStatus status) {
  const v1::StepState before = run.StateOf("s");
  const v1::ExecutionStatus status_before = run.status();
  const std::string refused = Do(run, state, options, op);
  if (cell.refused[0] != '\0') {
    EXPECT_THAT(refused, HasSubstr(cell.refused));
    EXPECT_EQ(run.StateOf("s"), before);
    EXPECT_EQ(run.status(), status_before);
    return;
  }
  EXPECT_EQ(refused, "");
  EXPECT_EQ(run.status(), status);
  if (run.live.closed() || run.live.state().compensating()) return;
  EXPECT_EQ(run.StateOf("s"), cell.then == v1::STEP_STATE_UNSPECIFIED ? before : cell.then);
  run.Reload();
  EndIt(run);
}

TEST(Operators, EachCommandDoesInEachStateWhatItsTableSays) {
  ASSERT_EQ(Rows().size(), std::size(kStates));
  for (const auto& [state, name] : kStates) {
    for (int op = 0; op <= kMigrateWork; ++op) {
      for (const bool paused : {false, true}) {
        if (paused && state == State::kClosedFailed) continue;
        SCOPED_TRACE(absl::StrCat(name, ": ", kOpNames[op], paused ? ", paused" : ""));
        const auto run = In(state);
        if (paused) {
          EXPECT_EQ(run->Try(Pause{"ann", ""}), "");
        }
        Check(*run, state, {}, static_cast<Op>(op), RowOf(state).cells[op],
              paused ? v1::EXECUTION_STATUS_PAUSED : v1::EXECUTION_STATUS_RUNNING);
      }
    }
  }
}

TEST(Operators, UnparkLeavesAloneWhatIsNotParked) {
  for (const auto& [state, name] : kStates) {
    for (const bool paused : {false, true}) {
      if (paused && state == State::kClosedFailed) continue;
      SCOPED_TRACE(absl::StrCat(name, paused ? ", paused" : ""));
      const auto run = In(state);
      if (paused) {
        EXPECT_EQ(run->Try(Pause{"ann", ""}), "");
      }
      const v1::StepState before = run->StateOf("s");
      const std::string told = run->Unpark("s");
      if (state == State::kParked) {
        EXPECT_EQ(told, "");
        EXPECT_EQ(run->StateOf("s"), v1::STEP_STATE_SCHEDULED);
      } else {
        EXPECT_THAT(told, HasSubstr(state == State::kClosedFailed
                                        ? "only a running execution can have steps unparked"
                                        : ": only a parked step can be unparked; to begin "
                                          "another, retry it"));
        EXPECT_EQ(run->StateOf("s"), before);
      }
      run->Reload();
      EndIt(*run);
    }
  }
}

// ---- every command in every state of an execution, whatever its step is in ----

constexpr char kParked[] = ": only a running execution can have steps parked";
constexpr char kResolved[] =
    ": only a running execution can have steps skipped or their results set";
constexpr char kEdited[] = ": only a running execution can have its events edited";
constexpr char kMoved[] = ": only a running execution can move to another version";
constexpr char kPaused[] = ": only a running execution can be paused";
constexpr char kResumed[] = ": only an open execution can be resumed";
constexpr char kCancelled[] = ": only an open execution can be cancelled";
constexpr char kTerminated[] = ": only an open execution can be terminated";
constexpr char kRetried[] = ": only a failed execution can be retried; rewind it to a step instead";
constexpr char kOnceClosed[] = ": rewind it once it has closed";
constexpr char kReplayedClosed[] = ": replay the event once it has closed";
constexpr char kElsewhere[] = " failed at step \"beside\": retry that one";
constexpr char kUndone[] = " has undone what it did: rewind it to the first step";
constexpr char kNowhere[] = " failed at no step: rewind it to the one to go on from";
constexpr char kUndoing[] = " already: what it did is being undone; terminate it to leave the rest";

bool CloseBySettling(Driver& run, State state) {
  if (state != State::kCompleted && state != State::kCancelled) return false;
  RunAll(run, "1");
  return true;
}

bool CloseSkipped(Driver& run, State state) {
  if (state != State::kSkipped) return false;
  RunAll(run, "1");
  return true;
}

bool CancelIt(Driver& run, State) { return run.Try(Cancel{"enough", "ann"}).empty(); }
bool TerminateIt(Driver& run, State) { return run.Try(Terminate{"stuck", "ann"}).empty(); }

bool FailBeside(Driver& run, State) {
  return run.FailTask("beside", "bad", true) == Verdict::kAccepted;
}

bool RunOutOfTime(Driver& run, State) {
  run.Advance(100);
  return run.live.closed();
}

template <bool (*kReach)(Driver&, State)>
bool AndUndo(Driver& run, State state) {
  return kReach(run, state) && run.Complete("kept.undo", "1") == Verdict::kAccepted;
}

struct Standing {
  const char* name;
  v1::ExecutionStatus status;
  StateOptions options;
  bool (*reach)(Driver&, State);  // false: not with a step in that state
  // Of each command in order: a part of the message that refuses it, or "" where it is done (those
  // of the first table: where that says so); null: it was done already, which is OK and
  // records nothing.
  const char* refused[kOps];
};

constexpr StateOptions kPlain = {};
constexpr StateOptions kUndoable = {.undoable = true};
constexpr StateOptions kLimited = {.timeout_ms = 100};

const Standing kStandings[] = {
    // retry, park, resolve, skip, rewind, edit, replay, change, add a step,
    //   pause, resume, cancel, terminate
    {"running",
     v1::EXECUTION_STATUS_RUNNING,
     kPlain,
     [](Driver&, State) { return true; },
     {"", "", "", "", "", "", "", "", "", "", " is not paused", "", ""}},
    {"running, with what can be undone",
     v1::EXECUTION_STATUS_RUNNING,
     kUndoable,
     [](Driver&, State) { return true; },
     {"", "", "", "", "", "", "", "", "", "", " is not paused", "", ""}},
    {"paused",
     v1::EXECUTION_STATUS_PAUSED,
     kPlain,
     [](Driver& run, State) {
       return run.Try(Pause{"ann", ""}).empty();
     },
     {"", "", "", "", "", "", "", "", "", " is paused already", "", "", ""}},
    {"failing",
     v1::EXECUTION_STATUS_FAILING,
     kUndoable,
     FailBeside,
     {kRetried, kParked, kResolved, kResolved, kOnceClosed, kEdited, kReplayedClosed, kMoved,
      kMoved, kPaused, " is not paused", kUndoing, ""}},
    {"cancelling",
     v1::EXECUTION_STATUS_CANCELLING,
     kUndoable,
     CancelIt,
     {kRetried, kParked, kResolved, kResolved, kOnceClosed, kEdited, kReplayedClosed, kMoved,
      kMoved, kPaused, " is not paused", nullptr, ""}},
    {"completed",
     v1::EXECUTION_STATUS_COMPLETED,
     kPlain,
     CloseBySettling,
     {kRetried, kParked, kResolved, kResolved, "", kEdited, "", kMoved, kMoved, kPaused, kResumed,
      kCancelled, kTerminated}},
    {"skipped",
     v1::EXECUTION_STATUS_SKIPPED,
     kPlain,
     CloseSkipped,
     {kRetried, kParked, kResolved, kResolved, "", kEdited, "", kMoved, kMoved, kPaused, kResumed,
      kCancelled, kTerminated}},
    {"failed elsewhere",
     v1::EXECUTION_STATUS_FAILED,
     kPlain,
     FailBeside,
     {kElsewhere, kParked, kResolved, kResolved, "", kEdited, "", kMoved, kMoved, kPaused, kResumed,
      kCancelled, kTerminated}},
    {"failed and undone",
     v1::EXECUTION_STATUS_FAILED,
     kUndoable,
     AndUndo<FailBeside>,
     {kUndone, kParked, kResolved, kResolved, "", kEdited, "", kMoved, kMoved, kPaused, kResumed,
      kCancelled, kTerminated}},
    {"out of time",
     v1::EXECUTION_STATUS_FAILED,
     kLimited,
     RunOutOfTime,
     {kNowhere, kParked, kResolved, kResolved, "", kEdited, "", kMoved, kMoved, kPaused, kResumed,
      kCancelled, kTerminated}},
    {"cancelled",
     v1::EXECUTION_STATUS_CANCELLED,
     kPlain,
     CancelIt,
     {kRetried, kParked, kResolved, kResolved, "", kEdited, "", kMoved, kMoved, kPaused, kResumed,
      nullptr, kTerminated}},
    {"cancelled and undone",
     v1::EXECUTION_STATUS_CANCELLED,
     kUndoable,
     AndUndo<CancelIt>,
     {kRetried, kParked, kResolved, kResolved, "", kEdited, "", kMoved, kMoved, kPaused, kResumed,
      nullptr, kTerminated}},
    {"terminated",
     v1::EXECUTION_STATUS_TERMINATED,
     kPlain,
     TerminateIt,
     {kRetried, kParked, kResolved, kResolved, "", kEdited, "", kMoved, kMoved, kPaused, kResumed,
      kCancelled, nullptr}},
};

// What a command that is done leaves an execution in.
v1::ExecutionStatus After(Op op, const Standing& standing, State state, const Driver& run) {
  if (op == kPause) return v1::EXECUTION_STATUS_PAUSED;
  if (op == kTerminate) return v1::EXECUTION_STATUS_TERMINATED;
  if (op == kCancel) {
    return standing.options.undoable ? v1::EXECUTION_STATUS_CANCELLING
                                     : v1::EXECUTION_STATUS_CANCELLED;
  }
  // Nothing is left to do in it but to cancel the step again.
  if (state == State::kCancelled && standing.status == v1::EXECUTION_STATUS_COMPLETED) {
    return v1::EXECUTION_STATUS_COMPLETED;
  }
  if (op == kResume || run.live.closed()) return v1::EXECUTION_STATUS_RUNNING;
  return standing.status;
}

TEST(Operators, EachCommandDoesInEachExecutionWhatItsTableSays) {
  for (const Standing& standing : kStandings) {
    int reached = 0;
    for (const auto& [state, name] : kStates) {
      if (state == State::kClosedFailed) continue;
      for (int op = 0; op < kOps; ++op) {
        SCOPED_TRACE(absl::StrCat(standing.name, ", ", name, ": ", kOpNames[op]));
        const auto run = In(state, standing.options);
        if (!standing.reach(*run, state)) continue;
        ++reached;
        ASSERT_EQ(run->status(), standing.status);
        run->Reload();
        if (standing.refused[op] == nullptr) {
          const uint64_t before = run->live.ordinal();
          EXPECT_EQ(Do(*run, state, standing.options, static_cast<Op>(op)), "");
          EXPECT_EQ(run->live.ordinal(), before);
          EXPECT_EQ(run->status(), standing.status);
          continue;
        }
        Cell cell = {{}, standing.refused[op]};
        if (cell.refused[0] == '\0' && op <= kMigrateWork) cell = RowOf(state).cells[op];
        const auto after = After(static_cast<Op>(op), standing, state, *run);
        Check(*run, state, standing.options, static_cast<Op>(op), cell, after);
      }
    }
    EXPECT_GT(reached, 0) << standing.name;
  }
}

// ---- what is told of it ----

TEST(Operators, EachIsToldWithWhoAndWhy) {
  struct Case {
    const char* type;
    Op op;
    const char* detail;
    const char* step = "";
    State state = State::kScheduled;
    bool paused = false;
    StateOptions options = {};
  };
  const Case kCases[] = {
      {"step.retried", kRetry, "again", "s"},
      {"step.parked", kPark, "aside", "s"},
      {"step.result_set", kResolve, "by hand", "s"},
      {"step.skip_asked", kSkip, "not needed", "s"},
      {"execution.rewound", kRewind, "once more", "s"},
      {"execution.reopened", kRetry, "again", "", State::kClosedFailed},
      {"execution.reopened", kResolve, "by hand", "", State::kClosedFailed},
      {"execution.reopened", kSkip, "not needed", "", State::kClosedFailed},
      {"event.edited", kEdit, "note: a typo", "", State::kPending},
      {"event.replayed", kReplay, "note: new data"},
      {"execution.migrated", kMigrate, "to version \"2\": newer"},
      {"execution.paused", kPause, "lunch"},
      {"execution.resumed", kResume, "back", "", State::kScheduled, true},
      {"execution.cancelled", kCancel, "enough"},
      {"execution.terminated", kTerminate, "stuck"},
  };
  std::set<Op> told_of;
  for (const Case& c : kCases) {
    SCOPED_TRACE(absl::StrCat(c.type, " by ", kOpNames[c.op]));
    told_of.insert(c.op);
    const auto run = In(c.state, c.options);
    if (c.paused) {
      EXPECT_EQ(run->Try(Pause{"joe", "lunch"}), "");
    }
    const size_t before = run->story.size();
    EXPECT_EQ(Do(*run, c.state, c.options, c.op), "");
    int told = 0;
    for (size_t i = before; i < run->story.size(); ++i) {
      const v1::HistoryEvent& event = run->story[i];
      if (event.type() != c.type) continue;
      ++told;
      EXPECT_EQ(event.identity(), "ann");
      EXPECT_EQ(event.detail(), c.detail);
      EXPECT_EQ(event.step(), c.step);
      EXPECT_FALSE(event.derived());
    }
    EXPECT_EQ(told, 1);
  }
  // A change of a step's work is told as every move to another version.
  EXPECT_EQ(told_of.size() + 1, size_t{kOps});
}

TEST(Operators, ACancelledEventIsToldWithWhoAndWhy) {
  const auto run = In(State::kAwaiting);
  EXPECT_EQ(*run->Send("go", "1", "id", run->now_ms + 1'000), Verdict::kAccepted);
  EXPECT_EQ(run->Try(CancelEvent{"id", "ann", "too late"}), "");
  EXPECT_EQ(run->story.back().type(), "event.cancelled");
  EXPECT_EQ(run->story.back().identity(), "ann");
  EXPECT_EQ(run->story.back().detail(), "go (id id): too late");
}

TEST(Operators, ACancellationThatUndoesIsToldAsItBeginsAndAsItEnds) {
  const auto run = In(State::kScheduled, kUndoable);
  EXPECT_EQ(run->Try(Cancel{"enough", "ann"}), "");
  int told = 0;
  for (const v1::HistoryEvent& event : run->story) {
    if (event.type() != "execution.undoing") continue;
    ++told;
    EXPECT_EQ(event.failure().source(), "ann");
    EXPECT_EQ(event.failure().message(), "enough");
  }
  EXPECT_EQ(told, 1);
  run->Complete("kept.undo", "1");
  EXPECT_EQ(run->story.back().type(), "execution.cancelled");
  EXPECT_EQ(run->story.back().identity(), "ann");
  EXPECT_EQ(run->story.back().detail(), "enough");
}

}  // namespace
}  // namespace flux::engine::testing
