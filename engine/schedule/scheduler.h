// All schedules of a store, beside the engine: one loop that takes up what is due, writes it down,
// and has the engine start it.
//
//   handlers ─ post ─► inbox ─► Turn(): Schedule::Advance ─► rows (one synchronous write) ─►
//   replies, engine's answers ──────────►                                  starts, stops, questions
//   to the engine
//
// Lifecycle: Open reads the rows; then one thread calls Turn again and again. The request methods
// are thread-safe: they post, and answer through callbacks that run on that thread once everything
// the answer rests on is durable; callbacks must not block. Turn blocks on the disk, never on the
// engine. After a failed write the scheduler stops: `on_fatal` is called, nothing is answered any
// more, and the process is to exit. The engine must outlive it.
//
// Nothing here knows more than the rows do: a time is taken up by the same write that moves
// last_time_ms, and only then started, with a workflow id and request id that are functions of the
// schedule and the time. Whenever the process dies, the start is made again or was never due.
#ifndef FLUX_ENGINE_SCHEDULE_SCHEDULER_H_
#define FLUX_ENGINE_SCHEDULE_SCHEDULER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/schedule/schedule.h"
#include "engine/shard/engine.h"
#include "engine/shard/inbox.h"
#include "flux/v1/schedule.pb.h"
#include "store/store.h"

namespace flux::engine {

struct SchedulerOptions {
  size_t schedules_max = 100'000;
  size_t schedule_bytes_max = 256 * 1024;  // of what the user wrote, inputs included
  size_t id_bytes_max = 200;
  size_t note_bytes_max = 1'000;
  size_t starts_in_flight_max = 1'000;
  uint32_t page_size_max = 1'000;
};

class Scheduler {
 public:
  template <typename T>
  using Reply = absl::AnyInvocable<void(absl::StatusOr<T>)>;

  struct Environment {
    Engine* engine = nullptr;
    store::Store* store = nullptr;
    Clock* clock = nullptr;
    std::function<void(absl::Status)> on_fatal;
    std::function<void(int level, const std::string&)> log;  // as the engine's
  };

  // Reads every schedule. Blocks. DataLoss: a damaged row, by its key.
  static absl::StatusOr<std::unique_ptr<Scheduler>> Open(SchedulerOptions options,
                                                         Environment environment);

  // ---- the loop: one thread ----
  void Turn();
  // Monotonic time at which Turn is next needed without anything arriving.
  int64_t NextDeadlineMs() const;
  Inbox& inbox() { return *inbox_; }
  int64_t WallMs() const { return env_.clock->WallMs(); }  // thread-safe
  // Nothing is started any more, requests are answered with Unavailable; what the engine still
  // answers is written down. Thread-safe.
  void BeginShutdown();

  // ---- requests (thread-safe) ----
  void Create(v1::CreateScheduleRequest request, Reply<v1::CreateScheduleResponse> reply);
  void Update(v1::UpdateScheduleRequest request, Reply<v1::UpdateScheduleResponse> reply);
  void Get(v1::GetScheduleRequest request, Reply<v1::GetScheduleResponse> reply);
  void List(v1::ListSchedulesRequest request, Reply<v1::ListSchedulesResponse> reply);
  void Delete(v1::DeleteScheduleRequest request, Reply<v1::DeleteScheduleResponse> reply);
  void Pause(v1::PauseScheduleRequest request, Reply<v1::PauseScheduleResponse> reply);
  void Resume(v1::ResumeScheduleRequest request, Reply<v1::ResumeScheduleResponse> reply);
  void Trigger(v1::TriggerScheduleRequest request, Reply<v1::TriggerScheduleResponse> reply);
  void Backfill(v1::BackfillScheduleRequest request, Reply<v1::BackfillScheduleResponse> reply);

 private:
  // A schedule with its place in the loop.
  struct Item {
    uint64_t serial = 0;  // tells a schedule apart from one of the same id before it
    std::string ns;
    std::string id;
    Schedule schedule;
    int64_t wake_ms = INT64_MAX;  // its entry in wakes_; INT64_MAX: none
    bool touched = false;
    bool definition_dirty = false;
    // By entry.
    absl::flat_hash_map<uint64_t, Reply<v1::TriggerScheduleResponse>> triggers = {};
    std::vector<Reply<v1::GetScheduleResponse>> gets = {};  // wait until its runs were looked at
  };
  using Key = std::pair<std::string, std::string>;  // namespace, id

  Scheduler(SchedulerOptions options, Environment environment);
  absl::Status Load();

  // scheduler.cc: the loop
  void Log(int level, const std::string& text) const;
  void Touch(Item& item);
  // True: it has more to take up at once.
  bool AdvanceOne(Item& item);
  bool Write();
  void Release();
  void MakeStart(uint64_t serial, Schedule::Start start);
  void MakeStop(uint64_t serial, const v1::Schedule& schedule, Schedule::Stop stop);
  void AskRun(uint64_t serial, const std::string& ns, Schedule::Question question);
  Item* Find(uint64_t serial);
  template <typename T>
  void ReplyLater(Reply<T> reply, absl::StatusOr<T> answer) {
    replies_.push_back([reply = std::move(reply), answer = std::move(answer)]() mutable {
      reply(std::move(answer));
    });
  }

  // scheduler_requests.cc
  template <typename Request, typename Response>
  void Post(Request request, Reply<Response> reply,
            void (Scheduler::*handler)(Request, Reply<Response>));
  void DoCreate(v1::CreateScheduleRequest request, Reply<v1::CreateScheduleResponse> reply);
  void DoUpdate(v1::UpdateScheduleRequest request, Reply<v1::UpdateScheduleResponse> reply);
  void DoGet(v1::GetScheduleRequest request, Reply<v1::GetScheduleResponse> reply);
  void DoList(v1::ListSchedulesRequest request, Reply<v1::ListSchedulesResponse> reply);
  void DoDelete(v1::DeleteScheduleRequest request, Reply<v1::DeleteScheduleResponse> reply);
  void DoPause(v1::PauseScheduleRequest request, Reply<v1::PauseScheduleResponse> reply);
  void DoResume(v1::ResumeScheduleRequest request, Reply<v1::ResumeScheduleResponse> reply);
  void DoTrigger(v1::TriggerScheduleRequest request, Reply<v1::TriggerScheduleResponse> reply);
  void DoBackfill(v1::BackfillScheduleRequest request, Reply<v1::BackfillScheduleResponse> reply);
  absl::StatusOr<Spec> Check(v1::Schedule& schedule) const;
  absl::Status CheckText(const char* what, const std::string& text, size_t bytes_max) const;
  absl::Status CheckRoom(const char* what) const;
  template <typename Request>
  absl::StatusOr<Item*> Lookup(const Request& request);
  v1::GetScheduleResponse Shown(const Item& item) const;

  const SchedulerOptions options_;
  const Environment env_;
  const store::Epoch epoch_;            // of shard 0, where schedules lie
  const std::shared_ptr<Inbox> inbox_;  // shared: the engine may answer when the scheduler is gone
  std::atomic<bool> shutting_down_{false};

  std::map<Key, std::unique_ptr<Item>> items_;
  absl::flat_hash_map<uint64_t, Item*> by_serial_;
  absl::btree_set<std::pair<int64_t, uint64_t>> wakes_;  // (wall time, serial)
  std::vector<Inbox::Job> jobs_;
  std::vector<uint64_t> touched_;
  std::vector<std::string> deleted_rows_;  // to go with the next write
  std::vector<absl::AnyInvocable<void()>> replies_;
  std::vector<std::pair<uint64_t, Schedule::Wants>> wants_;  // by serial
  std::deque<std::pair<uint64_t, Schedule::Start>> starts_;  // written, and not sent yet
  size_t starts_in_flight_ = 0;
  uint64_t next_serial_ = 1;
  int64_t last_wall_ms_ = 0;
  bool fatal_ = false;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SCHEDULE_SCHEDULER_H_
