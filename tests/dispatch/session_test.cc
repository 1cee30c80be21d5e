// Hellos, credit, deadlines, broken streams, draining.
#include "tests/dispatch/fixture.h"

namespace flux::engine {
namespace {

using Sessions = DispatchTest;

TEST_F(Sessions, HelloIsAnsweredAndMadeDurable) {
  options_.version = "1.2.3";
  Start();
  Hello(1, {.queue = "q", .tasks = {"b", "a", "b"}});
  Flush();
  ASSERT_EQ(host_.sent[1].size(), 1u);
  EXPECT_EQ(host_.sent[1][0].ShortDebugString(),
            "welcome { coordinator_version: \"1.2.3\" session_grace_ms: 10000 ping_interval_ms: "
            "5000 payload_bytes_max: 4194304 incarnation: 7 }");
  ASSERT_EQ(host_.sessions.size(), 1u);
  EXPECT_EQ(host_.sessions[0].ShortDebugString(),
            "session_id: \"s1\" worker_id: \"worker-s1\" time_ms: 1700000000000 queue: \"q\" "
            "tasks: \"a\" tasks: \"b\"");
}

TEST_F(Sessions, ABadHelloIsRefusedWithItsReason) {
  options_.credit_max = 10;
  Start();
  struct Case {
    const char* what;
    std::function<void(v1::WorkerHello&)> spoil;
    absl::StatusCode code;
    const char* says;
  };
  const Case cases[] = {
      {"no worker id", [](auto& h) { h.clear_worker_id(); }, absl::StatusCode::kInvalidArgument,
       "worker_id is empty"},
      {"no session", [](auto& h) { h.clear_session_id(); }, absl::StatusCode::kInvalidArgument,
       "session_id is empty"},
      {"long id", [](auto& h) { h.set_session_id(std::string(257, 'x')); },
       absl::StatusCode::kInvalidArgument, "has 257 bytes; at most 256"},
      {"control character", [](auto& h) { h.set_worker_id("a\nb"); },
       absl::StatusCode::kInvalidArgument, "control character"},
      {"no tasks", [](auto& h) { h.clear_tasks(); }, absl::StatusCode::kInvalidArgument,
       "names no tasks"},
      {"empty task", [](auto& h) { h.add_tasks(""); }, absl::StatusCode::kInvalidArgument,
       "task name is empty"},
      {"many tasks",
       [](auto& h) {
         for (int i = 0; i < 10'000; ++i) h.add_tasks("x");
       },
       absl::StatusCode::kInvalidArgument, "names 10001 tasks; at most 10000"},
      {"no slots", [](auto& h) { h.set_slots(0); }, absl::StatusCode::kInvalidArgument, "0 slots"},
      {"bad token", [](auto& h) { h.add_running()->mutable_token()->set_run_id("short"); },
       absl::StatusCode::kInvalidArgument, "run id has 5 bytes"},
      {"many tokens",
       [](auto& h) {
         for (int i = 0; i < 11; ++i) *h.add_running() = Running(Key(1, i));
       },
       absl::StatusCode::kResourceExhausted, "lists 11 running tasks; at most 10"},
  };
  for (const Case& c : cases) {
    v1::WorkerHello hello = MakeHello({});
    c.spoil(hello);
    const absl::Status status = dispatcher_->Hello(1, "p", hello, now_);
    EXPECT_EQ(status.code(), c.code) << c.what;
    EXPECT_THAT(std::string(Message(status)), HasSubstr(c.says)) << c.what;
  }
  EXPECT_EQ(dispatcher_->stats().sessions, 0u);
  EXPECT_THAT(host_.sessions, IsEmpty());
}

TEST_F(Sessions, ASecondHelloOnAStreamIsRefused) {
  Hello(1, {});
  const absl::Status status = dispatcher_->Hello(1, "p", MakeHello({.session = "s2"}), now_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("hello twice"));
}

TEST_F(Sessions, KeepTheirQueueAndTasks) {
  Hello(1, {});
  const absl::Status status = dispatcher_->Hello(2, "p", MakeHello({.tasks = {"t", "more"}}), now_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("begin a new session"));
  EXPECT_THAT(host_.closed, IsEmpty());  // the first stream is untouched
}

TEST_F(Sessions, AreLimitedInNumber) {
  options_.sessions_max = 2;
  Start();
  Hello(1, {.session = "s1"});
  Hello(2, {.session = "s2"});
  const absl::Status status = dispatcher_->Hello(3, "p", MakeHello({.session = "s3"}), now_);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  Hello(4, {.session = "s2"});  // a known one may come back
}

TEST_F(Sessions, CreditIsBounded) {
  options_.credit_max = 10;
  Start();
  Hello(1, {.credit = 10});
  const absl::Status status = dispatcher_->Credit(1, 1, now_);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("at most 10"));
  EXPECT_EQ(dispatcher_->Credit(9, 1, now_).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(Sessions, ResultsFreeTheTaskAndAreCounted) {
  Hello(1, {.credit = 3});
  for (uint32_t i = 0; i < 3; ++i) Offer(Key(1, i));
  Flush();
  EXPECT_TRUE(dispatcher_->ResultArrived(1, Key(1, 0), false));
  EXPECT_TRUE(dispatcher_->ResultArrived(1, Key(1, 1), true));
  EXPECT_FALSE(dispatcher_->ResultArrived(1, Key(1, 1), true));    // again
  EXPECT_FALSE(dispatcher_->ResultArrived(1, Key(1, 77), false));  // never given
  EXPECT_FALSE(dispatcher_->ResultArrived(5, Key(1, 2), false));   // somebody else's
  v1::ListWorkersResponse workers;
  dispatcher_->ListWorkers("q", &workers);
  ASSERT_EQ(workers.workers_size(), 1);
  EXPECT_EQ(workers.workers(0).completed(), 1u);
  EXPECT_EQ(workers.workers(0).failed(), 1u);
  EXPECT_EQ(workers.workers(0).running(), 0u);
  host_.sent.clear();
  Flush();
  EXPECT_THAT(Cancels(1), ElementsAre("1/2/1 superseded"));
  EXPECT_FALSE(dispatcher_->InFlight(RunOf(1)));
}

TEST_F(Sessions, AResultForATaskStillQueuedUnqueuesIt) {
  Offer(Key(1, 0));
  Hello(1, {});
  EXPECT_FALSE(dispatcher_->ResultArrived(1, Key(1, 0), false));
  EXPECT_EQ(dispatcher_->stats().ready, 0u);
}

TEST_F(Sessions, AcksTravelWithTheTasks) {
  Hello(1, {.credit = 1});
  Flush();
  host_.sent.clear();
  Offer(Key(1, 0));
  dispatcher_->Ack(1, {}, v1::ACK_STATUS_RECORDED, "");
  dispatcher_->Ack(1, {}, v1::ACK_STATUS_RECORDED, "");
  dispatcher_->Ack(42, {}, v1::ACK_STATUS_RECORDED, "");  // gone
  Flush();
  ASSERT_EQ(host_.sent[1].size(), 1u);
  EXPECT_EQ(host_.sent[1][0].acks_size(), 2);
  EXPECT_EQ(host_.sent[1][0].tasks_size(), 1);
  EXPECT_FALSE(host_.sent.contains(42));
  host_.sent.clear();
  Flush();
  EXPECT_THAT(host_.sent, IsEmpty());  // nothing to say, nothing sent
}

// ---- deadlines
// ------------------------------------------------------------------------------------------------

TEST_F(Sessions, EachTimeoutEndsTheAttemptOnce) {
  struct Case {
    const char* what;
    int64_t schedule_to_start, start_to_close, heartbeat;
    bool handed_out;
    int64_t due_ms;
    AttemptEnd reason;
  };
  const Case cases[] = {
      {"schedule to start", 700, 10'000, 0, false, 700, AttemptEnd::kScheduleToStart},
      {"start to close", 0, 900, 0, true, 900, AttemptEnd::kStartToClose},
      {"schedule to start is over once started", 700, 900, 0, true, 900, AttemptEnd::kStartToClose},
      {"heartbeat", 0, 5'000, 300, true, 300, AttemptEnd::kHeartbeat},
      {"both at once", 0, 300, 300, true, 300, AttemptEnd::kStartToClose},
      {"default", 0, 0, 0, true, 300'000, AttemptEnd::kStartToClose},
      {"no overflow", 0, 1'000, INT64_MAX, true, 1'000, AttemptEnd::kStartToClose},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    host_ = FakeHost{};
    Start();
    v1::TaskStep step = Step();
    step.mutable_timeouts()->set_schedule_to_start_ms(c.schedule_to_start);
    step.mutable_timeouts()->set_start_to_close_ms(c.start_to_close);
    step.mutable_timeouts()->set_heartbeat_ms(c.heartbeat);
    if (c.handed_out) Hello(1, {.credit = 1});
    OfferStep(Key(1, 0), step);
    Flush();
    host_.sent.clear();
    const int64_t due = now_.monotonic_ms + c.due_ms;
    if (c.due_ms < 5'000) {
      EXPECT_EQ(dispatcher_->NextDeadlineMs(), due);
    }
    Pass(c.due_ms - 1, {1});
    EXPECT_THAT(host_.ended, IsEmpty());
    Pass(1, {1});
    ASSERT_EQ(host_.ended.size(), 1u);
    EXPECT_EQ(host_.ended[0].key, "1/0/1");
    EXPECT_EQ(host_.ended[0].reason, c.reason);
    EXPECT_EQ(host_.ended[0].worker, c.handed_out ? "worker-s1" : "");
    EXPECT_EQ(Cancels(1), c.handed_out ? Strings{"1/0/1 timeout"} : Strings{});
    EXPECT_FALSE(dispatcher_->InFlight(RunOf(1)));
    EXPECT_EQ(dispatcher_->stats().expired, 1u);
    Pass(400'000, {1});
    EXPECT_EQ(host_.ended.size(), 1u);
  }
}

TEST_F(Sessions, ScheduleToStartCountsFromTheScheduling) {
  v1::TaskStep step = Step();
  step.mutable_timeouts()->set_schedule_to_start_ms(10'000);
  TaskOffer offer;
  offer.delivery = 1;
  offer.scheduled_ms = now_.wall_ms - 8'000;
  offer.task = &step;
  dispatcher_->Offer(RunOf(1), offer, false, now_);
  EXPECT_EQ(dispatcher_->NextDeadlineMs(), now_.monotonic_ms + 2'000);
  offer.delivery = 2;
  offer.scheduled_ms = now_.wall_ms + 50'000;  // the wall clock went back
  dispatcher_->Withdraw({RunOf(1), {}, 1}, "");
  dispatcher_->Offer(RunOf(1), offer, false, now_);
  EXPECT_EQ(dispatcher_->NextDeadlineMs(), now_.monotonic_ms + 10'000);
}

TEST_F(Sessions, HeartbeatsKeepATaskAliveAndCarryProgress) {
  options_.progress_bytes_max = 100;
  Start();
  Hello(1, {.credit = 1});
  v1::TaskStep step = Step();
  step.mutable_timeouts()->set_heartbeat_ms(1'500);
  OfferStep(Key(1, 0), step);
  Flush();
  v1::Payload progress;
  for (int i = 0; i < 10; ++i) {
    Pass(1'000, {1});
    progress.set_data("at " + std::to_string(i));
    dispatcher_->Heartbeat(1, Key(1, 0), progress, now_);
    dispatcher_->Heartbeat(2, Key(1, 0), {}, now_);  // not its stream
    dispatcher_->Heartbeat(1, Key(9, 0), {}, now_);  // not known
  }
  EXPECT_EQ(dispatcher_->Look(Key(1, 0), step).progress.data(), "at 9");
  progress.set_data(std::string(101, 'x'));
  dispatcher_->Heartbeat(1, Key(1, 0), progress, now_);  // too large: the last good one stays
  EXPECT_THAT(host_.ended, IsEmpty());
  Pass(1'499, {1});
  EXPECT_THAT(host_.ended, IsEmpty());
  Pass(1, {1});
  ASSERT_EQ(host_.ended.size(), 1u);
  EXPECT_EQ(host_.ended[0],
            (FakeHost::Ended{"1/0/1", AttemptEnd::kHeartbeat, "at 9", "worker-s1"}));
}

TEST_F(Sessions, EndedTasksLeaveNoDeadlines) {
  Hello(1, {.credit = 1000});
  for (uint32_t i = 0; i < 1000; ++i) Offer(Key(1, i));
  Flush();
  for (uint32_t i = 0; i < 1000; ++i) dispatcher_->ResultArrived(1, Key(1, i), false);
  dispatcher_->StreamClosed(1, now_);
  Pass(20'000);
  EXPECT_EQ(dispatcher_->NextDeadlineMs(), INT64_MAX);
  EXPECT_THAT(host_.ended, IsEmpty());
}

// ---- streams that break
// ---------------------------------------------------------------------------------------

TEST_F(Sessions, ABrokenStreamsTasksAreLostAfterTheGrace) {
  Hello(1, {.credit = 2});
  Offer(Key(1, 0));
  Offer(Key(1, 1));
  Flush();
  v1::Payload progress;
  progress.set_data("half");
  dispatcher_->Heartbeat(1, Key(1, 1), progress, now_);
  dispatcher_->StreamClosed(1, now_);
  Pass(9'999);
  EXPECT_THAT(host_.ended, IsEmpty());
  EXPECT_TRUE(dispatcher_->InFlight(RunOf(1)));
  EXPECT_EQ(dispatcher_->HolderOf(Key(1, 0)), "worker-s1") << "known while it is away";
  Pass(1);
  EXPECT_THAT(host_.ended,
              ElementsAre(FakeHost::Ended{"1/0/1", AttemptEnd::kWorkerLost, "", "worker-s1"},
                          FakeHost::Ended{"1/1/1", AttemptEnd::kWorkerLost, "half", "worker-s1"}));
  // The session closes after its attempts.
  EXPECT_THAT(host_.log, ElementsAre("open s1", "end 1/0/1", "end 1/1/1", "close s1"));
  EXPECT_EQ(dispatcher_->stats().sessions, 0u);
  EXPECT_EQ(dispatcher_->stats().lost, 2u);
}

TEST_F(Sessions, AnAwaySessionGetsNothing) {
  Hello(1, {.credit = 5});
  dispatcher_->StreamClosed(1, now_);
  Offer(Key(1, 0));
  Flush();
  EXPECT_EQ(dispatcher_->stats().running, 0u);
  EXPECT_EQ(dispatcher_->stats().ready, 1u);
}

TEST_F(Sessions, ResumingKeepsWhatRunsAndRedeliversWhatNeverArrived) {
  Hello(1, {.credit = 3});
  for (uint32_t i = 0; i < 3; ++i) Offer(Key(1, i));
  Flush();
  dispatcher_->StreamClosed(1, now_);
  Pass(5'000);
  Hello(2, {.running = {Running(Key(1, 1), 5'000)}});
  EXPECT_THAT(host_.redelivered, ElementsAre("1/0/1 never arrived at its worker",
                                             "1/2/1 never arrived at its worker"));
  EXPECT_THAT(host_.ended, IsEmpty());
  EXPECT_THAT(host_.checks, IsEmpty());
  EXPECT_EQ(host_.sessions.size(), 1u);  // nothing new to make durable
  EXPECT_EQ(dispatcher_->stats().running, 1u);
  Pass(20'000, {2});
  EXPECT_TRUE(dispatcher_->InFlight(RunOf(1)));
  EXPECT_TRUE(dispatcher_->ResultArrived(2, Key(1, 1), false));
}

TEST_F(Sessions, CreditBeginsAnewWithTheStream) {
  Hello(1, {.credit = 5});
  Hello(2, {});
  Offer(Key(1, 0));
  EXPECT_THAT(Handed(2), IsEmpty());
}

TEST_F(Sessions, ANewerStreamClosesTheOld) {
  Hello(1, {.credit = 1});
  Offer(Key(1, 0));
  Flush();
  Hello(2, {.running = {Running(Key(1, 0))}});
  ASSERT_EQ(host_.closed.size(), 1u);
  EXPECT_EQ(host_.closed[0].first, 1u);
  EXPECT_EQ(host_.closed[0].second.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(Message(host_.closed[0].second)), HasSubstr("newer stream"));
  dispatcher_->StreamClosed(1, now_);  // of the old one: means nothing any more
  dispatcher_->Draining(1);
  Pass(20'000, {2});
  EXPECT_THAT(host_.ended, IsEmpty());
  EXPECT_EQ(dispatcher_->stats().running, 1u);
}

TEST_F(Sessions, StartToCloseGoesOnOverABrokenStream) {
  Hello(1, {.credit = 1});
  v1::TaskStep step = Step();
  step.mutable_timeouts()->set_start_to_close_ms(8'000);
  OfferStep(Key(1, 0), step);
  Flush();
  Pass(4'000, {1});
  dispatcher_->StreamClosed(1, now_);
  Pass(2'000);
  Hello(2, {.running = {Running(Key(1, 0), 6'000)}});
  Pass(1'999, {2});
  EXPECT_THAT(host_.ended, IsEmpty());
  Pass(1, {2});
  ASSERT_EQ(host_.ended.size(), 1u);
  EXPECT_EQ(host_.ended[0].reason, AttemptEnd::kStartToClose);
}

TEST_F(Sessions, HeartbeatsAreNotMissedWhileTheStreamIsBroken) {
  Hello(1, {.credit = 2});
  v1::TaskStep step = Step();
  step.mutable_timeouts()->set_heartbeat_ms(2'000);
  OfferStep(Key(1, 0), step);
  OfferStep(Key(1, 1), step);
  Flush();
  dispatcher_->StreamClosed(1, now_);
  Pass(9'000);
  EXPECT_THAT(host_.ended, IsEmpty());
  v1::RunningTask beating = Running(Key(1, 0), 9'000);
  beating.set_since_heartbeat_ms(500);
  v1::RunningTask hanging = Running(Key(1, 1), 9'000);
  hanging.set_since_heartbeat_ms(9'000);
  Hello(2, {.running = {beating, hanging}});
  Pass(1, {2});
  ASSERT_EQ(host_.ended.size(), 1u);  // the one whose code was silent all the time
  EXPECT_EQ(host_.ended[0].key, "1/1/1");
  Pass(1'498, {2});
  EXPECT_EQ(host_.ended.size(), 1u);
  Pass(1, {2});
  EXPECT_EQ(host_.ended.size(), 2u);
}

TEST_F(Sessions, ASilentStreamIsClosedAndItsSessionAway) {
  Hello(1, {.credit = 1});
  Offer(Key(1, 0));
  Flush();
  host_.sent.clear();
  Pass(14'999);
  EXPECT_THAT(host_.closed, IsEmpty());
  uint64_t pings = 0;
  for (const auto& message : host_.sent[1]) pings += message.ping() > 0;
  EXPECT_EQ(pings, 2u);
  Pass(1);
  ASSERT_EQ(host_.closed.size(), 1u);
  EXPECT_EQ(host_.closed[0].second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(host_.closed[0].second)), HasSubstr("silent for 15000 ms"));
  EXPECT_THAT(host_.ended, IsEmpty());
  Pass(10'000);
  EXPECT_EQ(host_.ended.size(), 1u);
}

TEST_F(Sessions, APongKeepsAStreamOpen) {
  Hello(1, {});
  for (int i = 0; i < 10; ++i) {
    Pass(10'000);
    dispatcher_->Pong(1, 1, now_);
  }
  EXPECT_THAT(host_.closed, IsEmpty());
}

// ---- draining
// ---------------------------------------------------------------------------------------------------

TEST_F(Sessions, ADrainingSessionGetsNothingAndClosesWithItsStream) {
  Hello(1, {.credit = 5});
  Offer(Key(1, 0));
  Flush();
  dispatcher_->Draining(1);
  Offer(Key(1, 1));
  host_.sent.clear();
  EXPECT_THAT(Handed(1), IsEmpty());
  ASSERT_TRUE(dispatcher_->Credit(1, 5, now_).ok());
  EXPECT_THAT(Handed(1), IsEmpty());
  EXPECT_EQ(Why(Key(1, 1)), "no worker has task t on queue q");
  EXPECT_TRUE(dispatcher_->ResultArrived(1, Key(1, 0), false));
  EXPECT_EQ(host_.log, Strings{"open s1"});
  dispatcher_->StreamClosed(1, now_);
  EXPECT_THAT(host_.log, ElementsAre("open s1", "close s1"));  // at once
  EXPECT_EQ(dispatcher_->stats().sessions, 0u);
}

TEST_F(Sessions, ADrainingSessionThatBreaksOffKeepsItsTasksForTheGrace) {
  Hello(1, {.credit = 5});
  Offer(Key(1, 0));
  Flush();
  dispatcher_->Draining(1);
  dispatcher_->StreamClosed(1, now_);
  Pass(5'000);
  EXPECT_THAT(host_.ended, IsEmpty());
  Hello(2, {.credit = 0, .running = {Running(Key(1, 0))}});
  ASSERT_TRUE(dispatcher_->Credit(2, 5, now_).ok());
  Offer(Key(1, 1));
  EXPECT_THAT(Handed(2), IsEmpty());  // still draining
}

TEST_F(Sessions, ReleasedTasksAreDeliveredAgain) {
  Hello(1, {.credit = 2});
  Offer(Key(1, 0));
  Flush();
  dispatcher_->Released(2, Key(1, 0));  // not its stream
  dispatcher_->Released(1, Key(1, 5));  // not known
  EXPECT_THAT(host_.redelivered, IsEmpty());
  dispatcher_->Released(1, Key(1, 0));
  EXPECT_THAT(host_.redelivered, ElementsAre("1/0/1 released by its worker"));
  EXPECT_EQ(dispatcher_->stats().running, 0u);
}

TEST_F(Sessions, StopSaysGoodbyeAndGivesNothingOut) {
  Hello(1, {.credit = 5});
  Hello(2, {.session = "s2"});
  dispatcher_->StreamClosed(2, now_);
  Flush();
  host_.sent.clear();
  dispatcher_->Stop();
  ASSERT_EQ(host_.sent.size(), 1u);
  EXPECT_TRUE(host_.sent[1][0].goodbye());
  Offer(Key(1, 0));
  host_.sent.clear();
  EXPECT_THAT(Handed(1), IsEmpty());
  dispatcher_->Ack(1, {}, v1::ACK_STATUS_RECORDED, "");
  Flush();
  EXPECT_EQ(host_.sent[1].size(), 1u);  // acks still go
}

TEST_F(Sessions, WorkersAreListedWithTheirState) {
  Hello(1, {.session = "a", .slots = 3, .credit = 2});
  Hello(2, {.session = "b", .queue = "r"});
  Hello(3, {.session = "c"});
  dispatcher_->Draining(2);
  dispatcher_->StreamClosed(3, now_);
  v1::ListWorkersResponse all;
  dispatcher_->ListWorkers("", &all);
  ASSERT_EQ(all.workers_size(), 3);
  EXPECT_EQ(all.workers(0).ShortDebugString(),
            "worker_id: \"worker-a\" session_id: \"a\" queue: \"q\" tasks: \"t\" slots: 3 credit: "
            "2 state: \"connected\" connected_time_ms: 1700000000000 last_seen_time_ms: "
            "1700000000000 sdk_version: \"cpp/1\" peer: \"peer:1\"");
  EXPECT_EQ(all.workers(1).state(), "draining");
  EXPECT_EQ(all.workers(2).state(), "away");
  v1::ListWorkersResponse some;
  dispatcher_->ListWorkers("r", &some);
  EXPECT_EQ(some.workers_size(), 1);
}

}  // namespace
}  // namespace flux::engine
