#include "flux/schedule.h"

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/time/clock.h"
#include "client/src/client_access.h"
#include "client/src/rpc_call.h"
#include "client/src/rpc_channel.h"
#include "client/src/rpc_convert.h"
#include "flux/v1/schedule.grpc.pb.h"
#include "proto/bridge.h"

namespace flux {
namespace internal {

// The stub and the settings of one client. Immutable.
class SchedulesCore {
 public:
  explicit SchedulesCore(ClientConnection connection)
      : connection_(std::move(connection)),
        stub_(v1::ScheduleService::NewStub(connection_.channel)) {}

  const ClientOptions& options() const { return connection_.options; }

  // Blocks until the call has ended, with all its tries.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(const char* name, Request request,
                                void (v1::ScheduleService::StubInterface::async_interface::*method)(
                                    grpc::ClientContext*, const Request*, Response*,
                                    std::function<void(grpc::Status)>)) const {
    std::mutex mutex;
    std::condition_variable done;
    std::optional<absl::StatusOr<Response>> answer;
    auto call = std::make_shared<RetryingCall<Request, Response>>(
        name, connection_.target, std::make_shared<const Request>(std::move(request)),
        CallPolicy{.deadline = absl::Now() + options().deadline,
                   .try_timeout = options().try_timeout,
                   .backoff_initial = options().backoff_initial,
                   .backoff_max = options().backoff_max},
        [this, method](grpc::ClientContext* context, const Request* in, Response* out,
                       std::function<void(grpc::Status)> callback) {
          (stub_->async()->*method)(context, in, out, std::move(callback));
        },
        [&](absl::StatusOr<Response> response) {
          // Notified under the lock: once it is free, the waiter may be gone.
          std::lock_guard lock(mutex);
          answer.emplace(std::move(response));
          done.notify_one();
        });
    call->Try();
    std::unique_lock lock(mutex);
    done.wait(lock, [&answer] { return answer.has_value(); });
    return *std::move(answer);
  }

 private:
  const ClientConnection connection_;
  const std::unique_ptr<v1::ScheduleService::Stub> stub_;
};

}  // namespace internal

namespace {

using Async = v1::ScheduleService::StubInterface::async_interface;

// Picks one of the stub's overloads.
template <typename Request, typename Response>
using Method = void (Async::*)(grpc::ClientContext*, const Request*, Response*,
                               std::function<void(grpc::Status)>);

absl::Time FromMs(int64_t ms) { return absl::FromUnixMillis(ms); }

v1::ScheduleOverlap ToProto(ScheduleOverlap overlap) {
  return static_cast<v1::ScheduleOverlap>(overlap);
}

v1::Schedule MakeSchedule(const ClientOptions& client, std::string id, std::string workflow,
                          ScheduleOptions options, std::vector<Payload> inputs) {
  v1::Schedule schedule;
  schedule.set_namespace_(client.namespace_);
  schedule.set_schedule_id(std::move(id));
  v1::ScheduleSpec& spec = *schedule.mutable_spec();
  const ScheduleTimes& times = options.times;
  for (const std::string& cron : times.crons) spec.add_crons(cron);
  for (const ScheduleInterval& interval : times.intervals) {
    v1::ScheduleInterval& to = *spec.add_intervals();
    to.set_every_ms(absl::ToInt64Milliseconds(interval.every));
    to.set_offset_ms(absl::ToInt64Milliseconds(interval.offset));
  }
  spec.set_time_zone(times.time_zone);
  if (times.start != absl::InfinitePast()) spec.set_start_time_ms(absl::ToUnixMillis(times.start));
  if (times.end != absl::InfiniteFuture()) spec.set_end_time_ms(absl::ToUnixMillis(times.end));
  spec.set_jitter_ms(absl::ToInt64Milliseconds(times.jitter));
  v1::StartWorkflowRequest& start = *schedule.mutable_start();
  start.set_workflow(std::move(workflow));
  start.set_version(std::move(options.version));
  start.set_workflow_id(std::move(options.workflow_id_prefix));
  for (Payload& input : inputs) internal::MovePayload(std::move(input), start.add_inputs());
  for (const auto& [key, value] : options.labels) (*start.mutable_labels())[key] = value;
  start.set_execution_timeout_ms(absl::ToInt64Milliseconds(options.execution_timeout));
  v1::SchedulePolicies& policies = *schedule.mutable_policies();
  policies.set_overlap(ToProto(options.overlap));
  policies.set_catchup_window_ms(absl::ToInt64Milliseconds(options.catchup_window));
  policies.set_pause_on_failure(options.pause_on_failure);
  policies.set_max_actions(options.max_actions);
  return schedule;
}

ScheduleTimes TimesOf(const v1::ScheduleSpec& spec) {
  ScheduleTimes times;
  times.crons.assign(spec.crons().begin(), spec.crons().end());
  for (const v1::ScheduleInterval& interval : spec.intervals()) {
    times.intervals.push_back({.every = absl::Milliseconds(interval.every_ms()),
                               .offset = absl::Milliseconds(interval.offset_ms())});
  }
  times.time_zone = spec.time_zone();
  if (spec.start_time_ms() != 0) times.start = FromMs(spec.start_time_ms());
  if (spec.end_time_ms() != 0) times.end = FromMs(spec.end_time_ms());
  times.jitter = absl::Milliseconds(spec.jitter_ms());
  return times;
}

ScheduleAction ActionOf(const v1::ScheduleAction& from) {
  ScheduleAction action;
  action.time = FromMs(from.nominal_time_ms());
  action.started = FromMs(from.start_time_ms());
  action.workflow_id = from.workflow_id();
  action.run_id = from.run_id();
  action.status = static_cast<ExecutionStatus>(from.status());
  action.error = from.error();
  return action;
}

ScheduleCounts CountsOf(const v1::ScheduleCounts& from) {
  return {.started = from.started(),
          .skipped = from.skipped(),
          .missed = from.missed(),
          .failed = from.failed()};
}

ScheduleInfo InfoOf(const v1::GetScheduleResponse& from) {
  ScheduleInfo info;
  info.id = from.schedule().schedule_id();
  info.workflow = from.schedule().start().workflow();
  info.times = TimesOf(from.schedule().spec());
  if (from.schedule().policies().overlap() != v1::SCHEDULE_OVERLAP_UNSPECIFIED) {
    info.overlap = static_cast<ScheduleOverlap>(from.schedule().policies().overlap());
  }
  info.paused = from.state().paused();
  info.note = from.state().note();
  for (const int64_t time : from.next_time_ms()) info.next.push_back(FromMs(time));
  for (const v1::ScheduleAction& action : from.state().recent()) {
    info.recent.push_back(ActionOf(action));
  }
  info.counts = CountsOf(from.state().counts());
  info.running = static_cast<uint64_t>(from.state().running_size());
  info.waiting = static_cast<uint64_t>(from.state().waiting_size());
  info.revision = from.revision();
  return info;
}

ScheduleInfo InfoOf(const v1::ScheduleSummary& from) {
  ScheduleInfo info;
  info.id = from.schedule_id();
  info.workflow = from.workflow();
  info.times = TimesOf(from.spec());
  info.overlap = from.overlap() == v1::SCHEDULE_OVERLAP_UNSPECIFIED
                     ? ScheduleOverlap::kSkip
                     : static_cast<ScheduleOverlap>(from.overlap());
  info.paused = from.paused();
  info.note = from.note();
  if (from.next_time_ms() != 0) info.next.push_back(FromMs(from.next_time_ms()));
  if (from.has_last()) info.recent.push_back(ActionOf(from.last()));
  info.counts = CountsOf(from.counts());
  info.running = from.running();
  info.waiting = from.waiting();
  return info;
}

}  // namespace

Schedules::Schedules(const Client& client)
    : client_(client),
      core_(std::make_shared<const internal::SchedulesCore>(internal::ClientAccess::Of(client))) {}

absl::Status Schedules::CreateRaw(std::string id, std::string workflow, ScheduleOptions options,
                                  std::vector<Payload> inputs) const {
  v1::CreateScheduleRequest request;
  request.set_paused(options.paused);
  request.set_note(options.note);
  request.set_identity(core_->options().identity);
  request.set_request_id(internal::RandomId());
  *request.mutable_schedule() = MakeSchedule(core_->options(), std::move(id), std::move(workflow),
                                             std::move(options), std::move(inputs));
  Method<v1::CreateScheduleRequest, v1::CreateScheduleResponse> method = &Async::CreateSchedule;
  return core_->Call("CreateSchedule", std::move(request), method).status();
}

absl::Status Schedules::UpdateRaw(std::string id, std::string workflow, ScheduleOptions options,
                                  std::vector<Payload> inputs) const {
  v1::UpdateScheduleRequest request;
  request.set_revision(options.revision);
  request.set_identity(core_->options().identity);
  request.set_request_id(internal::RandomId());
  *request.mutable_schedule() = MakeSchedule(core_->options(), std::move(id), std::move(workflow),
                                             std::move(options), std::move(inputs));
  Method<v1::UpdateScheduleRequest, v1::UpdateScheduleResponse> method = &Async::UpdateSchedule;
  return core_->Call("UpdateSchedule", std::move(request), method).status();
}

absl::StatusOr<ScheduleInfo> Schedules::Get(std::string id) const {
  v1::GetScheduleRequest request;
  request.set_namespace_(core_->options().namespace_);
  request.set_schedule_id(std::move(id));
  Method<v1::GetScheduleRequest, v1::GetScheduleResponse> method = &Async::GetSchedule;
  FLUX_ASSIGN_OR_RETURN(const v1::GetScheduleResponse response,
                        core_->Call("GetSchedule", std::move(request), method));
  return InfoOf(response);
}

absl::StatusOr<std::vector<ScheduleInfo>> Schedules::List(std::string id_prefix) const {
  std::vector<ScheduleInfo> all;
  v1::ListSchedulesRequest request;
  request.set_namespace_(core_->options().namespace_);
  request.set_id_prefix(std::move(id_prefix));
  Method<v1::ListSchedulesRequest, v1::ListSchedulesResponse> method = &Async::ListSchedules;
  do {
    FLUX_ASSIGN_OR_RETURN(const v1::ListSchedulesResponse page,
                          core_->Call("ListSchedules", request, method));
    for (const v1::ScheduleSummary& summary : page.schedules()) all.push_back(InfoOf(summary));
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return all;
}

absl::Status Schedules::Delete(std::string id) const {
  v1::DeleteScheduleRequest request;
  request.set_namespace_(core_->options().namespace_);
  request.set_schedule_id(std::move(id));
  request.set_identity(core_->options().identity);
  Method<v1::DeleteScheduleRequest, v1::DeleteScheduleResponse> method = &Async::DeleteSchedule;
  return core_->Call("DeleteSchedule", std::move(request), method).status();
}

absl::Status Schedules::Pause(std::string id, std::string note) const {
  v1::PauseScheduleRequest request;
  request.set_namespace_(core_->options().namespace_);
  request.set_schedule_id(std::move(id));
  request.set_note(std::move(note));
  request.set_identity(core_->options().identity);
  Method<v1::PauseScheduleRequest, v1::PauseScheduleResponse> method = &Async::PauseSchedule;
  return core_->Call("PauseSchedule", std::move(request), method).status();
}

absl::Status Schedules::Resume(std::string id, std::string note) const {
  v1::ResumeScheduleRequest request;
  request.set_namespace_(core_->options().namespace_);
  request.set_schedule_id(std::move(id));
  request.set_note(std::move(note));
  request.set_identity(core_->options().identity);
  Method<v1::ResumeScheduleRequest, v1::ResumeScheduleResponse> method = &Async::ResumeSchedule;
  return core_->Call("ResumeSchedule", std::move(request), method).status();
}

absl::StatusOr<Triggered> Schedules::Trigger(std::string id, ScheduleOverlap overlap) const {
  v1::TriggerScheduleRequest request;
  request.set_namespace_(core_->options().namespace_);
  request.set_schedule_id(std::move(id));
  request.set_overlap(ToProto(overlap));
  request.set_identity(core_->options().identity);
  request.set_request_id(internal::RandomId());
  Method<v1::TriggerScheduleRequest, v1::TriggerScheduleResponse> method = &Async::TriggerSchedule;
  FLUX_ASSIGN_OR_RETURN(v1::TriggerScheduleResponse response,
                        core_->Call("TriggerSchedule", std::move(request), method));
  return Triggered{.outcome = static_cast<TriggerOutcome>(response.outcome()),
                   .workflow_id = std::move(*response.mutable_workflow_id()),
                   .run_id = std::move(*response.mutable_run_id()),
                   .detail = std::move(*response.mutable_detail())};
}

absl::StatusOr<uint64_t> Schedules::Backfill(std::string id, absl::Time from, absl::Time to,
                                             ScheduleOverlap overlap) const {
  v1::BackfillScheduleRequest request;
  request.set_namespace_(core_->options().namespace_);
  request.set_schedule_id(std::move(id));
  request.set_from_time_ms(absl::ToUnixMillis(from));
  request.set_to_time_ms(absl::ToUnixMillis(to));
  request.set_overlap(ToProto(overlap));
  request.set_identity(core_->options().identity);
  request.set_request_id(internal::RandomId());
  Method<v1::BackfillScheduleRequest, v1::BackfillScheduleResponse> method =
      &Async::BackfillSchedule;
  FLUX_ASSIGN_OR_RETURN(const v1::BackfillScheduleResponse response,
                        core_->Call("BackfillSchedule", std::move(request), method));
  return response.times();
}

}  // namespace flux
