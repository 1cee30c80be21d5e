#include "client/fluxctl/live.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace flux::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr int64_t kStartMs = 1'714'564'800'000;
// Our own clock is an hour off: only differences of it may matter.
const absl::Time kOurs = absl::FromUnixMillis(kStartMs) + absl::Hours(1);

v1::WatchExecutionResponse At(int64_t after_ms,
                              v1::ExecutionStatus status = v1::EXECUTION_STATUS_RUNNING) {
  v1::WatchExecutionResponse response;
  response.set_server_time_ms(kStartMs + after_ms);
  response.mutable_info()->set_workflow_id("chart-17");
  response.mutable_info()->set_workflow("code-chart");
  response.mutable_info()->set_status(status);
  response.mutable_info()->set_start_time_ms(kStartMs);
  return response;
}

v1::StepInfo& AddStep(v1::WatchExecutionResponse& response, const std::string& name,
                      v1::StepState state) {
  v1::StepInfo& step = *response.add_steps();
  step.set_name(name);
  step.set_state(state);
  if (state != v1::STEP_STATE_PENDING) step.set_scheduled_time_ms(kStartMs);
  return step;
}

TEST(Rate, MeasuresTheLastWindow) {
  Rate rate;
  EXPECT_EQ(rate.PerSecond(), 0);
  rate.Add(kOurs, 0);
  rate.Add(kOurs + absl::Milliseconds(500), 50);
  EXPECT_EQ(rate.PerSecond(), 0) << "half a second says little";
  rate.Add(kOurs + absl::Seconds(2), 200);
  EXPECT_DOUBLE_EQ(rate.PerSecond(), 100);
  for (int s = 3; s <= 60; ++s)
    rate.Add(kOurs + absl::Seconds(s), 200 + static_cast<uint64_t>(s - 2) * 10);
  EXPECT_NEAR(rate.PerSecond(), 10, 0.01) << "the fast beginning has left the window";
  rate.Add(kOurs + absl::Seconds(61), 0);
  EXPECT_EQ(rate.PerSecond(), 0) << "a count that fell starts over";
}

TEST(Progress, TellsEachChangeOnce) {
  Progress progress;
  auto first = At(0);
  AddStep(first, "split", v1::STEP_STATE_RUNNING);
  AddStep(first, "merge", v1::STEP_STATE_PENDING);
  EXPECT_THAT(progress.Update(first, kOurs),
              ElementsAre("2024-05-01T12:00:00.000Z  chart-17  running",
                          "2024-05-01T12:00:00.000Z  split  running"));
  EXPECT_THAT(progress.Update(first, kOurs), IsEmpty());

  auto second = At(1500);
  v1::StepInfo& split = AddStep(second, "split", v1::STEP_STATE_COMPLETED);
  split.set_end_time_ms(kStartMs + 1200);
  v1::StepInfo& merge = AddStep(second, "merge", v1::STEP_STATE_BACKING_OFF);
  merge.set_attempt(2);
  merge.set_max_attempts(5);
  merge.mutable_failure()->set_message("bad \x1b[2J");
  EXPECT_THAT(
      progress.Update(second, kOurs + absl::Milliseconds(1500)),
      ElementsAre("2024-05-01T12:00:01.500Z  split  completed  1.2s",
                  "2024-05-01T12:00:01.500Z  merge  backing off  attempt 2/5  bad \\x1b[2J"));

  auto last = At(2000, v1::EXECUTION_STATUS_FAILED);
  last.mutable_failure()->set_type("rejected");
  last.set_closed(true);
  EXPECT_THAT(progress.Update(last, kOurs + absl::Seconds(2)),
              ElementsAre("2024-05-01T12:00:02.000Z  chart-17  failed  rejected"));
}

TEST(Progress, DoesNotFloodWithAMapsItems) {
  Progress progress;
  std::size_t lines = 0;
  for (uint64_t done = 0; done <= 1000; ++done) {
    auto response = At(static_cast<int64_t>(done) * 100);
    v1::StepInfo& map = AddStep(response, "codes", v1::STEP_STATE_WAITING);
    map.set_items(1000);
    map.set_items_done(done);
    lines += progress.Update(response, kOurs + absl::Milliseconds(100) * done).size();
  }
  EXPECT_EQ(lines, 1 + 21)
      << "one for the execution, one for each twentieth of the items, the first included";
}

TEST(Progress, DrawsABarWithRateAndEta) {
  Progress progress;
  for (int s = 0; s <= 4; ++s) {
    auto response = At(s * 1000);
    v1::StepInfo& map = AddStep(response, "codes", v1::STEP_STATE_WAITING);
    map.set_items(1000);
    map.set_items_done(static_cast<uint64_t>(s) * 100);
    progress.Update(response, kOurs + absl::Seconds(s));
  }
  const Theme theme{.unicode = true, .columns = 120};
  EXPECT_THAT(progress.View(theme, 24, kOurs + absl::Seconds(4)),
              ElementsAre("chart-17  code-chart  running  4.0s  0/1 steps",
                          "◐ codes  waiting        4.0s  █████████▌░░░░░░░░░░░░░░  40%  400/1000 "
                          "done, 100/s, ETA 6.0s"));
  // Time goes on between answers.
  EXPECT_THAT(progress.View(theme, 24, kOurs + absl::Seconds(9))[0], HasSubstr("  9.0s  "));
}

TEST(Progress, FitsAnyTerminal) {
  Progress progress;
  auto response = At(0);
  for (int i = 0; i < 40; ++i) {
    AddStep(response, absl::StrCat("step-number-", i),
            i < 20 ? v1::STEP_STATE_COMPLETED : v1::STEP_STATE_RUNNING)
        .set_worker("a-worker-with-a-long-name");
  }
  progress.Update(response, kOurs);
  for (const std::size_t columns : {1U, 7U, 20U, 79U, 200U}) {
    for (const std::size_t rows : {1U, 2U, 3U, 10U, 100U}) {
      for (const bool unicode : {false, true}) {
        const auto lines =
            progress.View(Theme{.unicode = unicode, .columns = columns}, rows, kOurs);
        EXPECT_LE(lines.size(), rows);
        for (const std::string& line : lines) EXPECT_LE(Width(line), columns) << line;
      }
    }
  }
  const auto lines = progress.View(Theme{.columns = 79}, 12, kOurs);
  ASSERT_EQ(lines.size(), 12U);
  EXPECT_THAT(lines[1], HasSubstr("step-number-20")) << "the finished ones made place";
  EXPECT_THAT(lines[11], HasSubstr("and 30 more steps"));
}

TEST(Progress, ShowsThatItReconnects) {
  Progress progress;
  EXPECT_THAT(progress.View(Theme{}, 10, kOurs), IsEmpty());
  progress.Update(At(0), kOurs);
  EXPECT_THAT(progress.View(Theme{}, 10, kOurs)[0], Not(HasSubstr("reconnecting")));
  progress.set_connected(false);
  EXPECT_THAT(progress.View(Theme{}, 10, kOurs)[0], HasSubstr("reconnecting"));
}

TEST(Screen, DrawsOverItselfAndGivesTheCursorBack) {
  std::vector<std::string> writes;
  {
    Screen screen([&](const std::string& text) { writes.push_back(text); });
    screen.Draw({"one", "two"}, 80);
    screen.Draw({"three"}, 80);
    screen.Erase();
    screen.Draw({"four"}, 80);
  }
  EXPECT_THAT(writes, ElementsAre("\x1b[?25lone\x1b[K\r\ntwo\x1b[K\r\n\x1b[J",  //
                                  "\r\x1b[2Athree\x1b[K\r\n\x1b[J",             //
                                  "\r\x1b[1A\x1b[J",                            //
                                  "four\x1b[K\r\n\x1b[J",                       //
                                  "\x1b[?25h"));
}

TEST(Screen, GoesUpOverLinesThatANarrowerTerminalWrapped) {
  std::vector<std::string> writes;
  Screen screen([&](const std::string& text) { writes.push_back(text); });
  screen.Draw({std::string(40, 'x'), "\x1b[31myy\x1b[0m"}, 80);
  screen.Draw({"z"}, 15);  // the first line takes three rows now, the second one
  EXPECT_THAT(writes[1], testing::StartsWith("\r\x1b[4A"));
  screen.Release();
}

v1::BulkOperation BulkAt(uint64_t done, uint64_t refused, v1::BulkState state) {
  v1::BulkOperation operation;
  operation.set_id("0123456789abcdef");
  operation.mutable_operation()->mutable_cancel();
  operation.set_state(state);
  operation.set_matched(200);
  operation.set_done(done);
  operation.set_refused(refused);
  return operation;
}

TEST(BulkProgress, HasALineForEachTwentiethAndEachState) {
  BulkProgress progress;
  EXPECT_EQ(progress.Update(BulkAt(0, 0, v1::BULK_STATE_RUNNING), kOurs),
            "bulk operation 0123456789abcdef  running  0/200 done");
  EXPECT_FALSE(progress.Update(BulkAt(9, 0, v1::BULK_STATE_RUNNING), kOurs).has_value());
  EXPECT_EQ(progress.Update(BulkAt(9, 1, v1::BULK_STATE_RUNNING), kOurs),
            "bulk operation 0123456789abcdef  running  9/200 done, 1 refused");
  EXPECT_EQ(progress.Update(BulkAt(9, 1, v1::BULK_STATE_CANCELLED), kOurs),
            "bulk operation 0123456789abcdef  cancelled  9/200 done, 1 refused");
  EXPECT_FALSE(progress.Update(BulkAt(9, 1, v1::BULK_STATE_CANCELLED), kOurs).has_value());
}

TEST(BulkProgress, ItsLiveLineFitsAndForetells) {
  BulkProgress progress;
  Theme theme{.unicode = false, .terminal = true, .columns = 120};
  progress.Update(BulkAt(0, 0, v1::BULK_STATE_RUNNING), kOurs);
  EXPECT_EQ(progress.View(theme), "cancel  running  [......................]  0/200 done");
  progress.Update(BulkAt(90, 10, v1::BULK_STATE_RUNNING), kOurs + absl::Seconds(2));
  EXPECT_EQ(progress.View(theme),
            "cancel  running  [###########...........]  90/200 done, 10 refused, 50/s, ETA 2.0s");
  progress.set_connected(false);
  EXPECT_THAT(progress.View(theme), HasSubstr("reconnecting"));
  theme.columns = 30;
  EXPECT_LE(Width(progress.View(theme)), 30U);
  progress.Update(BulkAt(190, 10, v1::BULK_STATE_COMPLETED), kOurs + absl::Seconds(4));
  theme.columns = 120;
  EXPECT_THAT(progress.View(theme), Not(HasSubstr("ETA")));
  // Nothing matched, or more than did at the start: neither divides by zero nor passes the end.
  v1::BulkOperation odd = BulkAt(3, 0, v1::BULK_STATE_RUNNING);
  odd.set_matched(2);
  progress.Update(odd, kOurs + absl::Seconds(8));
  EXPECT_THAT(progress.View(theme), HasSubstr("[######################]  3/2 done"));
  odd.set_matched(0);
  EXPECT_TRUE(progress.Update(odd, kOurs + absl::Seconds(9)).has_value());
}

}  // namespace
}  // namespace flux::ctl
