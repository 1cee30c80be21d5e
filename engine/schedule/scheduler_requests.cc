// What people ask of schedules: checked, applied, and answered once written.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/stored.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr size_t kNextTimes = 5;
constexpr uint32_t kPageSize = 100;
constexpr size_t kNamespaceBytesMax = 256;
constexpr size_t kIdentityBytesMax = 256;
constexpr size_t kRequestIdBytesMax = 256;

std::string NamespaceOr(const std::string& ns) { return ns.empty() ? "default" : ns; }

template <typename Response>
void AddTimes(const Schedule& schedule, int64_t now_ms, Response* response) {
  for (const int64_t time : schedule.NextTimes(now_ms, kNextTimes)) {
    response->add_next_time_ms(time);
  }
}

absl::Status CheckOverlap(v1::ScheduleOverlap overlap) {
  if (v1::ScheduleOverlap_IsValid(overlap)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("overlap policy ", static_cast<int>(overlap),
                   " is unknown to this coordinator: it is older than the client"));
}

}  // namespace

template <typename Request, typename Response>
void Scheduler::Post(Request request, Reply<Response> reply,
                     void (Scheduler::*handler)(Request, Reply<Response>)) {
  inbox_->Push([this, request = std::move(request), reply = std::move(reply), handler]() mutable {
    if (shutting_down_.load(std::memory_order_relaxed)) {
      return ReplyLater<Response>(std::move(reply), ShuttingDownStatus());
    }
    (this->*handler)(std::move(request), std::move(reply));
  });
}

void Scheduler::Create(v1::CreateScheduleRequest request, Reply<v1::CreateScheduleResponse> reply) {
  Post(std::move(request), std::move(reply), &Scheduler::DoCreate);
}
void Scheduler::Update(v1::UpdateScheduleRequest request, Reply<v1::UpdateScheduleResponse> reply) {
  Post(std::move(request), std::move(reply), &Scheduler::DoUpdate);
}
void Scheduler::Get(v1::GetScheduleRequest request, Reply<v1::GetScheduleResponse> reply) {
  Post(std::move(request), std::move(reply), &Scheduler::DoGet);
}
void Scheduler::List(v1::ListSchedulesRequest request, Reply<v1::ListSchedulesResponse> reply) {
  Post(std::move(request), std::move(reply), &Scheduler::DoList);
}
void Scheduler::Delete(v1::DeleteScheduleRequest request, Reply<v1::DeleteScheduleResponse> reply) {
  Post(std::move(request), std::move(reply), &Scheduler::DoDelete);
}
void Scheduler::Pause(v1::PauseScheduleRequest request, Reply<v1::PauseScheduleResponse> reply) {
  Post(std::move(request), std::move(reply), &Scheduler::DoPause);
}
void Scheduler::Resume(v1::ResumeScheduleRequest request, Reply<v1::ResumeScheduleResponse> reply) {
  Post(std::move(request), std::move(reply), &Scheduler::DoResume);
}
void Scheduler::Trigger(v1::TriggerScheduleRequest request,
                        Reply<v1::TriggerScheduleResponse> reply) {
  Post(std::move(request), std::move(reply), &Scheduler::DoTrigger);
}
void Scheduler::Backfill(v1::BackfillScheduleRequest request,
                         Reply<v1::BackfillScheduleResponse> reply) {
  Post(std::move(request), std::move(reply), &Scheduler::DoBackfill);
}

// ---- checking
// ------------------------------------------------------------------------------------------------------

absl::Status Scheduler::CheckText(const char* what, const std::string& text,
                                  size_t bytes_max) const {
  if (text.size() > bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat(what, " has ", text.size(), " bytes; at most ",
                                                   bytes_max, " are allowed: use a shorter one"));
  }
  const auto control = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  };
  if (std::any_of(text.begin(), text.end(), control)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " has a control character: use printable UTF-8"));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::CheckRoom(const char* what) const {
  if (!env_.store->BelowReserve()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the disk is nearly full: ", what, " are refused until space is freed"));
}

// Fills in what is left out, and compiles the times.
absl::StatusOr<Spec> Scheduler::Check(v1::Schedule& schedule) const {
  schedule.set_namespace_(NamespaceOr(schedule.namespace_()));
  FLUX_RETURN_IF_ERROR(CheckText("namespace", schedule.namespace_(), kNamespaceBytesMax));
  if (schedule.schedule_id().empty()) return absl::InvalidArgumentError("schedule id is empty");
  FLUX_RETURN_IF_ERROR(CheckText("schedule id", schedule.schedule_id(), options_.id_bytes_max));
  const std::string named = absl::StrCat("schedule \"", schedule.schedule_id(), "\": ");
  const auto bad = [&named](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(named, what));
  };
  v1::StartWorkflowRequest& start = *schedule.mutable_start();
  if (start.workflow().empty() && start.definition_hash().empty()) {
    return bad("its start names no workflow: give the workflow's name");
  }
  if (!start.namespace_().empty() && start.namespace_() != schedule.namespace_()) {
    return bad(absl::StrCat("its start is in namespace \"", start.namespace_(),
                            "\": a schedule starts workflows in its own, \"", schedule.namespace_(),
                            "\""));
  }
  start.clear_namespace_();
  start.clear_identity();
  if (!start.request_id().empty() || start.conflict_policy() != v1::CONFLICT_POLICY_UNSPECIFIED ||
      start.reuse_policy() != v1::REUSE_POLICY_UNSPECIFIED) {
    return bad(
        "its start sets a request id or a policy for conflict or reuse, which are the schedule's "
        "to set: leave them out, and choose an overlap policy");
  }
  const v1::SchedulePolicies& policies = schedule.policies();
  FLUX_RETURN_IF_ERROR(CheckOverlap(policies.overlap()));
  if (policies.catchup_window_ms() != 0 && policies.catchup_window_ms() < kScheduleCatchupMinMs) {
    return bad(absl::StrCat("a catch-up window of ", policies.catchup_window_ms(),
                            " ms is not allowed: use at least ", kScheduleCatchupMinMs / 1000,
                            " s, or 0 for a year"));
  }
  if (schedule.ByteSizeLong() > options_.schedule_bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(named, "it has ", schedule.ByteSizeLong(), " bytes with its inputs; at most ",
                     options_.schedule_bytes_max, " are allowed: pass a reference to the data"));
  }
  absl::StatusOr<Spec> spec =
      Spec::Compile(schedule.spec(), ScheduleSeed(schedule.namespace_(), schedule.schedule_id()));
  if (!spec.ok()) {
    return absl::Status(spec.status().code(), absl::StrCat(named, spec.status().message()));
  }
  if (absl::Status startable = env_.engine->ValidateStart(SampleStart(schedule)); !startable.ok()) {
    return absl::Status(startable.code(),
                        absl::StrCat(named, "it could not start anything: ", startable.message()));
  }
  return spec;
}

template <typename Request>
absl::StatusOr<Scheduler::Item*> Scheduler::Lookup(const Request& request) {
  const Key key{NamespaceOr(request.namespace_()), request.schedule_id()};
  const auto it = items_.find(key);
  if (it != items_.end()) return it->second.get();
  return absl::NotFoundError(absl::StrCat("no schedule \"", key.second, "\" in namespace \"",
                                          key.first,
                                          "\": `fluxctl schedule list` shows what there is"));
}

// ---- making and changing
// ------------------------------------------------------------------------------------------------------

void Scheduler::DoCreate(v1::CreateScheduleRequest request,
                         Reply<v1::CreateScheduleResponse> reply) {
  using Response = v1::CreateScheduleResponse;
  v1::Schedule& schedule = *request.mutable_schedule();
  const int64_t now = WallMs();
  const Key key{NamespaceOr(schedule.namespace_()), schedule.schedule_id()};
  Response response;
  if (const auto it = items_.find(key); it != items_.end()) {
    const Item& item = *it->second;
    if (request.request_id().empty() ||
        item.schedule.stored().create_request_id() != request.request_id()) {
      return ReplyLater<Response>(
          std::move(reply), absl::AlreadyExistsError(
                                absl::StrCat("schedule \"", key.second, "\" exists in namespace \"",
                                             key.first, "\": update it, or use another id")));
    }
    response.set_revision(item.schedule.stored().revision());
    AddTimes(item.schedule, now, &response);
    return ReplyLater<Response>(std::move(reply), std::move(response));
  }
  absl::Status checked = CheckRoom("new schedules");
  checked.Update(CheckText("note", request.note(), options_.note_bytes_max));
  checked.Update(CheckText("identity", request.identity(), kIdentityBytesMax));
  checked.Update(CheckText("request id", request.request_id(), kRequestIdBytesMax));
  if (checked.ok() && items_.size() >= options_.schedules_max) {
    checked = absl::ResourceExhaustedError(absl::StrCat(
        "there are ", items_.size(), " schedules, the most that are allowed: delete some"));
  }
  if (!checked.ok()) return ReplyLater<Response>(std::move(reply), checked);
  absl::StatusOr<Spec> spec = Check(schedule);
  if (!spec.ok()) return ReplyLater<Response>(std::move(reply), spec.status());

  v1::StoredSchedule stored;
  stored.mutable_schedule()->Swap(&schedule);
  stored.set_revision(1);
  stored.set_create_time_ms(now);
  stored.set_update_time_ms(now);
  stored.set_create_request_id(request.request_id());
  stored.set_identity(request.identity());
  v1::ScheduleState state;
  state.set_last_time_ms(now);
  state.set_actions_left(stored.schedule().policies().max_actions());
  auto owned = std::make_unique<Item>(
      Item{.serial = next_serial_++,
           .ns = key.first,
           .id = key.second,
           .schedule = Schedule(std::move(stored), *std::move(spec), std::move(state), now),
           .definition_dirty = true});
  Item& item = *owned;
  items_.emplace(key, std::move(owned));
  by_serial_[item.serial] = &item;
  if (request.paused()) {
    item.schedule.Pause(request.note(), request.identity(), now);
  } else if (!request.note().empty()) {
    item.schedule.Resume(request.note(), request.identity(), now);
  }
  Touch(item);
  response.set_revision(1);
  AddTimes(item.schedule, now, &response);
  ReplyLater<Response>(std::move(reply), std::move(response));
}

void Scheduler::DoUpdate(v1::UpdateScheduleRequest request,
                         Reply<v1::UpdateScheduleResponse> reply) {
  using Response = v1::UpdateScheduleResponse;
  absl::StatusOr<Item*> found = Lookup(request.schedule());
  if (!found.ok()) return ReplyLater<Response>(std::move(reply), found.status());
  Item& item = **found;
  const int64_t now = WallMs();
  const v1::StoredSchedule& before = item.schedule.stored();
  Response response;
  if (!request.request_id().empty() && before.update_request_id() == request.request_id()) {
    response.set_revision(before.revision());
    AddTimes(item.schedule, now, &response);
    return ReplyLater<Response>(std::move(reply), std::move(response));
  }
  absl::Status checked = CheckRoom("updates of schedules");
  checked.Update(CheckText("identity", request.identity(), kIdentityBytesMax));
  checked.Update(CheckText("request id", request.request_id(), kRequestIdBytesMax));
  if (checked.ok() && request.revision() != 0 && request.revision() != before.revision()) {
    checked = absl::AbortedError(absl::StrCat("schedule \"", item.id, "\" is at revision ",
                                              before.revision(), ", not ", request.revision(),
                                              ": somebody changed it; read it again and repeat"));
  }
  if (!checked.ok()) return ReplyLater<Response>(std::move(reply), checked);
  absl::StatusOr<Spec> spec = Check(*request.mutable_schedule());
  if (!spec.ok()) return ReplyLater<Response>(std::move(reply), spec.status());

  AdvanceOne(item);  // what was due by the old times is taken up by them
  v1::StoredSchedule stored = item.schedule.stored();
  const bool new_times =
      stored.schedule().spec().SerializeAsString() != request.schedule().spec().SerializeAsString();
  stored.mutable_schedule()->Swap(request.mutable_schedule());
  stored.set_revision(stored.revision() + 1);
  stored.set_update_time_ms(now);
  stored.set_update_request_id(request.request_id());
  stored.set_identity(request.identity());
  response.set_revision(stored.revision());
  item.schedule.Replace(std::move(stored), *std::move(spec), new_times, now);
  item.definition_dirty = true;
  Touch(item);
  AddTimes(item.schedule, now, &response);
  ReplyLater<Response>(std::move(reply), std::move(response));
}

void Scheduler::DoDelete(v1::DeleteScheduleRequest request,
                         Reply<v1::DeleteScheduleResponse> reply) {
  using Response = v1::DeleteScheduleResponse;
  absl::StatusOr<Item*> found = Lookup(request);
  if (!found.ok()) return ReplyLater<Response>(std::move(reply), found.status());
  Item& item = **found;
  const absl::Status gone =
      absl::NotFoundError(absl::StrCat("schedule \"", item.id, "\" was deleted meanwhile"));
  for (auto& [entry, waiting] : item.triggers) {
    ReplyLater<v1::TriggerScheduleResponse>(std::move(waiting), gone);
  }
  for (auto& waiting : item.gets) {
    ReplyLater<v1::GetScheduleResponse>(std::move(waiting), gone);
  }
  deleted_rows_.push_back(keys::ScheduleDefinition(item.ns, item.id));
  deleted_rows_.push_back(keys::ScheduleState(item.ns, item.id));
  if (item.wake_ms != INT64_MAX) wakes_.erase({item.wake_ms, item.serial});
  by_serial_.erase(item.serial);
  Log(1, absl::StrCat("schedule \"", item.id, "\" was deleted by ", request.identity()));
  items_.erase(Key{item.ns, item.id});
  ReplyLater<Response>(std::move(reply), Response());
}

void Scheduler::DoPause(v1::PauseScheduleRequest request, Reply<v1::PauseScheduleResponse> reply) {
  using Response = v1::PauseScheduleResponse;
  absl::StatusOr<Item*> found = Lookup(request);
  absl::Status checked = found.status();
  checked.Update(CheckText("note", request.note(), options_.note_bytes_max));
  checked.Update(CheckText("identity", request.identity(), kIdentityBytesMax));
  if (!checked.ok()) return ReplyLater<Response>(std::move(reply), checked);
  Item& item = **found;
  AdvanceOne(item);  // what has come up until now is not withheld
  item.schedule.Pause(request.note(), request.identity(), WallMs());
  Touch(item);
  ReplyLater<Response>(std::move(reply), Response());
}

void Scheduler::DoResume(v1::ResumeScheduleRequest request,
                         Reply<v1::ResumeScheduleResponse> reply) {
  using Response = v1::ResumeScheduleResponse;
  absl::StatusOr<Item*> found = Lookup(request);
  absl::Status checked = found.status();
  checked.Update(CheckText("note", request.note(), options_.note_bytes_max));
  checked.Update(CheckText("identity", request.identity(), kIdentityBytesMax));
  if (!checked.ok()) return ReplyLater<Response>(std::move(reply), checked);
  Item& item = **found;
  const int64_t now = WallMs();
  // It may have been paused because this machine could not make sense of its times.
  v1::StoredSchedule stored = item.schedule.stored();
  absl::StatusOr<Spec> spec =
      Spec::Compile(stored.schedule().spec(), ScheduleSeed(item.ns, item.id));
  if (!spec.ok()) {
    return ReplyLater<Response>(
        std::move(reply),
        absl::FailedPreconditionError(absl::StrCat(
            "schedule \"", item.id, "\" cannot be resumed here: ", spec.status().message())));
  }
  item.schedule.Replace(std::move(stored), *std::move(spec), /*new_times=*/false, now);
  item.schedule.Resume(request.note(), request.identity(), now);
  Touch(item);
  Response response;
  AddTimes(item.schedule, now, &response);
  ReplyLater<Response>(std::move(reply), std::move(response));
}

// ---- starting
// ------------------------------------------------------------------------------------------------------

void Scheduler::DoTrigger(v1::TriggerScheduleRequest request,
                          Reply<v1::TriggerScheduleResponse> reply) {
  using Response = v1::TriggerScheduleResponse;
  absl::StatusOr<Item*> found = Lookup(request);
  absl::Status checked = found.status();
  checked.Update(CheckOverlap(request.overlap()));
  checked.Update(CheckText("identity", request.identity(), kIdentityBytesMax));
  checked.Update(CheckText("request id", request.request_id(), kRequestIdBytesMax));
  if (!checked.ok()) return ReplyLater<Response>(std::move(reply), checked);
  Item& item = **found;
  if (const v1::ScheduleRequestSeen* seen = item.schedule.Seen(request.request_id())) {
    Response response;
    response.set_outcome(v1::TRIGGER_OUTCOME_REPEATED);
    response.set_workflow_id(seen->workflow_id());
    return ReplyLater<Response>(std::move(reply), std::move(response));
  }
  checked = CheckRoom("triggers");
  if (!checked.ok()) return ReplyLater<Response>(std::move(reply), checked);
  AdvanceOne(item);  // in the order of time
  const absl::StatusOr<uint64_t> entry =
      item.schedule.Trigger(request.overlap(), request.identity(), request.request_id(), WallMs());
  Touch(item);
  if (!entry.ok()) return ReplyLater<Response>(std::move(reply), entry.status());
  item.triggers.emplace(*entry, std::move(reply));
}

void Scheduler::DoBackfill(v1::BackfillScheduleRequest request,
                           Reply<v1::BackfillScheduleResponse> reply) {
  using Response = v1::BackfillScheduleResponse;
  absl::StatusOr<Item*> found = Lookup(request);
  absl::Status checked = found.status();
  checked.Update(CheckOverlap(request.overlap()));
  checked.Update(CheckText("identity", request.identity(), kIdentityBytesMax));
  checked.Update(CheckText("request id", request.request_id(), kRequestIdBytesMax));
  if (!checked.ok()) return ReplyLater<Response>(std::move(reply), checked);
  Item& item = **found;
  if (const v1::ScheduleRequestSeen* seen = item.schedule.Seen(request.request_id())) {
    Response response;
    response.set_times(seen->times());
    response.set_backfill(seen->backfill());
    return ReplyLater<Response>(std::move(reply), std::move(response));
  }
  checked = CheckRoom("backfills");
  if (!checked.ok()) return ReplyLater<Response>(std::move(reply), checked);
  absl::StatusOr<Response> response = item.schedule.Backfill(request, WallMs());
  Touch(item);
  ReplyLater<Response>(std::move(reply), std::move(response));
}

// ---- reading
// ------------------------------------------------------------------------------------------------------

v1::GetScheduleResponse Scheduler::Shown(const Item& item) const {
  v1::GetScheduleResponse response;
  const v1::StoredSchedule& stored = item.schedule.stored();
  *response.mutable_schedule() = stored.schedule();
  *response.mutable_state() = item.schedule.State();
  response.mutable_state()->clear_seen();
  response.set_revision(stored.revision());
  response.set_create_time_ms(stored.create_time_ms());
  response.set_update_time_ms(stored.update_time_ms());
  response.set_identity(stored.identity());
  response.set_server_time_ms(WallMs());
  AddTimes(item.schedule, WallMs(), &response);
  return response;
}

void Scheduler::DoGet(v1::GetScheduleRequest request, Reply<v1::GetScheduleResponse> reply) {
  absl::StatusOr<Item*> found = Lookup(request);
  if (!found.ok()) {
    return ReplyLater<v1::GetScheduleResponse>(std::move(reply), found.status());
  }
  Item& item = **found;
  item.schedule.Look();
  item.gets.push_back(std::move(reply));
  Touch(item);
}

void Scheduler::DoList(v1::ListSchedulesRequest request, Reply<v1::ListSchedulesResponse> reply) {
  using Response = v1::ListSchedulesResponse;
  const std::string ns = NamespaceOr(request.namespace_());
  const uint32_t size =
      request.page_size() == 0 ? kPageSize : std::min(request.page_size(), options_.page_size_max);
  Response response;
  auto it = request.page_token().empty() ? items_.lower_bound(Key{ns, request.id_prefix()})
                                         : items_.upper_bound(Key{ns, request.page_token()});
  for (; it != items_.end() && it->first.first == ns; ++it) {
    const Item& item = *it->second;
    if (!absl::StartsWith(item.id, request.id_prefix())) {
      if (item.id > request.id_prefix()) break;
      continue;
    }
    if (response.schedules_size() == static_cast<int>(size)) {
      response.set_next_page_token(response.schedules(static_cast<int>(size) - 1).schedule_id());
      break;
    }
    const v1::Schedule& definition = item.schedule.definition();
    const v1::ScheduleState state = item.schedule.State();
    v1::ScheduleSummary& summary = *response.add_schedules();
    summary.set_schedule_id(item.id);
    *summary.mutable_spec() = definition.spec();
    summary.set_overlap(definition.policies().overlap());
    summary.set_workflow(definition.start().workflow());
    summary.set_paused(state.paused());
    summary.set_note(state.note());
    const std::vector<int64_t> next = item.schedule.NextTimes(WallMs(), 1);
    if (!next.empty()) summary.set_next_time_ms(next.front());
    if (state.recent_size() > 0) *summary.mutable_last() = state.recent(0);
    *summary.mutable_counts() = state.counts();
    summary.set_running(static_cast<uint32_t>(state.running_size()));
    summary.set_waiting(static_cast<uint32_t>(state.waiting_size()));
  }
  ReplyLater<Response>(std::move(reply), std::move(response));
}

}  // namespace flux::engine
