// The real scheduler beside the real engine, over a disk in memory and on a clock that a test
// moves.
#ifndef FLUX_TESTS_SCHEDULE_SCHEDULE_WORLD_H_
#define FLUX_TESTS_SCHEDULE_SCHEDULE_WORLD_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/schedule/scheduler.h"
#include "store/store.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {

// Single-threaded. The wall clock may be set apart from the monotonic one.
class ScheduleWorld final : public Clock {
 public:
  explicit ScheduleWorld(SchedulerOptions options = {}) : options_(options) {}
  ~ScheduleWorld() override { scheduler_ = nullptr; }

  absl::Status Open() {
    if (absl::Status status = world.Open(); !status.ok()) return status;
    return OpenScheduler();
  }
  absl::Status OpenScheduler() {
    fatal = absl::OkStatus();
    auto scheduler = Scheduler::Open(
        options_, {.engine = &world.engine(),
                   .store = &world.store(),
                   .clock = this,
                   .on_fatal = [this](absl::Status status) { fatal = std::move(status); },
                   .log = [this](int, const std::string& line) { log.push_back(line); }});
    if (!scheduler.ok()) return scheduler.status();
    scheduler_ = *std::move(scheduler);
    return absl::OkStatus();
  }
  void Crash(store::CrashOptions crash = {}) {
    scheduler_ = nullptr;
    world.Crash(crash);
  }
  Scheduler& scheduler() { return *scheduler_; }

  int64_t WallMs() const override { return world.now_ms() + wall_offset_ms; }
  int64_t MonotonicMs() const override { return world.now_ms(); }

  // Until neither has anything left to do at this time.
  void Settle() {
    for (int i = 0; i < 100'000; ++i) {
      if (!fatal.ok() || !world.fatal().ok()) return;
      world.Settle();
      scheduler_->Turn();
      if (scheduler_->inbox().size() == 0 && world.engine().inbox().size() == 0 &&
          scheduler_->NextDeadlineMs() > MonotonicMs()) {
        return;
      }
    }
    FAIL() << "the scheduler does not come to rest";
  }
  void Advance(int64_t ms, int64_t step_ms = 1'000) {
    Settle();
    while (ms > 0) {
      const int64_t step = std::min(ms, step_ms);
      world.Advance(step, step);
      Settle();
      ms -= step;
    }
  }
  // One step of one part; false: none of them has anything to do.
  bool MicroStep() {
    switch (micro_++ % 4) {
      case 0:
        scheduler_->Turn();
        break;
      case 1:
        world.Turn();
        break;
      case 2:
        world.RunJob();
        break;
      default:
        world.StepStore();
        break;
    }
    return scheduler_->inbox().size() > 0 || world.engine().inbox().size() > 0 ||
           scheduler_->NextDeadlineMs() <= MonotonicMs();
  }

  // Calls a method of the scheduler that takes (request, reply) and settles.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Ask(void (Scheduler::*method)(Request, Scheduler::Reply<Response>),
                               Request request) {
    auto answer = Post(method, std::move(request));
    Settle();
    if (!*answer) return absl::DeadlineExceededError("no answer");
    return **answer;
  }
  // The same, without settling.
  template <typename Request, typename Response>
  std::shared_ptr<std::optional<absl::StatusOr<Response>>> Post(
      void (Scheduler::*method)(Request, Scheduler::Reply<Response>), Request request) {
    auto answer = std::make_shared<std::optional<absl::StatusOr<Response>>>();
    ((*scheduler_).*method)(std::move(request), [answer](absl::StatusOr<Response> got) {
      answer->emplace(std::move(got));
    });
    return answer;
  }

  absl::Status Create(v1::Schedule schedule) {
    v1::CreateScheduleRequest request;
    *request.mutable_schedule() = std::move(schedule);
    return Ask(&Scheduler::Create, std::move(request)).status();
  }
  v1::GetScheduleResponse Get(const std::string& id) {
    v1::GetScheduleRequest request;
    request.set_schedule_id(id);
    auto response = Ask(&Scheduler::Get, std::move(request));
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : v1::GetScheduleResponse();
  }
  // Every execution of the store, by workflow id; the runs of one id counted.
  std::map<std::string, int> Executions() {
    std::map<std::string, int> runs;
    v1::ListExecutionsRequest request;
    request.set_page_size(1'000);
    do {
      auto page = world.Ask<v1::ListExecutionsResponse>(
          [&](auto reply) { world.engine().List(request, std::move(reply)); });
      EXPECT_TRUE(page.ok()) << page.status();
      if (!page.ok()) break;
      for (const v1::ExecutionInfo& info : page->executions()) ++runs[info.workflow_id()];
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return runs;
  }

  World world;
  int64_t wall_offset_ms = 0;
  absl::Status fatal;
  std::vector<std::string> log;

 private:
  const SchedulerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  uint64_t micro_ = 0;
};

}  // namespace flux::engine::testing

#endif  // FLUX_TESTS_SCHEDULE_SCHEDULE_WORLD_H_
