#include "flux/inline_runner.h"

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace flux {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Page {
  int64_t number = 0;
  std::optional<std::string> text;
};
FLUX_STRUCT(Page, number, text)

constexpr ErrorType kOdd{"odd"};
constexpr ErrorType kFinal{"final", {.non_retriable = true}};
constexpr Task<int64_t(int64_t)> kDouble{"double"};
constexpr Task<int64_t(int64_t)> kEven{"even",
                                       {.retry = {.max_attempts = 3}}};  // fails with kOdd, skips 0
constexpr Task<int64_t(std::vector<int64_t>)> kSum{"sum"};
constexpr Task<int64_t(std::optional<int64_t>, int64_t)> kOr{"or"};
constexpr Task<std::vector<Page>(int64_t)> kPages{"pages"};
constexpr Task<bool(int64_t, int64_t)> kLess{"less"};
constexpr Task<void(int64_t, int64_t)> kUndo{"undo"};
constexpr Task<std::string(Failure)> kDescribe{"describe"};
constexpr Task<int64_t(int64_t)> kThrow{"throw", {.retry = {.max_attempts = 2}}};
constexpr Event<int64_t> kTold{"told"};

class InlineRunnerTest : public ::testing::Test {
 protected:
  InlineRunnerTest() {
    tasks_.Register(kDouble, [](int64_t n) { return 2 * n; });
    tasks_.Register(kEven, [](int64_t n) -> Outcome<int64_t> {
      if (n == 0) return Skip{};
      if (n % 2 != 0) return kOdd("odd: " + std::to_string(n));
      return n;
    });
    tasks_.Register(kSum, [](const std::vector<int64_t>& list) {
      int64_t sum = 0;
      for (const int64_t n : list) sum += n;
      return sum;
    });
    tasks_.Register(kOr, [](std::optional<int64_t> n, int64_t other) { return n.value_or(other); });
    tasks_.Register(kPages, [](int64_t count) {
      std::vector<Page> pages;
      for (int64_t i = 1; i <= count; ++i) pages.push_back({i, std::nullopt});
      return pages;
    });
    tasks_.Register(kLess, [](int64_t a, int64_t b) { return a < b; });
    tasks_.Register(kUndo, [this](int64_t in, int64_t out) {
      undone_.push_back(std::to_string(in) + "->" + std::to_string(out));
    });
    tasks_.Register(kDescribe, [](const Failure& f) { return f.type + "|" + f.message; });
    tasks_.Register(kThrow, [](int64_t n) -> int64_t {
      if (n == 0) throw 7;
      throw std::runtime_error("thrown");
    });
  }

  TaskSet tasks_;
  InlineRunner runner_{tasks_};
  std::vector<std::string> undone_;
};

std::vector<std::string> Steps(const InlineRunner& runner) {
  std::vector<std::string> steps;
  for (const InlineAttempt& attempt : runner.attempts()) steps.push_back(attempt.step);
  return steps;
}

constexpr Workflow<int64_t(int64_t)> kMapped{"mapped", [](Graph& g, Value<int64_t> count) {
                                               auto pages = g.Call(kPages, count);
                                               auto doubled = g.Map(pages, [&](Value<Page> page) {
                                                 auto once =
                                                     g.Call(kDouble, page.Field(&Page::number));
                                                 return g.Call(kOr, once, count);
                                               });
                                               return g.Call(kSum, doubled);
                                             }};

TEST_F(InlineRunnerTest, F31_RunsStepsInOrderAndMapsItemsInOrder) {
  EXPECT_EQ(*runner_.Run(kMapped, 3), 12);
  EXPECT_THAT(Steps(runner_), ElementsAre("pages", "map[0].double", "map[0].or", "map[1].double",
                                          "map[1].or", "map[2].double", "map[2].or", "sum"));
  EXPECT_EQ(*runner_.Run(kMapped, 0), 0);
}

constexpr Workflow<int64_t(std::vector<int64_t>)> kSkipping{
    "skipping",
    [](Graph& g, Value<std::vector<int64_t>> list) { return g.Call(kSum, g.Map(list, kEven)); }};

TEST_F(InlineRunnerTest, LeavesSkippedItemsOutOfTheList) {
  EXPECT_EQ(*runner_.Run(kSkipping, std::vector<int64_t>{2, 0, 4}), 6);
  EXPECT_EQ(*runner_.Run(kSkipping, std::vector<int64_t>{0}), 0);
}

TEST_F(InlineRunnerTest, RetriesByThePolicyAndNoFurther) {
  const auto failed = runner_.Run(kSkipping, std::vector<int64_t>{3});
  EXPECT_TRUE(kOdd.Is(failed.status())) << failed.status();
  EXPECT_EQ(failed.status().message(), "odd: odd: 3");
  ASSERT_EQ(runner_.attempts().size(), 3u);
  EXPECT_EQ(runner_.attempts()[2].attempt, 3u);
  EXPECT_EQ(runner_.attempts()[2].failure, "odd");
  EXPECT_EQ(runner_.attempts()[2].task, "even");
}

constexpr Task<int64_t()> kFlaky{"flaky"};
constexpr Workflow<int64_t()> kFlakyOnce{"flaky-once", [](Graph& g) { return g.Call(kFlaky); }};

TEST_F(InlineRunnerTest, HandsProgressToTheNextAttemptUnderANewToken) {
  std::vector<std::string> tokens;
  std::vector<int> progress;
  tasks_.Register(kFlaky, [&](TaskContext& context) -> absl::StatusOr<int64_t> {
    tokens.push_back(context.fencing_token());
    progress.push_back(context.LastProgress<int>().value_or(-1));
    EXPECT_EQ(context.step(), "flaky");
    EXPECT_FALSE(context.cancelled());
    if (context.attempt() == 3) return 7;
    EXPECT_TRUE(context.Heartbeat(static_cast<int>(context.attempt()) * 10).ok());
    context.Heartbeat();
    return absl::UnavailableError("later");
  });
  EXPECT_EQ(*runner_.Run(kFlakyOnce), 7);
  EXPECT_THAT(progress, ElementsAre(-1, 10, 20));
  ASSERT_EQ(tokens.size(), 3u);
  EXPECT_NE(tokens[0], tokens[1]);
  EXPECT_NE(tokens[1], tokens[2]);
}

constexpr Task<int64_t()> kListed{"flaky", {.non_retriable = {kOdd}}};
constexpr Workflow<int64_t()> kOnce{"listed", [](Graph& g) { return g.Call(kListed); }};

TEST_F(InlineRunnerTest, StopsAtAFailureThatIsNotRetriable) {
  int calls = 0;
  tasks_.Register(kFlaky, [&]() -> absl::StatusOr<int64_t> {
    ++calls;
    return kFinal("no");
  });
  EXPECT_TRUE(kFinal.Is(runner_.Run(kFlakyOnce).status()));
  EXPECT_EQ(calls, 1);
  TaskSet tasks;
  tasks.Register(kListed, [&]() -> absl::StatusOr<int64_t> {
    ++calls;
    return kOdd("no");
  });
  EXPECT_TRUE(kOdd.Is(InlineRunner(tasks).Run(kOnce).status()));
  EXPECT_EQ(calls, 2);
}

constexpr Workflow<int64_t(int64_t)> kThrowing{
    "throwing", [](Graph& g, Value<int64_t> n) { return g.Call(kThrow, n); }};

TEST_F(InlineRunnerTest, TakesExceptionsForFailures) {
  EXPECT_TRUE(errors::kException.Is(runner_.Run(kThrowing, 0).status()));
  const absl::Status status = runner_.Run(kThrowing, 1).status();
  EXPECT_EQ(status.message(), "flux.task.exception: thrown");
  EXPECT_EQ(runner_.attempts().size(), 4u);
}

// Skips if it is given 0; the result tells what came of it.
constexpr Workflow<int64_t(int64_t)> kPropagating{
    "propagating", [](Graph& g, Value<int64_t> n) {
      auto maybe = g.Call(kEven, n);
      auto needed = g.Call(kDouble, maybe);           // skipped with it
      auto optional = g.Call(kOr, needed, 100);       // sees nothing
      auto list = g.Join(maybe, needed, optional);    // leaves skipped ones out
      auto after = g.Call(kDouble, 1).After(needed);  // order only
      return g.Call(kSum, g.Join(g.Call(kSum, list), after));
    }};

TEST_F(InlineRunnerTest, PropagatesSkipsToWhatNeedsTheValue) {
  EXPECT_EQ(*runner_.Run(kPropagating, 0), 102);
  EXPECT_THAT(Steps(runner_), ElementsAre("even", "or", "double-2", "sum", "sum-2"));
  EXPECT_EQ(*runner_.Run(kPropagating, 2), 2 + 4 + 4 + 2);
}

constexpr Workflow<int64_t()> kAllSkipped{"all-skipped", [](Graph& g) {
                                            auto a = g.Call(kEven, 0);
                                            auto b = g.Call(kEven, 0);
                                            return g.Call(kSum, g.Join(a, b));
                                          }};
constexpr Workflow<std::optional<int64_t>()> kOptionalResult{
    "optional-result", [](Graph& g) { return g.Call(kEven, 0); }};

TEST_F(InlineRunnerTest, ASkippedResultIsAnOutcomeOfItsOwn) {
  EXPECT_TRUE(flux::IsSkipped(runner_.Run(kAllSkipped).status()));
  const auto optional = runner_.Run(kOptionalResult);
  ASSERT_TRUE(optional.ok()) << optional.status();
  EXPECT_EQ(*optional, std::nullopt);
}

constexpr Workflow<std::string(int64_t)> kChoosing{
    "choosing", [](Graph& g, Value<int64_t> n) {
      auto outer = g.Call(kDouble, n);
      auto small = g.Call(kLess, n, 3);
      auto name = g.If(
          small,
          [&] {
            return g.Switch(n)
                .Case(0, [&] { return "none"; })
                .Case(1, [&] { return std::string("one"); })
                .Default([&] { return g.Skip(); });
          },
          [&] {
            return g.Switch(outer).Case(6, [&] { return "three"; }).Default([&] {
              return g.Fail(kFinal, "too large");
            });
          });
      return name;
    }};

TEST_F(InlineRunnerTest, ChoosesBranches) {
  EXPECT_EQ(*runner_.Run(kChoosing, 0), "none");
  EXPECT_EQ(*runner_.Run(kChoosing, 1), "one");
  EXPECT_TRUE(flux::IsSkipped(runner_.Run(kChoosing, 2).status()));
  EXPECT_EQ(*runner_.Run(kChoosing, 3), "three");
  const absl::Status failed = runner_.Run(kChoosing, 4).status();
  EXPECT_TRUE(kFinal.Is(failed));
  EXPECT_EQ(FailureOf(failed).source, "fail");
}

constexpr Workflow<int64_t(bool)> kNoElse{"no-else", [](Graph& g, Value<bool> yes) {
                                            auto value =
                                                g.If(yes, [&] { return g.Call(kDouble, 4); });
                                            return g.Call(kOr, value, -1);
                                          }};

TEST_F(InlineRunnerTest, AnIfWithoutElseIsSkipped) {
  EXPECT_EQ(*runner_.Run(kNoElse, true), 8);
  EXPECT_EQ(*runner_.Run(kNoElse, false), -1);
}

constexpr Workflow<int64_t(int64_t)> kLooping{"looping", [](Graph& g, Value<int64_t> limit) {
                                                return g.Loop(1, [&](Value<int64_t> n) {
                                                  auto next = g.Call(kDouble, n);
                                                  return g.Until(g.Call(kLess, limit, next), next);
                                                });
                                              }};
constexpr Workflow<int64_t(int64_t)> kTurning{
    "turning", [](Graph& g, Value<int64_t> start) {
      return g.Loop(start, [&](Value<int64_t> n) { return g.Call(kDouble, n); }).Turns(4);
    }};

TEST_F(InlineRunnerTest, Loops) {
  EXPECT_EQ(*runner_.Run(kLooping, 100), 128);
  EXPECT_EQ(*runner_.Run(kLooping, 0), 2);
  EXPECT_EQ(*runner_.Run(kTurning, 3), 48);
  EXPECT_EQ(*runner_.Run(kLooping, 1'000'000'000), 1 << 30);
}

constexpr Workflow<std::string(int64_t)> kCatching{
    "catching", [](Graph& g, Value<int64_t> n) {
      return g
          .Block([&] {
            g.Call(kEven, n).Catch({kFinal}, [&] { return n; });  // of another type: not caught
            return std::string("fine");
          })
          .Catch({kOdd}, [&](Value<Failure> failure) { return g.Call(kDescribe, failure); })
          .Catch([&](Value<Failure> failure) { return failure.Field(&Failure::type); });
    }};
constexpr Workflow<int64_t(int64_t)> kCatchFails{
    "catch-fails", [](Graph& g, Value<int64_t> n) {
      return g.Call(kEven, n).Catch([&] { return g.Fail(kFinal, "gave up"); });
    }};

TEST_F(InlineRunnerTest, CatchesByType) {
  EXPECT_EQ(*runner_.Run(kCatching, 2), "fine");
  EXPECT_EQ(*runner_.Run(kCatching, 3), "odd|odd: 3");
  EXPECT_TRUE(kFinal.Is(runner_.Run(kCatchFails, 3).status()));
}

constexpr Workflow<int64_t(int64_t)> kUndoing{
    "undoing", [](Graph& g, Value<int64_t> n) {
      auto a = g.Call(kDouble, 1).OnUndo(kUndo);
      auto b = g.Map(std::vector<int64_t>{2, 3},
                     [&](Value<int64_t> i) { return g.Call(kDouble, i).OnUndo(kUndo); });
      auto c = g.Call(kEven, n).OnUndo(kUndo);
      return g.Call(kSum, g.Join(a, c)).After(b);
    }};

TEST_F(InlineRunnerTest, UndoesCompletedStepsInReverseOrder) {
  EXPECT_EQ(*runner_.Run(kUndoing, 2), 4);
  EXPECT_THAT(undone_, IsEmpty());
  EXPECT_TRUE(kOdd.Is(runner_.Run(kUndoing, 3).status()));
  EXPECT_THAT(undone_, ElementsAre("3->6", "2->4", "1->2"));
}

constexpr Workflow<int64_t()> kWaiting{"waiting", [](Graph& g) {
                                         g.Sleep(absl::Hours(48));
                                         auto first = g.WaitEvent(kTold).Timeout(absl::Hours(48));
                                         auto second =
                                             g.WaitEvent(kTold).Timeout(absl::Hours(48)).Default(5);
                                         auto sum = g.Call(kSum, g.Join(first, second));
                                         g.Emit(kTold, "other", sum);
                                         return sum;
                                       }};

TEST_F(InlineRunnerTest, WaitsForNoTimeAndAllReadersSeeTheFirstEvent) {
  EXPECT_EQ(*runner_.Tell(kTold, 1).Tell(kTold, 2).Run(kWaiting), 2);
  EXPECT_EQ(*runner_.Tell(kTold, 4).Run(kWaiting), 8);
  EXPECT_TRUE(errors::kEventTimeout.Is(runner_.Run(kWaiting).status()));
  ASSERT_EQ(runner_.emissions().size(), 2u);
  EXPECT_EQ(runner_.emissions()[1].workflow_id, "other");
  EXPECT_EQ(runner_.emissions()[1].value.data, "8");
}

constexpr Workflow<int64_t()> kDefaulting{
    "defaulting", [](Graph& g) { return g.WaitEvent(kTold).Timeout(absl::Hours(48)).Default(5); }};
constexpr Workflow<int64_t()> kTurnsOfEvents{
    "turns-of-events", [](Graph& g) {
      return g
          .Loop(0,
                [&](Value<int64_t> sum) { return g.Call(kSum, g.Join(sum, g.WaitEvent(kTold))); })
          .Turns(3);
    }};

TEST_F(InlineRunnerTest, AWaitThatNobodyEndsTakesItsDefaultAndALoopTakesAnEventATurn) {
  EXPECT_EQ(*runner_.Run(kDefaulting), 5);
  EXPECT_EQ(*runner_.Tell(kTold, 1).Tell(kTold, 20).Tell(kTold, 300).Run(kTurnsOfEvents), 321);
  EXPECT_TRUE(errors::kEventTimeout.Is(runner_.Tell(kTold, 1).Run(kTurnsOfEvents).status()));
}

constexpr Workflow<int64_t(int64_t)> kCountdown{
    "countdown", [](Graph& g, Value<int64_t> n) {
      return g.If(
          g.Call(kLess, n, 1), [&] { return n; },
          [&] { return g.Child(kCountdown, g.Call(kSum, g.Join(n, g.Call(kDouble, -1)))); });
    }};
constexpr Workflow<int64_t()> kParent{
    "parent", [](Graph& g) {
      g.Child(kSkipping, std::vector<int64_t>{3}).Detached();  // fails, nobody minds
      auto skipped = g.Child(kAllSkipped);
      auto count = g.Child(kCountdown, 7);
      return g.Call(kOr, skipped, count);
    }};

TEST_F(InlineRunnerTest, RunsChildren) {
  EXPECT_EQ(*runner_.Run(kParent), -1);
  const absl::Status deep = runner_.Run(kCountdown, 1000).status();
  EXPECT_EQ(FailureOf(deep).type, "flux.status.resource_exhausted") << deep;
}

TEST_F(InlineRunnerTest, SaysWhatIsMissing) {
  TaskSet none;
  EXPECT_THAT(std::string(InlineRunner(none).Run(kTurning, 1).status().message()),
              HasSubstr("no function is registered for task double; TaskSet::Register it"));
  tasks_.Register(kDouble, [](int64_t n) { return n; });
  EXPECT_EQ(runner_.Run(kTurning, 1).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(InlineRunner(none).Run(kWaiting).status().code(), absl::StatusCode::kDeadlineExceeded);
  constexpr Workflow<int64_t()> kBad{"bad", [](Graph& g) { return g.Call(kDouble, 1).Named(""); }};
  EXPECT_EQ(InlineRunner(none).Run(kBad).status().code(), absl::StatusCode::kInvalidArgument);
  constexpr Workflow<int64_t(std::string)> kText{"text",
                                                 [](Graph&, Value<std::string>) { return 1; }};
  EXPECT_EQ(InlineRunner(none).Run(kText, "\xFF").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(InlineRunner(none).Tell(Event<std::string>("e"), "\xFF").Run(kText, "x").ok());
}

}  // namespace
}  // namespace flux
