// Grace and claims after the coordinator came back.
#include "tests/dispatch/fixture.h"

namespace flux::engine {
namespace {

using Restart = DispatchTest;

TEST_F(Restart, WhatMayHaveBeenDeliveredIsHeldUntilItsWorkersAreBack) {
  dispatcher_->Restore({Listed("s1")}, now_);
  Hello(9, {.session = "new", .credit = 10});
  Offer(Key(1, 0), /*maybe=*/true);
  Offer(Key(1, 1), /*maybe=*/false);  // scheduled since
  EXPECT_THAT(Handed(9), ElementsAre("1/1/1"));
  EXPECT_EQ(Why(Key(1, 0)),
            "waits for grace after a restart: 1 worker that may be running it is not back yet");
  EXPECT_TRUE(dispatcher_->InFlight(RunOf(1)));
  EXPECT_EQ(dispatcher_->stats().held_for_grace, 1u);
  Hello(1, {});  // back, and does not run it
  EXPECT_THAT(host_.redelivered, ElementsAre("1/0/1 unclaimed after a restart"));
  Offer(Key(1, 0, 2), /*maybe=*/false);
  EXPECT_THAT(Handed(9), ElementsAre("1/0/2"));
}

TEST_F(Restart, TheGraceEndsTheWaitForWorkersThatStayAway) {
  dispatcher_->Restore({Listed("s1"), Listed("s2")}, now_);
  Offer(Key(1, 0), true);
  Hello(1, {});
  EXPECT_THAT(host_.redelivered, IsEmpty());  // s2 may have it
  Pass(9'999, {1});
  EXPECT_THAT(host_.redelivered, IsEmpty());
  Pass(1, {1});
  EXPECT_THAT(host_.redelivered, ElementsAre("1/0/1 unclaimed after a restart"));
  EXPECT_THAT(host_.log, ElementsAre("redeliver 1/0/1", "close s2"));
  EXPECT_EQ(dispatcher_->stats().held_for_grace, 0u);
}

TEST_F(Restart, WhatNoListedSessionCouldHaveHadGoesAtOnce) {
  dispatcher_->Restore({Listed("s1", "other"), Listed("s2", "q", {"u"})}, now_);
  Hello(9, {.session = "new", .credit = 10});
  Offer(Key(1, 0), true);
  EXPECT_THAT(host_.redelivered, ElementsAre("1/0/1 unclaimed after a restart"));
  Offer(Key(1, 0, 2));
  EXPECT_THAT(Handed(9), ElementsAre("1/0/2"));
}

// Found by seed 5615 of the simulation: it may have been delivered several restarts ago, to a
// session that was given up since.
TEST_F(Restart, WithoutSessionsNothingIsHeld) {
  v1::SessionChange closed = Listed("s1");
  closed.set_closed(true);
  dispatcher_->Restore({closed}, now_);
  Hello(9, {.session = "new", .credit = 10});
  Offer(Key(1, 0), true);
  EXPECT_THAT(Handed(9), IsEmpty());
  EXPECT_THAT(host_.redelivered, ElementsAre("1/0/1 unclaimed after a restart"));
  EXPECT_EQ(dispatcher_->stats().held_for_grace, 0u);
  EXPECT_EQ(dispatcher_->stats().sessions, 1u);
}

TEST_F(Restart, AClaimOfAHeldTaskGoesOn) {
  dispatcher_->Restore({Listed("s1")}, now_);
  Offer(Key(1, 0), true);
  v1::RunningTask running = Running(Key(1, 0), 100'000);
  running.mutable_progress()->set_data("half");
  Hello(1, {.running = {running}});
  EXPECT_THAT(host_.redelivered, IsEmpty());
  EXPECT_THAT(host_.checks, IsEmpty());
  const LiveTask live = dispatcher_->Look(Key(1, 0), Step());
  EXPECT_TRUE(live.running);
  EXPECT_EQ(live.started_ms, now_.wall_ms - 100'000);
  EXPECT_EQ(live.progress.data(), "half");
  EXPECT_EQ(dispatcher_->stats().claims_kept, 1u);
  // 200 of its 300 seconds are left.
  Pass(199'999, {1});
  EXPECT_THAT(host_.ended, IsEmpty());
  Pass(1, {1});
  ASSERT_EQ(host_.ended.size(), 1u);
  EXPECT_EQ(host_.ended[0].reason, AttemptEnd::kStartToClose);
}

TEST_F(Restart, AClaimBeforeItsOfferIsCheckedAndBound) {
  dispatcher_->Restore({Listed("s1")}, now_);
  Hello(1, {.running = {Running(Key(1, 0), 1'000), Running(Key(2, 0), 1'000)}});
  EXPECT_THAT(host_.checks, ElementsAre("1/0/1", "2/0/1"));
  EXPECT_TRUE(dispatcher_->InFlight(RunOf(1)));
  v1::TaskStep step = Step();
  step.mutable_timeouts()->set_start_to_close_ms(3'000);
  EXPECT_EQ(OfferStep(Key(1, 0), step, true), OfferOutcome::kTaken);
  dispatcher_->ClaimChecked(Key(1, 0), true);
  dispatcher_->ClaimChecked(Key(2, 0), false);
  Flush();
  EXPECT_THAT(Cancels(1), ElementsAre("2/0/1 superseded"));
  EXPECT_FALSE(dispatcher_->InFlight(RunOf(2)));
  EXPECT_EQ(dispatcher_->stats().claims_kept, 1u);
  EXPECT_EQ(dispatcher_->stats().claims_refused, 1u);
  Pass(2'000, {1});  // its deadline goes on
  ASSERT_EQ(host_.ended.size(), 1u);
  EXPECT_EQ(host_.ended[0].key, "1/0/1");
}

TEST_F(Restart, AClaimIsBoundEvenWhenItsQueueIsFull) {
  options_.ready_per_queue_max = 1;
  Start();
  dispatcher_->Restore({Listed("s1")}, now_);
  Offer(Key(5, 0));
  Hello(1, {.running = {Running(Key(1, 0))}});
  EXPECT_EQ(Offer(Key(1, 0), true), OfferOutcome::kTaken);
  dispatcher_->ClaimChecked(Key(1, 0), true);
  EXPECT_EQ(dispatcher_->stats().running, 1u);
  EXPECT_EQ(dispatcher_->stats().claims_kept, 1u);
}

TEST_F(Restart, AClaimOfAnotherDeliveryIsCancelled) {
  dispatcher_->Restore({Listed("s1")}, now_);
  Offer(Key(1, 0, 5), true);
  Hello(1, {.running = {Running(Key(1, 0, 4))}});
  EXPECT_THAT(host_.redelivered, ElementsAre("1/0/5 unclaimed after a restart"));
  EXPECT_THAT(host_.checks, ElementsAre("1/0/4"));
  dispatcher_->ClaimChecked(Key(1, 0, 4), false);
  Flush();
  EXPECT_THAT(Cancels(1), ElementsAre("1/0/4 superseded"));
}

TEST_F(Restart, AClaimOfAnotherIncarnationIsCancelledAtOnce) {
  Hello(1, {.running = {Running(Key(1, 0), 0, kIncarnation - 1)}});
  Flush();
  EXPECT_THAT(Cancels(1), ElementsAre("1/0/1 superseded"));
  EXPECT_THAT(host_.checks, IsEmpty());
  EXPECT_EQ(dispatcher_->stats().running, 0u);
}

TEST_F(Restart, AFinishedClaimWaitsForItsResult) {
  dispatcher_->Restore({Listed("s1")}, now_);
  Offer(Key(1, 0), true);
  v1::RunningTask finished = Running(Key(1, 0), 400'000);  // longer than it may run
  finished.set_finished(true);
  v1::RunningTask recorded = Running(Key(2, 0), 10);
  recorded.set_finished(true);
  Hello(1, {.running = {finished, recorded}});
  EXPECT_THAT(host_.redelivered, IsEmpty());
  dispatcher_->ClaimChecked(Key(2, 0), false);  // its result is answered by itself
  Pass(1'000, {1});
  EXPECT_THAT(Cancels(1), IsEmpty());
  EXPECT_THAT(host_.ended, IsEmpty());
  EXPECT_TRUE(dispatcher_->ResultArrived(1, Key(1, 0), false));
}

TEST_F(Restart, TwoWorkersCannotHaveTheSameDelivery) {
  dispatcher_->Restore({Listed("s1"), Listed("s2")}, now_);
  Offer(Key(1, 0), true);
  Hello(1, {.running = {Running(Key(1, 0))}});
  Hello(2, {.session = "s2", .running = {Running(Key(1, 0))}});
  Flush();
  EXPECT_THAT(Cancels(2), ElementsAre("1/0/1 superseded"));
  EXPECT_THAT(Cancels(1), IsEmpty());
  EXPECT_EQ(dispatcher_->stats().running, 1u);
}

TEST_F(Restart, ATaskNeverHandedOutCannotBeClaimed) {
  Offer(Key(1, 0));
  Hello(1, {.credit = 0, .running = {Running(Key(1, 0))}});
  Flush();
  EXPECT_THAT(Cancels(1), ElementsAre("1/0/1 superseded"));
  EXPECT_EQ(dispatcher_->stats().ready, 1u);
}

TEST_F(Restart, AfterTheGraceWhatMayHaveBeenDeliveredGetsAHigherNumber) {
  dispatcher_->Restore({Listed("s1")}, now_);
  Pass(10'000);  // s1 is given up, and may still run anything it was given
  Hello(9, {.session = "new", .credit = 10});
  Offer(Key(1, 0), true);
  EXPECT_THAT(Handed(9), IsEmpty());
  EXPECT_THAT(host_.redelivered, ElementsAre("1/0/1 unclaimed after a restart"));
  Hello(1, {.running = {Running(Key(1, 0))}});  // too late
  EXPECT_THAT(host_.checks, ElementsAre("1/0/1"));
}

TEST_F(Restart, WhatLayOnDiskDuringTheGraceGetsAHigherNumberToo) {
  options_.ready_per_queue_max = 1;
  options_.refill_below = 1;
  Start();
  dispatcher_->Restore({Listed("s1")}, now_);
  EXPECT_EQ(Offer(Key(1, 0), true), OfferOutcome::kTaken);
  EXPECT_EQ(Offer(Key(1, 1), true), OfferOutcome::kSpilled);
  Spill("t", 1);
  Pass(10'000);
  EXPECT_THAT(host_.log, ElementsAre("redeliver 1/0/1", "close s1"));
  ASSERT_EQ(host_.refills.size(), 0u);
  Hello(2, {.session = "s2"});
  Flush();
  ASSERT_EQ(host_.refills.size(), 1u);
  Spill("t", -1);
  EXPECT_EQ(Offer(Key(1, 1), true), OfferOutcome::kTaken);
  EXPECT_EQ(host_.log.back(), "redeliver 1/1/1");
}

TEST_F(Restart, LimitedQueuesWaitForTheGrace) {
  struct Case {
    const char* what;
    QueueLimits limits;
    bool waits;
  };
  const Case cases[] = {{"concurrency", {.concurrency_max = 5}, true},
                        {"rate", {.rate_permille_per_s = 1'000'000}, true},
                        {"by key", {.per_key_concurrency = 5}, true},
                        {"none", {}, false}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    host_ = FakeHost{};
    options_.queue_limits = {{"q", c.limits}};
    Start();
    dispatcher_->Restore({Listed("s1", "elsewhere", {"x"})}, now_);
    Hello(9, {.session = "new", .credit = 10});
    Offer(Key(1, 0));
    EXPECT_EQ(Handed(9).empty(), c.waits);
    if (c.waits) {
      EXPECT_THAT(Why(Key(1, 0)), HasSubstr("waits for grace after a restart: queue q is limited"));
    }
    Pass(9'999, {9});
    EXPECT_THAT(Tasks(9), IsEmpty());
    Pass(1, {9});
    EXPECT_EQ(Tasks(9).size(), c.waits ? 1u : 0u);
  }
}

TEST_F(Restart, ClaimsCountAgainstTheLimits) {
  options_.queue_limits["q"] = {.concurrency_max = 2};
  Start();
  dispatcher_->Restore({Listed("s1")}, now_);
  Hello(1, {.credit = 10, .running = {Running(Key(1, 0))}});
  Offer(Key(2, 0));
  Offer(Key(2, 1));
  EXPECT_THAT(Handed(1), ElementsAre("2/0/1"));
  Offer(Key(1, 0), true);
  dispatcher_->ClaimChecked(Key(1, 0), true);
  EXPECT_THAT(Handed(1), IsEmpty());
  EXPECT_TRUE(dispatcher_->ResultArrived(1, Key(1, 0), false));
  EXPECT_THAT(Handed(1), ElementsAre("2/1/1"));
}

TEST_F(Restart, ClaimsCountAgainstTheirKey) {
  options_.queue_limits["q"] = {.per_key_concurrency = 1};
  Start();
  dispatcher_->Restore({Listed("s1")}, now_);
  Hello(1, {.credit = 10, .running = {Running(Key(1, 0))}});
  OfferStep(Key(2, 0), Step(), false, "k");
  EXPECT_THAT(Handed(1), IsEmpty());  // what the claim counts against is not known yet
  OfferStep(Key(1, 0), Step(), true, "k");
  dispatcher_->ClaimChecked(Key(1, 0), true);
  EXPECT_THAT(Handed(1), IsEmpty());
  EXPECT_TRUE(dispatcher_->ResultArrived(1, Key(1, 0), false));
  EXPECT_THAT(Handed(1), ElementsAre("2/0/1"));
}

TEST_F(Restart, AClaimWhoseSessionBreaksAgainIsLostAfterItsGrace) {
  dispatcher_->Restore({Listed("s1")}, now_);
  Hello(1, {.running = {Running(Key(1, 0))}});
  dispatcher_->StreamClosed(1, now_);
  Pass(10'000);
  ASSERT_EQ(host_.ended.size(), 1u);
  EXPECT_EQ(host_.ended[0].reason, AttemptEnd::kWorkerLost);
  dispatcher_->ClaimChecked(Key(1, 0), true);  // the answer comes too late
  EXPECT_EQ(dispatcher_->stats().running, 0u);
}

TEST_F(Restart, ARestoredSessionIsNotRecordedAgain) {
  dispatcher_->Restore({Listed("s1")}, now_);
  Hello(1, {});
  EXPECT_THAT(host_.sessions, IsEmpty());
}

TEST_F(Restart, WithdrawAlsoTakesWhatIsHeldOrClaimed) {
  dispatcher_->Restore({Listed("s1"), Listed("s2")}, now_);
  Hello(1, {.running = {Running(Key(1, 0))}});
  Offer(Key(1, 1), true);
  dispatcher_->WithdrawRun(RunOf(1), "cancelled");
  Flush();
  EXPECT_THAT(Cancels(1), ElementsAre("1/0/1 cancelled"));
  EXPECT_FALSE(dispatcher_->InFlight(RunOf(1)));
  EXPECT_EQ(dispatcher_->stats().held_for_grace, 0u);
}

}  // namespace
}  // namespace flux::engine
