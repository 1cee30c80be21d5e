// The timeline of a simulation, and fluxd within it: the real engine over a memory store, without a
// thread, a socket, a clock or a disk.
#ifndef FLUX_TESTS_SIM_PROCESS_H_
#define FLUX_TESTS_SIM_PROCESS_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "engine/shard/engine.h"
#include "proto/arena_message.h"
#include "store/faulty_store.h"
#include "store/memory_store.h"
#include "tests/sim/bugs.h"
#include "tests/sim/dice.h"
#include "tests/sim/faults.h"

namespace flux::sim {

// What happens when: events in order of time, and of entry at the same time. Not thread-safe.
class Timeline {
 public:
  int64_t now_us() const { return now_us_; }
  void At(int64_t us, absl::AnyInvocable<void()> event) {
    events_.emplace(std::pair(std::max(us, now_us_), next_++), std::move(event));
  }
  void After(int64_t us, absl::AnyInvocable<void()> event) { At(now_us_ + us, std::move(event)); }
  // Takes time on to the next event and runs it. False: there is none.
  bool Step() {
    if (events_.empty()) return false;
    auto node = events_.extract(events_.begin());
    now_us_ = node.key().first;
    node.mapped()();
    return true;
  }
  void Clear() { events_.clear(); }

 private:
  int64_t now_us_ = 0;
  uint64_t next_ = 0;
  std::map<std::pair<int64_t, uint64_t>, absl::AnyInvocable<void()>> events_;
};

// One fluxd and its disk. Killed and opened as often as one likes; the disk stays.
//
// The loop turns when something is in its inbox or due; each store write and each background job
// is an event of its own, so that anything may come between. Not thread-safe.
class Process final : public engine::Clock, public engine::Background, public engine::WorkerOutput {
 public:
  // Whom it talks to. All calls come from within an event; none may call back into the process.
  class Peers {
   public:
    virtual ~Peers() = default;
    virtual void OnMessage(engine::StreamId stream, ArenaPtr<v1::ConnectResponse> message) = 0;
    virtual void OnClose(engine::StreamId stream, const absl::Status& why) = 0;
    // The process is gone: streams broke, requests will not be answered.
    virtual void OnDown() = 0;
    virtual void OnUp() = 0;
    // The store cannot be opened any more, which no fault explains; or another broken promise.
    virtual void OnProblem(const std::string& problem) = 0;
    virtual void OnNote(const std::string& note) = 0;
  };

  struct Options {
    engine::EngineOptions engine;
    uint32_t shards = 4;
    uint64_t seed = 1;
    Bug bug = Bug::kNone;
  };

  // The pointers must outlive it.
  Process(Options options, const FaultPlan* plan, Timeline* timeline, Peers* peers);
  ~Process() override;

  // Tries to open now, and again later until it is up.
  void Start();
  // Dies at this very instant, and starts again in a while.
  void Crash(const std::string& why);
  bool up() const { return engine_ != nullptr; }
  engine::Engine& engine() { return *engine_; }
  // To be called after anything was posted to the engine from outside.
  void Poke();

  // From now on nothing fails any more.
  void Heal();
  // How far the wall clock is ahead of the simulation's time from now on.
  void SetClock(int64_t ahead_ms) { wall_offset_ms_ = ahead_ms; }
  // Fills the disk up, or frees it.
  void FillDisk(bool full);

  // The rows of these tables (engine/shard/keys.h), for people; empty: there are none.
  std::string RowsOf(std::string_view tables);

  uint64_t crashes() const { return crashes_; }
  // Commits of this life: timers that fire are some, though nothing is handed out for them.
  uint64_t commits() const { return up() ? memory_->Stats().appends : 0; }

  // Clock
  int64_t WallMs() const override;
  int64_t MonotonicMs() const override { return timeline_->now_us() / 1000; }
  // Background
  void Run(absl::AnyInvocable<void()> job) override;
  // WorkerOutput
  void Send(engine::StreamId stream, ArenaPtr<v1::ConnectResponse> message) override;
  void Close(engine::StreamId stream, absl::Status why) override;

 private:
  absl::Status Open();
  void Turn();
  void StepDisk();
  // Arranges the next turn and the next write, or the end after a failed one.
  void Plan();
  void PlanDisk();
  void PlanTurn();
  void Kill(const store::CrashOptions& crash);
  store::FaultRates Rates() const;

  const Options options_;
  const FaultPlan& plan_;
  Timeline* const timeline_;
  Peers* const peers_;
  Dice dice_;
  std::shared_ptr<store::MemoryDisk> disk_;
  store::MemoryStore* memory_ = nullptr;  // inside faulty_
  std::unique_ptr<store::FaultyStore> faulty_;
  std::unique_ptr<PlantedStore> planted_;  // over faulty_
  std::unique_ptr<engine::Engine> engine_;
  absl::Status fatal_;
  bool healed_ = false;
  bool full_ = false;
  uint64_t life_ = 0;  // events of an earlier one do nothing
  uint64_t crashes_ = 0;
  int64_t wall_offset_ms_ = 0;
  int64_t turn_at_us_ = -1;  // planned; -1: none
  bool disk_planned_ = false;
};

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_PROCESS_H_
