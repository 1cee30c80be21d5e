#include "flux/client.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/src/client_access.h"
#include "client/src/rpc_call.h"
#include "client/src/rpc_channel.h"
#include "client/src/rpc_convert.h"
#include "flux/v1/workflow.grpc.pb.h"
#include "proto/bridge.h"

namespace flux {
namespace {

constexpr absl::Duration kPollMax = absl::Seconds(60);  // GetResultRequest.wait_ms
constexpr absl::Duration kProbeTimeout = absl::Seconds(1);
constexpr absl::Duration kAnswerMargin = absl::Seconds(2);

// Waits for an asynchronous form to call back.
template <typename T>
class Waiter {
 public:
  std::function<void(T)> Callback() {
    return [this](T value) {
      // Notified under the lock: once it is free, the waiter may be gone.
      std::lock_guard lock(mutex_);
      value_.emplace(std::move(value));
      done_.notify_one();
    };
  }
  T Wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return value_.has_value(); });
    return *std::move(value_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  std::optional<T> value_;
};

std::string Named(const std::string& id, const std::string& run_id) {
  return run_id.empty() ? absl::StrCat("execution '", id, "'")
                        : absl::StrCat("execution '", id, "' (run ", run_id, ")");
}

// Null: the operation takes no payload. `operation` is of the kind that the call says.
v1::Payload* FillOperation(internal::OperationCall* call, v1::Operation* operation) {
  std::string name = std::move(call->name);
  switch (call->kind) {
    case internal::OperationKind::kPause:
      operation->mutable_pause();
      break;
    case internal::OperationKind::kResume:
      operation->mutable_resume();
      break;
    case internal::OperationKind::kRetry:
      operation->mutable_retry()->set_step(std::move(name));
      break;
    case internal::OperationKind::kUnpark:
      operation->mutable_unpark()->set_step(std::move(name));
      break;
    case internal::OperationKind::kPark:
      operation->mutable_park()->set_step(std::move(name));
      break;
    case internal::OperationKind::kSkip:
      operation->mutable_skip()->set_step(std::move(name));
      break;
    case internal::OperationKind::kSetResult:
      operation->mutable_set_result()->set_step(std::move(name));
      return operation->mutable_set_result()->mutable_result();
    case internal::OperationKind::kRewind:
      operation->mutable_rewind()->set_step(std::move(name));
      break;
    case internal::OperationKind::kCancelEvent:
      operation->mutable_cancel_event()->set_event_id(std::move(name));
      break;
    case internal::OperationKind::kEditEvent:
      operation->mutable_edit_event()->set_event(std::move(name));
      operation->mutable_edit_event()->set_number(call->number);
      return operation->mutable_edit_event()->mutable_payload();
    case internal::OperationKind::kReplayEvent:
      operation->mutable_replay_event()->set_event(std::move(name));
      return operation->mutable_replay_event()->mutable_payload();
  }
  return nullptr;
}

// Whether a second time changes nothing more.
bool IsIdempotent(internal::OperationKind kind) {
  return kind == internal::OperationKind::kPause || kind == internal::OperationKind::kResume ||
         kind == internal::OperationKind::kEditEvent;
}

EventInfo ToEventInfo(v1::EventInfo* from) {
  EventInfo to;
  to.number = from->number();
  to.event = std::move(*from->mutable_event());
  to.event_id = std::move(*from->mutable_event_id());
  to.time = absl::FromUnixMillis(from->time_ms());
  if (from->deliver_time_ms() != 0) to.deliver_at = absl::FromUnixMillis(from->deliver_time_ms());
  to.delivered = from->delivered();
  to.readers = from->readers();
  to.payload = internal::TakePayload(from->mutable_payload());
  return to;
}

absl::Time After(absl::Duration timeout) {
  return timeout == absl::InfiniteDuration() ? absl::InfiniteFuture() : absl::Now() + timeout;
}

}  // namespace

std::string_view ExecutionStatusName(ExecutionStatus status) {
  switch (status) {
    case ExecutionStatus::kRunning:
      return "running";
    case ExecutionStatus::kCompleted:
      return "completed";
    case ExecutionStatus::kFailed:
      return "failed";
    case ExecutionStatus::kCancelled:
      return "cancelled";
    case ExecutionStatus::kTerminated:
      return "terminated";
    case ExecutionStatus::kSkipped:
      return "skipped";
    case ExecutionStatus::kCancelling:
      return "cancelling";
    case ExecutionStatus::kFailing:
      return "failing";
    case ExecutionStatus::kPaused:
      return "paused";
    case ExecutionStatus::kUnspecified:
      break;
  }
  return "unknown";
}

bool IsClosed(ExecutionStatus status) {
  switch (status) {
    case ExecutionStatus::kCompleted:
    case ExecutionStatus::kFailed:
    case ExecutionStatus::kCancelled:
    case ExecutionStatus::kTerminated:
    case ExecutionStatus::kSkipped:
      return true;
    default:
      return false;
  }
}

namespace internal {

// The connection and what every call shares. Immutable after it is made, so thread-safe.
class ClientCore : public std::enable_shared_from_this<ClientCore> {
 public:
  template <typename Response>
  using Done = std::function<void(absl::StatusOr<Response>)>;

  ClientCore(std::string target, ClientOptions options)
      : target_(std::move(target)),
        options_(std::move(options)),
        channel_(MakeChannel(target_)),
        stub_(v1::WorkflowService::NewStub(channel_)) {
    if (options_.identity.empty()) options_.identity = DefaultIdentity();
    if (options_.namespace_.empty()) options_.namespace_ = "default";
    options_.poll = std::clamp(options_.poll, absl::Milliseconds(1), kPollMax);
  }

  const std::string& target() const { return target_; }
  ClientConnection Connection() const { return {target_, options_, channel_}; }

  absl::Status Reach() {
    if (options_.connect_timeout <= absl::ZeroDuration()) return absl::OkStatus();
    if (channel_->WaitForConnected(absl::ToChronoTime(After(options_.connect_timeout)))) {
      return absl::OkStatus();
    }
    // The channel knows only that it failed; a call that fails at once says why.
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(After(kProbeTimeout)));
    v1::GetResultResponse response;
    const grpc::Status status = stub_->GetResult(&context, v1::GetResultRequest(), &response);
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return FromGrpc(grpc::Status(grpc::StatusCode::UNAVAILABLE, "no answer"), "connecting",
                      target_);
    }
    return status.error_code() == grpc::StatusCode::UNAVAILABLE
               ? FromGrpc(status, "connecting", target_)
               : absl::OkStatus();
  }

  v1::ExecutionRef Ref(const std::string& id, const std::string& run_id) const {
    v1::ExecutionRef ref;
    ref.set_namespace_(options_.namespace_);
    ref.set_workflow_id(id);
    ref.set_run_id(run_id);
    return ref;
  }

  void Start(StartCall call, std::function<void(absl::StatusOr<RawRun>)> callback,
             RawRun (*make)(std::shared_ptr<ClientCore>, std::string, std::string, bool)) {
    // Shared: a coordinator that lacks the definition is sent the same request again.
    auto shared = std::make_shared<v1::StartWorkflowRequest>();
    v1::StartWorkflowRequest& request = *shared;
    StartOptions& options = call.options;
    request.set_namespace_(options_.namespace_);
    request.set_workflow_id(std::move(options.id));
    request.set_request_id(options.request_id.empty() ? RandomId() : std::move(options.request_id));
    request.set_workflow(std::move(call.workflow));
    request.set_version(std::move(call.version));
    if (call.traced != nullptr) request.set_definition_hash(call.traced->hash);
    for (Payload& input : call.inputs) MovePayload(std::move(input), request.add_inputs());
    request.set_conflict_policy(static_cast<v1::ConflictPolicy>(options.conflict));
    request.set_reuse_policy(static_cast<v1::ReusePolicy>(options.reuse));
    for (auto& [key, value] : options.labels) (*request.mutable_labels())[key] = value;
    request.set_identity(options_.identity);
    request.set_execution_timeout_ms(absl::ToInt64Milliseconds(options.execution_timeout));
    const absl::Time deadline =
        After(options.deadline > absl::ZeroDuration() ? options.deadline : options_.deadline);

    auto finish = [self = shared_from_this(), make,
                   callback](absl::StatusOr<v1::StartWorkflowResponse> response) {
      if (!response.ok()) return callback(std::move(response).status());
      callback(make(self, std::move(*response->mutable_workflow_id()),
                    std::move(*response->mutable_run_id()), response->started()));
    };
    if (call.traced == nullptr) return SendStart(shared, deadline, std::move(finish));
    SendStart(shared, deadline,
              [self = shared_from_this(), shared, deadline, finish = std::move(finish),
               traced = call.traced](absl::StatusOr<v1::StartWorkflowResponse> response) mutable {
                if (!absl::IsNotFound(response.status())) return finish(std::move(response));
                self->PutAll(*traced, deadline, [self, shared, deadline, finish](absl::Status put) {
                  if (!put.ok()) return finish(std::move(put));
                  self->SendStart(shared, deadline, finish);
                });
              });
  }

  // Children first, so that a definition never names one that is not there.
  void PutAll(const Traced& traced, absl::Time deadline, std::function<void(absl::Status)> done) {
    auto order = std::make_shared<std::vector<const Traced*>>();
    if (absl::Status status = ChildrenFirst(traced, order.get()); !status.ok()) {
      return done(std::move(status));
    }
    PutFrom(order, 0, deadline, std::move(done));
  }

  void Put(const std::string& definition, absl::Time deadline,
           Done<v1::PutDefinitionResponse> done) {
    v1::PutDefinitionRequest request;
    if (!request.mutable_definition()->ParseFromString(definition)) {
      return done(absl::InvalidArgumentError("the definition is no serialised flux.v1.Definition"));
    }
    Call<v1::PutDefinitionRequest, v1::PutDefinitionResponse>(
        "PutDefinition", std::move(request), deadline, options_.try_timeout,
        [](auto* async, auto... arguments) { async->PutDefinition(arguments...); },
        std::move(done));
  }

  // Asks until the execution closes or `until` passes.
  void GetResult(std::string id, std::string run_id, absl::Time until,
                 std::function<void(absl::StatusOr<Payload>)> callback) {
    const absl::Duration wait =
        std::clamp(until - absl::Now(), absl::ZeroDuration(), options_.poll);
    v1::GetResultRequest request;
    *request.mutable_execution() = Ref(id, run_id);
    request.set_wait_ms(
        static_cast<uint32_t>(absl::ToInt64Milliseconds(absl::Ceil(wait, absl::Milliseconds(1)))));
    // An unreachable coordinator is given the client's deadline to come back, but not past the
    // caller's own; the answer that the wait is over needs a moment more.
    const absl::Time deadline = std::min(until, absl::Now() + wait + options_.deadline) +
                                std::min(options_.try_timeout, kAnswerMargin);
    Call<v1::GetResultRequest, v1::GetResultResponse>(
        "GetResult", std::move(request), deadline, wait + options_.try_timeout,
        [](auto* async, auto... arguments) { async->GetResult(arguments...); },
        [self = shared_from_this(), id, run_id, until,
         callback = std::move(callback)](absl::StatusOr<v1::GetResultResponse> response) mutable {
          if (!response.ok()) return callback(std::move(response).status());
          // A run id, once known, is kept: a later run of the same workflow id is not what was
          // waited for.
          if (run_id.empty()) run_id = response->run_id();
          const auto status = static_cast<ExecutionStatus>(response->status());
          if (IsClosed(status)) {
            return callback(self->ResultOf(status, id, run_id, &*response));
          }
          if (absl::Now() >= until) {
            return callback(absl::DeadlineExceededError(
                absl::StrCat(Named(id, run_id), " is still ", ToAbsl(ExecutionStatusName(status)),
                             " at the end of the time given to wait for it; it goes on")));
          }
          self->GetResult(std::move(id), std::move(run_id), until, std::move(callback));
        });
  }

  absl::Status Cancel(const std::string& id, const std::string& run_id, std::string reason) {
    v1::CancelExecutionRequest request;
    *request.mutable_execution() = Ref(id, run_id);
    request.set_reason(std::move(reason));
    request.set_identity(options_.identity);
    return Blocking<v1::CancelExecutionRequest, v1::CancelExecutionResponse>(
               "CancelExecution", std::move(request),
               [](auto* async, auto... arguments) { async->CancelExecution(arguments...); })
        .status();
  }

  absl::Status Terminate(const std::string& id, const std::string& run_id, std::string reason) {
    v1::TerminateExecutionRequest request;
    *request.mutable_execution() = Ref(id, run_id);
    request.set_reason(std::move(reason));
    request.set_identity(options_.identity);
    return Blocking<v1::TerminateExecutionRequest, v1::TerminateExecutionResponse>(
               "TerminateExecution", std::move(request),
               [](auto* async, auto... arguments) { async->TerminateExecution(arguments...); })
        .status();
  }

  absl::StatusOr<ExecutionStatus> Status(const std::string& id, const std::string& run_id) {
    v1::GetResultRequest request;
    *request.mutable_execution() = Ref(id, run_id);
    auto response = Blocking<v1::GetResultRequest, v1::GetResultResponse>(
        "GetResult", std::move(request),
        [](auto* async, auto... arguments) { async->GetResult(arguments...); });
    if (!response.ok()) return std::move(response).status();
    return static_cast<ExecutionStatus>(response->status());
  }

  absl::StatusOr<SentEvent> SendEvent(EventCall call) {
    if (!call.value.status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the value of event '", call.event,
                       "' cannot be encoded: ", call.value.status.message()));
    }
    v1::SendEventRequest request;
    *request.mutable_execution() = Ref(call.workflow_id, call.options.run_id);
    request.set_event(std::move(call.event));
    request.set_event_id(call.options.event_id.empty() ? RandomId()
                                                       : std::move(call.options.event_id));
    MovePayload(std::move(call.value.literal), request.mutable_payload());
    const absl::Time deliver_at = call.options.deliver_at;
    if (deliver_at == absl::InfiniteFuture()) {
      return absl::InvalidArgumentError("deliver_at is infinite: the event would never come");
    }
    // 0 is "at once", as is whatever has passed.
    if (deliver_at > absl::UnixEpoch()) {
      request.set_deliver_time_ms(absl::ToUnixMillis(deliver_at));
    }
    request.set_identity(options_.identity);
    SentEvent sent;
    sent.event_id = request.event_id();
    auto response = Blocking<v1::SendEventRequest, v1::SendEventResponse>(
        "SendEvent", std::move(request),
        [](auto* async, auto... arguments) { async->SendEvent(arguments...); });
    if (!response.ok()) return std::move(response).status();
    sent.run_id = std::move(*response->mutable_run_id());
    sent.duplicate = response->duplicate();
    sent.replaced = response->replaced();
    return sent;
  }

  absl::StatusOr<std::vector<EventInfo>> ListEvents(const std::string& id,
                                                    const std::string& run_id) {
    v1::ListEventsRequest request;
    *request.mutable_execution() = Ref(id, run_id);
    request.set_payloads(true);
    auto response = Blocking<v1::ListEventsRequest, v1::ListEventsResponse>(
        "ListEvents", std::move(request),
        [](auto* async, auto... arguments) { async->ListEvents(arguments...); });
    if (!response.ok()) return std::move(response).status();
    std::vector<EventInfo> events;
    for (v1::EventInfo& event : *response->mutable_events()) events.push_back(ToEventInfo(&event));
    return events;
  }

  absl::StatusOr<Operated> Operate(const std::string& id, const std::string& run_id,
                                   OperationCall call) {
    if (!call.value.status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the value cannot be encoded: ", call.value.status.message()));
    }
    v1::OperateExecutionRequest request;
    *request.mutable_execution() = Ref(id, run_id);
    if (v1::Payload* payload = FillOperation(&call, request.mutable_operation());
        payload != nullptr) {
      MovePayload(std::move(call.value.literal), payload);
    }
    request.set_reason(std::move(call.options.reason));
    request.set_identity(call.options.identity.empty() ? options_.identity
                                                       : std::move(call.options.identity));
    const bool once = !IsIdempotent(call.kind);
    // What is sent once is not sent before there is somebody to take it.
    if (once && !channel_->WaitForConnected(absl::ToChronoTime(Deadline()))) {
      return FromGrpc(grpc::Status(grpc::StatusCode::UNAVAILABLE, "no answer"), "connecting",
                      target_);
    }
    auto response = Blocking<v1::OperateExecutionRequest, v1::OperateExecutionResponse>(
        "OperateExecution", std::move(request),
        [](auto* async, auto... arguments) { async->OperateExecution(arguments...); }, once);
    if (!response.ok()) return std::move(response).status();
    return Operated{.run_id = std::move(*response->mutable_run_id()),
                    .detail = std::move(*response->mutable_detail())};
  }

  absl::Time Deadline() const { return After(options_.deadline); }

 private:
  // Each once, though workflows may start each other in a circle.
  static absl::Status ChildrenFirst(const Traced& root, std::vector<const Traced*>* order) {
    struct Visit {
      const Traced* traced;
      size_t next_child = 0;
    };
    std::set<std::string_view> seen = {root.hash};
    std::vector<Visit> path = {{&root}};
    while (!path.empty()) {
      Visit& visit = path.back();
      if (visit.next_child == visit.traced->children.size()) {
        order->push_back(visit.traced);
        path.pop_back();
        continue;
      }
      const absl::StatusOr<Traced>& child = TraceOnce(visit.traced->children[visit.next_child++]);
      if (!child.ok()) return child.status();
      if (seen.insert(child->hash).second) path.push_back({&*child});
    }
    return absl::OkStatus();
  }

  void PutFrom(std::shared_ptr<const std::vector<const Traced*>> order, size_t at,
               absl::Time deadline, std::function<void(absl::Status)> done) {
    if (at == order->size()) return done(absl::OkStatus());
    Put((*order)[at]->definition_bytes, deadline,
        [self = shared_from_this(), order, at, deadline,
         done = std::move(done)](absl::StatusOr<v1::PutDefinitionResponse> put) mutable {
          if (!put.ok()) return done(std::move(put).status());
          self->PutFrom(std::move(order), at + 1, deadline, std::move(done));
        });
  }

  void SendStart(std::shared_ptr<const v1::StartWorkflowRequest> request, absl::Time deadline,
                 Done<v1::StartWorkflowResponse> done) {
    Call<v1::StartWorkflowRequest, v1::StartWorkflowResponse>(
        "StartWorkflow", std::move(request), deadline, options_.try_timeout,
        [](auto* async, auto... arguments) { async->StartWorkflow(arguments...); },
        std::move(done));
  }

  template <typename Request, typename Response, typename Method>
  void Call(const char* name, Request request, absl::Time deadline, absl::Duration try_timeout,
            Method method, Done<Response> done) {
    Call<Request, Response>(name, std::make_shared<const Request>(std::move(request)), deadline,
                            try_timeout, method, std::move(done));
  }

  template <typename Request, typename Response, typename Method>
  void Call(const char* name, std::shared_ptr<const Request> request, absl::Time deadline,
            absl::Duration try_timeout, Method method, Done<Response> done, bool once = false) {
    auto call = std::make_shared<RetryingCall<Request, Response>>(
        name, target_, std::move(request),
        CallPolicy{.deadline = deadline,
                   .try_timeout = try_timeout,
                   .backoff_initial = options_.backoff_initial,
                   .backoff_max = options_.backoff_max,
                   .once = once},
        // The call keeps the core, and with it the stub, alive.
        [self = shared_from_this(), method](grpc::ClientContext* context, const Request* in,
                                            Response* out,
                                            std::function<void(grpc::Status)> callback) {
          method(self->stub_->async(), context, in, out, std::move(callback));
        },
        std::move(done));
    call->Try();
  }

  template <typename Request, typename Response, typename Method>
  absl::StatusOr<Response> Blocking(const char* name, Request request, Method method,
                                    bool once = false) {
    Waiter<absl::StatusOr<Response>> waiter;
    Call<Request, Response>(name, std::make_shared<const Request>(std::move(request)), Deadline(),
                            once ? options_.deadline : options_.try_timeout, method,
                            waiter.Callback(), once);
    return waiter.Wait();
  }

  absl::StatusOr<Payload> ResultOf(ExecutionStatus status, const std::string& id,
                                   const std::string& run_id, v1::GetResultResponse* response) {
    const std::string name = Named(id, run_id);
    switch (status) {
      case ExecutionStatus::kCompleted:
        return TakePayload(response->mutable_result());
      case ExecutionStatus::kSkipped:
        return SkippedStatus(name);
      default:
        break;
    }
    const absl::StatusCode code =
        status == ExecutionStatus::kCancelled    ? absl::StatusCode::kCancelled
        : status == ExecutionStatus::kTerminated ? absl::StatusCode::kAborted
                                                 : absl::StatusCode::kUnknown;
    Failure failure = TakeFailure(response->mutable_failure());
    const std::string what =
        absl::StrCat(name, " ", status == ExecutionStatus::kFailed ? "" : "was ",
                     ToAbsl(ExecutionStatusName(status)), failure.type.empty() ? "" : ": ",
                     failure.type, failure.message.empty() ? "" : ": ", failure.message);
    absl::Status result(code, what);
    // FailureOf() finds in it what ToStatus() attached, under whichever name.
    ToStatus(failure).ForEachPayload([&result](absl::string_view url, const absl::Cord& payload) {
      result.SetPayload(url, payload);
    });
    return result;
  }

  const std::string target_;
  ClientOptions options_;
  std::shared_ptr<grpc::Channel> channel_;  // gRPC's own shape
  std::unique_ptr<v1::WorkflowService::Stub> stub_;
};

ClientConnection ClientAccess::Of(const Client& client) { return client.core_->Connection(); }

}  // namespace internal

absl::Status RunBase::Cancel(std::string reason) const {
  return core_->Cancel(id_, run_id_, std::move(reason));
}

absl::Status RunBase::Terminate(std::string reason) const {
  return core_->Terminate(id_, run_id_, std::move(reason));
}

absl::StatusOr<ExecutionStatus> RunBase::Status() const { return core_->Status(id_, run_id_); }

absl::StatusOr<SentEvent> RunBase::SendEncoded(internal::EventCall call) const {
  return core_->SendEvent(std::move(call));
}

absl::StatusOr<std::vector<EventInfo>> RunBase::ListEvents() const {
  return core_->ListEvents(id_, run_id_);
}

absl::StatusOr<Operated> RunBase::Operate(internal::OperationCall call) const {
  return core_->Operate(id_, run_id_, std::move(call));
}

absl::StatusOr<Operated> RunBase::Pause(OperatorOptions options) const {
  return Operate({.kind = internal::OperationKind::kPause, .options = std::move(options)});
}

absl::StatusOr<Operated> RunBase::Resume(OperatorOptions options) const {
  return Operate({.kind = internal::OperationKind::kResume, .options = std::move(options)});
}

absl::StatusOr<Operated> RunBase::Retry(std::string step, OperatorOptions options) const {
  return Operate({.kind = internal::OperationKind::kRetry,
                  .name = std::move(step),
                  .options = std::move(options)});
}

absl::StatusOr<Operated> RunBase::Park(std::string step, OperatorOptions options) const {
  return Operate({.kind = internal::OperationKind::kPark,
                  .name = std::move(step),
                  .options = std::move(options)});
}

absl::StatusOr<Operated> RunBase::Unpark(std::string step, OperatorOptions options) const {
  return Operate({.kind = internal::OperationKind::kUnpark,
                  .name = std::move(step),
                  .options = std::move(options)});
}

absl::StatusOr<Operated> RunBase::Skip(std::string step, OperatorOptions options) const {
  return Operate({.kind = internal::OperationKind::kSkip,
                  .name = std::move(step),
                  .options = std::move(options)});
}

absl::StatusOr<Operated> RunBase::Rewind(std::string step, OperatorOptions options) const {
  return Operate({.kind = internal::OperationKind::kRewind,
                  .name = std::move(step),
                  .options = std::move(options)});
}

absl::StatusOr<Operated> RunBase::CancelEvent(std::string event_id, OperatorOptions options) const {
  return Operate({.kind = internal::OperationKind::kCancelEvent,
                  .name = std::move(event_id),
                  .options = std::move(options)});
}

absl::StatusOr<Payload> RunBase::WaitResult(absl::Duration timeout) const {
  Waiter<absl::StatusOr<Payload>> waiter;
  core_->GetResult(id_, run_id_, After(timeout), waiter.Callback());
  return waiter.Wait();
}

void RunBase::OnRawResult(absl::Duration timeout,
                          std::function<void(absl::StatusOr<Payload>)> callback) const {
  core_->GetResult(id_, run_id_, After(timeout), std::move(callback));
}

absl::StatusOr<Client> Client::Connect(const std::string& target, ClientOptions options) {
  FLUX_RETURN_IF_ERROR(internal::CheckTarget(target));
  auto core = std::make_shared<internal::ClientCore>(target, std::move(options));
  FLUX_RETURN_IF_ERROR(core->Reach());
  return Client(std::move(core));
}

absl::StatusOr<RawRun> Client::StartRaw(std::string workflow, StartOptions options,
                                        std::vector<Payload> inputs, std::string version) const {
  return StartEncoded({.workflow = std::move(workflow),
                       .version = std::move(version),
                       .traced = nullptr,
                       .inputs = std::move(inputs),
                       .options = std::move(options)});
}

void Client::StartRawAsync(std::string workflow, StartOptions options, std::vector<Payload> inputs,
                           std::function<void(absl::StatusOr<RawRun>)> callback,
                           std::string version) const {
  StartEncodedAsync({.workflow = std::move(workflow),
                     .version = std::move(version),
                     .traced = nullptr,
                     .inputs = std::move(inputs),
                     .options = std::move(options)},
                    std::move(callback));
}

RawRun Client::AttachRaw(std::string id, std::string run_id) const {
  return RawRun(core_, std::move(id), std::move(run_id), /*started=*/false);
}

absl::Status Client::PutTraced(const internal::Traced& traced) const {
  Waiter<absl::Status> waiter;
  core_->PutAll(traced, core_->Deadline(), waiter.Callback());
  return waiter.Wait();
}

absl::Status Client::PutDefinition(const std::string& definition) const {
  Waiter<absl::StatusOr<v1::PutDefinitionResponse>> waiter;
  core_->Put(definition, core_->Deadline(), waiter.Callback());
  return waiter.Wait().status();
}

const std::string& Client::target() const { return core_->target(); }

absl::StatusOr<RawRun> Client::StartEncoded(internal::StartCall call) const {
  Waiter<absl::StatusOr<RawRun>> waiter;
  StartEncodedAsync(std::move(call), waiter.Callback());
  return waiter.Wait();
}

void Client::StartEncodedAsync(internal::StartCall call,
                               std::function<void(absl::StatusOr<RawRun>)> callback) const {
  core_->Start(std::move(call), std::move(callback),
               [](std::shared_ptr<internal::ClientCore> core, std::string id, std::string run_id,
                  bool started) {
                 return RawRun(std::move(core), std::move(id), std::move(run_id), started);
               });
}

}  // namespace flux
