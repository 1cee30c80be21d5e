// What users test their workflows with: runs under a simulated clock, with failures they script.
#include "flux/testing.h"

#include <optional>
#include <string>
#include <vector>

#include "flux/continue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace flux {
namespace {

using ::flux::testing::TestRun;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr ErrorType kBusy{"busy"};
constexpr ErrorType kWrong{"wrong", {.non_retriable = true}};
constexpr Task<int64_t(int64_t)> kDouble{"double"};
constexpr Task<int64_t(int64_t)> kThrice{"thrice", {.retry = {.max_attempts = 3}}};
constexpr Task<int64_t(std::vector<int64_t>)> kSum{"sum"};
constexpr Task<void(int64_t, int64_t)> kUndo{"undo", {.retry = {.max_attempts = 2}}};
constexpr Task<flux::Page<int64_t>(std::string)> kList{"list"};
constexpr Task<int64_t(int64_t)> kChain{"chain"};
constexpr Event<bool> kApproved{"approved"};
constexpr Event<int64_t> kPart{"part"};

class TestingTest : public ::testing::Test {
 protected:
  TestingTest() {
    tasks_.Register(kDouble, [](TaskContext& context, int64_t n) {
      EXPECT_TRUE(context.SetLabel("last", std::to_string(n)).ok());
      EXPECT_TRUE(context.SetStepLabel("doubled", std::to_string(n)).ok());
      return 2 * n;
    });
    tasks_.Register(kThrice, [](int64_t n) { return 3 * n; });
    tasks_.Register(kSum, [](const std::vector<int64_t>& list) {
      int64_t sum = 0;
      for (const int64_t n : list) sum += n;
      return sum;
    });
    tasks_.Register(kUndo, [this](int64_t in, int64_t out) {
      undone_.push_back(std::to_string(in) + "->" + std::to_string(out));
    });
    // Pages "0", "1", "2" of four items each.
    tasks_.Register(kList, [](const std::string& cursor) {
      flux::Page<int64_t> page;
      const int64_t first = 4 * std::stoll(cursor);
      for (int64_t i = 0; i < 4; ++i) page.items.push_back(first + i);
      if (cursor != "2") page.next = std::to_string(std::stoll(cursor) + 1);
      return page;
    });
    tasks_.Register(kChain, [](int64_t n) -> Outcome<int64_t> {
      if (n == 0) return 7;
      return Continue<int64_t>([](Graph& g, Value<int64_t> left) { return g.Call(kChain, left); },
                               n - 1);
    });
  }

  TaskSet tasks_;
  std::vector<std::string> undone_;
};

// ---- time
// -----------------------------------------------------------------------------------------------------

constexpr Workflow<int64_t(int64_t)> kOne{
    "one", [](Graph& g, Value<int64_t> n) { return g.Call(kThrice, n); }};

TEST_F(TestingTest, RetriesWaitForTheirBackoff) {
  TestRun run(tasks_);
  run.FailTimes(kThrice, 2, kBusy("later"));
  const auto outcome = run.Run(kOne, 5);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, 15);
  EXPECT_EQ(outcome.attempts(kThrice), 3);
  EXPECT_EQ(outcome.elapsed(), absl::Seconds(1 + 2));
  ASSERT_EQ(outcome.attempts().size(), 3u);
  EXPECT_EQ(outcome.attempts()[0].failure, "busy");
  EXPECT_EQ(outcome.attempts()[1].at, absl::Seconds(1));
  EXPECT_EQ(outcome.attempts()[2].attempt, 3u);
  EXPECT_EQ(outcome.attempts()[2].failure, "");
  // Each run begins anew.
  EXPECT_EQ(run.Run(kOne, 5).attempts(kThrice), 3);
}

TEST_F(TestingTest, AttemptsAreUsedUpOrNotMadeAtAll) {
  const auto used_up = TestRun(tasks_).FailAlways(kThrice, kBusy("never")).Run(kOne, 5);
  EXPECT_TRUE(kBusy.Is(used_up.status())) << used_up.status();
  EXPECT_EQ(used_up.attempts(kThrice), 3);
  EXPECT_EQ(used_up.state("thrice"), "failed");
  const auto once = TestRun(tasks_).FailTimes(kThrice, 1, kWrong("no")).Run(kOne, 5);
  EXPECT_TRUE(kWrong.Is(once.status()));
  EXPECT_EQ(once.attempts(kThrice), 1);
  EXPECT_EQ(once.elapsed(), absl::ZeroDuration());
}

constexpr Workflow<int64_t(int64_t)> kTimed{
    "timed", [](Graph& g, Value<int64_t> n) {
      return g.Call(kThrice, n).Timeout(absl::Minutes(1)).Retry({.max_attempts = 2});
    }};
constexpr Workflow<int64_t(int64_t)> kBeating{
    "beating",
    [](Graph& g, Value<int64_t> n) { return g.Call(kThrice, n).Heartbeat(absl::Seconds(10)); }};
constexpr Workflow<int64_t(int64_t)> kClosing{
    "closing", [](Graph& g, Value<int64_t> n) {
      return g.Call(kThrice, n)
          .Retry({.max_attempts = 100, .initial_backoff = absl::Minutes(1), .factor = 1})
          .ScheduleToClose(absl::Seconds(150));
    }};

TEST_F(TestingTest, AttemptsTakeTimeAndTimeOut) {
  const auto slow = TestRun(tasks_).TakesTime(kThrice, absl::Seconds(50)).Run(kTimed, 1);
  EXPECT_EQ(*slow, 3);
  EXPECT_EQ(slow.elapsed(), absl::Seconds(50));
  const auto hung = TestRun(tasks_).HangTimes(kThrice, 1).Run(kTimed, 1);
  EXPECT_EQ(*hung, 3);
  EXPECT_EQ(hung.elapsed(), absl::Seconds(61));
  EXPECT_EQ(hung.attempts()[0].failure, "flux.timeout.start_to_close");
  const auto late = TestRun(tasks_).TakesTime(kThrice, absl::Seconds(61)).Run(kTimed, 1);
  EXPECT_TRUE(errors::kStartToClose.Is(late.status())) << late.status();
  const auto silent = TestRun(tasks_).HangTimes(kThrice, 1).Run(kBeating, 1);
  EXPECT_EQ(silent.attempts()[0].failure, "flux.timeout.heartbeat");
  EXPECT_EQ(silent.elapsed(), absl::Seconds(11));
  const auto closed = TestRun(tasks_).HangTimes(kThrice, 1).Run(kClosing, 1);
  EXPECT_TRUE(errors::kScheduleToClose.Is(closed.status())) << closed.status();
  EXPECT_EQ(closed.elapsed(), absl::Seconds(150));
  EXPECT_EQ(closed.attempts(kThrice), 1);
}

constexpr Workflow<int64_t()> kShort{"short", [](Graph& g) {
                                       return g.Call(kDouble, 1)
                                           .ScheduleToClose(absl::Seconds(10))
                                           .Catch({kBusy}, [&] { return int64_t{-1}; })
                                           .Catch({errors::kScheduleToClose},
                                                  [&] { return int64_t{-2}; });
                                     }};

TEST_F(TestingTest, AnAttemptThatWouldBeginTooLateIsNotWaitedFor) {
  const auto outcome = TestRun(tasks_).FailAlways(kDouble, kBusy("no")).Run(kShort);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, -1) << "it ends with the task's own failure";
  EXPECT_EQ(outcome.attempts(kDouble), 4);
  EXPECT_EQ(outcome.elapsed(), absl::Seconds(1 + 2 + 4)) << "the next one would begin at 15 s";
}

constexpr Workflow<int64_t()> kSleeping{"sleeping", [](Graph& g) {
                                          auto long_one = g.Sleep(absl::Hours(48));
                                          auto a = g.Call(kDouble, 1).After(long_one);
                                          auto short_one = g.Sleep(absl::Hours(1));
                                          auto b = g.Call(kDouble, 2).After(short_one);
                                          return g.Call(kSum, g.Join(a, b));
                                        }};

TEST_F(TestingTest, SleepsPassSideBySide) {
  const auto outcome = TestRun(tasks_).Run(kSleeping);
  EXPECT_EQ(*outcome, 6);
  EXPECT_EQ(outcome.elapsed(), absl::Hours(48));
  EXPECT_THAT(outcome.order(),
              ElementsAre("sleep-2", "double-2", "sleep", "double", "join", "sum"));
  EXPECT_THAT(outcome.labels(), ElementsAre(Pair("last", "1")));
  EXPECT_THAT(outcome.attempts().front().labels, ElementsAre(Pair("doubled", "2")));
  EXPECT_THAT(outcome.attempts().back().labels, IsEmpty()) << "the sum sets none";
}

constexpr Workflow<int64_t()> kLimited{
    "limited", {.execution_timeout = absl::Hours(2)}, [](Graph& g) {
      auto a = g.Call(kDouble, 1).OnUndo(kUndo);
      auto slept = g.Sleep(absl::Hours(3));
      return g.Call(kDouble, a).After(slept);
    }};

TEST_F(TestingTest, AnExecutionHasATimeoutOfItsOwn) {
  const auto outcome = TestRun(tasks_).Run(kLimited);
  EXPECT_TRUE(errors::kExecutionTimeout.Is(outcome.status())) << outcome.status();
  EXPECT_EQ(outcome.elapsed(), absl::Hours(2));
  EXPECT_THAT(undone_, ElementsAre("1->2"));
  EXPECT_EQ(outcome.state("sleep"), "cancelled");
}

// ---- events
// ---------------------------------------------------------------------------------------------------

constexpr Workflow<std::string()> kWaiting{
    "waiting", [](Graph& g) {
      auto approved = g.WaitEvent(kApproved).Timeout(absl::Hours(48)).Default(false);
      return g.If(
          approved, [&] { return "yes"; }, [&] { return "no"; });
    }};

TEST_F(TestingTest, AnEventComesInTimeOrItsDefaultDoes) {
  const auto yes = TestRun(tasks_).SendEventAfter(absl::Hours(3), kApproved, true).Run(kWaiting);
  EXPECT_EQ(*yes, "yes");
  EXPECT_EQ(yes.elapsed(), absl::Hours(3));
  const auto early = TestRun(tasks_).SendEvent(kApproved, true).Run(kWaiting);
  EXPECT_EQ(*early, "yes");
  EXPECT_EQ(early.elapsed(), absl::ZeroDuration());
  const auto no = TestRun(tasks_).SendEventAfter(absl::Hours(49), kApproved, true).Run(kWaiting);
  EXPECT_EQ(*no, "no");
  EXPECT_EQ(no.elapsed(), absl::Hours(48));
}

constexpr Workflow<int64_t()> kReaders{"readers", [](Graph& g) {
                                         auto first = g.WaitEvent(kPart);
                                         auto later = g.Block([&] {
                                           auto slept = g.Sleep(absl::Hours(1));
                                           return g.WaitEvent(kPart).After(slept);
                                         });
                                         return g.Call(kSum, g.Join(first, later));
                                       }};
constexpr Workflow<int64_t()> kTurns{"turns", [](Graph& g) {
                                       return g
                                           .Loop(0,
                                                 [&](Value<int64_t> sum) {
                                                   auto part = g.WaitEvent(kPart);
                                                   auto same = g.WaitEvent(kPart);
                                                   return g.Call(kSum, g.Join(sum, part, same));
                                                 })
                                           .Turns(2);
                                     }};

TEST_F(TestingTest, AllReadersSeeOneEventAndTurnsTakeOneEach) {
  TestRun run(tasks_);
  run.SendEventAfter(absl::Minutes(5), kPart, 1).SendEventAfter(absl::Minutes(20), kPart, 10);
  EXPECT_EQ(*run.Run(kReaders), 2);
  const auto turns = run.Run(kTurns);
  EXPECT_EQ(*turns, 22);
  EXPECT_EQ(turns.elapsed(), absl::Minutes(20));
}

TEST_F(TestingTest, AWaitThatNobodyEndsIsExplained) {
  const auto outcome = TestRun(tasks_).SendEventAfter(absl::Minutes(5), kPart, 1).Run(kTurns);
  EXPECT_TRUE(outcome.stuck());
  EXPECT_EQ(outcome.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(outcome.status().message()),
              HasSubstr("nothing more can happen after 5m: step loop[1].part waits for event part, "
                        "which nobody sends"));
}

constexpr Workflow<int64_t()> kParking{"parking", [](Graph& g) {
                                         auto parked = g.Call(kThrice, 1).OnExhausted(kPark);
                                         auto other = g.Call(kDouble, 4);
                                         return g.Call(kSum, g.Join(parked, other));
                                       }};

TEST_F(TestingTest, AParkedStepLeavesTheRestGoingOn) {
  const auto outcome = TestRun(tasks_).FailAlways(kThrice, kBusy("no")).Run(kParking);
  EXPECT_TRUE(outcome.stuck());
  EXPECT_EQ(outcome.state("double"), "completed");
  EXPECT_THAT(std::string(outcome.status().message()),
              HasSubstr("step thrice is parked: busy: no"));
}

constexpr Workflow<int64_t()> kAmending{"amending", [](Graph& g) {
                                          auto part = g.WaitEvent(kPart);
                                          auto used = g.Call(kThrice, part).OnExhausted(kPark);
                                          auto slept = g.Sleep(absl::Hours(3));
                                          auto late = g.WaitEvent(kPart).After(slept);
                                          return g.Call(kSum, g.Join(used, part, late));
                                        }};

TEST_F(TestingTest, AParkedReaderOfAnEventRunsAgainWithTheNextOne) {
  TestRun run(tasks_);
  run.SendEventAfter(absl::Hours(1), kPart, 1).SendEventAfter(absl::Hours(2), kPart, 10);
  const auto amended = TestRun(run).FailTimes(kThrice, 1, kWrong("no")).Run(kAmending);
  ASSERT_TRUE(amended.ok()) << amended.status();
  EXPECT_EQ(*amended, 30 + 10 + 10) << "whoever reads it later sees the same";
  EXPECT_EQ(amended.attempts(kThrice), 2);
  EXPECT_EQ(amended.attempts()[1].at, absl::Hours(2));
  const auto ignored = run.Run(kAmending);
  ASSERT_TRUE(ignored.ok()) << ignored.status();
  EXPECT_EQ(*ignored, 3 + 1 + 1) << "no reader is parked";
}

// ---- children and emits
// ---------------------------------------------------------------------------------------

constexpr Workflow<int64_t(int64_t)> kInner{
    "inner", {.version = "3"}, [](Graph& g, Value<int64_t> n) {
      auto made = g.Call(kDouble, n).OnUndo(kUndo);
      return g.Call(kSum, g.Join(made, g.WaitEvent(kPart)));
    }};
constexpr Workflow<int64_t()> kOuter{"outer", [](Graph& g) {
                                       auto a = g.Child(kInner, 1).WorkflowId("a");
                                       auto b = g.Child(kInner, 2).WorkflowId("b");
                                       g.Emit(kPart, "a", 100).Delay(absl::Minutes(1));
                                       g.Emit(kPart, "b", 1000).After(a);
                                       g.Emit(kPart, "elsewhere", 5);
                                       return g.Call(kSum, g.Join(a, b));
                                     }};

TEST_F(TestingTest, ExecutionsRunSideBySideAndSendEachOtherEvents) {
  const auto outcome = TestRun(tasks_).Run(kOuter);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, 1106);
  EXPECT_EQ(outcome.elapsed(), absl::Minutes(1));
  ASSERT_EQ(outcome.children().size(), 2u);
  EXPECT_EQ(outcome.children()[0].workflow_id, "a");
  EXPECT_EQ(outcome.children()[0].workflow, "inner");
  EXPECT_EQ(outcome.children()[0].status, "completed");
  EXPECT_EQ(outcome.children()[1].closed, absl::Minutes(1));
  ASSERT_EQ(outcome.emissions().size(), 3u);
  EXPECT_EQ(outcome.emissions()[1].workflow_id, "elsewhere");
}

template <ParentClose kPolicy>
constexpr Workflow<int64_t()> kLeaving{"leaving", [](Graph& g) {
                                         auto child = g.Child(kInner, 1).ParentClose(kPolicy);
                                         auto slept = g.Sleep(absl::Minutes(1));
                                         g.Block([&] { g.Fail(kWrong, "no"); }).After(slept);
                                         return child;
                                       }};

TEST_F(TestingTest, WhatBecomesOfAChildWhenItsParentCloses) {
  const auto cancelled = TestRun(tasks_).Run(kLeaving<ParentClose::kCancel>);
  EXPECT_TRUE(kWrong.Is(cancelled.status()));
  EXPECT_EQ(cancelled.children()[0].status, "cancelled");
  EXPECT_EQ(cancelled.children()[0].workflow_id, "test/inner");
  EXPECT_THAT(undone_, ElementsAre("1->2"));
  const auto terminated = TestRun(tasks_).Run(kLeaving<ParentClose::kTerminate>);
  EXPECT_EQ(terminated.children()[0].status, "terminated");
  EXPECT_THAT(undone_, ElementsAre("1->2")) << "no clean-up";
  const auto abandoned = TestRun(tasks_)
                             .SendEventAfter(absl::Hours(5), kPart, 3, "test/inner")
                             .Run(kLeaving<ParentClose::kAbandon>);
  EXPECT_EQ(abandoned.elapsed(), absl::Minutes(1));
  EXPECT_EQ(abandoned.children()[0].status, "completed");
  EXPECT_EQ(abandoned.children()[0].closed, absl::Hours(5));
}

constexpr Workflow<int64_t(std::string)> kNaming{
    "naming", [](Graph& g, Value<std::string> id) {
      auto started = g.Child(kInner, 4).WorkflowId(id).Detached();
      auto again =
          g.Child(kInner, 5).WorkflowId(id).Catch([&] { return int64_t{-1}; }).After(started);
      g.Emit(kPart, started.Field(&StartedChild::workflow_id), 1).After(again);
      return again;
    }};

TEST_F(TestingTest, AChildsIdIsAValueAndTakenOnlyOnce) {
  const auto outcome = TestRun(tasks_).Run(kNaming, "mine");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, -1) << "the id is in use";
  ASSERT_EQ(outcome.children().size(), 1u);
  EXPECT_EQ(outcome.children()[0].workflow_id, "mine");
  EXPECT_EQ(outcome.children()[0].status, "completed");
}

// ---- undo
// -----------------------------------------------------------------------------------------------------

constexpr Workflow<int64_t()> kUndoing{"undoing", [](Graph& g) {
                                         auto a = g.Call(kDouble, 1).OnUndo(kUndo);
                                         auto b = g.Call(kDouble, a).OnUndo(kUndo).Named("b");
                                         auto c = g.Child(kOne, b).OnUndo(kUndo);
                                         auto approved = g.WaitEvent(kApproved);
                                         return g.Call(kThrice, c).OnUndo(kUndo).After(approved);
                                       }};

TEST_F(TestingTest, CompletedStepsAreUndoneInReverseOrder) {
  const auto failed = TestRun(tasks_)
                          .SendEventAfter(absl::Hours(1), kApproved, true)
                          .FailTimes(kUndo, 1, kBusy("later"))
                          .Run(kUndoing);
  ASSERT_TRUE(failed.ok()) << failed.status();
  EXPECT_THAT(failed.undone(), IsEmpty());
  const auto cancelled = TestRun(tasks_)
                             .CancelAfter(absl::Minutes(10))
                             .FailTimes(kUndo, 1, kBusy("later"))
                             .Run(kUndoing);
  EXPECT_EQ(cancelled.status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(cancelled.undone(), ElementsAre("one", "b", "double"));
  EXPECT_THAT(undone_, ElementsAre("4->12", "2->4", "1->2"));
  EXPECT_EQ(cancelled.elapsed(), absl::Minutes(10) + absl::Seconds(1)) << "the retry's backoff";
}

TEST_F(TestingTest, AnUndoThatFailsIsToldAndTheOthersRun) {
  const auto outcome = TestRun(tasks_)
                           .CancelAfter(absl::Minutes(10))
                           .FailTimes(kUndo, 2, kBusy("gone"))
                           .Run(kUndoing);
  EXPECT_THAT(std::string(outcome.status().message()),
              HasSubstr("; one could not be undone: busy: gone"));
  EXPECT_THAT(undone_, ElementsAre("2->4", "1->2"));
}

constexpr Workflow<int64_t()> kMended{
    "mended", [](Graph& g) {
      auto a = g.Call(kThrice, 1).OnUndo(kUndo).Catch([&] { return int64_t{-1}; });
      auto approved = g.WaitEvent(kApproved);
      return g.Call(kDouble, a).After(approved);
    }};

TEST_F(TestingTest, AStepThatAHandlerCompletedIsUndoneAsAnyOther) {
  const auto outcome = TestRun(tasks_)
                           .FailTimes(kThrice, 1, kWrong("no"))
                           .CancelAfter(absl::Minutes(10))
                           .Run(kMended);
  EXPECT_EQ(outcome.status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(outcome.undone(), ElementsAre("thrice"));
  EXPECT_THAT(undone_, ElementsAre("1->-1"));
}

// ---- continuations
// --------------------------------------------------------------------------------------------

constexpr Workflow<int64_t(int64_t)> kChaining{
    "chaining", [](Graph& g, Value<int64_t> n) { return g.Call(kDouble, g.Call(kChain, n)); }};

TEST_F(TestingTest, AChainOfContinuationsHasNoEnd) {
  const auto outcome = TestRun(tasks_).Run(kChaining, 20'000);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, 14);
  EXPECT_EQ(outcome.attempts(kChain), 20'001);
}

constexpr Task<int64_t(int64_t)> kGrow{"grow"};
constexpr Workflow<int64_t(int64_t)> kGrowing{
    "growing", [](Graph& g, Value<int64_t> n) {
      return g.Call(kGrow, n)
          .OnUndo(kUndo)
          .Catch({kWrong}, [&](Value<Failure>) { return int64_t{-1}; })
          .Named("grown");
    }};

TEST_F(TestingTest, AContinuationTakesTheStepsPlace) {
  tasks_.Register(kGrow, [](int64_t width) -> Outcome<int64_t> {
    if (width < 0) {
      return Continue<int64_t>([](Graph& g) { return g.Fail(kWrong, "negative"); });
    }
    return Continue<int64_t>(
        [width](Graph& g, Value<int64_t> whole) {
          std::vector<Value<int64_t>> parts = {whole};
          for (int64_t i = 0; i < width; ++i) parts.push_back(g.Call(kDouble, i));
          return g.Call(kSum, g.Join(parts));
        },
        width);
  });
  const auto grown = TestRun(tasks_).Run(kGrowing, 3);
  ASSERT_TRUE(grown.ok()) << grown.status();
  EXPECT_EQ(*grown, 3 + 0 + 2 + 4);
  EXPECT_THAT(grown.order(), ElementsAre("grown.double", "grown.double-2", "grown.double-3",
                                         "grown.join", "grown.sum", "grown"));
  EXPECT_EQ(*TestRun(tasks_).Run(kGrowing, -1), -1);
}

constexpr Workflow<int64_t()> kPartingWays{
    "parting-ways", [](Graph& g) { return g.Call(kGrow, -1).OnExhausted(kPark); }};

TEST_F(TestingTest, AStepIsNotParkedForWhatItWentOnAs) {
  tasks_.Register(kGrow, [](int64_t) -> Outcome<int64_t> {
    return Continue<int64_t>([](Graph& g) { return g.Fail(kWrong, "no"); });
  });
  const auto outcome = TestRun(tasks_).Run(kPartingWays);
  EXPECT_FALSE(outcome.stuck());
  EXPECT_TRUE(kWrong.Is(outcome.status())) << outcome.status();
}

constexpr Task<int64_t(int64_t)> kDeepen{"deepen"};
constexpr Workflow<int64_t(int64_t)> kDeepening{
    "deepening", [](Graph& g, Value<int64_t> n) { return g.Call(kDeepen, n); }};

TEST_F(TestingTest, ContinuationsThatAreNotInTailPositionNestSoFar) {
  tasks_.Register(kDeepen, [](int64_t n) -> Outcome<int64_t> {
    if (n == 0) return 1;
    return Continue<int64_t>(
        [](Graph& g, Value<int64_t> left) { return g.Call(kDouble, g.Call(kDeepen, left)); },
        n - 1);
  });
  EXPECT_EQ(*TestRun(tasks_).Run(kDeepening, 40), int64_t{1} << 40);
  EXPECT_EQ(FailureOf(TestRun(tasks_).Run(kDeepening, 1000).status()).type, "flux.limit.depth");
}

// ---- joins and maps that finish early
// ------------------------------------------------------------------------

constexpr Workflow<int64_t()> kRacing{"racing", [](Graph& g) {
                                        auto slow = g.Call(kThrice, 1);
                                        auto fast = g.Call(kDouble, 2);
                                        auto asleep = g.Block([&] {
                                          g.Sleep(absl::Hours(9));
                                          return int64_t{5};
                                        });
                                        return g.Call(kSum, g.Join(slow, fast, asleep).First(2));
                                      }};

TEST_F(TestingTest, AJoinIsDoneWithItsFirstAndCancelsTheOthers) {
  const auto outcome = TestRun(tasks_).TakesTime(kThrice, absl::Minutes(1)).Run(kRacing);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, 3 + 4);
  EXPECT_EQ(outcome.elapsed(), absl::Minutes(1));
  EXPECT_EQ(outcome.state("block"), "cancelled");
}

constexpr Workflow<int64_t()> kGivenUp{"given-up", [](Graph& g) {
                                         auto slow = g.Call(kThrice, 1).Named("slow");
                                         auto aside = g.Block([&] { return slow; });
                                         auto behind = g.Call(kDouble, aside).Named("behind");
                                         auto fast = g.Call(kDouble, 2).Named("fast");
                                         return g.Call(kSum, g.Join(behind, fast).First(1));
                                       }};

TEST_F(TestingTest, WhatOnlyCancelledStepsWaitedForIsCancelledToo) {
  TestRun run(tasks_);
  run.TakesTime(kThrice, absl::Hours(1));
  const auto outcome = run.Run(kGivenUp);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, 4);
  EXPECT_EQ(outcome.elapsed(), absl::ZeroDuration());
  for (const char* step : {"slow", "block", "behind"}) {
    EXPECT_EQ(outcome.state(step), "cancelled") << step;
  }
  const auto failed = run.FailAlways(kThrice, kWrong("no")).Run(kGivenUp);
  EXPECT_TRUE(failed.ok()) << failed.status();
}

constexpr Workflow<int64_t(int64_t, int64_t)> kThere{
    "there", [](Graph& g, Value<int64_t> a, Value<int64_t> b) {
      return g.Call(kSum, g.Join(a, b).First(1));
    }};
constexpr Workflow<int64_t()> kTwice{"twice", [](Graph& g) {
                                       auto slow = g.Call(kThrice, 1);
                                       auto fast = g.Call(kDouble, 2);
                                       return g.Call(kSum, g.Join(fast, fast, slow).First(2));
                                     }};

TEST_F(TestingTest, AJoinHoldsAllThatIsThereByThen) {
  EXPECT_EQ(*TestRun(tasks_).Run(kThere, 1, 2), 1 + 2);
  const auto twice = TestRun(tasks_).TakesTime(kThrice, absl::Minutes(1)).Run(kTwice);
  ASSERT_TRUE(twice.ok()) << twice.status();
  EXPECT_EQ(*twice, 4 + 4 + 3) << "a step that it names twice is one of them";
  EXPECT_EQ(twice.elapsed(), absl::Minutes(1));
}

constexpr Workflow<int64_t()> kCounted{
    "counted", [](Graph& g) {
      auto a = g.Call(kThrice, 1);
      auto one = g.Join(a, g.Call(kDouble, 2)).TolerateFailures(1);
      auto other = g.Join(a, g.Call(kDouble, 3)).TolerateFailures(1);
      return g.Call(kSum, g.Join(g.Call(kSum, one), g.Call(kSum, other)));
    }};

TEST_F(TestingTest, AFailureOfWhatTwoStepsReadIsNotTolerated) {
  const auto outcome = TestRun(tasks_).FailTimes(kThrice, 1, kWrong("no")).Run(kCounted);
  EXPECT_TRUE(kWrong.Is(outcome.status())) << outcome.status();
}

constexpr Workflow<int64_t(int64_t)> kTolerant{"tolerant", [](Graph& g, Value<int64_t> n) {
                                                 auto a = g.Call(kThrice, n);
                                                 auto b = g.Call(kThrice, 2);
                                                 auto c = g.Call(kDouble, 3);
                                                 return g.Call(kSum,
                                                               g.Join(a, b, c).TolerateFailures(1));
                                               }};

TEST_F(TestingTest, AJoinToleratesSoManyFailures) {
  const auto one = TestRun(tasks_).FailTimes(kThrice, 1, kWrong("no")).Run(kTolerant, 1);
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(*one, 6 + 6);
  EXPECT_EQ(one.state("thrice"), "failed");
  const auto two = TestRun(tasks_).FailTimes(kThrice, 2, kWrong("no")).Run(kTolerant, 1);
  EXPECT_TRUE(kWrong.Is(two.status()));
}

constexpr Workflow<int64_t(std::vector<int64_t>)> kSome{
    "some", [](Graph& g, Value<std::vector<int64_t>> items) {
      auto first = g.Map(items, [&](Value<int64_t> n) {
                      auto slept = g.SleepMilliseconds(n);
                      return g.Call(kDouble, n).After(slept);
                    }).First(2);
      return g.Call(kSum, first);
    }};
constexpr Workflow<int64_t(std::vector<int64_t>)> kShare{
    "share", [](Graph& g, Value<std::vector<int64_t>> items) {
      return g.Call(kSum, g.Map(items, kThrice).TolerateFailures(1).TolerateFailureShare(0.5));
    }};

TEST_F(TestingTest, AMapIsDoneWithItsFirstItemsOrToleratesFailures) {
  const auto first = TestRun(tasks_).Run(kSome, std::vector<int64_t>{30'000, 10'000, 20'000});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(*first, 2 * (10'000 + 20'000));
  EXPECT_EQ(first.elapsed(), absl::Seconds(20));
  const std::vector<int64_t> items = {1, 2, 3, 4};
  EXPECT_EQ(*TestRun(tasks_).FailTimes(kThrice, 2, kWrong("no")).Run(kShare, items), 3 * (3 + 4));
  EXPECT_TRUE(
      kWrong.Is(TestRun(tasks_).FailTimes(kThrice, 3, kWrong("no")).Run(kShare, items).status()));
  EXPECT_EQ(
      *TestRun(tasks_).FailTimes(kThrice, 1, kWrong("no")).Run(kShare, std::vector<int64_t>{1}), 0);
}

constexpr Workflow<int64_t()> kNarrow{
    "narrow", [](Graph& g) {
      return g.Call(kSum, g.Map(std::vector<int64_t>{1, 2, 3, 4, 5}, kThrice).MaxParallel(2));
    }};

TEST_F(TestingTest, AMapHasAWindow) {
  const auto outcome = TestRun(tasks_).TakesTime(kThrice, absl::Minutes(1)).Run(kNarrow);
  EXPECT_EQ(*outcome, 45);
  EXPECT_EQ(outcome.elapsed(), absl::Minutes(3));
}

constexpr Workflow<int64_t()> kPaged{
    "paged", [](Graph& g) {
      return g.Call(kSum, g.MapPages(kList, "0", kThrice).MaxParallel(2).Named("items"));
    }};

TEST_F(TestingTest, PagesAreAskedForAsItemsRunOut) {
  const auto outcome = TestRun(tasks_).TakesTime(kThrice, absl::Minutes(1)).Run(kPaged);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, 3 * 66);
  EXPECT_EQ(outcome.attempts(kList), 3);
  EXPECT_EQ(outcome.elapsed(), absl::Minutes(6));
  std::vector<absl::Duration> asked;
  for (const TestAttempt& attempt : outcome.attempts()) {
    if (attempt.task != "list") continue;
    EXPECT_EQ(attempt.step, "items[page].list");
    asked.push_back(attempt.at);
  }
  EXPECT_THAT(asked, ElementsAre(absl::ZeroDuration(), absl::Minutes(1), absl::Minutes(3)));
  const auto failed = TestRun(tasks_).FailTimes(kList, 1, kWrong("gone")).Run(kPaged);
  EXPECT_TRUE(kWrong.Is(failed.status()));
}

constexpr Task<flux::Page<int64_t>(std::string)> kEnding{"ending"};
constexpr Workflow<int64_t()> kUntilSkipped{
    "until-skipped", [](Graph& g) { return g.Call(kSum, g.MapPages(kEnding, "0", kThrice)); }};

TEST_F(TestingTest, ASkippedPageIsTheLast) {
  tasks_.Register(kEnding, [](const std::string& cursor) -> Outcome<flux::Page<int64_t>> {
    if (cursor != "0") return Skip{};
    return flux::Page<int64_t>{.items = {1, 2}, .next = "1"};
  });
  const auto outcome = TestRun(tasks_).Run(kUntilSkipped);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(*outcome, 3 + 6);
  EXPECT_EQ(outcome.attempts(kEnding), 2);
}

constexpr Workflow<int64_t()> kFirstOfPages{
    "first-of-pages", [](Graph& g) {
      return g.Call(kSum, g.MapPages(kList, "0", kThrice).First(2).TolerateFailureShare(0.1));
    }};

TEST_F(TestingTest, AShareOfPagesIsUsedUpOnlyOnceAllAreKnown) {
  TestRun run(tasks_);
  run.TakesTime(kList, absl::Minutes(1)).FailTimes(kThrice, 2, kWrong("no"));
  const auto first = run.Run(kFirstOfPages);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(*first, 3 * (2 + 3));
  EXPECT_EQ(first.elapsed(), absl::Minutes(1));
  const auto known = run.FailTimes(kThrice, 10, kWrong("no")).Run(kFirstOfPages);
  EXPECT_TRUE(errors::kTooManyFailures.Is(known.status())) << known.status();
  EXPECT_EQ(known.elapsed(), absl::Minutes(3));
}

// ---- the rest
// ------------------------------------------------------------------------------------------------

TEST_F(TestingTest, EqualScriptsGiveEqualRuns) {
  const auto steps = [&] {
    std::vector<std::string> lines;
    const auto outcome = TestRun(tasks_).TakesTime(kThrice, absl::Seconds(7)).Run(kPaged);
    for (const TestStep& step : outcome.steps()) {
      lines.push_back(step.step + " " + step.state + " " + absl::FormatDuration(step.at));
    }
    return lines;
  };
  const std::vector<std::string> first = steps();
  EXPECT_EQ(first.size(), 12u + 3u + 12u + 2u - 12u);
  EXPECT_EQ(first, steps());
}

TEST_F(TestingTest, LazyCapturesAreWaitedForWhereTheyAreUsed) {
  // The branch begins at once; only its second step waits for the slow one.
  constexpr Workflow<int64_t()> kLazy{"lazy", [](Graph& g) {
                                        auto slow = g.Call(kThrice, 1);
                                        auto yes = g.WaitEvent(kApproved);
                                        return g.If(yes, [&] {
                                          auto now = g.Call(kDouble, 5);
                                          return g.Call(kSum, g.Join(slow, now));
                                        });
                                      }};
  const auto outcome =
      TestRun(tasks_).TakesTime(kThrice, absl::Minutes(4)).SendEvent(kApproved, true).Run(kLazy);
  EXPECT_EQ(*outcome, 13);
  EXPECT_THAT(outcome.order(),
              ElementsAre("approved", "if.double", "thrice", "if.join", "if.sum", "if"));
}

TEST_F(TestingTest, MistakesOfTheScriptAndTheGraphAreNamed) {
  EXPECT_EQ(TestRun(tasks_).FailTimes(kThrice, 1, absl::OkStatus()).Run(kOne, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      TestRun(tasks_).TakesTime(kThrice, absl::InfiniteDuration()).Run(kOne, 1).status().code(),
      absl::StatusCode::kInvalidArgument);
  constexpr Workflow<int64_t()> kBad{"bad", [](Graph& g) { return g.Call(kDouble, 1).Named(""); }};
  EXPECT_EQ(TestRun(tasks_).Run(kBad).status().code(), absl::StatusCode::kInvalidArgument);
  const TaskSet none;
  const auto unknown = TestRun(none).Run(kOne, 1);
  EXPECT_TRUE(errors::kUnknownTask.Is(unknown.status())) << unknown.status();
  EXPECT_EQ(unknown.attempts(kThrice), 1);
}

TEST_F(TestingTest, ASkippedResultIsAnOutcomeOfItsOwn) {
  constexpr Workflow<int64_t()> kSkips{"skips", [](Graph& g) { return g.Skip(); }};
  constexpr Workflow<std::optional<int64_t>()> kMaybe{"maybe", [](Graph& g) { return g.Skip(); }};
  EXPECT_TRUE(flux::IsSkipped(TestRun(tasks_).Run(kSkips).status()));
  EXPECT_EQ(*TestRun(tasks_).Run(kMaybe), std::nullopt);
}

}  // namespace
}  // namespace flux
