// Starts workflows on a coordinator and waits for what becomes of them.
//
//   absl::StatusOr<flux::Client> client = flux::Client::Connect("127.0.0.1:4510");
//   auto run = client->Start(kCodeChart, {.id = "chart-17"}, "chart-17.txt");
//   absl::StatusOr<Report> report = run->Result();              // blocks
//   if (!report.ok()) flux::Failure failure = flux::FailureOf(report.status());
//
//   client->SendEvent(kApproved, "chart-17", true);             // what a WaitEvent waits for
//   run->Retry("merge", {.reason = "the printer is back"});     // what an operator can do
//
// Every call is retried by itself while the coordinator cannot be reached, with a backoff, until
// its deadline; starts carry a request id, so that a repeated one is answered with the execution it
// has already begun, and events an event id, so that one is accepted once. What would do more if it
// were done twice (Retry, Rewind, …) is sent once: its Unavailable says that it may have been done.
//
// The status of a call tells what went wrong:
//   Unavailable        the coordinator could not be reached until the call's deadline
//   InvalidArgument    a bad address, id, argument or definition; the message names it
//   NotFound           no such execution (or, by name alone, workflow), step or event
//   FailedPrecondition the execution or the step is in a state that does not allow it
//   AlreadyExists      the workflow id is in use, by the policies given
//   ResourceExhausted  a limit of the coordinator (e.g. the payload size)
//   DeadlineExceeded   Result(timeout) gave up; the execution goes on
// and a closed execution that has no result says so with
//   Unknown            it failed; FailureOf(status) has the failure, the message its type and text
//   Cancelled          it was cancelled       Aborted   it was terminated
//   FailedPrecondition its result was skipped: IsSkipped(status) (not for optional results:
//   nullopt)
#ifndef FLUX_CLIENT_H_
#define FLUX_CLIENT_H_

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/codec.h"
#include "flux/error.h"
#include "flux/payload.h"
#include "flux/workflow.h"

namespace flux {

struct ClientOptions {
  std::string namespace_ = "default";
  std::string identity = {};  // empty: host:pid
  // Connect waits this long for the coordinator to answer; zero: does not wait, the first call
  // will.
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration deadline = absl::Seconds(30);              // of a call with all its tries
  absl::Duration try_timeout = absl::Seconds(10);           // of one try
  absl::Duration backoff_initial = absl::Milliseconds(50);  // between tries; doubles, with jitter
  absl::Duration backoff_max = absl::Seconds(2);
  // One request for a result waits so long at the coordinator before it is sent again; at most a
  // minute.
  absl::Duration poll = absl::Seconds(30);
};

// What to do when an execution of the workflow id is running.
enum class ConflictPolicy { kReject = 1, kUseExisting = 2, kTerminateExisting = 3 };

// Whether the id of a closed execution may be used again.
enum class ReusePolicy { kAllow = 1, kAllowIfFailed = 2, kReject = 3 };

struct StartOptions {
  std::string id = {};  // empty: the coordinator makes one
  std::string request_id =
      {};  // empty: a random one, which makes this call's own retries idempotent
  ConflictPolicy conflict = ConflictPolicy::kReject;
  ReusePolicy reuse = ReusePolicy::kAllow;
  std::map<std::string, std::string> labels = {};
  absl::Duration execution_timeout = absl::ZeroDuration();  // zero: the definition's
  absl::Duration deadline = absl::ZeroDuration();           // of this call; zero: the client's
};

// Values equal flux.v1.ExecutionStatus's.
enum class ExecutionStatus {
  kUnspecified = 0,
  kRunning = 1,
  kCompleted = 2,
  kFailed = 3,
  kCancelled = 4,
  kTerminated = 5,
  kSkipped = 6,
  kCancelling = 7,
  kFailing = 8,
  kPaused = 9,
};

std::string_view ExecutionStatusName(ExecutionStatus status);  // "running", "completed", …
bool IsClosed(ExecutionStatus status);

struct SendEventOptions {
  std::string run_id = {};  // that run or none; empty: the newest of the workflow id
  // An execution accepts one event of an id; empty: a random one, which makes this call's own
  // retries idempotent.
  std::string event_id = {};
  // Delivered then; the same event id again before that replaces it. Past: at once.
  absl::Time deliver_at = absl::InfinitePast();
};

struct SentEvent {
  std::string run_id;      // of the execution that accepted it
  std::string event_id;    // as given, or as made
  bool duplicate = false;  // one of its id was here before: nothing changed
  bool replaced = false;   // took the place of a delayed one of its id
};

// An event as an execution has it.
struct EventInfo {
  uint64_t number = 0;  // in order of arrival
  std::string event;    // its name
  std::string event_id;
  absl::Time time;                       // when it was accepted
  std::optional<absl::Time> deliver_at;  // of a delayed one
  bool delivered = false;
  uint64_t readers = 0;  // steps that took it
  Payload payload;
};

// Of everything an operator does: kept in the execution's history.
struct OperatorOptions {
  std::string reason = {};
  std::string identity = {};  // empty: the client's
};

// What an operator's command did.
struct Operated {
  std::string run_id;
  std::string detail;  // for people: "3 steps are tried again"
};

namespace internal {

class ClientAccess;
class ClientCore;

// An event whose value is encoded.
struct EventCall {
  std::string workflow_id;
  std::string event;
  Argument value;
  SendEventOptions options;
};

// What an operator does to an execution; `kind` says which of the others count.
enum class OperationKind {
  kPause,
  kResume,
  kRetry,
  kPark,
  kUnpark,
  kSkip,
  kSetResult,
  kRewind,
  kCancelEvent,
  kEditEvent,
  kReplayEvent,
};
struct OperationCall {
  OperationKind kind = OperationKind::kPause;
  std::string name = {};  // the step's path, the event's name or id
  uint64_t number = 0;
  Argument value = {};
  OperatorOptions options = {};
};

// The literal of an event.
template <typename T, typename V>
Argument EventArgument(const V& value) {
  static_assert(!kIsValue<V>, "flux: an event is sent with a plain value, not with a flux::Value");
  if constexpr (kIsValue<V>) {
    return Argument();
  } else {
    return MakeArgument<T>(value);
  }
}

// A start whose arguments are encoded.
struct StartCall {
  std::string workflow;
  std::string version;  // by name: empty is the newest
  // Null: by name. Sent by its hash, and in full only to a coordinator that lacks it.
  const Traced* traced = nullptr;
  std::vector<Payload> inputs;
  StartOptions options;
};

}  // namespace internal

// One execution, by workflow id and run id. A value: copies name the same execution and may outlive
// the Client. Thread-safe as far as it is const.
class RunBase {
 public:
  const std::string& id() const { return id_; }
  const std::string& run_id() const { return run_id_; }  // empty: the newest of the workflow id
  // False: Start was answered with an execution that existed.
  bool started() const { return started_; }

  // Asks for cancellation: running tasks are told, compensation runs, then it closes. OK once that
  // request is durable, or was. FailedPrecondition: it has closed in another way.
  absl::Status Cancel(std::string reason) const;
  // Closes it at once, without any clean-up; answers as Cancel.
  absl::Status Terminate(std::string reason) const;
  absl::StatusOr<ExecutionStatus> Status() const;

  // As Client::SendEvent, to this run.
  template <typename T, typename V>
  absl::StatusOr<SentEvent> SendEvent(const Event<T>& event, const V& value,
                                      SendEventOptions options = {}) const {
    if (options.run_id.empty()) options.run_id = run_id_;
    return SendEncoded({.workflow_id = id_,
                        .event = std::string(event.name()),
                        .value = internal::EventArgument<typename Event<T>::Value>(value),
                        .options = std::move(options)});
  }
  // In order of arrival; delayed ones included.
  absl::StatusOr<std::vector<EventInfo>> ListEvents() const;

  // ---- repair ----
  // Each blocks until it is durable. A step is named by its path, as `fluxctl workflow show` has
  // it: "merge", "codes[17].parse". NotFound: no such step or event; FailedPrecondition: the state
  // does not allow it, the message says why.

  // Nothing more is handed out until Resume; what runs goes on.
  absl::StatusOr<Operated> Pause(OperatorOptions options = {}) const;
  absl::StatusOr<Operated> Resume(OperatorOptions options = {}) const;
  // Tries a failed or parked step again, its retries counted anew; empty: all of them. Re-opens a
  // failed execution. A step that runs or waits begins again as well.
  absl::StatusOr<Operated> Retry(std::string step = {}, OperatorOptions options = {}) const;
  // Sets a step aside; the rest goes on.
  absl::StatusOr<Operated> Park(std::string step, OperatorOptions options = {}) const;
  // Retry of a parked step, which leaves any other alone: FailedPrecondition.
  absl::StatusOr<Operated> Unpark(std::string step, OperatorOptions options = {}) const;
  // Settles a step as skipped, or with a value: of the step's own type, which nobody checks here.
  absl::StatusOr<Operated> Skip(std::string step, OperatorOptions options = {}) const;
  template <typename V>
  absl::StatusOr<Operated> SetResult(std::string step, const V& value,
                                     OperatorOptions options = {}) const {
    static_assert(!internal::kIsValue<V>, "flux: SetResult() takes a plain value");
    using Result = typename internal::ResultTypeOf<V>::type;
    return Operate({.kind = internal::OperationKind::kSetResult,
                    .name = std::move(step),
                    .value = internal::MakeArgument<Result>(value),
                    .options = std::move(options)});
  }
  // Runs a step again, and all that is downstream of it; other branches keep their results.
  absl::StatusOr<Operated> Rewind(std::string step, OperatorOptions options = {}) const;

  // A delayed event will not be delivered.
  absl::StatusOr<Operated> CancelEvent(std::string event_id, OperatorOptions options = {}) const;
  // Changes an event that no step has read yet: the newest of that name, unless `number` says
  // which.
  template <typename T, typename V>
  absl::StatusOr<Operated> EditEvent(const Event<T>& event, const V& value, uint64_t number = 0,
                                     OperatorOptions options = {}) const {
    return Operate({.kind = internal::OperationKind::kEditEvent,
                    .name = std::string(event.name()),
                    .number = number,
                    .value = internal::EventArgument<typename Event<T>::Value>(value),
                    .options = std::move(options)});
  }
  // Runs the event's readers again with new data, and all that is downstream of them.
  template <typename T, typename V>
  absl::StatusOr<Operated> ReplayEvent(const Event<T>& event, const V& value,
                                       OperatorOptions options = {}) const {
    return Operate({.kind = internal::OperationKind::kReplayEvent,
                    .name = std::string(event.name()),
                    .value = internal::EventArgument<typename Event<T>::Value>(value),
                    .options = std::move(options)});
  }

 protected:
  friend class Client;
  RunBase(std::shared_ptr<internal::ClientCore> core, std::string id, std::string run_id,
          bool started)
      : core_(std::move(core)), id_(std::move(id)), run_id_(std::move(run_id)), started_(started) {}

  absl::StatusOr<Payload> WaitResult(absl::Duration timeout) const;
  void OnRawResult(absl::Duration timeout,
                   std::function<void(absl::StatusOr<Payload>)> callback) const;

  absl::StatusOr<SentEvent> SendEncoded(internal::EventCall call) const;
  absl::StatusOr<Operated> Operate(internal::OperationCall call) const;

 private:
  std::shared_ptr<internal::ClientCore> core_;  // shared: runs outlive the Client that made them
  std::string id_;
  std::string run_id_;
  bool started_;
};

// A run whose result stays encoded.
class RawRun : public RunBase {
 public:
  // Blocks until the execution closes (or `timeout` is over: DeadlineExceeded). While the
  // coordinator cannot be reached it goes on asking for ClientOptions::deadline before it answers
  // Unavailable.
  absl::StatusOr<Payload> Result(absl::Duration timeout = absl::InfiniteDuration()) const {
    return WaitResult(timeout);
  }
  // `callback` runs once, on a thread of the SDK's: it must not block.
  void OnResult(std::function<void(absl::StatusOr<Payload>)> callback,
                absl::Duration timeout = absl::InfiniteDuration()) const {
    OnRawResult(timeout, std::move(callback));
  }

 private:
  friend class Client;
  using RunBase::RunBase;
};

template <typename R>
class Run : public RunBase {
 public:
  using Value = internal::ResultT<R>;  // Unit for void

  // As RawRun's. InvalidArgument: the result is not an R.
  absl::StatusOr<Value> Result(absl::Duration timeout = absl::InfiniteDuration()) const {
    return ValueOf(WaitResult(timeout));
  }
  void OnResult(std::function<void(absl::StatusOr<Value>)> callback,
                absl::Duration timeout = absl::InfiniteDuration()) const {
    OnRawResult(timeout, [callback = std::move(callback)](absl::StatusOr<Payload> payload) {
      callback(ValueOf(std::move(payload)));
    });
  }
  std::future<absl::StatusOr<Value>> Future() const {
    // Shared: std::function copies its callable.
    auto promise = std::make_shared<std::promise<absl::StatusOr<Value>>>();
    std::future<absl::StatusOr<Value>> future = promise->get_future();
    OnResult([promise](absl::StatusOr<Value> result) { promise->set_value(std::move(result)); });
    return future;
  }

 private:
  friend class Client;
  using RunBase::RunBase;
  explicit Run(const RawRun& raw) : RunBase(raw) {}

  static absl::StatusOr<Value> ValueOf(absl::StatusOr<Payload> payload) {
    if (!payload.ok()) {
      if constexpr (internal::OptionalTraits<R>::value) {
        if (IsSkipped(payload.status())) return Value();
      }
      return std::move(payload).status();
    }
    return flux::Decode<Value>(*std::move(payload));
  }
};

// A connection to one coordinator. Cheap to copy (copies share the connection); thread-safe. Calls
// in flight when the last copy goes still end and call back.
class Client {
 public:
  // `target`: host:port. InvalidArgument: no address; Unavailable: nobody answers within
  // connect_timeout, with the reason.
  static absl::StatusOr<Client> Connect(const std::string& target, ClientOptions options = {});

  // Starts an execution; OK once the start is durable. Blocks. The definition is sent by its hash,
  // and in full only to a coordinator that does not know it.
  template <typename R, typename... P, typename... A>
  absl::StatusOr<Run<R>> Start(const Workflow<R(P...)>& workflow, StartOptions options,
                               const A&... arguments) const {
    absl::StatusOr<internal::StartCall> call = MakeCall(workflow, std::move(options), arguments...);
    if (!call.ok()) return std::move(call).status();
    absl::StatusOr<RawRun> run = StartEncoded(*std::move(call));
    if (!run.ok()) return std::move(run).status();
    return Run<R>(*run);
  }

  // As Start, without blocking: thousands may be in flight. `callback` runs once, perhaps before
  // this returns, on any thread, and must not block.
  template <typename R, typename... P, typename... A>
  void StartAsync(const Workflow<R(P...)>& workflow, StartOptions options,
                  std::type_identity_t<std::function<void(absl::StatusOr<Run<R>>)>> callback,
                  const A&... arguments) const {
    absl::StatusOr<internal::StartCall> call = MakeCall(workflow, std::move(options), arguments...);
    if (!call.ok()) return callback(std::move(call).status());
    StartEncodedAsync(*std::move(call),
                      [callback = std::move(callback)](absl::StatusOr<RawRun> run) {
                        if (!run.ok()) return callback(std::move(run).status());
                        callback(Run<R>(*run));
                      });
  }

  // By name: the newest definition the coordinator has (of `version`, unless empty). NotFound:
  // none.
  absl::StatusOr<RawRun> StartRaw(std::string workflow, StartOptions options,
                                  std::vector<Payload> inputs, std::string version = "") const;
  void StartRawAsync(std::string workflow, StartOptions options, std::vector<Payload> inputs,
                     std::function<void(absl::StatusOr<RawRun>)> callback,
                     std::string version = "") const;

  // Names an execution that was started elsewhere; asks nothing yet. Without a run id: the newest
  // of the id.
  template <typename R>
  Run<R> Attach(std::string id, std::string run_id = "") const {
    return Run<R>(AttachRaw(std::move(id), std::move(run_id)));
  }
  RawRun AttachRaw(std::string id, std::string run_id = "") const;

  // Sends an event to an execution; OK once it is durable. It may come before the step that waits
  // for it. NotFound: no such execution; InvalidArgument: its workflow waits for no event of that
  // name, or the value; FailedPrecondition: it has closed.
  template <typename T, typename V>
  absl::StatusOr<SentEvent> SendEvent(const Event<T>& event, std::string workflow_id,
                                      const V& value, SendEventOptions options = {}) const {
    return AttachRaw(std::move(workflow_id)).SendEvent(event, value, std::move(options));
  }

  // Makes the definition, and those of its children, known without starting it. Idempotent.
  // InvalidArgument names the step that is wrong.
  template <typename Signature>
  absl::Status Put(const Workflow<Signature>& workflow) const {
    const absl::StatusOr<internal::Traced>& traced = workflow.Trace();
    if (!traced.ok()) return traced.status();
    return PutTraced(*traced);
  }
  absl::Status PutDefinition(const std::string& definition) const;  // serialised flux.v1.Definition

  const std::string& target() const;

 private:
  friend class Schedules;
  friend class internal::ClientAccess;
  explicit Client(std::shared_ptr<internal::ClientCore> core) : core_(std::move(core)) {}

  template <typename R, typename... P, typename... A>
  static absl::StatusOr<internal::StartCall> MakeCall(const Workflow<R(P...)>& workflow,
                                                      StartOptions options, const A&... arguments) {
    const absl::StatusOr<internal::Traced>& traced = workflow.Trace();
    if (!traced.ok()) return traced.status();
    absl::StatusOr<std::vector<Payload>> inputs = workflow.EncodeArguments(arguments...);
    if (!inputs.ok()) return std::move(inputs).status();
    internal::StartCall call;
    call.workflow = std::string(workflow.name());
    call.version = std::string(workflow.options().version);
    call.traced = &*traced;
    call.inputs = *std::move(inputs);
    call.options = std::move(options);
    return call;
  }

  absl::Status PutTraced(const internal::Traced& traced) const;
  absl::StatusOr<RawRun> StartEncoded(internal::StartCall call) const;
  void StartEncodedAsync(internal::StartCall call,
                         std::function<void(absl::StatusOr<RawRun>)> callback) const;

  std::shared_ptr<internal::ClientCore>
      core_;  // shared: Runs use the connection after the Client has gone
};

}  // namespace flux

#endif  // FLUX_CLIENT_H_
