// What is handed out to whom, in which order, and what the limits withhold.
#include "tests/dispatch/fixture.h"

namespace flux::engine {
namespace {

using Queues = DispatchTest;

TEST_F(Queues, HandsAReadyTaskToAWorkerWithCredit) {
  Hello(1, {.credit = 1});
  EXPECT_EQ(Offer(Key(1, 0)), OfferOutcome::kTaken);
  EXPECT_THAT(Handed(1), ElementsAre("1/0/1"));
  EXPECT_TRUE(dispatcher_->InFlight(RunOf(1)));
  EXPECT_EQ(dispatcher_->stats().running, 1u);
  EXPECT_EQ(dispatcher_->stats().handed_out, 1u);
}

TEST_F(Queues, GivesNoMoreThanTheCredit) {
  Hello(1, {.credit = 2});
  for (uint32_t i = 0; i < 5; ++i) Offer(Key(1, i));
  EXPECT_THAT(Handed(1), ElementsAre("1/0/1", "1/1/1"));
  EXPECT_THAT(Handed(1), IsEmpty());
  ASSERT_TRUE(dispatcher_->Credit(1, 1, now_).ok());
  EXPECT_THAT(Handed(1), ElementsAre("1/2/1"));
}

TEST_F(Queues, GivesNoMoreBytesThanASessionMayHoldWhateverItsCredit) {
  options_.flight_bytes_max = 2'500;
  Start();
  host_.input_bytes = 1'000;
  Hello(1, {.credit = 10});
  for (uint32_t i = 0; i < 5; ++i) Offer(Key(1, i));
  EXPECT_THAT(Handed(1), ElementsAre("1/0/1", "1/1/1", "1/2/1"));
  EXPECT_THAT(Handed(1), IsEmpty());
  EXPECT_THAT(Why(Key(1, 3)), HasSubstr("holds as much input"));
  // Another session is not held up by it.
  Hello(2, {.session = "s2", .credit = 1});
  EXPECT_THAT(Handed(2), ElementsAre("1/3/1"));
  // What it gives back makes room, without more credit.
  dispatcher_->ResultArrived(1, Key(1, 1), false);
  EXPECT_THAT(Handed(1), ElementsAre("1/4/1"));
}

TEST_F(Queues, AWorkerWithoutCreditGetsNothing) {
  Hello(1, {});
  Offer(Key(1, 0));
  EXPECT_THAT(Handed(1), IsEmpty());
  EXPECT_EQ(Why(Key(1, 0)), "the only worker on queue q is busy (0 free slots)");
}

TEST_F(Queues, TheSameDeliveryIsTakenOnce) {
  Offer(Key(1, 0));
  Offer(Key(1, 0));
  Hello(1, {.credit = 5});
  EXPECT_THAT(Handed(1), ElementsAre("1/0/1"));
  Offer(Key(1, 0));
  EXPECT_THAT(Handed(1), IsEmpty());
}

TEST_F(Queues, AWorkerLackingATaskNeverBlocksOthers) {
  OfferStep(Key(1, 0), Step("other"));
  Offer(Key(1, 1));
  OfferStep(Key(1, 2), Step("t", "elsewhere"));
  Hello(1, {.credit = 5});
  EXPECT_THAT(Handed(1), ElementsAre("1/1/1"));
  EXPECT_EQ(Why(Key(1, 0), "other"), "no worker has task other on queue q");
  Hello(2, {.session = "s2", .tasks = {"other", "t"}, .credit = 5});
  EXPECT_THAT(Handed(2), ElementsAre("1/0/1"));
}

TEST_F(Queues, AnEmptyQueueNameMeansDefault) {
  OfferStep(Key(1, 0), Step("t", ""));
  Hello(1, {.queue = "", .credit = 1});
  EXPECT_THAT(Handed(1), ElementsAre("1/0/1"));
  v1::GetTaskQueueResponse response;
  EXPECT_TRUE(dispatcher_->DescribeQueue("default", &response));
}

TEST_F(Queues, HigherPriorityGoesFirstAcrossTasks) {
  const std::vector<std::pair<std::string, int>> offers = {{"t", 0}, {"u", -1}, {"t", 5},
                                                           {"u", 9}, {"t", -1}, {"u", 5}};
  for (uint32_t i = 0; i < offers.size(); ++i) {
    v1::TaskStep step = Step(offers[i].first);
    step.set_priority(offers[i].second);
    OfferStep(Key(1, i), step);
  }
  Hello(1, {.tasks = {"t", "u"}, .credit = 10});
  EXPECT_THAT(Handed(1), ElementsAre("1/3/1", "1/2/1", "1/5/1", "1/0/1", "1/1/1", "1/4/1"));
}

TEST_F(Queues, RunsTakeTurnsAndEachIsFirstInFirstOut) {
  for (uint32_t i = 0; i < 4; ++i) Offer(Key(1, i));
  for (uint32_t i = 0; i < 2; ++i) Offer(Key(2, i));
  Offer(Key(3, 0));
  Hello(1, {.credit = 10});
  EXPECT_THAT(Handed(1),
              ElementsAre("1/0/1", "2/0/1", "3/0/1", "1/1/1", "2/1/1", "1/2/1", "1/3/1"));
}

TEST_F(Queues, ARunKeepsItsTurnOverFlushes) {
  for (uint32_t i = 0; i < 3; ++i) Offer(Key(1, i));
  for (uint32_t i = 0; i < 3; ++i) Offer(Key(2, i));
  Hello(1, {});
  Strings order;
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(dispatcher_->Credit(1, 1, now_).ok());
    for (std::string& task : Handed(1)) order.push_back(std::move(task));
  }
  EXPECT_THAT(order, ElementsAre("1/0/1", "2/0/1", "1/1/1", "2/1/1", "1/2/1", "2/2/1"));
}

TEST_F(Queues, ReadyTasksAreSpreadOverSessions) {
  for (StreamId s = 1; s <= 3; ++s) Hello(s, {.session = "s" + std::to_string(s), .credit = 100});
  for (uint32_t i = 0; i < 30; ++i) Offer(Key(1, i));
  Flush();
  for (StreamId s = 1; s <= 3; ++s) EXPECT_EQ(Tasks(s).size(), 10u) << s;
}

TEST_F(Queues, SingleTasksGoToSessionsInTurn) {
  Hello(1, {.session = "s1", .credit = 10});
  Hello(2, {.session = "s2", .tasks = {"t", "u"}, .credit = 10});
  for (uint32_t i = 0; i < 6; ++i) {
    Offer(Key(1, i));
    Flush();
  }
  EXPECT_EQ(Tasks(1).size(), 3u);
  EXPECT_EQ(Tasks(2).size(), 3u);
}

TEST_F(Queues, OneMessageASessionATurnCutByTasksAndBytes) {
  struct Case {
    size_t tasks_max, bytes_max, input_bytes, expected;
  };
  for (const Case& c :
       {Case{10, 1 << 20, 1, 10}, Case{1000, 5000, 1000, 5}, Case{1000, 1, 10, 1}}) {
    options_.tasks_per_message_max = c.tasks_max;
    options_.message_bytes_max = c.bytes_max;
    host_ = FakeHost{};
    host_.input_bytes = c.input_bytes;
    Start();
    Hello(1, {.credit = 100});
    for (uint32_t i = 0; i < 25; ++i) Offer(Key(1, i));
    Flush();
    ASSERT_EQ(host_.sent[1].size(), 1u);
    EXPECT_EQ(Tasks(1).size(), c.expected);
    // The rest follows in the next turns, which are due at once.
    size_t left = 25 - c.expected;
    for (int turn = 0; left > 0 && turn < 30; ++turn) {
      EXPECT_LE(dispatcher_->NextDeadlineMs(), now_.monotonic_ms);
      left -= Handed(1).size();
    }
    EXPECT_EQ(left, 0u);
    Flush();
    EXPECT_GT(dispatcher_->NextDeadlineMs(), now_.monotonic_ms);
  }
}

TEST_F(Queues, AnUnwantedTaskIsForgottenAndCostsNoCredit) {
  host_.unwanted = {"1/0/1"};
  Hello(1, {.credit = 1});
  Offer(Key(1, 0));
  Offer(Key(1, 1));
  EXPECT_THAT(Handed(1), ElementsAre("1/1/1"));
  EXPECT_EQ(dispatcher_->stats().ready, 0u);
  EXPECT_EQ(Offer(Key(1, 0)), OfferOutcome::kTaken);  // unknown again
  EXPECT_EQ(dispatcher_->stats().ready, 1u);
}

TEST_F(Queues, WithdrawUnqueuesOrCancels) {
  Hello(1, {.credit = 1});
  Offer(Key(1, 0));
  Offer(Key(1, 1));
  EXPECT_THAT(Handed(1), ElementsAre("1/0/1"));
  dispatcher_->Withdraw(Key(1, 1), "cancelled");
  dispatcher_->Withdraw(Key(1, 0), "cancelled");
  dispatcher_->Withdraw(Key(9, 9), "cancelled");
  Flush();
  EXPECT_THAT(Cancels(1), ElementsAre("1/0/1 cancelled"));
  EXPECT_EQ(dispatcher_->stats().ready, 0u);
  EXPECT_EQ(dispatcher_->stats().running, 0u);
  EXPECT_FALSE(dispatcher_->InFlight(RunOf(1)));
}

TEST_F(Queues, ACancelCarriesTheWholeToken) {
  Hello(1, {.credit = 1});
  Offer(Key(1, 0));
  Flush();
  dispatcher_->Withdraw(Key(1, 0), "cancelled");
  Flush();
  const v1::TaskToken& token = host_.sent[1].back().cancels(0).token();
  EXPECT_EQ(token.SerializeAsString(), Token(Key(1, 0)).SerializeAsString());
}

TEST_F(Queues, WithdrawRunTakesAllOfItAndNothingElse) {
  Hello(1, {.credit = 2});
  for (uint32_t i = 0; i < 5; ++i) Offer(Key(1, i));
  Offer(Key(2, 0));
  Flush();
  dispatcher_->WithdrawRun(RunOf(1), "cancelled");
  dispatcher_->WithdrawRun(RunOf(1), "cancelled");
  Flush();
  EXPECT_THAT(Cancels(1), ElementsAre("1/0/1 cancelled"));
  EXPECT_EQ(dispatcher_->stats().running, 1u);
  EXPECT_TRUE(dispatcher_->InFlight(RunOf(2)));
  EXPECT_EQ(dispatcher_->stats().ready, 0u);
}

// ---- limits
// -------------------------------------------------------------------------------------------------

TEST_F(Queues, ConcurrencyIsLimitedAndFreedByEveryEnd) {
  options_.queue_limits["q"] = {.concurrency_max = 2};
  Start();
  Hello(1, {.credit = 100});
  for (uint32_t i = 0; i < 10; ++i) Offer(Key(1, i));
  EXPECT_THAT(Handed(1), ElementsAre("1/0/1", "1/1/1"));
  EXPECT_EQ(Why(Key(1, 2)), "queue q is limited to 2 running");
  EXPECT_TRUE(dispatcher_->ResultArrived(1, Key(1, 0), false));
  EXPECT_THAT(Handed(1), ElementsAre("1/2/1"));
  dispatcher_->Withdraw(Key(1, 1), "cancelled");
  EXPECT_THAT(Handed(1), ElementsAre("1/3/1"));
  dispatcher_->Released(1, Key(1, 2));
  EXPECT_THAT(Handed(1), ElementsAre("1/4/1"));
  Pass(300'000, {1});  // both time out
  EXPECT_THAT(Tasks(1), ElementsAre("1/5/1", "1/6/1"));
}

TEST_F(Queues, TheRateIsABucketOnTheMonotonicClock) {
  options_.queue_limits["q"] = {.rate_permille_per_s = 2'500, .burst = 3};
  Start();
  Hello(1, {.credit = 1000});
  for (uint32_t i = 0; i < 100; ++i) Offer(Key(1, i));
  EXPECT_EQ(Handed(1).size(), 3u);
  EXPECT_EQ(Why(Key(1, 50)), "queue q is limited to 2.5 tasks a second");
  EXPECT_EQ(dispatcher_->NextDeadlineMs(), now_.monotonic_ms + 400);
  Advance(399);
  dispatcher_->Tick(now_);
  EXPECT_EQ(Handed(1).size(), 0u);
  Advance(1);
  dispatcher_->Tick(now_);
  EXPECT_EQ(Handed(1).size(), 1u);
  size_t handed = 0;
  for (int i = 0; i < 100; ++i) {
    Advance(100);
    dispatcher_->Alive(1, now_);
    dispatcher_->Tick(now_);
    handed += Handed(1).size();
  }
  EXPECT_EQ(handed, 25u);
  now_.wall_ms += 1'000'000'000;  // the wall clock gives nothing
  dispatcher_->Tick(now_);
  EXPECT_EQ(Handed(1).size(), 0u);
}

TEST_F(Queues, AQuietTimeGivesAtMostTheBurst) {
  options_.queue_limits["q"] = {.rate_permille_per_s = 5'000};
  Start();
  Hello(1, {.credit = 1000});
  Flush();
  Pass(3'600'000, {1});
  for (uint32_t i = 0; i < 100; ++i) Offer(Key(1, i));
  EXPECT_EQ(Handed(1).size(), 5u);  // one second's worth
}

TEST_F(Queues, LimitsByKeyHoldBackOnlyTheirOwn) {
  options_.queue_limits["q"] = {.per_key_concurrency = 2};
  Start();
  Hello(1, {.tasks = {"t", "u"}, .credit = 1000});
  for (uint32_t i = 0; i < 5; ++i) OfferStep(Key(1, i), Step(), false, "acme");
  OfferStep(Key(2, 0), Step(), false, "zeta");
  OfferStep(Key(3, 0), Step());
  OfferStep(Key(4, 0), Step("u"), false, "acme");
  // Runs take turns, so that the other task of the key comes before the run's next.
  EXPECT_THAT(Handed(1), ElementsAre("1/0/1", "2/0/1", "3/0/1", "4/0/1"));
  EXPECT_EQ(Why(Key(1, 4)), "limit key \"acme\" of queue q is limited to 2 running");
  // One end lets exactly one follow.
  for (const auto& [ended, next] :
       std::vector<std::pair<DeliveryKey, std::string>>{{Key(1, 0), "1/1/1"},
                                                        {Key(4, 0), "1/2/1"},
                                                        {Key(1, 1), "1/3/1"},
                                                        {Key(1, 2), "1/4/1"}}) {
    EXPECT_TRUE(dispatcher_->ResultArrived(1, ended, false));
    EXPECT_THAT(Handed(1), ElementsAre(next));
  }
  EXPECT_TRUE(dispatcher_->ResultArrived(1, Key(2, 0), false));  // another key's
  EXPECT_THAT(Handed(1), IsEmpty());
}

TEST_F(Queues, AKeysTaskThatNobodyHasDoesNotBlockTheKey) {
  options_.queue_limits["q"] = {.per_key_concurrency = 1};
  Start();
  OfferStep(Key(1, 0), Step("nobody"), false, "k");
  OfferStep(Key(1, 1), Step(), false, "k");
  OfferStep(Key(1, 2), Step(), false, "k");
  Hello(1, {.credit = 10});
  EXPECT_THAT(Handed(1), ElementsAre("1/1/1"));
  dispatcher_->ResultArrived(1, Key(1, 1), false);
  EXPECT_THAT(Handed(1), ElementsAre("1/2/1"));
  dispatcher_->ResultArrived(1, Key(1, 2), false);
  Hello(2, {.session = "s2", .tasks = {"nobody"}, .credit = 1});
  EXPECT_THAT(Handed(2), ElementsAre("1/0/1"));
}

TEST_F(Queues, WithdrawingTheAdmittedTaskOfAKeyLetsTheNextFollow) {
  options_.queue_limits["q"] = {.per_key_concurrency = 1};
  Start();
  OfferStep(Key(1, 0), Step(), false, "k");
  OfferStep(Key(1, 1), Step(), false, "k");
  OfferStep(Key(1, 2), Step(), false, "k");
  dispatcher_->Withdraw(Key(1, 1), "");  // a waiting one
  dispatcher_->Withdraw(Key(1, 0), "");  // the admitted one
  Hello(1, {.credit = 10});
  EXPECT_THAT(Handed(1), ElementsAre("1/2/1"));
  dispatcher_->WithdrawRun(RunOf(1), "");
  EXPECT_EQ(dispatcher_->stats().ready + dispatcher_->stats().running, 0u);
}

TEST_F(Queues, HighestPriorityWaitsShortestForItsKey) {
  options_.queue_limits["q"] = {.per_key_concurrency = 1};
  Start();
  Hello(1, {.credit = 10});
  for (uint32_t i = 0; i < 4; ++i) {
    v1::TaskStep step = Step();
    step.set_priority(i == 3 ? 9 : 0);
    OfferStep(Key(1, i), step, false, "k");
  }
  EXPECT_THAT(Handed(1), ElementsAre("1/0/1"));
  dispatcher_->ResultArrived(1, Key(1, 0), false);
  EXPECT_THAT(Handed(1), ElementsAre("1/3/1"));
  dispatcher_->ResultArrived(1, Key(1, 3), false);
  EXPECT_THAT(Handed(1), ElementsAre("1/1/1"));
}

// ---- memory and disk
// ----------------------------------------------------------------------------------------

TEST_F(Queues, AnOfferAboveTheLimitIsSpilledAndAskedForAgain) {
  options_.ready_per_queue_max = 10;
  options_.refill_below = 4;
  Start();
  for (uint32_t i = 0; i < 10; ++i) EXPECT_EQ(Offer(Key(1, i)), OfferOutcome::kTaken);
  EXPECT_EQ(Offer(Key(1, 10)), OfferOutcome::kSpilled);
  EXPECT_EQ(Offer(Key(1, 9)), OfferOutcome::kTaken);  // a known one
  EXPECT_EQ(OfferStep(Key(1, 11), Step("t", "other")), OfferOutcome::kTaken);
  Spill("t", 1'000);
  Flush();
  EXPECT_THAT(host_.refills, IsEmpty());
  Hello(1, {.credit = 6});
  Flush();
  EXPECT_THAT(host_.refills, IsEmpty());  // 4 are left
  ASSERT_TRUE(dispatcher_->Credit(1, 1, now_).ok());
  Flush();
  ASSERT_THAT(host_.refills, ElementsAre("q t:7"));
  Flush();
  EXPECT_EQ(host_.refills.size(), 1u);  // asked once
  for (uint32_t i = 10; i < 17; ++i) EXPECT_EQ(Offer(Key(1, i)), OfferOutcome::kTaken);
  Spill("t", -7);
  dispatcher_->RefillDone("q");
  Flush();
  EXPECT_EQ(host_.refills.size(), 1u);  // full again
  ASSERT_TRUE(dispatcher_->Credit(1, 10, now_).ok());
  Flush();
  EXPECT_EQ(host_.refills.size(), 2u);
}

TEST_F(Queues, AnOfferToAFullQueueTakesThePlaceOfTheNewestOfTheLowestPriorityBelowIt) {
  options_.ready_per_queue_max = 4;
  Start();
  const auto step = [&](int priority) {
    v1::TaskStep made = Step(priority > 0 ? "t" : "u");
    made.set_priority(priority);
    return made;
  };
  DisplacedTask displaced;
  const auto offer = [&](uint32_t number, int priority) {
    displaced = {};
    return OfferStep(Key(1, number), step(priority), false, {}, &displaced);
  };
  EXPECT_EQ(offer(0, -1), OfferOutcome::kTaken);
  EXPECT_EQ(offer(1, 5), OfferOutcome::kTaken);
  EXPECT_EQ(offer(2, -1), OfferOutcome::kTaken);
  EXPECT_EQ(offer(3, 0), OfferOutcome::kTaken);
  EXPECT_EQ(offer(4, -1), OfferOutcome::kSpilled) << "not for its equals";
  const int64_t offered_ms = now_.wall_ms;
  Advance(5'000);
  EXPECT_EQ(offer(5, 0), OfferOutcome::kDisplaced);
  EXPECT_EQ(Text(displaced.key), "1/2/1");
  EXPECT_EQ(displaced.scheduled_ms, offered_ms);
  EXPECT_EQ(offer(6, 9), OfferOutcome::kDisplaced);
  EXPECT_EQ(Text(displaced.key), "1/0/1");
  EXPECT_EQ(offer(7, 9), OfferOutcome::kDisplaced);
  EXPECT_EQ(Text(displaced.key), "1/5/1");
  EXPECT_EQ(offer(8, 9), OfferOutcome::kDisplaced);
  EXPECT_EQ(Text(displaced.key), "1/3/1");
  EXPECT_EQ(OfferStep(Key(1, 9), step(9), true, {}, &displaced), OfferOutcome::kTaken)
      << "nobody can have it: its delivery is replaced";
  EXPECT_EQ(OfferStep(Key(1, 10), step(9)), OfferOutcome::kSpilled) << "by nobody's leave";
  EXPECT_EQ(dispatcher_->stats().ready, 4u);
  Hello(1, {.tasks = {"t", "u"}, .credit = 10});
  EXPECT_THAT(Handed(1), ElementsAre("1/6/1", "1/7/1", "1/8/1", "1/1/1"));
}

TEST_F(Queues, ATaskHeldForGraceKeepsItsPlace) {
  options_.ready_per_queue_max = 1;
  Start();
  dispatcher_->Restore({Listed("s9")}, now_);
  EXPECT_EQ(Offer(Key(1, 0), true), OfferOutcome::kTaken);
  v1::TaskStep step = Step();
  step.set_priority(9);
  DisplacedTask displaced;
  EXPECT_EQ(OfferStep(Key(1, 1), step, false, {}, &displaced), OfferOutcome::kSpilled);
  Pass(20'000);
  EXPECT_THAT(host_.redelivered, ElementsAre("1/0/1 unclaimed after a restart"));
  EXPECT_EQ(OfferStep(Key(1, 1), step, false, {}, &displaced), OfferOutcome::kTaken);
}

TEST_F(Queues, ATaskThatIsNotWhatItWasIsForgottenWhileItWaitsButNotOnceAWorkerHasIt) {
  TaskOffer offer;
  offer.key = Key(1, 0).step;
  offer.delivery = 1;
  v1::TaskStep step = Step();
  offer.task = &step;
  EXPECT_FALSE(dispatcher_->ForgetIfChanged(RunOf(1), offer)) << "it is not known";
  ASSERT_EQ(Offer(Key(1, 0)), OfferOutcome::kTaken);
  EXPECT_FALSE(dispatcher_->ForgetIfChanged(RunOf(1), offer)) << "it is what it was";
  const auto changed = [&](auto change) {
    step = Step();
    change(step);
    const bool forgotten = dispatcher_->ForgetIfChanged(RunOf(1), offer);
    step = Step();
    Offer(Key(1, 0));
    return forgotten;
  };
  EXPECT_TRUE(changed([](v1::TaskStep& other) { other.set_queue("other"); }));
  EXPECT_TRUE(changed([](v1::TaskStep& other) { other.set_task("u"); }));
  EXPECT_TRUE(changed([](v1::TaskStep& other) { other.set_priority(3); }));
  EXPECT_TRUE(
      changed([](v1::TaskStep& other) { other.mutable_timeouts()->set_schedule_to_start_ms(1); }));
  EXPECT_TRUE(
      changed([](v1::TaskStep& other) { other.mutable_timeouts()->set_start_to_close_ms(1); }));
  EXPECT_TRUE(changed([](v1::TaskStep& other) { other.mutable_timeouts()->set_heartbeat_ms(1); }));
  Hello(1, {.credit = 1});
  ASSERT_THAT(Handed(1), ElementsAre("1/0/1"));
  EXPECT_FALSE(changed([](v1::TaskStep& other) { other.set_queue("other"); }));
}

TEST_F(Queues, OneRefillIsAskedForAtATimeAndALittleLaterIfItBroughtNothing) {
  Spill("t", 3);
  Flush();
  EXPECT_THAT(host_.refills, IsEmpty()) << "nobody has it";
  Hello(1, {.credit = 0});
  Flush();
  ASSERT_EQ(host_.refills.size(), 1u);
  Pass(5'000);
  EXPECT_EQ(host_.refills.size(), 1u);
  Spill("t", -1);
  dispatcher_->RefillDone("q");
  Flush();
  EXPECT_EQ(host_.refills.size(), 2u) << "it brought something: at once";
  dispatcher_->RefillDone("q");
  Flush();
  EXPECT_EQ(host_.refills.size(), 2u);
  EXPECT_EQ(dispatcher_->NextDeadlineMs(), now_.monotonic_ms + 1'000);
  Pass(1'000);
  EXPECT_EQ(host_.refills.size(), 3u);
  Spill("t", -2);
  dispatcher_->RefillDone("q");
  Pass(5'000);
  EXPECT_EQ(host_.refills.size(), 3u);
}

TEST_F(Queues, ANameThatNobodyHasCrowdsOutNobody) {
  options_.ready_per_queue_max = 10;
  options_.refill_below = 10;
  options_.ready_floor = 4;
  Start();
  for (uint32_t i = 0; i < 10; ++i) {
    EXPECT_EQ(OfferStep(Key(1, i), Step("nobody")), OfferOutcome::kTaken);
  }
  Hello(1, {.tasks = {"t", "u"}});
  DisplacedTask displaced;
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(OfferStep(Key(2, i), Step("t"), false, "", &displaced), OfferOutcome::kDisplaced);
    EXPECT_EQ(displaced.key, Key(1, 9 - i)) << "the last in turn";
  }
  EXPECT_EQ(OfferStep(Key(2, 4), Step("t"), false, "", &displaced), OfferOutcome::kSpilled);
  EXPECT_EQ(OfferStep(Key(1, 10), Step("nobody"), false, "", &displaced), OfferOutcome::kSpilled);
  // What is on disk is asked for up to the floor, though the queue is full.
  Spill("nobody", 5);
  Spill("t", 1);
  Spill("u", 9);
  Flush();
  ASSERT_THAT(host_.refills, ElementsAre("q u:4"));
  EXPECT_TRUE(dispatcher_->TakesRefill("q", "u"));
  EXPECT_FALSE(dispatcher_->TakesRefill("q", "t"));
  EXPECT_FALSE(dispatcher_->TakesRefill("q", "nobody"));
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(OfferStep(Key(3, i), Step("u"), false, "", &displaced), OfferOutcome::kDisplaced);
  }
  EXPECT_EQ(dispatcher_->stats().ready, 10u);
  EXPECT_FALSE(dispatcher_->TakesRefill("q", "u"));
}

TEST_F(Queues, NamesThatWorkersHaveKeepTheirFloorsFromEachOther) {
  options_.ready_per_queue_max = 10;
  options_.refill_below = 10;
  options_.ready_floor = 3;
  Start();
  Hello(1, {.tasks = {"t", "u"}});
  const auto offer = [&](uint64_t run, const std::string& task, int priority,
                         DisplacedTask* displaced) {
    v1::TaskStep step = Step(task);
    step.set_priority(priority);
    return OfferStep(Key(run, 0), step, false, "", displaced);
  };
  DisplacedTask displaced;
  for (uint64_t run = 1; run <= 5; ++run) offer(run, "u", 0, &displaced);
  for (uint64_t run = 6; run <= 10; ++run) offer(run, "t", 5, &displaced);
  for (const uint64_t gone : {5, 4}) {
    EXPECT_EQ(offer(gone + 20, "t", 5, &displaced), OfferOutcome::kDisplaced);
    EXPECT_EQ(displaced.key, Key(gone, 0));
  }
  EXPECT_EQ(offer(30, "t", 5, &displaced), OfferOutcome::kSpilled) << "three of u are left";
  EXPECT_EQ(offer(31, "t", 6, &displaced), OfferOutcome::kDisplaced);
  EXPECT_EQ(displaced.key, Key(24, 0)) << "the last of its own name";
  EXPECT_EQ(offer(32, "u", 0, &displaced), OfferOutcome::kSpilled);
}

// The table of Memory. A worker has t, and none has u.
TEST_F(Queues, WhereMemoryIsShortOnlyWhatWorkersNeedSoonIsHeld) {
  options_.ready_floor = 4;
  Start();
  Hello(1, {.credit = 0});
  const auto offer = [&](uint64_t run, const std::string& task, int priority = 0,
                         DisplacedTask* displaced = nullptr) {
    v1::TaskStep step = Step(task);
    step.set_priority(priority);
    return OfferStep(Key(run, 0), step, false, "", displaced);
  };
  uint64_t run = 0;
  for (const Memory memory : {Memory::kAmple, Memory::kShort}) {
    dispatcher_->SetMemory(memory);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(offer(++run, "t"), OfferOutcome::kTaken);
    EXPECT_EQ(offer(++run, "u"), OfferOutcome::kTaken);
    EXPECT_THAT(dispatcher_->TakeBack(RunOf(run)), IsEmpty()) << "it may stay";
    EXPECT_THAT(dispatcher_->Surplus(10), IsEmpty());
  }
  dispatcher_->SetMemory(Memory::kOver);  // with 1-3 and 5-7 of t, 4 and 8 of u
  EXPECT_EQ(offer(20, "t"), OfferOutcome::kSpilled);
  EXPECT_EQ(offer(20, "u"), OfferOutcome::kSpilled);
  DisplacedTask displaced;
  EXPECT_EQ(offer(20, "u", 9, &displaced), OfferOutcome::kSpilled);
  EXPECT_THAT(dispatcher_->Surplus(10), ElementsAre(RunOf(8), RunOf(7), RunOf(6), RunOf(5),
                                                    RunOf(4), RunOf(3), RunOf(2), RunOf(1)));
  EXPECT_THAT(dispatcher_->Surplus(2), ElementsAre(RunOf(8), RunOf(7)));
  for (const uint64_t u : {4, 8}) {
    const auto returned = dispatcher_->TakeBack(RunOf(u));
    ASSERT_EQ(returned.size(), 1u);
    EXPECT_EQ(returned[0].key, Key(u, 0));
    EXPECT_EQ(returned[0].scheduled_ms, now_.wall_ms);
  }
  EXPECT_EQ(dispatcher_->TakeBack(RunOf(7)).size(), 1u);
  EXPECT_EQ(dispatcher_->TakeBack(RunOf(6)).size(), 1u);
  EXPECT_THAT(dispatcher_->TakeBack(RunOf(5)), IsEmpty()) << "its workers would have too little";
  EXPECT_THAT(dispatcher_->Surplus(10), IsEmpty());
  EXPECT_EQ(dispatcher_->stats().ready, 4u);
  EXPECT_THAT(dispatcher_->TakeBack(RunOf(99)), IsEmpty()) << "unknown";
  EXPECT_EQ(offer(21, "t", 9, &displaced), OfferOutcome::kDisplaced) << "of its own name alone";
  EXPECT_EQ(displaced.key, Key(5, 0));
  // What a worker has stays.
  ASSERT_TRUE(dispatcher_->Credit(1, 1, now_).ok());
  Flush();
  EXPECT_EQ(dispatcher_->stats().running, 1u);
  EXPECT_THAT(dispatcher_->TakeBack(RunOf(21)), IsEmpty());
  EXPECT_EQ(offer(22, "t"), OfferOutcome::kTaken) << "up to the floor";
  EXPECT_EQ(offer(23, "t"), OfferOutcome::kSpilled);
}

TEST_F(Queues, WhereMemoryIsShortDiskIsAskedForWhatWorkersHaveTooLittleOf) {
  options_.ready_floor = 4;
  Start();
  dispatcher_->SetMemory(Memory::kShort);
  for (uint64_t run = 1; run <= 3; ++run) OfferStep(Key(run, 0), Step("t"));
  Spill("t", 1'000);
  Spill("u", 1'000);
  Flush();
  EXPECT_THAT(host_.refills, IsEmpty()) << "nobody could be given any of it";
  Hello(1, {.credit = 1});
  Flush();
  EXPECT_THAT(host_.refills, ElementsAre("q t:2")) << "two of four are left";
  EXPECT_TRUE(dispatcher_->TakesRefill("q", "t"));
  EXPECT_FALSE(dispatcher_->TakesRefill("q", "u"));
  EXPECT_FALSE(dispatcher_->TakesRefill("none", "t"));
  for (uint64_t run = 4; run <= 5; ++run) OfferStep(Key(run, 0), Step("t"));
  Spill("t", -2);
  EXPECT_FALSE(dispatcher_->TakesRefill("q", "t"));
  dispatcher_->RefillDone("q");
  Flush();
  EXPECT_EQ(host_.refills.size(), 1u);
  // Once there is room for more of it, more is asked for.
  dispatcher_->SetMemory(Memory::kAmple);
  ASSERT_TRUE(dispatcher_->Credit(1, 1, now_).ok());
  Flush();
  EXPECT_EQ(host_.refills.back(), "q t:19997");
  EXPECT_FALSE(dispatcher_->TakesRefill("q", "u"));
}

// ---- questions
// ----------------------------------------------------------------------------------------------

TEST_F(Queues, EveryWaitIsExplained) {
  EXPECT_EQ(Why(Key(1, 0)), "no worker has task t on queue q");  // not even offered
  Offer(Key(1, 0));
  Offer(Key(1, 1));
  Offer(Key(1, 2));
  EXPECT_EQ(Why(Key(1, 0)), "no worker has task t on queue q");
  Hello(1, {});
  Hello(2, {.session = "s2"});
  EXPECT_EQ(Why(Key(1, 0)),
            "all 2 workers on queue q are busy (0 free slots); queued behind 2 tasks");
  EXPECT_EQ(Why(Key(7, 0)), "waits on disk behind 3 tasks of its name in memory on queue q");
  ASSERT_TRUE(dispatcher_->Credit(1, 1, now_).ok());
  EXPECT_EQ(Why(Key(1, 0)), "queued behind 2 tasks");
  Flush();
  const LiveTask live = dispatcher_->Look(Key(1, 0), Step());
  EXPECT_TRUE(live.running);
  EXPECT_EQ(live.worker, "worker-s1");
  EXPECT_EQ(live.started_ms, now_.wall_ms);
  EXPECT_EQ(live.reason, "");
  dispatcher_->StreamClosed(1, now_);
  dispatcher_->StreamClosed(2, now_);
  EXPECT_EQ(Why(Key(1, 1)), "no worker has task t on queue q (2 workers that had it are away)");
  EXPECT_EQ(Why(Key(1, 0)), "worker worker-s1 is away; it has 10000 ms to come back");
}

TEST_F(Queues, AreListedWithTheirFigures) {
  Offer(Key(1, 0));
  Advance(5);
  Offer(Key(1, 1));
  OfferStep(Key(1, 2), Step("u"));
  Spill("t", 12);
  Hello(1, {.slots = 8, .credit = 1});
  Hello(2, {.session = "s2", .queue = "r", .credit = 3});
  Flush();
  v1::ListTaskQueuesResponse queues;
  dispatcher_->ListQueues(&queues);
  ASSERT_EQ(queues.queues_size(), 2);
  EXPECT_EQ(queues.queues(0).ShortDebugString(),
            "name: \"q\" ready: 2 running: 1 workers: 1 slots: 8 oldest_ready_time_ms: "
            "1700000000005 executions_spilled: 12");
  EXPECT_EQ(queues.queues(1).ShortDebugString(), "name: \"r\" workers: 1 slots: 4 credit: 3");
  v1::GetTaskQueueResponse queue;
  ASSERT_TRUE(dispatcher_->DescribeQueue("q", &queue));
  ASSERT_EQ(queue.queue().tasks_size(), 2);
  EXPECT_EQ(queue.queue().tasks(0).ShortDebugString(),
            "name: \"t\" ready: 1 running: 1 workers: 1");
  EXPECT_EQ(queue.queue().tasks(1).ShortDebugString(), "name: \"u\" ready: 1");
  ASSERT_EQ(queue.workers_size(), 1);
  EXPECT_EQ(queue.workers(0).running(), 1u);
  EXPECT_FALSE(dispatcher_->DescribeQueue("nope", &queue));
}

TEST_F(Queues, NamesNobodyUsesAreDropped) {
  for (int i = 0; i < 100; ++i) {
    OfferStep(Key(1, i), Step("t" + std::to_string(i), "q" + std::to_string(i)));
  }
  dispatcher_->WithdrawRun(RunOf(1), "cancelled");
  Offer(Key(2, 0));
  Pass(61'000);
  v1::ListTaskQueuesResponse queues;
  dispatcher_->ListQueues(&queues);
  EXPECT_EQ(queues.queues_size(), 1);
  Hello(1, {.credit = 1});
  EXPECT_THAT(Handed(1), ElementsAre("2/0/1"));
}

// What a queue says of its workers is what they say one by one.
TEST_F(Queues, CountsTheWorkersSlotsAndCreditOfAQueueAsTheyComeAndGo) {
  const auto expect = [&](uint32_t workers, uint32_t slots, uint32_t credit) {
    v1::ListTaskQueuesResponse queues;
    dispatcher_->ListQueues(&queues);
    ASSERT_EQ(queues.queues_size(), 1);
    EXPECT_EQ(queues.queues(0).workers(), workers);
    EXPECT_EQ(queues.queues(0).slots(), slots);
    EXPECT_EQ(queues.queues(0).credit(), credit);
    v1::ListWorkersResponse all;
    dispatcher_->ListWorkers("q", &all);
    uint32_t connected = 0, of_slots = 0, of_credit = 0;
    for (const v1::WorkerInfo& worker : all.workers()) {
      if (worker.state() != "connected") continue;
      ++connected;
      of_slots += worker.slots();
      of_credit += worker.credit();
    }
    EXPECT_EQ(connected, workers);
    EXPECT_EQ(of_slots, slots);
    EXPECT_EQ(of_credit, credit);
  };
  Hello(1, {.session = "s1", .slots = 4, .credit = 4});
  expect(1, 4, 4);
  Hello(2, {.session = "s2", .slots = 8, .credit = 3});
  expect(2, 12, 7);
  Offer(Key(1, 0));
  Flush();
  expect(2, 12, 6);
  Hello(3, {.session = "s1", .slots = 6, .credit = 1});  // a new stream of a connected session
  expect(2, 14, 4);
  dispatcher_->StreamClosed(2, now_);
  expect(1, 6, 1);
  Hello(4, {.session = "s2", .slots = 2, .credit = 2});  // back, with less
  expect(2, 8, 3);
  dispatcher_->Draining(3);
  expect(1, 2, 2);
  dispatcher_->StreamClosed(3, now_);
  dispatcher_->StreamClosed(4, now_);
  expect(0, 0, 0);
  Pass(20'000);  // their grace
  Hello(5, {.session = "s5", .slots = 1, .credit = 1});
  expect(1, 1, 1);
}

TEST_F(Queues, NamesTheFirstQueuesAndCountsAll) {
  for (const char* name : {"b", "c", "a"}) Hello(name[0], {.session = name, .queue = name});
  size_t all = 0;
  EXPECT_THAT(dispatcher_->QueueNames(2, &all), ElementsAre("a", "b"));
  EXPECT_EQ(all, 3u);
  EXPECT_THAT(dispatcher_->QueueNames(5, &all), ElementsAre("a", "b", "c"));
}

}  // namespace
}  // namespace flux::engine
