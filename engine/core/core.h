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
  v1::TaskResult result;  // moved from where it is accepted
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

using Command = std::variant<ReportResult, EndAttempt, Redeliver, FireTimers, Cancel, Terminate>;

// ---- decide and apply ----

enum class Verdict {
  kAccepted,   // records say what changed (may be none: nothing was due)
  kStale,      // not the step's current delivery: nothing changes
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
  // Set by callers that want the story told (GetHistory); derived events are appended in order.
  std::vector<v1::HistoryEvent>* story = nullptr;

  void Clear() {
    ready.clear();
    revoked.clear();
    all_revoked = closed = false;
  }
};

// Makes the first record of an execution. InvalidArgument: wrong number of inputs, or an input a
// map of the root scope cannot read. `started` comes filled in except `semantics`.
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
absl::StatusOr<Decision> Decide(const Execution& execution, Command command, NowMs now);

// The record that starts an execution makes it; `effects` as in Apply.
Execution Create(std::shared_ptr<const Graph> graph, const v1::Record& started, Effects* effects);

// `record` may be moved from where its payloads are kept. O(what changes), not O(width), not
// O(history).
void Apply(Execution& execution, v1::Record record, Effects* effects);

// ---- questions ----

// Every task step in `scheduled` state, in order of (frame, step): what a restart offers again.
std::vector<StepKey> ReadyTasks(const Execution& execution);

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

// Fills name, inputs, attempt, timeouts, progress, workflow and step of `task`; the caller adds the
// token's incarnation, run and shard. ResourceExhausted: the inputs together exceed `bytes_max`
// (the token is filled all the same, so that the caller can end the attempt with it: report a
// non-retriable "flux.input_too_large" failure).
absl::Status FillTask(const Execution& execution, const StepKey& key, size_t bytes_max,
                      v1::Task* task);

v1::ExecutionSummary Summarize(const Execution& execution);

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

// The tree of steps with state and why each unfinished one waits.
void DescribeExecution(const Execution& execution, uint32_t items_max, bool payloads,
                       const LiveLookup& live, v1::DescribeExecutionResponse* response);

// Root-scope steps without frames, for watching; O(root steps).
void DescribeProgress(const Execution& execution, const LiveLookup& live,
                      v1::WatchExecutionResponse* response);

// The result of a closed execution, or status RUNNING.
void FillResult(const Execution& execution, v1::GetResultResponse* response);

// Approximate bytes the execution holds, O(1); what the cache is bounded by.
size_t MemoryBytes(const Execution& execution);

// Number of live entries (frames' steps and map items): a snapshot is due when as many records came
// since the last.
uint64_t LiveEntries(const Execution& execution);

// ---- snapshots ----

// Equal states give equal bytes. Values that are blobs are written by ordinal.
std::string SaveSnapshot(const Execution& execution);

// Called on the caller's thread; a failure of it fails what called it, unchanged.
using BlobReader = std::function<absl::StatusOr<v1::Payload>(uint64_t ordinal)>;

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
