// The machine that applies one record: what the record says, and everything the graph derives from
// it.
//
// Derivation runs off a work list, never by recursion over data: a chain of fifty thousand joins,
// or a list of a hundred thousand empty items, uses no more stack than a single step. Private to
// engine/core; each file implements the machine of one thing and begins with its (state, input)
// table.
#ifndef FLUX_ENGINE_CORE_MACHINE_H_
#define FLUX_ENGINE_CORE_MACHINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/core.h"
#include "engine/core/state.h"

namespace flux::engine::internal {

inline constexpr char kBadProjection[] = "flux.bad_projection";
inline constexpr char kScheduleToCloseTimeout[] = "flux.timeout.schedule_to_close";
inline constexpr char kExecutionTimeout[] = "flux.timeout.execution";
inline constexpr char kListDepthLimit[] = "flux.limit.list_depth";
inline constexpr char kCancelled[] = "flux.cancelled";
inline constexpr char kTerminated[] = "flux.terminated";
inline constexpr char kEventTimeout[] = "flux.timeout.event";
inline constexpr char kBadFragment[] = "flux.bad_fragment";
inline constexpr char kDepthLimit[] = "flux.limit.depth";
inline constexpr char kTooManyFailures[] = "flux.too_many_failures";
inline constexpr char kCoreSource[] = "coordinator";

v1::Failure MakeFailure(std::string_view type, std::string_view message);

// The first catch clause that takes failures of this type, or -1.
int MatchingClause(const v1::Step& step, const std::string& type);

// The newest event of that name that an earlier turn of a loop around the frame took.
uint64_t EventMark(const ExecutionState& state, const Frame& frame, const std::string& name);

// Readers of a wait step's value: the steps that depend on it.
std::vector<uint32_t> ReadersOf(const Graph::StepPlan& plan);

// What a settled input's source holds, before its pointer is followed.
const Value& SourceValue(const Frame& frame, const Graph::InputPlan& input);

// Input `index` of the execution, referring to the start record.
Value InputValue(const std::shared_ptr<const v1::ExecutionStarted>& started, size_t index);

class Machine {
 public:
  // `effects` may be null (replay).
  Machine(ExecutionState& state, Effects* effects) : s_(state), effects_(effects) {}

  // The first record: execution.cc.
  void Start(v1::Record record);
  // `graph`: of an ExecutionMigrated.
  void Apply(v1::Record record, std::shared_ptr<const Graph> graph = nullptr);

 private:
  // A record that only an open execution minds.
  void ApplyOpen(v1::Record record);

  using InputPlan = Graph::InputPlan;
  using StepPlan = Graph::StepPlan;

  enum class Read : uint8_t { kSet, kSkipped, kPending, kError };

  StepExtra& Extra(Frame* frame, uint32_t step) { return ExtraOf(s_, frame->steps[step]); }
  // ---- execution.cc: work list, frames, steps' ends ----
  void Drain();
  void Push(Work::Kind kind, Frame* frame, uint32_t index);
  void ReleaseQueued(Frame* frame);
  void DropWork();
  bool NextWork(Work* work);
  // What became ready and was swept away by the same record is not to be offered.
  void SweepReady();
  void RunWork(const Work& work);
  // A step settled, or a frame's parameter did: those that wait for it.
  void Settled(Frame* frame, uint32_t step);
  void ParameterSettled(Frame* frame, uint32_t parameter);
  void Wake(Frame* frame, const std::vector<uint32_t>& dependants, bool completed);
  void CountDown(Frame* frame);
  void Activate(Frame* frame, uint32_t step);
  bool SkippedByInputs(const Frame& frame, const StepPlan& plan) const;

  // Opens a body; parameters that are pending are given later by BindPending.
  void OpenFrame(Frame* parent, uint32_t step, uint32_t scope, uint64_t item,
                 std::vector<Parameter> parameters,
                 std::shared_ptr<const Graph> fragment = nullptr);
  void BeginFrame(Frame* frame);
  void FrameDone(Frame* frame);
  void RootDone(Read read, Value result, std::string error);
  void DropFrame(Frame* frame);
  void DropChildren(Frame* frame, uint32_t step);
  void BindPending(Frame* frame, const std::vector<uint32_t>& lazy_dependants);
  void BindBody(Frame* body);

  void CompleteStep(Frame* frame, uint32_t step, Value output);
  void SkipStep(Frame* frame, uint32_t step);
  // `past_catches`: the failure comes out of a catch clause's body, which its own step's clauses do
  // not catch.
  void FailStep(Frame* frame, uint32_t step, v1::Failure failure, bool park = false,
                bool past_catches = false);
  void SettleStep(Frame* frame, uint32_t step);
  void SetParked(StepState& step);
  // Before it becomes something else.
  void EndParked(StepState& step);
  // Drops what a step that is not settled holds: its body, timers, deliveries, messages.
  void AbandonStep(Frame* frame, uint32_t step);
  // Nobody needs its value any more; nor, perhaps, that of the steps before it.
  void CancelStep(Frame* frame, uint32_t step);
  void CancelUnneeded(Frame* frame, const std::vector<uint32_t>& sources);
  // Whatever goes on in the frame is over.
  bool Gone(const Frame& frame) const { return frame.dropped || s_.Dead(frame); }
  // Closes, after undoing what is to be undone.
  void End(v1::ExecutionStatus status);
  void Close(v1::ExecutionStatus status);
  void CloseFailed(Frame* frame, uint32_t step, v1::Failure failure);

  // Reads an input in its frame. kError: `error` says why, for a flux.bad_projection failure.
  Read ReadSource(const Frame& frame, const InputPlan& input) const;
  Read ReadInput(const Frame& frame, const InputPlan& input, Value* value,
                 std::string* error) const;
  // As a body's parameter; false: the projection failed.
  bool ReadParameter(const Frame& frame, const InputPlan& input, Parameter* parameter,
                     std::string* error) const;
  bool ReadParameters(const Frame& frame, const std::vector<InputPlan>& inputs, size_t from,
                      std::vector<Parameter>* parameters, std::string* error) const;

  void KeepOutput(StepState& step, Value output);

  // ---- timer.cc ----
  void StartSleep(Frame* frame, uint32_t step);
  void Fired(const v1::TimerFired& fired);
  void ArmWake(Frame* frame, uint32_t step, v1::TimerKind kind, int64_t due_ms);
  // Takes out the step's timers, whichever are armed.
  void Disarm(Frame* frame, uint32_t step);
  void DisarmWake(Frame* frame, uint32_t step);
  void DisarmExecution();
  // Pauses a map or loop that opened too many frames in one record.
  void Yield(Frame* frame, uint32_t step);
  bool MustYield() const { return frames_opened_ >= kFramesPerRecordMax; }

  // ---- task_step.cc ----
  void Schedule(Frame* frame, uint32_t step);
  void Grant(Frame* frame, uint32_t step);
  void TaskCompleted(v1::StepCompleted completed);
  void TaskAttemptFailed(v1::AttemptFailed failed);
  void TaskFailed(v1::StepFailed failed);
  void TaskRedelivered(const v1::StepRedelivered& redelivered);
  void Refused(const v1::ResultRefused& refused);
  void BackoffEnded(Frame* frame, uint32_t step);
  void ScheduleToClosePassed(Frame* frame, uint32_t step);
  // Before a failure goes its way: the delivery is over, so that whoever drops the step has nothing
  // to revoke.
  void EndDelivery(Frame* frame, uint32_t step);
  void RevokeIfScheduled(const Frame& frame, uint32_t step);
  Frame* FindTask(const v1::StepRef& ref) const;

  // ---- map.cc ----
  void StartMap(Frame* frame, uint32_t step);
  void OpenItems(Frame* frame, uint32_t step);
  void FetchPage(Frame* frame, uint32_t step);
  void PageDone(Frame* page, Read read, Value value);
  void ItemDone(Frame* item, Read read, Value output);
  // False: the failure is not one that the map tolerates.
  bool TolerateItem(Frame* item, const v1::Failure& failure);
  // How many items may fail.
  uint64_t Tolerated(const Frame& frame, uint32_t step) const;
  void CompleteMap(Frame* frame, uint32_t step);

  // ---- loop.cc ----
  void StartLoop(Frame* frame, uint32_t step);
  void OpenTurn(Frame* frame, uint32_t step);
  void TurnDone(Frame* turn, Read read, Value next);

  // ---- branch.cc: block, switch, catch ----
  void StartBlock(Frame* frame, uint32_t step);
  void StartSwitch(Frame* frame, uint32_t step);
  void OpenBranch(Frame* frame, uint32_t step, uint32_t body, const std::vector<InputPlan>& inputs,
                  size_t from);
  void OpenCatch(Frame* frame, uint32_t step, uint32_t clause, const v1::Failure& failure);
  void BranchDone(Frame* body, Read read, Value output);

  // ---- event.cc ----
  void StartWait(Frame* frame, uint32_t step);
  void ReadEvent(Frame* frame, uint32_t step, uint64_t number);
  void WaitTimedOut(Frame* frame, uint32_t step);
  void Received(v1::EventReceived received);
  void Deliver(uint64_t number);
  void Cancelled(const v1::EventCancelled& cancelled);
  void Edited(v1::EventEdited edited);
  void Replayed(v1::EventReplayed replayed);
  // Gives the parked readers of a wait step that completed another payload, and another try. False:
  // none of them is parked.
  bool Reread(Frame* frame, uint32_t step, const Value& payload);
  void ChangeOutput(Frame* frame, uint32_t step, const Value& payload);
  // Keeps an event again that was forgotten when it was taken.
  void GiveBack(const std::string& name, uint64_t number, const Value& payload);
  // All that the step, or its open bodies, took.
  void GiveBackAll(Frame* frame, uint32_t step);
  // A turn took the event: where no other than its loop reads the name, nobody needs it again.
  void ForgetTaken(const std::string& name, uint64_t number, uint32_t turn_scope);
  void RememberId(const std::string& id);

  // ---- outbox.cc: emit, child ----
  void StartMessage(Frame* frame, uint32_t step);
  uint64_t Send(OutboxState message);
  void Settled(const v1::OutboxSettled& settled);
  void ChildEnded(v1::ChildClosed closed);
  void GiveUpChild(Frame* frame, uint32_t step);
  void NotifyParent();

  // ---- undo.cc ----
  void KeepUndo(Frame* frame, uint32_t step, const Value& output);
  void UndoNext();
  void UndoDone(Frame* frame);
  void UndoFailed(Frame* frame, const v1::Failure& failure);

  // ---- continuation.cc ----
  void Continued(v1::StepContinued continued);

  // ---- repair.cc ----
  void Pause(bool paused, const std::string& identity, const std::string& reason);
  void Resolved(v1::StepResolved resolved);
  void Retried(const v1::StepRetried& retried);
  void Parked(const v1::StepParked& parked);
  void Reopened(const v1::ExecutionReopened& reopened);
  void Rewound(const v1::ExecutionRewound& rewound);
  void Migrated(const v1::ExecutionMigrated& migrated, std::shared_ptr<const Graph> graph);
  void Reopen();
  void ParkFailed(Frame* frame, uint32_t step);
  // What a closed execution's step has lost is made good.
  void Revive(Frame* frame, uint32_t step, const absl::btree_set<StepKey>& sending);
  void Reset(Frame* frame, const std::vector<uint32_t>& steps);
  // Derives anew what the frame's steps wait for, and activates those that wait for nothing.
  void Recount(Frame* frame);
  // A task gets a delivery again, as if it had not been tried.
  void TryAgain(Frame* frame, uint32_t step);
  v1::HistoryEvent* TellOperator(const char* type, const std::string& identity,
                                 const std::string& reason);

  // ---- instant.cc: join, fail, skip ----
  void RunJoin(Frame* frame, uint32_t step);
  void RunEarlyJoin(Frame* frame, uint32_t step);
  // A source of an early join settled: is it enough?
  bool JoinIsDone(Frame* frame, uint32_t step, bool completed);
  // Counts anew what an early join has: as its frame begins, and after a rewind. True: enough.
  bool CountInputs(Frame* frame, uint32_t step);
  bool TolerateInput(Frame* frame, uint32_t step, const v1::Failure& failure);
  void RunFail(Frame* frame, uint32_t step);

  // ---- story.cc ----
  bool telling() const { return effects_ != nullptr && effects_->story != nullptr; }
  v1::HistoryEvent* Tell(const char* type, bool derived);
  v1::HistoryEvent* TellStep(const char* type, const Frame& frame, uint32_t step, bool derived);
  void TellFailure(const char* type, const Frame& frame, uint32_t step, const v1::Failure& failure,
                   bool derived);

  void MergeLabels(const google::protobuf::Map<std::string, std::string>& labels);

  const StepPlan& Plan(const Frame& frame, uint32_t step) const { return s_.Plan(frame, step); }
  int64_t now() const { return s_.last_time_ms; }

  ExecutionState& s_;
  Effects* effects_;
  uint64_t frames_opened_ = 0;
  bool revoked_any_ = false;
};

}  // namespace flux::engine::internal

#endif  // FLUX_ENGINE_CORE_MACHINE_H_
