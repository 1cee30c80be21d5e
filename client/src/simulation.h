// An interpreter of definitions under a simulated clock: what flux/testing.h and
// flux/inline_runner.h run.
//
// One queue of actions, ordered by time and then by where in the text they belong, so that what is
// due at the same instant happens in the order it is written. Nothing else decides an order: equal
// inputs give equal runs. A scope under way is a SimFrame; its steps and its parameters are cells
// that settle once and tell who waits for them.
//
// A run's objects live as long as the Simulation; frames go when they are done. Actions refer to
// frames weakly: what was dropped meanwhile is no longer meant.
#ifndef FLUX_CLIENT_SRC_SIMULATION_H_
#define FLUX_CLIENT_SRC_SIMULATION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/error.h"
#include "flux/internal/simulation.h"
#include "flux/v1/definition.pb.h"

namespace flux::internal {

// Where something belongs in the text: compared item by item.
using Position = std::vector<uint64_t>;

// How a step or a body ended. Payloads are shared: a value may be read by many.
struct Ended {
  std::shared_ptr<const Payload> value;  // null: skipped or failed
  std::optional<Failure> failure;

  bool skipped() const { return value == nullptr && !failure; }
  static Ended Value(Payload payload) {
    return {std::make_shared<const Payload>(std::move(payload)), std::nullopt};
  }
  static Ended Skipped() { return {}; }
  static Ended Failed(Failure failure) { return {nullptr, std::move(failure)}; }
  static Ended Failed(const absl::Status& status) { return {nullptr, FailureOf(status)}; }
};

// A failure that a coordinator itself makes, rather than a worker.
Failure OwnFailure(const ErrorType& type, std::string message);

// A definition with what the interpreter wants to know of each step.
struct Program {
  struct Source {
    bool parameter = false;
    uint32_t index = 0;
    bool operator==(const Source&) const = default;
  };
  struct Facts {
    std::vector<Source> waits;      // settled before it starts; of an early join: all its inputs
    std::vector<uint32_t> sources;  // steps of its scope that it names in any way
    std::vector<uint32_t> readers;  // steps of its scope that name it in any way
    bool read_late = false;         // a body that is open already may be given its value
    bool in_result = false;
    bool early = false;  // a join that may not wait for all
  };
  v1::Definition definition;
  std::vector<std::vector<Facts>> facts;  // by scope, by step
  std::vector<WorkflowSpec> workflows;    // that it may start
  std::set<std::string> events;           // that some step waits for
  std::set<std::string> loop_events;      // of these, those that one in a loop waits for

  static absl::StatusOr<std::shared_ptr<const Program>> Of(const WorkflowSpec& workflow);
  static absl::StatusOr<std::shared_ptr<const Program>> Make(const std::string& definition_bytes,
                                                             std::vector<WorkflowSpec> workflows);
  const v1::Scope& scope(uint32_t index) const {
    return definition.scopes(static_cast<int>(index));
  }

 private:
  void FindFacts();
  void FindEvents(uint32_t scope, bool in_loop);
};

class Simulation;
class SimExecution;
struct SimFrame;

enum class CellState : uint8_t { kPending, kCompleted, kSkipped, kFailed, kCancelled };

// Whom to tell that a cell has settled.
struct Waiter {
  enum class What : uint8_t { kStep, kParameter, kResult };
  std::weak_ptr<SimFrame> frame;
  What what = What::kStep;
  uint32_t index = 0;
};

struct Cell {
  CellState state = CellState::kPending;
  std::shared_ptr<const Payload> value;
  std::vector<Waiter> waiters;

  bool settled() const { return state != CellState::kPending; }
};

// A task with its attempts.
struct TaskRun {
  std::shared_ptr<const Program> program;  // keeps `task` alive
  const v1::TaskStep* task = nullptr;
  std::string path;
  Position position;
  std::vector<Payload> inputs;
  std::optional<Failure> bad_input;  // what a worker answers that cannot read its inputs
  absl::Duration began;              // its first attempt
  uint32_t attempt = 0;
  Payload progress;
  bool dead = false;  // nobody wants its result any more
  std::function<void(RawOutcome)> done;
};

struct SimMap {
  std::vector<std::shared_ptr<const Payload>> items;  // known so far
  uint64_t opened = 0;
  uint64_t in_flight = 0;
  uint64_t completed = 0;
  uint64_t failed = 0;
  std::map<uint64_t, std::shared_ptr<const Payload>> results;
  std::vector<Ended> captures;
  std::optional<Failure> failure;  // the newest of an item
  std::shared_ptr<const Payload> cursor;
  bool last_page = true;
  bool fetching = false;
};

// By name: number of the newest event taken.
using EventMarks = std::map<std::string, uint64_t>;

struct SimLoop {
  uint64_t turn = 0;
  std::vector<Ended> values;  // the state, then the captures
  EventMarks events;          // of earlier turns
  EventMarks taken;           // of the open one
};

struct Node {
  Cell output;
  uint32_t blocked = 0;  // cells it still waits for
  bool started = false;
  bool handling = false;  // its failure is with a catch clause
  bool parked = false;
  bool awaits_event = false;
  uint64_t event = 0;  // the number of the one it took
  std::shared_ptr<TaskRun> task;
  std::map<uint64_t, std::shared_ptr<SimFrame>> frames;  // by index
  std::unique_ptr<SimMap> map;
  std::unique_ptr<SimLoop> loop;
  SimExecution* child = nullptr;  // awaited
  Failure parked_failure;
};

enum class FrameRole : uint8_t { kRoot, kItem, kPage, kTurn, kBody, kCatch, kFragment };

struct SimFrame {
  SimExecution* execution = nullptr;
  std::shared_ptr<const Program> program;
  uint32_t scope = 0;
  FrameRole role = FrameRole::kRoot;
  std::shared_ptr<SimFrame> parent;  // null: the root. Shared: a frame may be done after its parent
  uint32_t owner = 0;                // step of the parent
  uint64_t index = 0;                // item or turn
  uint32_t depth = 0;
  std::string path;  // before the names of its steps: "codes[3]."
  Position position;
  std::vector<const v1::Input*> lazy;  // of parameters: where they come from in the parent
  std::vector<Cell> parameters;
  std::vector<Node> nodes;
  uint32_t open = 0;  // cells to settle until it is done
  bool dropped = false;

  const v1::Scope& def() const { return program->scope(scope); }
  const v1::Step& step(uint32_t i) const { return def().steps(static_cast<int>(i)); }
  std::string PathOf(uint32_t i) const { return path + step(i).name(); }
  Position PositionOf(uint32_t i) const {
    Position at = position;
    at.push_back(i);
    return at;
  }
};
using FramePtr = std::shared_ptr<SimFrame>;

// Something that an execution was told.
struct SimEvent {
  uint64_t number = 0;
  std::string name;
  std::shared_ptr<const Payload> payload;
};

// The world: the clock, the queue, the executions, the report.
class Simulation {
 public:
  Simulation(const TaskSet& tasks, const TestScript& script) : tasks_(tasks), script_(script) {}

  absl::StatusOr<TestReport> Run(std::shared_ptr<const Program> program,
                                 std::vector<Payload> inputs);

  absl::Duration now() const { return now_; }
  bool instant() const { return script_.instant; }
  void Post(absl::Duration after, Position position, std::function<void()> action);
  TestReport& report() { return report_; }

  // Null: no execution of that id was ever started.
  SimExecution* Find(const std::string& workflow_id);
  SimExecution* Start(std::shared_ptr<const Program> program, std::string workflow_id,
                      std::vector<std::shared_ptr<const Payload>> inputs, int depth,
                      Position position);
  // Runs the attempts of `run`.
  void BeginTask(SimExecution* execution, const std::shared_ptr<TaskRun>& run);

 private:
  void RunAttempt(SimExecution* execution, const std::shared_ptr<TaskRun>& run);
  bool TriedAgain(const TaskRun& run, const Failure& failure) const;
  TestScript::Attempt* PlannedAttempt(const std::string& task);
  void Stuck();

  const TaskSet& tasks_;
  TestScript script_;
  absl::Duration now_;
  uint64_t sequence_ = 0;
  uint64_t actions_ = 0;
  uint64_t deliveries_ = 0;
  std::map<std::tuple<absl::Duration, Position, uint64_t>, std::function<void()>> queue_;
  std::vector<std::unique_ptr<SimExecution>> executions_;  // in order of their start
  TestReport report_;
};

enum class SimStatus : uint8_t {
  kRunning,
  kUndoing,
  kCompleted,
  kSkipped,
  kFailed,
  kCancelled,
  kTerminated
};

// One execution.
class SimExecution {
 public:
  SimExecution(Simulation* world, std::string workflow_id, std::string run_id, int depth,
               Position position)
      : world_(world),
        workflow_id_(std::move(workflow_id)),
        run_id_(std::move(run_id)),
        depth_(depth),
        position_(std::move(position)) {}
  // Breaks what is left apart from the inside out: frames know their parents.
  ~SimExecution();

  void Begin(std::shared_ptr<const Program> program,
             std::vector<std::shared_ptr<const Payload>> inputs);
  void Cancel(const std::string& reason);
  void Terminate();
  // False: it has closed.
  bool Deliver(const std::string& event, std::shared_ptr<const Payload> payload);

  bool closed() const { return status_ != SimStatus::kRunning && status_ != SimStatus::kUndoing; }
  SimStatus status() const { return status_; }
  const char* status_name() const;
  const Ended& outcome() const { return outcome_; }
  const std::string& workflow_id() const { return workflow_id_; }
  const std::string& run_id() const { return run_id_; }
  const Position& position() const { return position_; }
  std::map<std::string, std::string>& labels() { return labels_; }
  // Called once, when it has closed.
  void set_on_closed(std::function<void()> on_closed) { on_closed_ = std::move(on_closed); }
  void set_report_child(size_t index) { report_child_ = index; }

  // What unfinished steps wait for, a line each.
  void ExplainWaits(std::vector<std::string>* lines) const;
  // Ends the first wait for an event as its timeout would. False: there is none.
  bool EndFirstWait();

 private:
  struct ParameterSource {
    Ended ended;
    const v1::Input* lazy = nullptr;  // then `ended` does not count
  };
  struct Undoable {
    std::shared_ptr<const Program> program;
    const v1::TaskStep* task = nullptr;
    std::string path;
    Position position;
    std::vector<Payload> inputs;
  };

  // ---- frames (simulation_frames.cc)
  FramePtr OpenFrame(std::shared_ptr<const Program> program, uint32_t scope, FrameRole role,
                     const FramePtr& parent, uint32_t owner, uint64_t index,
                     std::vector<ParameterSource> parameters);
  void BeginFrame(const FramePtr& frame);
  void Settle(const FramePtr& frame, Cell* cell);
  void SettleParameter(const FramePtr& frame, uint32_t index);
  void CellSettled(const FramePtr& frame);
  void FrameDone(const FramePtr& frame);
  void FrameEnded(const FramePtr& frame, Ended ended);
  void FailFrame(const FramePtr& frame, Failure failure);
  void DropFrame(const FramePtr& frame);
  void DropNode(const FramePtr& frame, uint32_t index);
  void ReportStep(const FramePtr& frame, uint32_t index, const char* state);
  static Cell* CellOf(const FramePtr& frame, const v1::Input& input);
  static Ended Source(const FramePtr& frame, const v1::Input& input);
  static Ended Read(const FramePtr& frame, const v1::Input& input);
  // Calls `visit` for each open frame, outer ones first.
  void EachFrame(const std::function<void(const FramePtr&)>& visit) const;
  // A timer of a step: `action` runs unless the step has settled by then.
  void After(absl::Duration wait, const FramePtr& frame, uint32_t index,
             std::function<void(const FramePtr&)> action);

  // ---- steps (simulation_steps.cc)
  void StartNode(const FramePtr& frame, uint32_t index);
  void EndNode(const FramePtr& frame, uint32_t index, Ended ended);
  // `attempts_over`: it is the task's own failure, which may park the step.
  void FailNode(const FramePtr& frame, uint32_t index, Failure failure, bool attempts_over = false);
  bool Tolerated(const FramePtr& frame, uint32_t index) const;
  void KeepUndo(const FramePtr& frame, uint32_t index, const Payload& output);
  void CancelNode(const FramePtr& frame, uint32_t index);
  void CancelUnneeded(const FramePtr& frame, uint32_t join);
  void StartKind(const FramePtr& frame, uint32_t index, std::vector<Ended> inputs);
  void StartTask(const FramePtr& frame, uint32_t index);
  void TaskDone(const FramePtr& frame, uint32_t index, RawOutcome outcome);
  void Continue(const FramePtr& frame, uint32_t index, const Fragment& fragment);
  void StartSwitch(const FramePtr& frame, uint32_t index, const std::vector<Ended>& inputs);
  void StartBody(const FramePtr& frame, uint32_t index, uint32_t body, int first_input);
  void StartLoop(const FramePtr& frame, uint32_t index, std::vector<Ended> inputs);
  void OpenTurn(const FramePtr& frame, uint32_t index);
  void TurnEnded(const FramePtr& frame, uint32_t index, const FramePtr& turn, Ended ended);
  void StartMap(const FramePtr& frame, uint32_t index, std::vector<Ended> inputs);
  void FillMap(const FramePtr& frame, uint32_t index);
  void ItemEnded(const FramePtr& frame, uint32_t index, uint64_t item, Ended ended);
  void PageEnded(const FramePtr& frame, uint32_t index, Ended ended);
  void FinishMap(const FramePtr& frame, uint32_t index);
  void EvaluateJoin(const FramePtr& frame, uint32_t index);
  void StartWaitEvent(const FramePtr& frame, uint32_t index);
  bool TryTakeEvent(const FramePtr& frame, uint32_t index);
  void EventTimedOut(const FramePtr& frame, uint32_t index);
  bool ReadInLoop(const std::string& event) const;
  void Reread(SimEvent* event, const std::shared_ptr<const Payload>& payload);
  void StartEmit(const FramePtr& frame, uint32_t index, const std::vector<Ended>& inputs);
  void StartChild(const FramePtr& frame, uint32_t index, const std::vector<Ended>& inputs);
  void ChildClosed(const FramePtr& frame, uint32_t index);

  // ---- life (simulation.cc)
  void CloseFailed(SimStatus as, Failure failure);
  void UndoNext();
  void Close(SimStatus status);

  Simulation* world_;
  std::string workflow_id_;
  std::string run_id_;
  int depth_;
  Position position_;
  FramePtr root_;
  SimStatus status_ = SimStatus::kRunning;
  SimStatus closing_as_ = SimStatus::kFailed;
  Ended outcome_;
  std::vector<Undoable> undo_;  // completed steps, oldest first
  std::shared_ptr<TaskRun> undoing_;
  std::vector<SimEvent> events_;
  std::map<std::string, std::vector<Waiter>> event_waiters_;  // by name
  std::map<std::string, std::string> labels_;
  std::function<void()> on_closed_;
  std::optional<size_t> report_child_;
};

Payload FromProto(const v1::Payload& proto);
Payload NoValue();
Position Extended(Position position, uint64_t item);
// Whether a payload of JSON, or of nothing, equals a JSON text.
absl::StatusOr<bool> EqualJson(const Payload& value, const std::string& match);
// The part of a payload that a coordinator reads. One that is not there is a failure, while a
// worker, which follows a task's pointers, takes it for an empty optional.
absl::StatusOr<Payload> ProjectStrictly(const Payload& payload, const std::string& pointer);
// A whole number of at least 0.
absl::StatusOr<int64_t> WholeNumber(const Payload& payload);

}  // namespace flux::internal

#endif  // FLUX_CLIENT_SRC_SIMULATION_H_
