// One schedule on a clock that a test moves, before an engine of which only the answers are there.
#ifndef FLUX_TESTS_SCHEDULE_BENCH_H_
#define FLUX_TESTS_SCHEDULE_BENCH_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/schedule/schedule.h"
#include "tests/schedule/times.h"

namespace flux::engine::testing {

inline constexpr int64_t kSecond = 1'000;
inline constexpr int64_t kMinute = 60 * kSecond;
inline constexpr int64_t kHour = 60 * kMinute;
inline constexpr char kBegin[] = "2025-01-01T00:00:30Z";

inline v1::Schedule Hourly(v1::ScheduleOverlap overlap = v1::SCHEDULE_OVERLAP_SKIP) {
  v1::Schedule schedule;
  schedule.set_namespace_("default");
  schedule.set_schedule_id("s");
  schedule.mutable_spec()->add_crons("@hourly");
  schedule.mutable_start()->set_workflow("report");
  schedule.mutable_policies()->set_overlap(overlap);
  return schedule;
}

// What the engine would be: starts by request id, runs that are open until closed.
struct FakeEngine {
  struct Run {
    std::string workflow_id;
    std::string run_id;
    v1::ExecutionStatus status = v1::EXECUTION_STATUS_RUNNING;
  };
  std::map<std::string, Run> by_request;  // request id → run
  std::vector<std::string> order;         // workflow ids, as they were started
  std::vector<std::string> stops;         // "cancel ID", "terminate ID"
  absl::Status refusal;                   // every start, while it is not OK
  bool final = false;

  Run* Find(const std::string& run_id) {
    for (auto& [request, run] : by_request) {
      if (run.run_id == run_id) return &run;
    }
    return nullptr;
  }
  absl::StatusOr<v1::StartWorkflowResponse> Start(const v1::StartWorkflowRequest& request) {
    if (!refusal.ok()) return refusal;
    auto [it, fresh] = by_request.try_emplace(request.request_id());
    Run& run = it->second;
    if (fresh) {
      run.workflow_id = request.workflow_id();
      run.run_id = absl::StrCat("run", by_request.size());
      order.push_back(request.workflow_id());
    }
    v1::StartWorkflowResponse response;
    response.set_workflow_id(run.workflow_id);
    response.set_run_id(run.run_id);
    response.set_started(fresh);
    return response;
  }
};

// A schedule whose wants are done at once, on a clock that a test moves.
class Bench {
 public:
  explicit Bench(v1::Schedule definition, const std::string& now = kBegin) : now_(At(now)) {
    v1::ScheduleState state;
    state.set_last_time_ms(now_);
    state.set_actions_left(definition.policies().max_actions());
    Load(std::move(definition), std::move(state));
  }

  void Load(v1::Schedule definition, v1::ScheduleState state) {
    auto spec = Spec::Compile(definition.spec(), 7);
    ASSERT_TRUE(spec.ok()) << spec.status();
    v1::StoredSchedule stored;
    *stored.mutable_schedule() = std::move(definition);
    schedule_ =
        std::make_unique<Schedule>(std::move(stored), *std::move(spec), std::move(state), now_);
  }
  // The process dies and comes back with what was written.
  void Restart() { Load(schedule_->definition(), schedule_->State()); }

  // Does what is wanted until nothing is.
  void Run() {
    for (int i = 0; i < 10'000; ++i) {
      Schedule::Wants wants;
      const bool more = schedule_->Advance(now_, &wants);
      for (Schedule::Outcome& outcome : wants.outcomes) outcomes.push_back(std::move(outcome));
      for (std::string& note : wants.notes) notes.push_back(std::move(note));
      for (const Schedule::Start& start : wants.starts) {
        schedule_->Started(start.entry, engine.Start(start.request), engine.final, now_);
      }
      for (const Schedule::Stop& stop : wants.stops) {
        engine.stops.push_back(
            absl::StrCat(stop.terminate ? "terminate " : "cancel ", stop.workflow_id));
        schedule_->Stopped(stop.run_id, absl::OkStatus(), now_);
      }
      for (const Schedule::Question& question : wants.questions) {
        const FakeEngine::Run* run = engine.Find(question.run_id);
        if (question.wait && run != nullptr && run->status == v1::EXECUTION_STATUS_RUNNING) {
          watches_.push_back(question);
        } else {
          ++questions;
          Answer(question);
        }
      }
      if (!more && wants.starts.empty() && wants.stops.empty() && wants.questions.empty()) {
        EXPECT_GT(schedule_->wake_ms(), now_) << "it would spin";
        return;
      }
    }
    FAIL() << "the schedule does not come to rest";
  }
  // Moves the clock to a time, waking the schedule whenever it wants to.
  void To(const std::string& time) { ToMs(At(time)); }
  void ToMs(int64_t time) {
    Run();
    while (schedule_->wake_ms() <= time) {
      now_ = schedule_->wake_ms();
      Run();
    }
    now_ = time;
    Run();
  }
  // Moves the clock alone, as a downtime does.
  void Jump(const std::string& time) { now_ = At(time); }

  void Close(const std::string& workflow_id,
             v1::ExecutionStatus status = v1::EXECUTION_STATUS_COMPLETED) {
    for (auto& [request, run] : engine.by_request) {
      if (run.workflow_id != workflow_id) continue;
      run.status = status;
      std::vector<Schedule::Question> kept;
      for (const Schedule::Question& question : std::exchange(watches_, {})) {
        if (question.run_id == run.run_id) {
          Answer(question);
        } else {
          kept.push_back(question);
        }
      }
      watches_.insert(watches_.end(), kept.begin(), kept.end());
    }
    Run();
  }
  void CloseAll() {
    const std::vector<std::string> all = engine.order;
    for (const std::string& id : all) Close(id);
  }
  // Closes without the schedule being told: it has to ask.
  void CloseUnseen(const std::string& workflow_id) {
    for (auto& [request, run] : engine.by_request) {
      if (run.workflow_id == workflow_id) run.status = v1::EXECUTION_STATUS_COMPLETED;
    }
  }

  Schedule& schedule() { return *schedule_; }
  v1::ScheduleState state() const { return schedule_->State(); }
  int64_t now() const { return now_; }

  FakeEngine engine;
  std::vector<Schedule::Outcome> outcomes;
  std::vector<std::string> notes;
  int questions = 0;

 private:
  void Answer(const Schedule::Question& question) {
    const FakeEngine::Run* run = engine.Find(question.run_id);
    if (run == nullptr) {
      return schedule_->Looked(question, absl::NotFoundError("deleted"), now_);
    }
    v1::GetResultResponse response;
    response.set_status(run->status);
    response.set_run_id(run->run_id);
    if (run->status == v1::EXECUTION_STATUS_FAILED) {
      response.mutable_failure()->set_type("broken");
      response.mutable_failure()->set_message("no ink");
    }
    schedule_->Looked(question, response, now_);
  }

  int64_t now_;
  std::unique_ptr<Schedule> schedule_;
  std::vector<Schedule::Question> watches_;
};

inline std::string Id(const std::string& hour) { return "s-2025-01-01T" + hour + ":00:00Z"; }

}  // namespace flux::engine::testing

#endif  // FLUX_TESTS_SCHEDULE_BENCH_H_
