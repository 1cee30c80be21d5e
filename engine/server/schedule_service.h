// Schedules over gRPC, and the thread that their loop runs on.
#ifndef FLUX_ENGINE_SERVER_SCHEDULE_SERVICE_H_
#define FLUX_ENGINE_SERVER_SCHEDULE_SERVICE_H_

#include <atomic>
#include <thread>

#include "engine/schedule/scheduler.h"
#include "flux/v1/schedule.grpc.pb.h"

namespace flux::server {

// Thread-safe; handlers run on gRPC's threads and never block. Must outlive the server.
class ScheduleServiceImpl final : public v1::ScheduleService::CallbackService {
 public:
  explicit ScheduleServiceImpl(engine::Scheduler* scheduler) : scheduler_(scheduler) {}

  grpc::ServerUnaryReactor* CreateSchedule(grpc::CallbackServerContext*,
                                           const v1::CreateScheduleRequest*,
                                           v1::CreateScheduleResponse*) override;
  grpc::ServerUnaryReactor* UpdateSchedule(grpc::CallbackServerContext*,
                                           const v1::UpdateScheduleRequest*,
                                           v1::UpdateScheduleResponse*) override;
  grpc::ServerUnaryReactor* GetSchedule(grpc::CallbackServerContext*, const v1::GetScheduleRequest*,
                                        v1::GetScheduleResponse*) override;
  grpc::ServerUnaryReactor* ListSchedules(grpc::CallbackServerContext*,
                                          const v1::ListSchedulesRequest*,
                                          v1::ListSchedulesResponse*) override;
  grpc::ServerUnaryReactor* DeleteSchedule(grpc::CallbackServerContext*,
                                           const v1::DeleteScheduleRequest*,
                                           v1::DeleteScheduleResponse*) override;
  grpc::ServerUnaryReactor* PauseSchedule(grpc::CallbackServerContext*,
                                          const v1::PauseScheduleRequest*,
                                          v1::PauseScheduleResponse*) override;
  grpc::ServerUnaryReactor* ResumeSchedule(grpc::CallbackServerContext*,
                                           const v1::ResumeScheduleRequest*,
                                           v1::ResumeScheduleResponse*) override;
  grpc::ServerUnaryReactor* TriggerSchedule(grpc::CallbackServerContext*,
                                            const v1::TriggerScheduleRequest*,
                                            v1::TriggerScheduleResponse*) override;
  grpc::ServerUnaryReactor* BackfillSchedule(grpc::CallbackServerContext*,
                                             const v1::BackfillScheduleRequest*,
                                             v1::BackfillScheduleResponse*) override;

 private:
  engine::Scheduler* const scheduler_;
};

// The scheduler's thread. Starts at construction; destruction ends the turn under way and joins.
class SchedulerThread {
 public:
  explicit SchedulerThread(engine::Scheduler* scheduler);
  ~SchedulerThread();
  SchedulerThread(const SchedulerThread&) = delete;
  SchedulerThread& operator=(const SchedulerThread&) = delete;

 private:
  void Loop();

  engine::Scheduler* const scheduler_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_SCHEDULE_SERVICE_H_
