#include "engine/schedule/schedule.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/core/json_value.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr int64_t kRetryFirstMs = 1'000;
constexpr int64_t kRetryMaxMs = 60'000;
constexpr int64_t kLookAgainMs = 1'000;
// A run that nothing waits for is looked at again after a growing pause: each look may load it.
constexpr int64_t kWatchPauseFirstMs = 60'000;
constexpr int64_t kWatchPauseMaxMs = 900'000;
constexpr size_t kErrorBytesMax = 500;
// Entries taken up in one Advance, so that a long downtime does not hold up other schedules.
constexpr int kTakenAtOnce = 200;

bool IsOpen(v1::ExecutionStatus status) {
  switch (status) {
    case v1::EXECUTION_STATUS_RUNNING:
    case v1::EXECUTION_STATUS_CANCELLING:
    case v1::EXECUTION_STATUS_FAILING:
    case v1::EXECUTION_STATUS_PAUSED:
      return true;
    default:
      return false;
  }
}

// Whether the same question may be answered otherwise in a moment.
bool AskAgain(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
      return true;
    default:
      return false;
  }
}

// What a state keeps of a message. Valid UTF-8, or its row could not be read again.
std::string Short(std::string_view text) { return Excerpt(text, kErrorBytesMax); }

std::string Short(const absl::Status& status) { return Short(Message(status)); }

v1::ScheduleOverlap OverlapOf(const v1::SchedulePolicies& policies) {
  return policies.overlap() == v1::SCHEDULE_OVERLAP_UNSPECIFIED ? v1::SCHEDULE_OVERLAP_SKIP
                                                                : policies.overlap();
}

bool Stops(v1::ScheduleOverlap overlap) {
  return overlap == v1::SCHEDULE_OVERLAP_CANCEL_OTHER ||
         overlap == v1::SCHEDULE_OVERLAP_TERMINATE_OTHER;
}

}  // namespace

std::string ScheduleTimeText(int64_t time_ms) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E*SZ", absl::FromUnixMillis(time_ms),
                          absl::UTCTimeZone());
}

v1::StartWorkflowRequest ScheduledStart(const v1::Schedule& schedule,
                                        const v1::ScheduleStart& start) {
  v1::StartWorkflowRequest request = schedule.start();
  request.set_namespace_(schedule.namespace_());
  request.set_workflow_id(start.workflow_id());
  std::string id = absl::StrCat("schedule:", schedule.schedule_id(), ":", start.nominal_time_ms());
  if (start.cause() == v1::SCHEDULE_CAUSE_TRIGGER) absl::StrAppend(&id, ":trigger");
  if (start.cause() == v1::SCHEDULE_CAUSE_BACKFILL) {
    absl::StrAppend(&id, ":backfill:", start.backfill());
  }
  request.set_request_id(std::move(id));
  request.set_conflict_policy(v1::CONFLICT_POLICY_REJECT);
  // A time is started once; a backfill is asked for because it shall run again.
  request.set_reuse_policy(start.cause() == v1::SCHEDULE_CAUSE_BACKFILL ? v1::REUSE_POLICY_ALLOW
                                                                        : v1::REUSE_POLICY_REJECT);
  (*request.mutable_labels())["flux.schedule"] = schedule.schedule_id();
  (*request.mutable_labels())["flux.schedule_time"] = ScheduleTimeText(start.nominal_time_ms());
  request.set_identity(start.identity().empty() ? absl::StrCat("schedule:", schedule.schedule_id())
                                                : start.identity());
  return request;
}

Schedule::Schedule(v1::StoredSchedule stored, Spec spec, v1::ScheduleState state, int64_t now_ms)
    : stored_(std::move(stored)), spec_(std::move(spec)), state_(std::move(state)) {
  for (v1::ScheduleStart& start : *state_.mutable_waiting()) {
    Entry& entry = waiting_.emplace_back();
    entry.start = std::move(start);
    entry.uncertain = entry.start.starting();
    entry.number = next_entry_++;
    entry.tick = ++tick_;
  }
  state_.clear_waiting();
  for (v1::ScheduleRun& run : *state_.mutable_running()) {
    Run& followed = runs_.emplace_back();
    followed.run = std::move(run);
    // Not all at once after a restart.
    followed.next_watch_ms = now_ms + followed.run.start_time_ms() % kWatchPauseFirstMs;
  }
  state_.clear_running();
}

v1::ScheduleState Schedule::State() const {
  v1::ScheduleState state = state_;
  for (const Entry& entry : waiting_) *state.add_waiting() = entry.start;
  for (const Run& run : runs_) *state.add_running() = run.run;
  return state;
}

bool Schedule::TakeDirty() { return std::exchange(dirty_, false); }

int64_t Schedule::CatchupMs() const {
  const int64_t window = definition().policies().catchup_window_ms();
  return window == 0 ? kScheduleCatchupDefaultMs : window;
}

bool Schedule::UsedUp() const {
  if (definition().policies().max_actions() == 0) return false;
  uint64_t taken = 0;
  for (const Entry& entry : waiting_) {
    if (entry.start.cause() == v1::SCHEDULE_CAUSE_TIME) ++taken;
  }
  return taken >= state_.actions_left();
}

size_t Schedule::WaitingFor(bool backfills) const {
  return static_cast<size_t>(
      std::count_if(waiting_.begin(), waiting_.end(), [backfills](const Entry& entry) {
        return (entry.start.cause() == v1::SCHEDULE_CAUSE_BACKFILL) == backfills;
      }));
}

std::vector<int64_t> Schedule::NextTimes(int64_t now_ms, size_t count) const {
  std::vector<int64_t> times;
  if (paused() || UsedUp()) return times;
  int64_t at = std::max(now_ms, state_.last_time_ms());
  while (times.size() < count) {
    const auto next = spec_.Next(at);
    if (!next) break;
    times.push_back(*next);
    at = *next;
  }
  return times;
}

// ---- taking up times
// ------------------------------------------------------------------------------------------------------

void Schedule::Enter(int64_t nominal_ms, int64_t now_ms, v1::ScheduleCause cause,
                     v1::ScheduleOverlap overlap, uint64_t backfill, const std::string& identity) {
  Entry& entry = waiting_.emplace_back();
  entry.number = next_entry_++;
  entry.tick = ++tick_;
  v1::ScheduleStart& start = entry.start;
  start.set_nominal_time_ms(nominal_ms);
  start.set_taken_time_ms(now_ms);
  start.set_cause(cause);
  start.set_overlap(overlap);
  start.set_backfill(backfill);
  start.set_identity(identity);
  const std::string& prefix = definition().start().workflow_id();
  start.set_workflow_id(absl::StrCat(prefix.empty() ? definition().schedule_id() : prefix, "-",
                                     ScheduleTimeText(nominal_ms),
                                     cause == v1::SCHEDULE_CAUSE_TRIGGER ? "-trigger" : ""));
  dirty_ = true;
}

// After a change of the clock, times that were given as instants may lie absurdly far ahead.
void Schedule::Follow(int64_t now_ms, Wants* wants) {
  for (Entry& entry : waiting_) {
    entry.next_try_ms = std::min(entry.next_try_ms, now_ms + kRetryMaxMs);
  }
  for (Run& run : runs_) {
    run.next_watch_ms = std::min(run.next_watch_ms, now_ms + kWatchPauseMaxMs);
    run.next_look_ms = std::min(run.next_look_ms, now_ms + kLookAgainMs);
    run.next_stop_ms = std::min(run.next_stop_ms, now_ms + kLookAgainMs);
  }
  if (state_.last_time_ms() <= now_ms + kScheduleClockBackMs) return;
  wants->notes.push_back(absl::StrCat(
      "schedule \"", definition().schedule_id(), "\" had taken up times to ",
      ScheduleTimeText(state_.last_time_ms()), ", but the clock says ", ScheduleTimeText(now_ms),
      ": it follows the clock; times that come again are answered with their executions"));
  state_.set_last_time_ms(now_ms);
  dirty_ = true;
}

// True: there is more than is taken up at once.
bool Schedule::TakeTimes(int64_t now_ms) {
  if (paused()) return false;
  const int64_t window = CatchupMs();
  for (int taken = 0; taken < kTakenAtOnce; ++taken) {
    const auto nominal = spec_.Next(state_.last_time_ms());
    if (!nominal) return false;
    const int64_t fire = spec_.FireTime(*nominal);
    if (fire > now_ms || UsedUp()) return false;
    if (fire < now_ms - window) {
      // All times before this one are missed as well, whatever their jitter.
      const int64_t missed = std::max(*nominal, now_ms - window - spec_.jitter_ms() - 1);
      state_.mutable_counts()->set_missed(
          state_.counts().missed() + spec_.Count(state_.last_time_ms(), missed, kScheduleCountMax));
      state_.set_last_time_ms(missed);
      dirty_ = true;
      continue;
    }
    if (WaitingFor(/*backfills=*/false) >= kScheduleWaitingMax) return false;
    state_.set_last_time_ms(*nominal);
    Enter(*nominal, now_ms, v1::SCHEDULE_CAUSE_TIME, OverlapOf(definition().policies()), 0, "");
  }
  return true;
}

bool Schedule::TakeBackfills(int64_t now_ms) {
  for (int taken = 0; state_.backfills_size() > 0; ++taken) {
    if (taken == kTakenAtOnce) return true;
    v1::ScheduleBackfill& backfill = *state_.mutable_backfills(0);
    const auto nominal = spec_.Next(backfill.last_time_ms());
    if (!nominal || *nominal > backfill.to_time_ms()) {
      state_.mutable_backfills()->DeleteSubrange(0, 1);
      dirty_ = true;
      continue;
    }
    if (WaitingFor(/*backfills=*/true) >= kScheduleBackfillWaitingMax) return false;
    backfill.set_last_time_ms(*nominal);
    Enter(*nominal, now_ms, v1::SCHEDULE_CAUSE_BACKFILL, backfill.overlap(), backfill.number(),
          backfill.identity());
  }
  return false;
}

bool Schedule::Advance(int64_t now_ms, Wants* wants) {
  Follow(now_ms, wants);
  const bool more_times = TakeTimes(now_ms);
  const bool more_backfills = TakeBackfills(now_ms);
  const size_t before = waiting_.size();
  Resolve(now_ms, wants);
  Ask(now_ms, wants);
  for (Outcome& outcome : std::exchange(outcomes_, {})) {
    wants->outcomes.push_back(std::move(outcome));
  }
  SetWake(now_ms);
  // What was skipped made room for times that did not fit.
  return more_times || more_backfills || waiting_.size() < before;
}

// ---- deciding
// ------------------------------------------------------------------------------------------------------

bool Schedule::KnownOpen(uint64_t tick) const {
  return std::all_of(runs_.begin(), runs_.end(),
                     [tick](const Run& run) { return run.open_tick >= tick; });
}

void Schedule::Tell(Entry& entry, v1::TriggerOutcome outcome, std::string run_id,
                    std::string detail) {
  if (entry.start.cause() != v1::SCHEDULE_CAUSE_TRIGGER || std::exchange(entry.told, true)) return;
  outcomes_.push_back(
      {entry.number, outcome, entry.start.workflow_id(), std::move(run_id), std::move(detail)});
}

void Schedule::Skip(std::list<Entry>::iterator entry, std::string why) {
  Tell(*entry, v1::TRIGGER_OUTCOME_SKIPPED, "", std::move(why));
  state_.mutable_counts()->set_skipped(state_.counts().skipped() + 1);
  waiting_.erase(entry);
  dirty_ = true;
}

void Schedule::Send(Entry& entry, Wants* wants) {
  if (!entry.start.starting()) {
    entry.start.set_starting(true);
    dirty_ = true;
  }
  entry.in_flight = true;
  wants->starts.push_back({entry.number, ScheduledStart(definition(), entry.start)});
}

void Schedule::StopRuns(bool terminate, int64_t now_ms, Wants* wants) {
  for (Run& run : runs_) {
    if (run.terminate_asked || (run.cancel_asked && !terminate) || run.next_stop_ms > now_ms) {
      continue;
    }
    (terminate ? run.terminate_asked : run.cancel_asked) = true;
    wants->stops.push_back({run.run.workflow_id(), run.run.run_id(), terminate});
  }
}

void Schedule::Resolve(int64_t now_ms, Wants* wants) {
  bool ahead = false;  // an earlier one is being started
  undecided_ = false;
  blocked_ = 0;
  auto stopper = waiting_.end();
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const auto at = it++;
    Entry& entry = *at;
    if (entry.start.starting()) {
      if (!entry.in_flight && entry.next_try_ms <= now_ms) Send(entry, wants);
      ahead = true;
      continue;
    }
    // Pausing withholds what the clock wants, not what people ask for.
    if (paused() && entry.start.cause() == v1::SCHEDULE_CAUSE_TIME) continue;
    const v1::ScheduleOverlap overlap = entry.start.overlap();
    const bool free = runs_.empty() && !ahead && !undecided_ && blocked_ == 0;
    if (free || overlap == v1::SCHEDULE_OVERLAP_ALLOW_ALL) {
      Send(entry, wants);
      ahead = true;
      continue;
    }
    if (undecided_ || (!ahead && blocked_ == 0 && !KnownOpen(entry.tick))) {
      undecided_ = true;
      continue;
    }
    const std::string why =
        runs_.empty() ? "another start of the schedule is under way"
                      : absl::StrCat("execution ", runs_.front().run.workflow_id(), " is open");
    if (overlap == v1::SCHEDULE_OVERLAP_SKIP ||
        (overlap == v1::SCHEDULE_OVERLAP_BUFFER_ONE && blocked_ > 0)) {
      Skip(at, why);
      continue;
    }
    if (Stops(overlap)) {
      // Of those that replace what runs, only the newest is worth its start.
      if (stopper != waiting_.end()) {
        Skip(stopper, "a later start replaces it");
        --blocked_;
      }
      stopper = at;
      StopRuns(overlap == v1::SCHEDULE_OVERLAP_TERMINATE_OTHER, now_ms, wants);
    }
    ++blocked_;
    Tell(entry, v1::TRIGGER_OUTCOME_WAITING, "", why);
  }
  stopping_ = stopper != waiting_.end();
}

bool Schedule::WantsLook(const Run& run) const {
  return run.look || (undecided_ && run.open_tick < tick_);
}

void Schedule::Ask(int64_t now_ms, Wants* wants) {
  for (Run& run : runs_) {
    const v1::ScheduleRun& named = run.run;
    if (WantsLook(run) && !run.looking && run.next_look_ms <= now_ms) {
      run.looking = true;
      run.look = false;
      wants->questions.push_back({named.workflow_id(), named.run_id(), false, tick_});
    }
    if (blocked_ > 0) {
      run.watch_pause_ms = 0;
      run.next_watch_ms = std::min(run.next_watch_ms, std::max(now_ms, run.next_look_ms));
    }
    if (!run.watching && run.next_watch_ms <= now_ms) {
      run.watching = true;
      wants->questions.push_back({named.workflow_id(), named.run_id(), true, tick_});
    }
  }
}

void Schedule::SetWake(int64_t now_ms) {
  wake_ms_ = INT64_MAX;
  const auto at = [this](int64_t ms) { wake_ms_ = std::min(wake_ms_, ms); };
  if (!paused() && !UsedUp() && WaitingFor(/*backfills=*/false) < kScheduleWaitingMax) {
    if (const auto next = spec_.Next(state_.last_time_ms())) at(spec_.FireTime(*next));
  }
  for (const Entry& entry : waiting_) {
    if (entry.start.starting() && !entry.in_flight) at(entry.next_try_ms);
  }
  for (const Run& run : runs_) {
    if (!run.watching) at(run.next_watch_ms);
    if (WantsLook(run) && !run.looking) at(run.next_look_ms);
    if (stopping_ && run.next_stop_ms > now_ms) at(run.next_stop_ms);
  }
}

// ---- what happened outside
// ------------------------------------------------------------------------------------------------------

void Schedule::Record(const Entry& entry, const std::string& run_id, const std::string& error,
                      int64_t now_ms) {
  v1::ScheduleAction action;
  action.set_nominal_time_ms(entry.start.nominal_time_ms());
  action.set_start_time_ms(now_ms);
  action.set_cause(entry.start.cause());
  action.set_workflow_id(entry.start.workflow_id());
  action.set_run_id(run_id);
  if (error.empty()) action.set_status(v1::EXECUTION_STATUS_RUNNING);
  action.set_error(error);
  auto& recent = *state_.mutable_recent();
  *recent.Add() = std::move(action);
  std::rotate(recent.begin(), recent.end() - 1, recent.end());
  if (recent.size() > kScheduleRecentMax) recent.RemoveLast();
  dirty_ = true;
}

void Schedule::PauseForFailure(const std::string& why, int64_t now_ms) {
  if (!definition().policies().pause_on_failure() || paused()) return;
  Pause(why, "pause_on_failure", now_ms);
}

void Schedule::Started(uint64_t entry_number,
                       const absl::StatusOr<v1::StartWorkflowResponse>& answer, bool final,
                       int64_t now_ms) {
  const auto found =
      std::find_if(waiting_.begin(), waiting_.end(),
                   [entry_number](const Entry& entry) { return entry.number == entry_number; });
  if (found == waiting_.end()) return;
  Entry& entry = *found;
  entry.in_flight = false;
  const bool by_time = entry.start.cause() == v1::SCHEDULE_CAUSE_TIME;
  if (answer.ok()) {
    if (runs_.size() >= kScheduleRunsMax) runs_.pop_front();
    Run& run = runs_.emplace_back();
    run.run.set_nominal_time_ms(entry.start.nominal_time_ms());
    run.run.set_start_time_ms(now_ms);
    run.run.set_workflow_id(answer->workflow_id());
    run.run.set_run_id(answer->run_id());
    // One that was there already, from before a crash, may have closed meanwhile.
    run.open_tick = answer->started() ? tick_ : 0;
    run.next_watch_ms = now_ms;
    state_.mutable_counts()->set_started(state_.counts().started() + 1);
    if (by_time && state_.actions_left() > 0) state_.set_actions_left(state_.actions_left() - 1);
    Record(entry, answer->run_id(), "", now_ms);
    Tell(entry, v1::TRIGGER_OUTCOME_STARTED, answer->run_id(), "");
    waiting_.erase(found);
    return;
  }
  // What may have been started is asked for until the engine knows.
  const bool late = !entry.uncertain && now_ms - entry.start.taken_time_ms() > CatchupMs();
  if (!final && !late) {
    entry.next_try_ms = now_ms + std::min(kRetryMaxMs, kRetryFirstMs << std::min(entry.tries, 10));
    ++entry.tries;
    if (entry.start.last_error() != Short(answer.status())) {
      entry.start.set_last_error(Short(answer.status()));
      dirty_ = true;
    }
    Tell(entry, v1::TRIGGER_OUTCOME_WAITING, "", Short(answer.status()));
    return;
  }
  const std::string error = Short(answer.status());
  state_.mutable_counts()->set_failed(state_.counts().failed() + 1);
  Record(entry, "", error, now_ms);
  Tell(entry, v1::TRIGGER_OUTCOME_FAILED, "", error);
  PauseForFailure(absl::StrCat("the start of ", entry.start.workflow_id(), " was refused: ", error),
                  now_ms);
  waiting_.erase(found);
}

void Schedule::Stopped(const std::string& run_id, const absl::Status& status, int64_t now_ms) {
  for (Run& run : runs_) {
    if (run.run.run_id() != run_id || status.ok()) continue;
    run.next_stop_ms = now_ms + kLookAgainMs;
    if (AskAgain(status)) {
      run.cancel_asked = run.terminate_asked = false;
    } else {
      run.look = true;  // it has closed, or is gone
    }
  }
}

void Schedule::Looked(const Question& question, const absl::StatusOr<v1::GetResultResponse>& answer,
                      int64_t now_ms) {
  const auto found = std::find_if(runs_.begin(), runs_.end(), [&question](const Run& run) {
    return run.run.run_id() == question.run_id;
  });
  if (found == runs_.end()) return;
  Run& run = *found;
  (question.wait ? run.watching : run.looking) = false;
  if (!answer.ok() && AskAgain(answer.status())) {
    run.next_look_ms = now_ms + kLookAgainMs;
    run.next_watch_ms = std::max(run.next_watch_ms, run.next_look_ms);
    return;
  }
  if (answer.ok() && IsOpen(answer->status())) {
    run.open_tick = std::max(run.open_tick, question.tick);
    if (question.wait) {
      run.watch_pause_ms = run.watch_pause_ms == 0
                               ? kWatchPauseFirstMs
                               : std::min(2 * run.watch_pause_ms, kWatchPauseMaxMs);
      run.next_watch_ms = now_ms + run.watch_pause_ms;
    }
    return;
  }
  // Closed, deleted, or damaged beyond reading: it runs no more.
  const std::string workflow_id = run.run.workflow_id();
  runs_.erase(found);
  dirty_ = true;
  for (v1::ScheduleAction& action : *state_.mutable_recent()) {
    if (action.run_id() != question.run_id) continue;
    action.set_status(answer.ok() ? answer->status() : v1::EXECUTION_STATUS_UNSPECIFIED);
    if (!answer.ok()) action.set_error(Short(answer.status()));
  }
  if (!answer.ok()) return;
  if (answer->status() != v1::EXECUTION_STATUS_FAILED) return;
  const v1::Failure& failure = answer->failure();
  PauseForFailure(absl::StrCat("execution ", workflow_id, " failed: ", failure.type(),
                               failure.message().empty() ? "" : ": ", Short(failure.message())),
                  now_ms);
}

// ---- what people ask
// ------------------------------------------------------------------------------------------------------

void Schedule::Replace(v1::StoredSchedule stored, Spec spec, bool new_times, int64_t now_ms) {
  const uint64_t max_before = definition().policies().max_actions();
  const bool was_used_up = UsedUp();
  stored_ = std::move(stored);
  spec_ = std::move(spec);
  const uint64_t max_now = definition().policies().max_actions();
  if (max_now != max_before) state_.set_actions_left(max_now);
  if (new_times || was_used_up) {
    state_.set_last_time_ms(std::max(state_.last_time_ms(), now_ms));
  }
  dirty_ = true;
}

void Schedule::Pause(const std::string& note, const std::string& identity, int64_t now_ms) {
  // Paused again without a word: the reason it was paused for stands.
  if (!note.empty() || !paused()) state_.set_note(note);
  if (!paused()) state_.set_paused_time_ms(now_ms);
  state_.set_paused(true);
  state_.set_identity(identity);
  dirty_ = true;
}

void Schedule::Resume(const std::string& note, const std::string& identity, int64_t now_ms) {
  if (paused()) state_.set_last_time_ms(std::max(state_.last_time_ms(), now_ms));
  state_.set_paused(false);
  state_.set_paused_time_ms(0);
  state_.set_note(note);
  state_.set_identity(identity);
  dirty_ = true;
}

const v1::ScheduleRequestSeen* Schedule::Seen(const std::string& request_id) const {
  if (request_id.empty()) return nullptr;
  for (const v1::ScheduleRequestSeen& seen : state_.seen()) {
    if (seen.request_id() == request_id) return &seen;
  }
  return nullptr;
}

absl::StatusOr<uint64_t> Schedule::Trigger(v1::ScheduleOverlap overlap, const std::string& identity,
                                           const std::string& request_id, int64_t now_ms) {
  if (WaitingFor(/*backfills=*/false) >= kScheduleWaitingMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("schedule \"", definition().schedule_id(), "\" has ", kScheduleWaitingMax,
                     " starts waiting: try again once some have begun"));
  }
  const int64_t nominal = std::max(now_ms, state_.last_trigger_time_ms() + 1);
  state_.set_last_trigger_time_ms(nominal);
  Enter(nominal, now_ms, v1::SCHEDULE_CAUSE_TRIGGER,
        overlap == v1::SCHEDULE_OVERLAP_UNSPECIFIED ? OverlapOf(definition().policies()) : overlap,
        0, identity);
  if (!request_id.empty()) {
    v1::ScheduleRequestSeen& seen = *state_.add_seen();
    seen.set_request_id(request_id);
    seen.set_workflow_id(waiting_.back().start.workflow_id());
    if (state_.seen_size() > kScheduleSeenMax) state_.mutable_seen()->DeleteSubrange(0, 1);
  }
  return waiting_.back().number;
}

absl::StatusOr<v1::BackfillScheduleResponse> Schedule::Backfill(
    const v1::BackfillScheduleRequest& request, int64_t now_ms) {
  const std::string named = absl::StrCat("schedule \"", definition().schedule_id(), "\"");
  if (request.from_time_ms() <= 0 || request.to_time_ms() < request.from_time_ms()) {
    return absl::InvalidArgumentError(
        "the range of a backfill must begin after 1970 and not end before it begins");
  }
  if (request.to_time_ms() > now_ms) {
    return absl::InvalidArgumentError(
        absl::StrCat("the range of a backfill ends at ", ScheduleTimeText(request.to_time_ms()),
                     ", in the future: ", named, " starts those times by itself"));
  }
  if (state_.backfills_size() >= kScheduleBackfillsMax) {
    return absl::ResourceExhaustedError(absl::StrCat(named, " has ", kScheduleBackfillsMax,
                                                     " backfills under way: wait for one to end"));
  }
  v1::BackfillScheduleResponse response;
  response.set_times(
      spec_.Count(request.from_time_ms() - 1, request.to_time_ms(), kScheduleCountMax));
  state_.set_last_backfill(state_.last_backfill() + 1);
  response.set_backfill(state_.last_backfill());
  v1::ScheduleBackfill& backfill = *state_.add_backfills();
  backfill.set_number(state_.last_backfill());
  backfill.set_from_time_ms(request.from_time_ms());
  backfill.set_to_time_ms(request.to_time_ms());
  backfill.set_last_time_ms(request.from_time_ms() - 1);
  backfill.set_overlap(request.overlap() == v1::SCHEDULE_OVERLAP_UNSPECIFIED
                           ? v1::SCHEDULE_OVERLAP_BUFFER_ALL
                           : request.overlap());
  backfill.set_identity(request.identity());
  if (!request.request_id().empty()) {
    v1::ScheduleRequestSeen& seen = *state_.add_seen();
    seen.set_request_id(request.request_id());
    seen.set_backfill(response.backfill());
    seen.set_times(response.times());
    if (state_.seen_size() > kScheduleSeenMax) state_.mutable_seen()->DeleteSubrange(0, 1);
  }
  dirty_ = true;
  return response;
}

void Schedule::Look() {
  for (Run& run : runs_) run.look = true;
}

bool Schedule::Looking() const {
  return std::any_of(runs_.begin(), runs_.end(), [](const Run& run) { return run.looking; });
}

}  // namespace flux::engine
