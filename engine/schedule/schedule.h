// One schedule: what it has taken up, what it waits for, what is to be done next. Pure: it is told
// the time and what became of what it wanted; it reads no clock and calls nobody.
//
//   a time comes up ──► waiting ──► starting ──► running ──► closed
//                          │            └─► refused for good (an action with an error)
//                          └─► skipped (the overlap policy)
//
// state in `waiting`    next                                when
// blocked               starting                            no run is open and none is being
// started
//                       dropped (skipped)                   by the overlap policy
// starting              running, or dropped (failed)        the engine has answered for good
//                       starting, after a backoff           it may be asked again
//
// The owner writes the state to disk after every Advance that changed it and only then does what
// Advance wanted. So a time is taken up once (last_time_ms moves with it), and a start that a crash
// may have cut off is in `waiting` with `starting` set: it is made again, with the same workflow id
// and request id, and answered with the same execution.
#ifndef FLUX_ENGINE_SCHEDULE_SCHEDULE_H_
#define FLUX_ENGINE_SCHEDULE_SCHEDULE_H_

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/schedule/spec.h"
#include "flux/v1/schedule.pb.h"
#include "flux/v1/workflow.pb.h"

namespace flux::engine {

// Limits. A time behind a full buffer is not lost: it is taken up once there is room, if the
// catch-up window allows it then.
inline constexpr size_t kScheduleWaitingMax = 100;
inline constexpr size_t kScheduleBackfillWaitingMax = 10;  // of them; the rest stays a range
inline constexpr int kScheduleBackfillsMax = 20;
inline constexpr size_t kScheduleRunsMax = 100;  // followed at once: the newest
inline constexpr int kScheduleRecentMax = 10;
inline constexpr int kScheduleSeenMax = 50;
inline constexpr uint64_t kScheduleCountMax = 100'000;
inline constexpr int64_t kScheduleCatchupDefaultMs = 365LL * 24 * 3600 * 1000;
inline constexpr int64_t kScheduleCatchupMinMs = 10'000;
// A clock that went back by more than this is followed; by less, times wait until it has caught up.
inline constexpr int64_t kScheduleClockBackMs = 600'000;

// 2025-01-31T12:00:00Z, with as many digits of a second as it has.
std::string ScheduleTimeText(int64_t time_ms);

// The start request of the schedule's start, as `waiting` wants it.
v1::StartWorkflowRequest ScheduledStart(const v1::Schedule& schedule,
                                        const v1::ScheduleStart& start);

// Not thread-safe.
class Schedule {
 public:
  // A start to be made; answer with Started.
  struct Start {
    uint64_t entry = 0;
    v1::StartWorkflowRequest request;
  };
  // A run to be stopped; answer with Stopped.
  struct Stop {
    std::string workflow_id;
    std::string run_id;
    bool terminate = false;
  };
  // Whether a run is open; answer with Looked. With `wait`: as soon as it has closed.
  struct Question {
    std::string workflow_id;
    std::string run_id;
    bool wait = false;
    uint64_t tick = 0;
  };
  // What became of a trigger.
  struct Outcome {
    uint64_t entry = 0;
    v1::TriggerOutcome outcome = v1::TRIGGER_OUTCOME_UNSPECIFIED;
    std::string workflow_id;
    std::string run_id;
    std::string detail;
  };
  struct Wants {
    std::vector<Start> starts;
    std::vector<Stop> stops;
    std::vector<Question> questions;  // may be asked before the state is written
    std::vector<Outcome> outcomes;
    std::vector<std::string> notes;  // for the operator's log
  };

  Schedule(v1::StoredSchedule stored, Spec spec, v1::ScheduleState state, int64_t now_ms);

  const v1::StoredSchedule& stored() const { return stored_; }
  const v1::Schedule& definition() const { return stored_.schedule(); }
  // The state as it is to be written and shown.
  v1::ScheduleState State() const;
  bool paused() const { return state_.paused(); }
  // The next nominal times from now on, at most `count`; none while paused or used up.
  std::vector<int64_t> NextTimes(int64_t now_ms, size_t count) const;

  // Takes up what is due, decides what waits, and says what is to be done. True: there is more to
  // take up at this very time; call again.
  bool Advance(int64_t now_ms, Wants* wants);
  // When Advance is needed next without anything happening; INT64_MAX: never.
  int64_t wake_ms() const { return wake_ms_; }
  // Whether the state changed since this was last asked.
  bool TakeDirty();

  // ---- what happened outside ----
  // `final`: asking again is of no use.
  void Started(uint64_t entry, const absl::StatusOr<v1::StartWorkflowResponse>& answer, bool final,
               int64_t now_ms);
  void Stopped(const std::string& run_id, const absl::Status& status, int64_t now_ms);
  void Looked(const Question& question, const absl::StatusOr<v1::GetResultResponse>& answer,
              int64_t now_ms);

  // ---- what people ask ----
  // Replaces what the user wrote. New times hold from now on.
  void Replace(v1::StoredSchedule stored, Spec spec, bool new_times, int64_t now_ms);
  void Pause(const std::string& note, const std::string& identity, int64_t now_ms);
  void Resume(const std::string& note, const std::string& identity, int64_t now_ms);
  // A request that was here before; null: it was not, or has no id.
  const v1::ScheduleRequestSeen* Seen(const std::string& request_id) const;
  // The entry that Outcome will name. ResourceExhausted: too much waits.
  absl::StatusOr<uint64_t> Trigger(v1::ScheduleOverlap overlap, const std::string& identity,
                                   const std::string& request_id, int64_t now_ms);
  // InvalidArgument: the range; ResourceExhausted: too many backfills are under way.
  absl::StatusOr<v1::BackfillScheduleResponse> Backfill(const v1::BackfillScheduleRequest& request,
                                                        int64_t now_ms);
  // Has Advance ask of every run whether it is open; Looking() holds until all is known.
  void Look();
  bool Looking() const;

 private:
  struct Entry {
    v1::ScheduleStart start;
    uint64_t number = 0;
    uint64_t tick = 0;       // runs must be known open since then for a decision
    bool in_flight = false;  // the engine has been asked
    bool told = false;       // its outcome has been named
    bool uncertain = false;  // a process before this one may have started it
    int tries = 0;
    int64_t next_try_ms = 0;
  };
  struct Run {
    v1::ScheduleRun run;
    uint64_t open_tick = 0;  // known to be open at that tick
    bool looking = false;    // a question without wait is out
    bool watching = false;   // one with wait is out
    bool look = false;       // Look() wants to know
    int64_t next_look_ms = 0;
    int64_t next_watch_ms = 0;
    int64_t watch_pause_ms = 0;
    bool cancel_asked = false;
    bool terminate_asked = false;
    int64_t next_stop_ms = 0;
  };

  int64_t CatchupMs() const;
  bool UsedUp() const;
  size_t WaitingFor(bool backfills) const;
  void Follow(int64_t now_ms, Wants* wants);
  bool TakeTimes(int64_t now_ms);
  bool TakeBackfills(int64_t now_ms);
  void Enter(int64_t nominal_ms, int64_t now_ms, v1::ScheduleCause cause,
             v1::ScheduleOverlap overlap, uint64_t backfill, const std::string& identity);
  void Resolve(int64_t now_ms, Wants* wants);
  void Send(Entry& entry, Wants* wants);
  bool KnownOpen(uint64_t tick) const;
  void StopRuns(bool terminate, int64_t now_ms, Wants* wants);
  bool WantsLook(const Run& run) const;
  void Ask(int64_t now_ms, Wants* wants);
  void Tell(Entry& entry, v1::TriggerOutcome outcome, std::string run_id, std::string detail);
  void Skip(std::list<Entry>::iterator entry, std::string why);
  void Record(const Entry& entry, const std::string& run_id, const std::string& error,
              int64_t now_ms);
  void PauseForFailure(const std::string& why, int64_t now_ms);
  void SetWake(int64_t now_ms);

  v1::StoredSchedule stored_;
  Spec spec_;
  v1::ScheduleState state_;  // without waiting and running, which lie below
  std::list<Entry> waiting_;
  std::list<Run> runs_;
  std::vector<Outcome> outcomes_;
  uint64_t tick_ = 0;
  uint64_t next_entry_ = 1;
  bool undecided_ = false;       // it must be known first whether the runs are open
  bool stopping_ = false;        // one waits that has the runs stopped
  size_t blocked_ = 0;           // so many wait for a run to close
  int64_t wake_ms_ = INT64_MIN;  // at once: what was loaded may be due
  bool dirty_ = false;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SCHEDULE_SCHEDULE_H_
