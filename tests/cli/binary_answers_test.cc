// What fluxctl makes of a coordinator's answers: hints, schedules, the beginnings of hashes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/harness.h"

namespace flux::cli {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using Json = nlohmann::json;

TEST_F(Fluxctl, WhatIsNotThereIsHintedAtWhereItWouldBe) {
  const struct {
    const char* message;
    std::vector<std::string> arguments;
    const char* hint;
  } kCases[] = {
      {"no execution with workflow id \"nope\" in namespace \"default\"",
       {"workflow", "pause", "nope"},
       "hint: 'fluxctl workflow list' shows what there is"},
      {"no run 0123 in namespace \"default\"",
       {"event", "cancel", "nope", "mail-3", "--run-id", "0123"},
       "hint: 'fluxctl workflow list' shows what there is"},
      {"execution nope has no step \"merge\" now",
       {"workflow", "skip", "nope", "merge"},
       "hint: 'fluxctl workflow show nope' shows where it stands"},
      {"execution nope has no delayed event with the id \"mail-3\"",
       {"event", "cancel", "nope", "mail-3"},
       "hint: 'fluxctl event list nope' shows where it stands"},
  };
  for (const auto& c : kCases) {
    workflows.on_OperateExecution = [&](const v1::OperateExecutionRequest&,
                                        v1::OperateExecutionResponse*) {
      return grpc::Status(grpc::StatusCode::NOT_FOUND, c.message);
    };
    const Outcome outcome = Run(c.arguments);
    EXPECT_EQ(outcome.code, 3) << c.message;
    EXPECT_THAT(outcome.err, HasSubstr(c.hint)) << c.message;
  }
}

TEST_F(Fluxctl, EveryCommandThatMeetsNoExecutionHintsAtTheList) {
  const grpc::Status none(grpc::StatusCode::NOT_FOUND,
                          "no execution with workflow id \"nope\" in namespace \"default\": check "
                          "both");
  const auto answer = [&none](const auto&, auto*) { return none; };
  workflows.on_DescribeExecution = answer;
  workflows.on_GetHistory = answer;
  workflows.on_GetResult = answer;
  workflows.on_CancelExecution = answer;
  workflows.on_TerminateExecution = answer;
  workflows.on_SendEvent = answer;
  workflows.on_ListEvents = answer;
  workflows.on_OperateExecution = answer;
  workflows.watch_status = none;
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"workflow", "show", "nope"},
                                             {"workflow", "history", "nope"},
                                             {"workflow", "result", "nope"},
                                             {"workflow", "watch", "nope"},
                                             {"workflow", "cancel", "nope"},
                                             {"workflow", "terminate", "nope"},
                                             {"workflow", "signal", "nope", "go"},
                                             {"workflow", "retry", "nope"},
                                             {"event", "list", "nope"}}) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 3) << arguments[1] << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("hint: 'fluxctl workflow list' shows what there is"))
        << arguments[1];
  }
}

TEST_F(Fluxctl, AStartThatMeetsAnExecutionDoesNotSayThatItRuns) {
  workflows.on_StartWorkflow = [](const v1::StartWorkflowRequest& request,
                                  v1::StartWorkflowResponse* response) {
    response->set_workflow_id(request.workflow_id());
    response->set_run_id(kRunId);
    return grpc::Status::OK;
  };
  const Outcome met = Run({"workflow", "start", "w", "--id", "a", "--request-id", "r"});
  EXPECT_EQ(met.code, 0) << met.err;
  EXPECT_THAT(met.out, HasSubstr("no, it had been started\n"));
}

TEST_F(Fluxctl, SchedulesSayWhetherTheyArePaused) {
  schedules.on_CreateSchedule = [](const v1::CreateScheduleRequest& request,
                                   v1::CreateScheduleResponse* response) {
    if (!request.paused()) response->add_next_time_ms(kStartMs);
    return grpc::Status::OK;
  };
  const std::vector<std::string> create = {"schedule", "create", "nightly", "--workflow",
                                           "w",        "--cron", "@daily"};
  const Outcome active = Run(create);
  EXPECT_EQ(active.code, 0) << active.err;
  EXPECT_EQ(active.err, "fluxctl: created nightly\n");
  EXPECT_THAT(active.out, StartsWith("NEXT TIMES"));
  std::vector<std::string> arguments = create;
  arguments.push_back("--paused");
  const Outcome paused = Run(arguments);
  EXPECT_EQ(paused.err,
            "fluxctl: created nightly\nfluxctl: it is paused; 'fluxctl schedule resume nightly' "
            "lets it start what is to come\n");
  EXPECT_THAT(paused.out, IsEmpty());

  schedules.on_GetSchedule = [](const v1::GetScheduleRequest& request,
                                v1::GetScheduleResponse* response) {
    response->mutable_schedule()->set_schedule_id(request.schedule_id());
    response->mutable_state()->set_paused(request.schedule_id() == "paused");
    return grpc::Status::OK;
  };
  schedules.on_UpdateSchedule = [](const v1::UpdateScheduleRequest&, v1::UpdateScheduleResponse*) {
    return grpc::Status::OK;
  };
  EXPECT_THAT(Run({"schedule", "update", "paused", "--cron", "@hourly"}).err,
              HasSubstr("it is paused"));
  EXPECT_THAT(Run({"schedule", "update", "ended", "--end-at", "2024-01-01"}).err,
              HasSubstr("it has no times to come"));
}

TEST_F(Fluxctl, ABackfillEndsWithTheDayThatIsNamed) {
  std::vector<v1::BackfillScheduleRequest> backfills;
  schedules.on_BackfillSchedule = [&](const v1::BackfillScheduleRequest& request,
                                      v1::BackfillScheduleResponse*) {
    backfills.push_back(request);
    return grpc::Status::OK;
  };
  const Outcome outcome =
      Run({"schedule", "backfill", "nightly", "--from", "2024-05-01", "--to", "2024-05-02"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(backfills.size(), 1U);
  constexpr int64_t kDayMs = 86'400'000;
  const int64_t midnight = kStartMs - kDayMs / 2;
  EXPECT_EQ(backfills[0].from_time_ms(), midnight);
  EXPECT_EQ(backfills[0].to_time_ms(), midnight + 2 * kDayMs - 1);
}

TEST_F(Fluxctl, ADefinitionIsShownByTheBeginningOfItsHash) {
  Define();
  const std::string one = std::string(60, '1') + "0111";
  const std::string two = std::string(60, '1') + "0211";
  for (const std::string& hash : {one, one.substr(0, 62)}) {
    const Outcome shown = Run({"definition", "show", "code-chart", "--hash", hash, "-o", "json"});
    EXPECT_EQ(shown.code, 0) << shown.err;
    EXPECT_EQ(Json::parse(shown.out)["summary"]["version"], "1");
  }
  const Outcome both = Run({"definition", "show", "code-chart", "--hash", "111111"});
  EXPECT_EQ(both.code, 2);
  EXPECT_THAT(both.err, HasSubstr("code-chart@1 (" + one + "), code-chart@2 (" + two + ")"));
  const Outcome none = Run({"definition", "show", "code-chart", "--hash", "222222"});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.err, HasSubstr("has a hash that begins with 222222"));
}

}  // namespace
}  // namespace flux::cli
