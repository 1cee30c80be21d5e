#include "engine/server/schedule_service.h"

#include <pthread.h>

#include "absl/time/time.h"
#include "engine/server/finish.h"
#include "engine/server/runtime.h"

namespace flux::server {
namespace {

// Has `scheduler` answer the request with `method`, and finishes the call with what it says.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* Ask(engine::Scheduler* scheduler,
                              void (engine::Scheduler::*method)(Request,
                                                                engine::Scheduler::Reply<Response>),
                              grpc::CallbackServerContext* context, const Request* request,
                              Response* response) {
  auto* reactor = context->DefaultReactor();
  (scheduler->*method)(*request, Finish(scheduler, reactor, response));
  return reactor;
}

}  // namespace

#define FLUX_SCHEDULE_METHOD(Name, Method)                                                  \
  grpc::ServerUnaryReactor* ScheduleServiceImpl::Name(grpc::CallbackServerContext* context, \
                                                      const v1::Name##Request* request,     \
                                                      v1::Name##Response* response) {       \
    return Ask(scheduler_, &engine::Scheduler::Method, context, request, response);         \
  }
FLUX_SCHEDULE_METHOD(CreateSchedule, Create)
FLUX_SCHEDULE_METHOD(UpdateSchedule, Update)
FLUX_SCHEDULE_METHOD(GetSchedule, Get)
FLUX_SCHEDULE_METHOD(ListSchedules, List)
FLUX_SCHEDULE_METHOD(DeleteSchedule, Delete)
FLUX_SCHEDULE_METHOD(PauseSchedule, Pause)
FLUX_SCHEDULE_METHOD(ResumeSchedule, Resume)
FLUX_SCHEDULE_METHOD(TriggerSchedule, Trigger)
FLUX_SCHEDULE_METHOD(BackfillSchedule, Backfill)
#undef FLUX_SCHEDULE_METHOD

SchedulerThread::SchedulerThread(engine::Scheduler* scheduler)
    : scheduler_(scheduler), thread_([this] { Loop(); }) {
  pthread_setname_np(thread_.native_handle(), "flux-schedules");
}

SchedulerThread::~SchedulerThread() {
  stop_.store(true, std::memory_order_relaxed);
  scheduler_->inbox().Push([] {});
  thread_.join();
}

void SchedulerThread::Loop() {
  const SystemClock clock;
  while (!stop_.load(std::memory_order_relaxed)) {
    scheduler_->Turn();
    const int64_t wait_ms = scheduler_->NextDeadlineMs() - clock.MonotonicMs();
    if (wait_ms > 0) scheduler_->inbox().Wait(absl::Milliseconds(wait_ms));
  }
}

}  // namespace flux::server
