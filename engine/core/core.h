// The pure state machine: Decide and Apply, and what may be asked of an execution's state.
//
//   command ──Decide(execution, command, now)──► records ──Apply──► execution', effects
//
// Decide looks and never changes; Apply changes and never fails on a record that Decide made for
// that state. Replaying an execution's records through Apply rebuilds it bit for bit (equal
// Snapshot bytes). Nothing here touches a clock, a thread, a lock, a file, a log line, randomness,
// a float, or the order of a hash table.
//
// Not thread-safe; an Execution is owned by one shard's loop. Graphs and values are immutable and
// shared.
#ifndef FLUX_ENGINE_CORE_CORE_H_
#define FLUX_ENGINE_CORE_CORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/core/execution.h"
#include "engine/core/graph.h"
#include "flux/v1/record.pb.h"
#include "flux/v1/worker.pb.h"
#include "flux/v1/workflow.pb.h"

namespace flux::engine {

// Wall clock in milliseconds since the epoch, as the shard saw it when it took the command up.
// Decide never writes a time before the execution's last one.
using NowMs = int64_t;

// ---- commands ----

// A worker's answer. Decide checks the delivery (rule 5): the caller has already matched store
// incarnation and run.
struct ReportResult {
  v1::TaskResult result;  // moved from where it is accepted, but for its token
  std::string worker_id;
  uint64_t blob = 0;  // != 0: the value is over 64 KiB and will lie under this ordinal (NextBlob)
};

enum class AttemptEnd { kScheduleToStart, kStartToClose, kHeartbeat, kWorkerLost };

// The dispatcher's deadline passed, or its session's grace did, for this delivery.
struct EndAttempt {
  StepKey key;
  uint64_t delivery = 0;
  AttemptEnd reason = AttemptEnd::kStartToClose;
  v1::Payload progress;  // of the last heartbeat
  std::string worker_id;
};

// Hand it out again under a higher delivery number (released by a draining worker; unclaimed after
// a restart).
struct Redeliver {
  StepKey key;
  uint64_t delivery = 0;
  std::string reason;
};

// Fire every durable timer due at `now`.
struct FireTimers {};

struct Cancel {
  std::string reason;
  std::string identity;
};

struct Terminate {
  std::string reason;
  std::string identity;
};

// ---- events and other executions ----

// An event from outside. FailedPrecondition: closed. InvalidArgument: no step of the execution
// waits for that name (the message names those it knows). ResourceExhausted: too many are kept
// unread. kDuplicate: its id was accepted before.
struct SendEvent {
  std::string event;
  std::string event_id;  // empty: not idempotent
  v1::Payload payload;
  uint64_t blob = 0;  // as ReportResult's
  int64_t deliver_at_ms = 0;
  std::string identity;
};

// NotFound: no delayed event has that id.
struct CancelEvent {
  std::string event_id;
  std::string identity;
  std::string reason;
};

// Another payload for an event, before its readers ran or after they could not use it.
// FailedPrecondition: it did not come yet, or its readers ran: the message says which.
struct EditEvent {
  std::string event;
  uint64_t number = 0;  // 0: the newest of that name
  v1::Payload payload;
  uint64_t blob = 0;
  std::string identity;
  std::string reason;
};

// Runs the steps that waited for the event, and all downstream, again with new data; on a closed
// execution too. FailedPrecondition: none of them took it yet.
struct ReplayEvent {
  std::string event;
  v1::Payload payload;
  uint64_t blob = 0;
  std::string identity;
  std::string reason;
};

// What became of a message (PendingOutbox). kStale: it is settled.
struct SettleOutbox {
  uint64_t number = 0;
  std::optional<v1::Failure> failure;  // none: it was accepted
  std::string workflow_id;             // of a child that was started
  std::string run_id;                  // 16 bytes
};

// An awaited child closed. kStale: nobody waits for it any more.
struct ReportChild {
  StepKey ref;
  uint32_t generation = 0;
  std::string run_id;  // the child's, 16 bytes
  v1::ExecutionStatus status = v1::EXECUTION_STATUS_UNSPECIFIED;
  v1::Payload result;
  uint64_t blob = 0;
  v1::Failure failure;
};

// ---- operators: FailedPrecondition says why the state does not allow it ----

struct Pause {
  std::string identity;
  std::string reason;
};

struct Resume {
  std::string identity;
  std::string reason;
};

// Every failed and parked step, or one that is scheduled, backing off, waiting or parked. A failed
// execution is reopened.
struct Retry {
  std::optional<StepKey> step;
  std::string identity;
  std::string reason;
  bool parked_only = false;  // of a running execution: what is not parked is left alone
};

// A scheduled or backing-off task.
struct Park {
  StepKey step;
  std::string identity;
  std::string reason;
};

// Settles a step that has not: with a value, or (none) as skipped. The step an execution failed at
// counts: the execution is reopened.
struct Resolve {
  StepKey step;
  std::optional<v1::Payload> result;
  uint64_t blob = 0;
  std::string identity;
  std::string reason;
};

// Takes a step that has begun back to pending, with all that is downstream of it.
struct Rewind {
  StepKey step;
  std::string identity;
  std::string reason;
};

// Goes on in another version of its workflow. FailedPrecondition names the step that has begun and
// does not fit.
struct Migrate {
  std::shared_ptr<const Graph> graph;
  std::string identity;
  std::string reason;
};

using Command = std::variant<ReportResult, EndAttempt, Redeliver, FireTimers, Cancel, Terminate,
                             SendEvent, CancelEvent, EditEvent, ReplayEvent, SettleOutbox,
                             ReportChild, Pause, Resume, Retry, Park, Resolve, Rewind, Migrate>;

// ---- decide and apply ----

enum class Verdict {
  kAccepted,   // records say what changed (may be none: nothing was due)
  kStale,      // not the step's current delivery: nothing changes, but a record may tell of it
  kDuplicate,  // this very delivery's result is recorded already
};

struct Decision {
  Verdict verdict = Verdict::kAccepted;
  std::vector<v1::Record> records;
};

// What has to happen outside once the records are durable. All of it can be regenerated from state
// (ReadyTasks, NextTimer), so none is kept anywhere else (rule 6).
struct Effects {
  std::vector<StepKey> ready;  // tasks newly scheduled: offer them to the dispatcher
  std::vector<std::pair<StepKey, uint64_t>>
      revoked;               // (step, delivery) scheduled before, wanted no more
  bool all_revoked = false;  // the execution closed or is closing: every delivery of it
  bool closed = false;
  bool outbox = false;    // there are new messages to send
  bool paused = false;    // hand nothing out (ReadyTasks stay what they are)
  bool resumed = false;   // offer the ReadyTasks again
  bool reopened = false;  // a closed execution runs again
  // Set by callers that want the story told (GetHistory); derived events are appended in order.
  std::vector<v1::HistoryEvent>* story = nullptr;

  void Clear() {
    ready.clear();
    revoked.clear();
    all_revoked = closed = outbox = paused = resumed = reopened = false;
  }
};

// What DecideStart refuses of a start, for those who must know before they do anything for it.
// InvalidArgument: wrong number of inputs, an input a map of the root scope cannot read, or a
// timeout out of range (0: the definition's). O(bytes) of inputs that are mapped over.
absl::Status CheckStart(const Graph& graph,
                        const google::protobuf::RepeatedPtrField<v1::Payload>& inputs,
                        int64_t execution_timeout_ms);

// Makes the first record of an execution. InvalidArgument: as CheckStart. `started` comes filled in
// except `semantics`.
absl::StatusOr<v1::Record> DecideStart(const Graph& graph, v1::ExecutionStarted started, NowMs now);

// Inputs of more than kBlobBytesMin bytes are to lie under blobs of their own: gives them the
// ordinals 1, 2, … in `started->input_blobs` (nothing if there are none). The caller does this
// before DecideStart.
inline constexpr size_t kBlobBytesMin = 64 * 1024;
void AssignInputBlobs(v1::ExecutionStarted* started);

// The ordinal the execution's next blob will get.
inline uint64_t NextBlob(const Execution& execution) { return execution.next_blob(); }

// The records to apply one after the other (each decided with those before it applied: FireTimers
// and every other command yield records that are independent of each other). FailedPrecondition:
// the execution's state does not allow it (closed: the message names the status).
absl::StatusOr<Decision> Decide(const Execution& execution, Command&& command, NowMs now);

// The record that starts an execution makes it; `effects` as in Apply.
Execution Create(std::shared_ptr<const Graph> graph, const v1::Record& started, Effects* effects);

// `record` may be moved from where its payloads are kept. O(what changes), not O(width), not
// O(history). `graph`: of an ExecutionMigrated, that of the definition it names.
void Apply(Execution& execution, v1::Record record, Effects* effects,
           std::shared_ptr<const Graph> graph = nullptr);

// ---- questions ----

// Every task step in `scheduled` state, in order of (frame, step): what a restart offers again.
std::vector<StepKey> ReadyTasks(const Execution& execution);

// While it is true, ready tasks are not to be handed out.
bool IsPaused(const Execution& execution);

// The step at a path as StepPath writes it ("codes[17].parse"). NotFound names the part that leads
// nowhere; bodies that are not open, or done, have no steps.
absl::StatusOr<StepKey> FindStep(const Execution& execution, std::string_view path);

// Messages to other executions that are not settled, in order of number: to be sent once what they
// rest on is durable, and again after a restart.
std::vector<uint64_t> PendingOutbox(const Execution& execution, uint64_t after = 0);
bool HasOutbox(const Execution& execution);

// A message as it is to be sent. What it asks for is idempotent.
struct OutboxMessage {
  uint64_t number = 0;
  v1::OutboxKind kind = v1::OUTBOX_KIND_UNSPECIFIED;
  v1::ExecutionRef target;         // of all but START_CHILD; may lack a run id
  v1::SendEventRequest event;      // EMIT
  v1::StartWorkflowRequest start;  // START_CHILD
  bool awaited = false;            // START_CHILD: `parent` goes into the child's start record
  v1::ParentRef parent;            // who asks; CANCEL_CHILD and TERMINATE_CHILD: only such a child
  ReportChild report;              // NOTIFY_PARENT
};
// NotFound: it is settled. FailedPrecondition: the step that sends it is gone; InvalidArgument:
// what it sends cannot be read; ResourceExhausted: a payload of it would be larger than
// `payload_bytes_max`: settle it with that failure. A result that is larger is reported as a
// failure: the parent is to hear of the end.
absl::StatusOr<OutboxMessage> BuildOutboxMessage(const Execution& execution, uint64_t number,
                                                 size_t payload_bytes_max = SIZE_MAX);

// An id that no event of the execution has: for a delayed one that comes without.
std::string MakeEventId(const Execution& execution);

// Is an event of that id accepted, and not delivered yet?
bool IsDelayed(const Execution& execution, const std::string& event_id);

void FillEvents(const Execution& execution, bool payloads, v1::ListEventsResponse* response);
// Of their payloads, as PayloadBytes counts them. O(events).
size_t EventBytes(const Execution& execution);

// Due time of the earliest durable timer; none once it is closed.
std::optional<int64_t> NextTimerMs(const Execution& execution);

// What the dispatcher must know to place a scheduled step. The step must be a task step in state
// scheduled.
struct TaskOffer {
  StepKey key;
  uint64_t delivery = 0;
  uint32_t attempt = 0;
  int64_t scheduled_ms = 0;
  const v1::TaskStep* task = nullptr;  // owned by the graph; timeouts and queue already defaulted
  const std::string* step_name = nullptr;
};
TaskOffer Offer(const Execution& execution, const StepKey& key);

// True while `delivery` is the step's current one and the step is scheduled.
bool IsCurrent(const Execution& execution, const StepKey& key, uint64_t delivery);

// The same of a whole token, whose incarnation and run the caller has matched: its generation
// counts too.
bool IsCurrent(const Execution& execution, const v1::TaskToken& token);

// Asks for the memory that a result of this step will need, one pointer further with each `level`
// from 0 to kPrefetchLevels - 1: of many executions, a level of all of them at a time, so that
// their waits fall together. Changes nothing.
inline constexpr int kPrefetchLevels = 3;
void Prefetch(const Execution& execution, const StepKey& key, int level);

// Fills name, inputs, attempt, timeouts, progress, workflow and step of `task`; the caller adds the
// token's incarnation, run and shard. ResourceExhausted: the inputs together exceed `bytes_max`
// (the token is filled all the same, so that the caller can end the attempt with it: report a
// non-retriable "flux.input_too_large" failure).
absl::Status FillTask(const Execution& execution, const StepKey& key, size_t bytes_max,
                      v1::Task* task);

// Steps that wait for an operator; none once it has ended, or undoes what it did. O(1).
uint32_t ParkedSteps(const Execution& execution);

v1::ExecutionSummary Summarize(const Execution& execution);

// How many labels it would have with these set, or removed where the value is empty.
size_t CountLabels(const Execution& execution,
                   const google::protobuf::Map<std::string, std::string>& changed);

// Tells whether two starts ask for the same: a hash of definition and inputs, never 0.
uint64_t RequestHash(const v1::ExecutionStarted& started);

// Live facts the core does not hold: is this delivery running somewhere, and why is a scheduled one
// waiting.
struct LiveTask {
  bool running = false;
  std::string worker;
  int64_t started_ms = 0;
  std::string reason;  // for a scheduled one, e.g. "no worker has task charts.split on queue io"
  v1::Payload progress;
};
using LiveLookup = std::function<LiveTask(const StepKey& key, uint64_t delivery)>;

// The tree of steps with state and why each unfinished one waits. Of payloads, so many bytes: the
// result first, then inputs (an empty payload stands for one that is left out), then those of steps
// in order.
void DescribeExecution(const Execution& execution, uint32_t items_max, bool payloads,
                       const LiveLookup& live, v1::DescribeExecutionResponse* response,
                       size_t payload_bytes_max = SIZE_MAX);

// Root-scope steps without frames, for watching; O(root steps).
void DescribeProgress(const Execution& execution, const LiveLookup& live,
                      v1::WatchExecutionResponse* response);

// The result of a closed execution, or status RUNNING.
void FillResult(const Execution& execution, v1::GetResultResponse* response);
// Of that result, as PayloadBytes counts it. 0: there is none.
size_t ResultBytes(const Execution& execution);

// Approximate bytes the execution holds, O(1); what the cache is bounded by.
size_t MemoryBytes(const Execution& execution);

// Number of live entries (frames' steps and map items): a snapshot is due when as many records came
// since the last.
uint64_t LiveEntries(const Execution& execution);

// Whether it repeats steps, so that its records may be without end.
struct Repetition {
  bool any = false;   // a loop, or a step that went on as a piece of graph, is open
  uint64_t turn = 0;  // the highest that an open loop is in
};
// O(frames).
Repetition RepetitionOf(const Execution& execution);

// ---- snapshots ----

// Equal states give equal bytes. Values that are blobs are written by ordinal.
std::string SaveSnapshot(const Execution& execution);

// Called on the caller's thread; a failure of it fails what called it, unchanged.
using BlobReader = std::function<absl::StatusOr<v1::Payload>(uint64_t ordinal)>;

// The ordinals of the blobs that a snapshot refers to, ascending.
std::vector<uint64_t> BlobsOfSnapshot(std::string_view snapshot);

// A record as the log and history chunks hold it: data that lies in a blob is left out. Equal
// records, equal bytes.
std::string SerializeRecord(const v1::Record& record);

// The record with the data of its blobs put back. DataLoss: malformed, or of a kind this version
// does not know.
absl::StatusOr<v1::Record> ParseRecord(std::string_view bytes, const BlobReader& blobs);

// DataLoss: damaged or of a newer format; the message says which.
absl::StatusOr<Execution> LoadSnapshot(std::shared_ptr<const Graph> graph, std::string_view bytes,
                                       const BlobReader& blobs);

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_CORE_H_
