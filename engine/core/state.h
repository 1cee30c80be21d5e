// What an execution is in memory. Private to engine/core.
//
// An execution is its own status, a set of durable timers, and frames. A frame is one instance of a
// scope: its parameters and the state of each of its steps. Frame 0 is the root; the frame of a
// body (a map item, a loop turn, a block, a case, a catch clause) hangs below the step that owns
// the body and is dropped when it is done.
#ifndef FLUX_ENGINE_CORE_STATE_H_
#define FLUX_ENGINE_CORE_STATE_H_

#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "engine/core/graph.h"
#include "engine/core/run_id.h"
#include "engine/core/value.h"
#include "flux/v1/record.pb.h"

namespace flux::engine::internal {

// Frames one record may open. A map or loop that would open more pauses, and a timer due at once
// resumes it with a record of its own: so that bodies without tasks, however many, cannot hold up
// the shard or run without an end.
inline constexpr uint64_t kFramesPerRecordMax = 10'000;

// Timers one FireTimers decides on.
inline constexpr size_t kTimersPerDecisionMax = 1'000;

// Continuations that are not in tail position nest frames; deeper ones fail.
inline constexpr uint32_t kFrameDepthMax = 512;

// Event ids an execution remembers, and events it keeps for readers to come (delayed ones
// included).
inline constexpr size_t kEventIdsMax = 10'000;
inline constexpr size_t kEventsMax = 10'000;

// Refused results of one step that its history tells of, so that nobody can fill a disk with them.
inline constexpr uint32_t kRefusedResultsMax = 10;

// What one of these is counted for, besides its values.
inline constexpr size_t kMessageBytes = 256;
inline constexpr size_t kUndoBytes = 256;

// What could not be undone is noted in the execution's failure until its message is so long.
inline constexpr size_t kUndoNotesBytesMax = 4096;

// Numbers are part of the snapshot format.
enum class Phase : uint8_t {
  kPending = 1,
  kScheduled = 2,
  kBackingOff = 3,
  kWaiting = 4,  // for a timer, an event, another execution, or its body
  kParked = 5,
  kCompleted = 6,
  kFailed = 7,
  kSkipped = 8,
  kCancelled = 9,  // nobody needs it any more; reads as skipped
};

inline bool IsSettled(Phase phase) {
  return phase == Phase::kCompleted || phase == Phase::kSkipped || phase == Phase::kCancelled;
}

// A value that may not be there yet.
struct Parameter {
  enum class State : uint8_t { kPending, kSet, kSkipped };
  State state = State::kPending;
  Value value;
};

// Numbers are part of the snapshot format.
enum class ItemStatus : uint8_t {
  kNotOpened = 0,
  kOpen = 1,
  kCompleted = 2,
  kSkipped = 3,
  kFailed = 4,  // and tolerated
};

// Some of the items of a map over pages: those from `first` on.
struct MapPage {
  uint64_t first = 0;
  Value source;
};

struct MapState {
  Value source;         // a list or a split payload; nothing for a map over pages
  uint64_t items = 0;   // known so far
  uint64_t opened = 0;  // items below this one were opened
  uint64_t done = 0;
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint32_t in_flight = 0;
  std::vector<ItemStatus> statuses;
  std::vector<Value> outputs;  // an item each, set where completed
  std::vector<Parameter> captures;
  // Of a map over pages.
  std::deque<MapPage> pages;  // those with items that are not opened
  Value cursor;               // of the next page
  bool last_page = true;
  bool fetching = false;
};

// By name: the newest event taken.
using EventMarks = std::map<std::string, uint64_t, std::less<>>;

struct LoopState {
  uint64_t turn = 0;  // of the open frame, or the next one while it yields
  Value state;        // that turn's
  std::vector<Parameter> captures;
  EventMarks events;  // by earlier turns
  EventMarks taken;   // by the open one
};

// Of a join that may finish early.
struct JoinState {
  uint32_t completed = 0;
  uint32_t failed = 0;
};

// Of a step to whose earlier deliveries results came. It goes with the step, not with what the step
// does: a delivery is told of once.
struct RefusedState {
  uint64_t delivery = 0;  // the newest
  uint32_t results = 0;
};

struct ChildState {
  std::string workflow_id;
  std::string run_id;  // empty until it is known to be started
};

struct Frame;

// What only some steps need, some of the time.
struct StepExtra {
  std::unique_ptr<v1::Failure> failure;   // the last one
  std::unique_ptr<v1::Payload> progress;  // of the last heartbeat
  int64_t wake_ms = 0;                    // when its sleep, backoff or yield ends; 0: no such timer
  bool yielding = false;
  std::unique_ptr<MapState> map;
  std::unique_ptr<LoopState> loop;
  std::unique_ptr<ChildState> child;
  std::unique_ptr<JoinState> join;
  std::unique_ptr<RefusedState> refused;
  Frame* first_child = nullptr;  // frames of its body, in order of number
  Frame* last_child = nullptr;
  size_t bytes = 0;  // what was counted for it in ExecutionState::bytes
};

using StepLabels = std::map<std::string, std::string>;

struct StepState {
  Phase phase = Phase::kPending;
  uint32_t waiting_for = 0;
  uint32_t attempt = 0;  // from 1 once scheduled
  uint32_t generation = 0;
  bool resolved = false;  // settled by an operator
  // From 1; the last one granted. Of a wait step that completed: the number of the event it took.
  uint64_t delivery = 0;
  int64_t first_scheduled_ms = 0;  // when it began
  int64_t scheduled_ms = 0;        // when its newest delivery was granted
  int64_t ended_ms = 0;
  Value output;
  std::unique_ptr<StepExtra> extra;
  std::unique_ptr<StepLabels> labels;  // that its task set
};

struct Frame {
  uint64_t number = 0;
  uint32_t scope = 0;
  uint32_t parent_step = 0;
  Frame* parent = nullptr;
  Frame* previous = nullptr;  // siblings below one step
  Frame* next = nullptr;
  uint64_t item = 0;       // map index, or loop turn
  uint32_t remaining = 0;  // steps, and the result's parameter, that have not settled
  uint32_t queued = 0;     // entries of the work list that name it; it lives at least as long
  uint32_t depth = 0;      // frames above it
  bool dropped = false;
  const Graph* graph = nullptr;           // whose scope it is: the definition's, or a fragment's
  std::shared_ptr<const Graph> fragment;  // set: it is of a continuation, which it keeps alive
  std::vector<Parameter> parameters;
  std::vector<StepState> steps;
};

struct Timer {
  int64_t due_ms = 0;
  uint64_t frame = 0;
  uint32_t step = 0;
  v1::TimerKind kind = v1::TIMER_KIND_UNSPECIFIED;
  auto operator<=>(const Timer&) const = default;
};

// One entry of the work list: what follows from a record and is still to be derived.
struct Work {
  enum class Kind : uint8_t { kActivate, kSettled, kParameter, kFrameDone, kBind, kJoinEarly };
  Kind kind = Kind::kActivate;
  uint32_t index = 0;  // step, or parameter
  Frame* frame = nullptr;
};

// An accepted event: delayed, or kept for its readers.
struct EventState {
  std::string name;
  std::string id;
  Value payload;
  int64_t deliver_at_ms = 0;  // != 0: not delivered yet
  int64_t time_ms = 0;        // when it was accepted
  uint64_t readers = 0;       // steps that took it
};

// A message to another execution that has not been settled.
struct OutboxState {
  v1::OutboxKind kind = v1::OUTBOX_KIND_UNSPECIFIED;
  StepKey key;  // of the step that sends it
  uint32_t generation = 0;
  std::string workflow_id;  // of whom it is for, where no step says so
  std::string run_id;
};

// What to call if the execution fails or is cancelled.
struct UndoState {
  uint64_t number = 0;
  std::string path;  // of the step
  StepKey key;
  const Graph* graph = nullptr;
  std::shared_ptr<const Graph> fragment;
  uint32_t scope = 0;  // the undo scope
  std::vector<Value> parameters;
};

struct ExecutionState {
  ExecutionState() = default;
  ExecutionState(const ExecutionState&) = delete;
  ExecutionState& operator=(const ExecutionState&) = delete;
  ~ExecutionState() {
    for (const auto& [number, frame] : frames) delete frame;
  }

  std::shared_ptr<const Graph> graph;
  // Shared with the values that refer to its inputs.
  std::shared_ptr<const v1::ExecutionStarted> started;
  RunId run;
  v1::ExecutionStatus status = v1::EXECUTION_STATUS_RUNNING;
  uint64_t ordinal = 0;
  int64_t start_time_ms = 0;
  int64_t last_time_ms = 0;
  int64_t close_time_ms = 0;
  Value result;
  std::unique_ptr<v1::Failure> failure;
  bool has_failed_step = false;
  StepKey failed_step;
  std::string close_reason;
  std::string close_identity;
  uint64_t next_frame = 1;
  uint64_t next_blob = 1;
  uint64_t steps_completed = 0;
  uint64_t attempts_failed = 0;
  // Owned; in order of number. A dropped frame is out of here and deleted once nothing queued names
  // it.
  absl::btree_map<uint64_t, Frame*> frames;
  Frame* root = nullptr;
  // Kept when the execution closes (nothing fires then): closing costs the same however wide it is.
  absl::btree_set<Timer> timers;

  bool paused = false;
  bool compensated = false;                                           // some undo task ran
  uint32_t generation = 0;                                            // the newest
  v1::ExecutionStatus closing_as = v1::EXECUTION_STATUS_UNSPECIFIED;  // of FAILING and CANCELLING
  std::vector<UndoState> undo;                                        // in order of completion
  uint64_t next_undo = 1;
  absl::btree_map<uint64_t, EventState> events;
  uint64_t next_event = 1;
  std::deque<std::string> event_ids;  // the last ones accepted, the oldest first
  absl::btree_map<uint64_t, OutboxState> outbox;
  uint64_t next_outbox = 1;
  std::map<std::string, std::string> labels;

  // Derived from the above.
  absl::btree_set<std::pair<std::string, uint64_t>> delivered;  // events by name
  absl::btree_set<std::pair<std::string, StepKey>> readers;     // steps that wait, by event's name
  absl::btree_set<std::string> known_ids;                       // event_ids
  absl::btree_map<std::string, uint64_t> delayed_ids;           // of delayed events
  absl::btree_set<StepKey> children;  // steps that await another execution
  uint32_t parked = 0;                // steps, also of a closed execution

  // For questions in O(1).
  size_t bytes = 0;
  uint64_t live_entries = 0;
  uint64_t request_hash = 0;

  // Empty between records; kept for their memory.
  std::vector<Work> work;
  size_t work_next = 0;
  std::vector<Work> last_work;  // begun, one by one, once there is no other
  size_t last_work_next = 0;

  bool compensating() const {
    return status == v1::EXECUTION_STATUS_FAILING || status == v1::EXECUTION_STATUS_CANCELLING;
  }
  bool closed() const { return status != v1::EXECUTION_STATUS_RUNNING && !compensating(); }
  // Nothing more happens there: the execution is closed, or only undoes what was done.
  bool Dead(const Frame& frame) const {
    return status != v1::EXECUTION_STATUS_RUNNING &&
           (!compensating() || Scope(frame).role != Graph::Role::kUndo);
  }
  v1::ExecutionStatus ShownStatus() const {
    return paused && status == v1::EXECUTION_STATUS_RUNNING ? v1::EXECUTION_STATUS_PAUSED : status;
  }
  Frame* FindFrame(uint64_t number) const {
    if (number == 0) return root;
    const auto it = frames.find(number);
    return it == frames.end() ? nullptr : it->second;
  }
  // Null: no such step.
  StepState* FindStep(const StepKey& key) const {
    Frame* frame = FindFrame(key.frame);
    return frame != nullptr && key.step < frame->steps.size() ? &frame->steps[key.step] : nullptr;
  }
  const Graph::ScopePlan& Scope(const Frame& frame) const {
    return frame.graph->scopes()[frame.scope];
  }
  const Graph::StepPlan& Plan(const Frame& frame, uint32_t step) const {
    return Scope(frame).steps[step];
  }
};

// Makes an empty frame with its arrays sized and links it below its parent's step (null: the root,
// or a frame that undoes). Counts it. Without a fragment it is of its parent's graph.
Frame* AddFrame(ExecutionState& state, uint64_t number, uint32_t scope, Frame* parent,
                uint32_t parent_step, uint64_t item,
                std::shared_ptr<const Graph> fragment = nullptr);

// The step's extra, made if need be.
StepExtra& ExtraOf(ExecutionState& state, StepState& step);
void SetRefused(ExecutionState& state, StepState& step, const RefusedState& refused);
void SetStepLabels(ExecutionState& state, StepState& step,
                   const google::protobuf::Map<std::string, std::string>& labels);
void ReleaseLabels(ExecutionState& state, StepState& step);
// The extra's end, with all that the step has; frames below it must be gone by then. Clear: what it
// had for what it was doing.
void ReleaseExtra(ExecutionState& state, StepState& step);
void ClearExtra(ExecutionState& state, StepState& step);
// Counts memory that belongs to the extra until it is released.
void Charge(ExecutionState& state, StepExtra& extra, size_t bytes);

// Its own memory, without values.
size_t FrameBytes(const Frame& frame);

// "codes[17].parse": the step with the steps and items it lies in. Without a step: the frame's own
// place, "codes[17]".
std::string StepPath(const ExecutionState& state, const Frame& frame, uint32_t step);
std::string FramePath(const ExecutionState& state, const Frame& frame);

// "2026-01-31T23:59:59.000Z".
std::string FormatTime(int64_t time_ms);
// "labels a=b, c=d" by name; empty: none.
std::string LabelsText(const google::protobuf::Map<std::string, std::string>& labels);
// "5m", "1h30m", "1.5s", "20ms".
std::string FormatSpan(int64_t span_ms);

std::string_view PhaseName(Phase phase);
std::string_view KindName(v1::Step::KindCase kind);
// "RUNNING", "COMPLETED", …
std::string StatusName(v1::ExecutionStatus status);

}  // namespace flux::engine::internal

#endif  // FLUX_ENGINE_CORE_STATE_H_
