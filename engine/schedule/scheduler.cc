#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/schedule/stored.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr int64_t kIdleWaitMs = 1'000;   // the longest sleep: a clock that jumps is seen by then
constexpr int64_t kClockJumpMs = 5'000;  // backwards by more: every schedule is looked at
constexpr size_t kWriteBytesMax = 512 * 1024;  // of one batch, but for its last schedule
constexpr int kAdvancesInARow = 10;
constexpr uint32_t kQuestionWaitMs = 60'000;

// Whether the same start may be accepted in a moment.
bool MayBeRepeated(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status);
}

}  // namespace

Scheduler::Scheduler(SchedulerOptions options, Environment environment)
    : options_(options),
      env_(std::move(environment)),
      epoch_(env_.engine->EpochOf(0)),
      inbox_(std::make_shared<Inbox>()) {}

absl::StatusOr<std::unique_ptr<Scheduler>> Scheduler::Open(SchedulerOptions options,
                                                           Environment environment) {
  auto scheduler = std::unique_ptr<Scheduler>(new Scheduler(options, std::move(environment)));
  FLUX_RETURN_IF_ERROR(scheduler->Load());
  return scheduler;
}

absl::Status Scheduler::Load() {
  FLUX_ASSIGN_OR_RETURN(std::vector<LoadedSchedule> loaded, LoadSchedules(env_.store->rows()));
  const int64_t now = WallMs();
  last_wall_ms_ = now;
  for (LoadedSchedule& row : loaded) {
    const v1::Schedule& definition = row.stored.schedule();
    const Key key{definition.namespace_(), definition.schedule_id()};
    absl::StatusOr<Spec> spec =
        Spec::Compile(definition.spec(), ScheduleSeed(key.first, key.second));
    const absl::Status bad = spec.status();
    auto item = std::make_unique<Item>(Item{
        .serial = next_serial_++,
        .ns = key.first,
        .id = key.second,
        .schedule = Schedule(std::move(row.stored), spec.ok() ? *std::move(spec) : Spec::Never(),
                             std::move(row.state), now)});
    if (!bad.ok()) {
      // What was accepted once and means nothing here (a time zone that this machine lacks) must
      // not keep the coordinator from starting.
      Log(2, absl::StrCat("schedule \"", key.second, "\" is paused: ", bad.message()));
      item->schedule.Pause(ToUtf8(Message(bad)), "coordinator", now);
    }
    by_serial_[item->serial] = item.get();
    Touch(*item);
    items_.emplace(key, std::move(item));
  }
  return absl::OkStatus();
}

void Scheduler::Log(int level, const std::string& text) const {
  if (env_.log) env_.log(level, text);
}

void Scheduler::BeginShutdown() {
  shutting_down_.store(true, std::memory_order_relaxed);
  inbox_->Push([this] {
    for (auto& [key, item] : items_) {
      for (auto& [entry, reply] : std::exchange(item->triggers, {})) {
        ReplyLater<v1::TriggerScheduleResponse>(std::move(reply), ShuttingDownStatus());
      }
      for (auto& reply : std::exchange(item->gets, {})) {
        ReplyLater<v1::GetScheduleResponse>(std::move(reply), ShuttingDownStatus());
      }
    }
  });
}

Scheduler::Item* Scheduler::Find(uint64_t serial) {
  const auto it = by_serial_.find(serial);
  return it == by_serial_.end() ? nullptr : it->second;
}

void Scheduler::Touch(Item& item) {
  if (std::exchange(item.touched, true)) return;
  touched_.push_back(item.serial);
}

int64_t Scheduler::NextDeadlineMs() const {
  const int64_t now = env_.clock->MonotonicMs();
  if (!touched_.empty()) return now;
  int64_t wait = kIdleWaitMs;
  if (!wakes_.empty() && !shutting_down_.load(std::memory_order_relaxed))
    wait = std::clamp(wakes_.begin()->first - WallMs(), int64_t{0}, wait);
  return now + wait;
}

void Scheduler::Turn() {
  if (fatal_) return;
  inbox_->Drain(&jobs_);
  for (Inbox::Job& job : jobs_) job();
  jobs_.clear();
  const int64_t now = WallMs();
  if (now < last_wall_ms_ - kClockJumpMs) {
    for (auto& [key, item] : items_) Touch(*item);
  }
  last_wall_ms_ = now;
  std::vector<uint64_t> again;
  if (!shutting_down_.load(std::memory_order_relaxed)) {
    for (auto it = wakes_.begin(); it != wakes_.end() && it->first <= now; ++it) {
      Touch(*by_serial_.at(it->second));
    }
    for (const uint64_t serial : touched_) {
      if (Item* item = Find(serial); item != nullptr && AdvanceOne(*item)) again.push_back(serial);
    }
  }
  if (!Write()) return;
  for (const uint64_t serial : touched_) {
    if (Item* item = Find(serial)) item->touched = false;
  }
  touched_.clear();
  for (const uint64_t serial : again) Touch(*Find(serial));
  Release();
}

bool Scheduler::AdvanceOne(Item& item) {
  Schedule::Wants wants;
  bool more = true;
  for (int i = 0; more && i < kAdvancesInARow; ++i) more = item.schedule.Advance(WallMs(), &wants);
  for (const std::string& note : wants.notes) Log(2, note);
  for (Schedule::Outcome& outcome : wants.outcomes) {
    const auto waiting = item.triggers.find(outcome.entry);
    if (waiting == item.triggers.end()) continue;
    v1::TriggerScheduleResponse response;
    response.set_outcome(outcome.outcome);
    response.set_workflow_id(std::move(outcome.workflow_id));
    response.set_run_id(std::move(outcome.run_id));
    response.set_detail(std::move(outcome.detail));
    ReplyLater<v1::TriggerScheduleResponse>(std::move(waiting->second), std::move(response));
    item.triggers.erase(waiting);
  }
  if (!item.gets.empty() && !item.schedule.Looking()) {
    for (auto& reply : std::exchange(item.gets, {})) {
      ReplyLater<v1::GetScheduleResponse>(std::move(reply), Shown(item));
    }
  }
  if (item.wake_ms != INT64_MAX) wakes_.erase({item.wake_ms, item.serial});
  item.wake_ms = item.schedule.wake_ms();
  if (item.wake_ms != INT64_MAX) wakes_.insert({item.wake_ms, item.serial});
  wants_.emplace_back(item.serial, std::move(wants));
  return more;
}

bool Scheduler::Write() {
  std::vector<store::RowBatch> batches;
  size_t bytes = 0;
  const auto batch = [&]() -> store::RowBatch& {
    if (batches.empty() || bytes > kWriteBytesMax) {
      batches.push_back({.shard = 0,
                         .epoch = epoch_,
                         .puts = {},
                         .deletes = {},
                         .delete_ranges = {},
                         .emptied = {}});
      bytes = 0;
    }
    return batches.back();
  };
  // Deletions first: a schedule may be made again under the same id in the same turn.
  for (std::string& key : std::exchange(deleted_rows_, {})) {
    store::RowBatch& to = batch();
    bytes += key.size();
    to.deletes.push_back(std::move(key));
  }
  const auto put = [&](store::RowBatch& to, std::string key, std::string value) {
    bytes += key.size() + value.size();
    to.puts.push_back({std::move(key), std::move(value)});
  };
  for (const uint64_t serial : touched_) {
    Item* item = Find(serial);
    if (item == nullptr) continue;
    const bool definition = std::exchange(item->definition_dirty, false);
    const bool state = item->schedule.TakeDirty();
    if (!definition && !state) continue;
    store::RowBatch& to = batch();  // both rows in one: they belong together
    if (definition) {
      put(to, keys::ScheduleDefinition(item->ns, item->id),
          item->schedule.stored().SerializeAsString());
    }
    put(to, keys::ScheduleState(item->ns, item->id), item->schedule.State().SerializeAsString());
  }
  for (store::RowBatch& next : batches) {
    const absl::Status written = env_.store->rows().WriteSync(std::move(next));
    if (written.ok()) continue;
    // Memory is ahead of the disk: nothing may leave any more.
    fatal_ = true;
    Log(3, absl::StrCat("stopping: schedules could not be written: ", written.ToString()));
    if (env_.on_fatal) env_.on_fatal(written);
    return false;
  }
  return true;
}

void Scheduler::Release() {
  for (auto& reply : std::exchange(replies_, {})) reply();
  for (auto& [serial, wants] : std::exchange(wants_, {})) {
    const Item* item = Find(serial);
    if (item == nullptr) continue;
    for (Schedule::Start& start : wants.starts) starts_.emplace_back(serial, std::move(start));
    for (Schedule::Stop& stop : wants.stops) {
      MakeStop(serial, item->schedule.definition(), std::move(stop));
    }
    for (Schedule::Question& question : wants.questions) {
      AskRun(serial, item->ns, std::move(question));
    }
  }
  if (shutting_down_.load(std::memory_order_relaxed)) return;
  while (!starts_.empty() && starts_in_flight_ < options_.starts_in_flight_max) {
    auto [serial, start] = std::move(starts_.front());
    starts_.pop_front();
    if (Find(serial) != nullptr) MakeStart(serial, std::move(start));
  }
}

void Scheduler::MakeStart(uint64_t serial, Schedule::Start start) {
  ++starts_in_flight_;
  env_.engine->Start(
      std::move(start.request), [this, inbox = inbox_, serial, entry = start.entry](
                                    absl::StatusOr<v1::StartWorkflowResponse> answer) {
        inbox->Push([this, serial, entry, answer = std::move(answer)] {
          --starts_in_flight_;
          Item* item = Find(serial);
          if (item == nullptr) return;
          bool final = !MayBeRepeated(answer.status());
          if (absl::IsResourceExhausted(answer.status())) {
            // A full disk passes; a start that is too large does not.
            final = !env_.engine->ValidateStart(SampleStart(item->schedule.definition())).ok();
          }
          item->schedule.Started(entry, answer, final, WallMs());
          Touch(*item);
        });
      });
}

void Scheduler::MakeStop(uint64_t serial, const v1::Schedule& schedule, Schedule::Stop stop) {
  const std::string why = absl::StrCat("the overlap policy of schedule \"", schedule.schedule_id(),
                                       "\": its next time has come");
  const std::string who = absl::StrCat("schedule:", schedule.schedule_id());
  const auto told = [this, inbox = inbox_, serial, run_id = stop.run_id](absl::Status status) {
    inbox->Push([this, serial, run_id, status = std::move(status)] {
      Item* item = Find(serial);
      if (item == nullptr) return;
      item->schedule.Stopped(run_id, status, WallMs());
      Touch(*item);
    });
  };
  const auto fill = [&](auto& request) {
    request.mutable_execution()->set_namespace_(schedule.namespace_());
    request.mutable_execution()->set_workflow_id(stop.workflow_id);
    request.mutable_execution()->set_run_id(stop.run_id);
    request.set_reason(why);
    request.set_identity(who);
  };
  if (stop.terminate) {
    v1::TerminateExecutionRequest request;
    fill(request);
    env_.engine->Terminate(std::move(request), [told](auto answer) { told(answer.status()); });
  } else {
    v1::CancelExecutionRequest request;
    fill(request);
    env_.engine->Cancel(std::move(request), [told](auto answer) { told(answer.status()); });
  }
}

void Scheduler::AskRun(uint64_t serial, const std::string& ns, Schedule::Question question) {
  v1::GetResultRequest request;
  request.mutable_execution()->set_namespace_(ns);
  request.mutable_execution()->set_workflow_id(question.workflow_id);
  request.mutable_execution()->set_run_id(question.run_id);
  request.set_wait_ms(question.wait ? kQuestionWaitMs : 0);
  env_.engine->GetResult(std::move(request),
                         [this, inbox = inbox_, serial, question = std::move(question)](
                             absl::StatusOr<v1::GetResultResponse> answer) {
                           if (answer.ok()) answer->clear_result();
                           inbox->Push([this, serial, question, answer = std::move(answer)] {
                             Item* item = Find(serial);
                             if (item == nullptr) return;
                             item->schedule.Looked(question, answer, WallMs());
                             Touch(*item);
                           });
                         });
}

}  // namespace flux::engine
