// A schedule under random requests, closings and refusals, with a process that dies at any point
// between two things it does: nothing is started twice, no time is lost, and runs do not overlap
// where they must not.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/schedule/schedule.h"
#include "tests/schedule/bench.h"
#include "tests/schedule/times.h"

namespace flux::engine::testing {
namespace {

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed), now_(At(kBegin)) {
    definition_ = Hourly(static_cast<v1::ScheduleOverlap>(1 + Below(6)));
    definition_.mutable_spec()->clear_crons();
    definition_.mutable_spec()->add_intervals()->set_every_ms(kMinute);
    if (Below(2) == 0) definition_.mutable_spec()->set_jitter_ms(40 * kSecond);
    if (Below(3) == 0) definition_.mutable_policies()->set_catchup_window_ms(5 * kMinute);
    alone_ = definition_.policies().overlap() != v1::SCHEDULE_OVERLAP_ALLOW_ALL;
    written_.set_last_time_ms(now_);
    begin_ = now_;
    Load();
  }

  void Run(int steps) {
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) Step();
    // Without faults it comes to rest.
    engine_.refusal = absl::OkStatus();
    for (int i = 0; i < 2'000; ++i) {
      Turn(/*crash=*/false);
      for (auto& [request, run] : engine_.by_request) Close(run, v1::EXECUTION_STATUS_COMPLETED);
      now_ += 100;
    }
    const v1::ScheduleState state = schedule_->State();
    EXPECT_LE(state.waiting_size(), 1);
    const Spec spec = *Spec::Compile(definition_.spec(), 7);
    uint64_t waiting = 0;
    for (const v1::ScheduleStart& start : state.waiting()) {
      waiting += start.cause() == v1::SCHEDULE_CAUSE_TIME ? 1 : 0;
    }
    const v1::ScheduleCounts& counts = state.counts();
    EXPECT_EQ(counts.started() + counts.skipped() + counts.missed() + counts.failed() + waiting,
              spec.Count(begin_, state.last_time_ms(), kScheduleCountMax) + triggers_)
        << "each time is accounted for once";
    EXPECT_EQ(counts.started(), engine_.by_request.size()) << "and each start";
    EXPECT_GT(counts.started(), 0u);
  }
  size_t crashes() const { return crashes_; }

 private:
  uint64_t Below(uint64_t n) { return random_() % n; }

  void Load() {
    v1::StoredSchedule stored;
    *stored.mutable_schedule() = definition_;
    schedule_ =
        std::make_unique<Schedule>(stored, *Spec::Compile(definition_.spec(), 7), written_, now_);
    pending_.clear();
  }
  void Crash() {
    ++crashes_;
    Load();
  }

  // One turn as the scheduler makes it: decide, write, act.
  void Turn(bool crash) {
    Schedule::Wants wants;
    while (schedule_->Advance(now_, &wants)) {
    }
    if (crash && Below(20) == 0) return Crash();
    if (schedule_->TakeDirty()) written_ = schedule_->State();
    if (crash && Below(20) == 0) return Crash();
    for (Schedule::Question& question : wants.questions) pending_.push_back(std::move(question));
    for (const Schedule::Start& start : wants.starts) {
      if (alone_ && engine_.refusal.ok() &&
          !engine_.by_request.contains(start.request.request_id())) {
        for (const auto& [request, run] : engine_.by_request) {
          EXPECT_NE(run.status, v1::EXECUTION_STATUS_RUNNING)
              << run.workflow_id << " is open at the start of " << start.request.workflow_id();
        }
      }
      const auto answer = engine_.Start(start.request);
      if (crash && Below(10) == 0) return Crash();
      schedule_->Started(start.entry, answer, false, now_);
    }
    for (const Schedule::Stop& stop : wants.stops) {
      if (FakeEngine::Run* run = engine_.Find(stop.run_id); run != nullptr && Below(2) == 0) {
        run->status = v1::EXECUTION_STATUS_CANCELLED;
      }
      schedule_->Stopped(stop.run_id, absl::OkStatus(), now_);
    }
    // Answers come late, or not at all for now.
    std::vector<Schedule::Question> later;
    for (Schedule::Question& question : std::exchange(pending_, {})) {
      const FakeEngine::Run* run = engine_.Find(question.run_id);
      const bool open = run->status == v1::EXECUTION_STATUS_RUNNING;
      if (Below(3) == 0 || (question.wait && open && Below(10) != 0)) {
        later.push_back(std::move(question));
        continue;
      }
      if (crash && Below(10) == 0) {
        schedule_->Looked(question, absl::UnavailableError("a moment"), now_);
        continue;
      }
      v1::GetResultResponse response;
      response.set_status(run->status);
      schedule_->Looked(question, response, now_);
    }
    pending_.insert(pending_.end(), later.begin(), later.end());
  }

  static void Close(FakeEngine::Run& run, v1::ExecutionStatus status) {
    if (run.status == v1::EXECUTION_STATUS_RUNNING) run.status = status;
  }

  void Step() {
    switch (Below(12)) {
      case 0:
        now_ += static_cast<int64_t>(Below(10 * kMinute));
        break;
      case 1:
        engine_.refusal = Below(2) == 0 ? absl::UnavailableError("a moment") : absl::OkStatus();
        break;
      case 2:
      case 3:
        for (auto& [request, run] : engine_.by_request) {
          if (Below(2) == 0) Close(run, v1::EXECUTION_STATUS_COMPLETED);
        }
        break;
      case 4:
        if (schedule_
                ->Trigger(alone_ ? v1::SCHEDULE_OVERLAP_BUFFER_ALL : v1::SCHEDULE_OVERLAP_ALLOW_ALL,
                          "me", "", now_)
                .ok()) {
          // It counts once it is on disk.
          Schedule::Wants wants;
          written_ = schedule_->State();
          ++triggers_;
        }
        break;
      case 5:
        // By less than what makes the schedule follow, and count times again.
        now_ = std::max(now_ - static_cast<int64_t>(Below(5 * kMinute)),
                        schedule_->State().last_time_ms() - 9 * kMinute);
        break;
      case 6:
        Crash();
        break;
      default:
        now_ += static_cast<int64_t>(Below(kMinute));
        break;
    }
    Turn(/*crash=*/true);
  }

  std::mt19937_64 random_;
  int64_t now_;
  int64_t begin_ = 0;
  bool alone_ = true;
  v1::Schedule definition_;
  v1::ScheduleState written_;
  std::unique_ptr<Schedule> schedule_;
  FakeEngine engine_;
  std::vector<Schedule::Question> pending_;
  uint64_t triggers_ = 0;
  size_t crashes_ = 0;
};

TEST(ScheduleCrash, StartsEachTimeOnceWhateverHappens) {
  size_t crashes = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Simulation simulation(seed);
    simulation.Run(300);
    crashes += simulation.crashes();
    if (HasFailure()) break;
  }
  EXPECT_GT(crashes, 1'000u);
}

}  // namespace
}  // namespace flux::engine::testing
