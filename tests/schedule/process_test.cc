// Schedules with real processes: fluxd is killed while they fire, people use fluxctl and the SDK.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "flux/client.h"
#include "flux/schedule.h"
#include "flux/v1/schedule.grpc.pb.h"
#include "proto/bridge.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/workflows.h"

namespace flux::e2e {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

class ScheduleProcess : public EndToEnd {
 protected:
  void SetUp() override {
    StartFluxd();
    StartWorker({.id = "w1"});
    ASSERT_TRUE(api().Put(DefinitionOf(kChain)).ok());
    ASSERT_TRUE(api().Put(DefinitionOf(kGated)).ok());
  }

  absl::StatusOr<v1::GetScheduleResponse> Get(const std::string& id) {
    v1::GetScheduleRequest request;
    request.set_schedule_id(id);
    v1::GetScheduleResponse response;
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kCallDeadline));
    const grpc::Status status =
        v1::ScheduleService::NewStub(api().channel())->GetSchedule(&context, request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response;
  }
  uint64_t Started(const std::string& id) {
    auto response = Get(id);
    return response.ok() ? response->state().counts().started() : 0;
  }
  Finished Ctl(std::vector<std::string> arguments) {
    return RunToEnd(FLUXCTL_BINARY, std::move(arguments), {{"FLUX_ADDRESS", fluxd_.target()}});
  }
  Json CtlJson(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"-o", "json"});
    const Finished run = Ctl(std::move(arguments));
    EXPECT_EQ(run.exit_code, 0) << run.log;
    Json json = Json::parse(run.output, nullptr, /*allow_exceptions=*/false);
    EXPECT_FALSE(json.is_discarded()) << run.output;
    return json;
  }
};

TEST_F(ScheduleProcess, NothingIsLostOrDoubledWhenFluxdIsKilledWhileItFires) {
  auto client = Client::Connect(fluxd_.target());
  ASSERT_TRUE(client.ok()) << client.status();
  const Schedules schedules(*client);
  ASSERT_TRUE(schedules
                  .Create("tick", kChain,
                          {.times = {.intervals = {{.every = absl::Seconds(1)}}},
                           .overlap = ScheduleOverlap::kAllowAll},
                          int64_t{5})
                  .ok());
  ASSERT_TRUE(Eventually([&] { return Started("tick") >= 2; }));
  std::mt19937_64 random(20);
  for (int round = 0; round < 4; ++round) {
    const uint64_t before = Started("tick");
    ASSERT_TRUE(Eventually([&] { return Started("tick") > before; }));
    // Around the next second, where it is at work.
    const absl::Time now = absl::Now();
    const absl::Time next = absl::FromUnixSeconds(absl::ToUnixSeconds(now) + 1) +
                            absl::Milliseconds(static_cast<int64_t>(random() % 30));
    ASSERT_FALSE(fluxd_.process().Wait(next - now).has_value());
    KillFluxd();
    StartFluxd();
  }
  const uint64_t after_kills = Started("tick");
  ASSERT_TRUE(Eventually([&] { return Started("tick") >= after_kills + 2; }));
  ASSERT_TRUE(schedules.Pause("tick", "enough").ok());

  auto shown = Get("tick");
  ASSERT_TRUE(shown.ok()) << shown.status();
  const v1::ScheduleCounts counts = shown->state().counts();
  EXPECT_EQ(counts.skipped() + counts.missed() + counts.failed(), 0u);
  ASSERT_TRUE(Eventually([&] {
    shown = Get("tick");
    return shown.ok() && shown->state().waiting_size() == 0;
  }));
  // One execution for each second from the first to the last.
  auto executions = api().List(1'000);
  ASSERT_TRUE(executions.ok()) << executions.status();
  std::set<int64_t> seconds;
  for (const v1::ExecutionInfo& info : *executions) {
    absl::string_view text = info.workflow_id();
    ASSERT_TRUE(absl::ConsumePrefix(&text, "tick-")) << info.workflow_id();
    absl::Time time;
    std::string error;
    ASSERT_TRUE(absl::ParseTime(absl::RFC3339_full, text, &time, &error)) << error;
    EXPECT_TRUE(seconds.insert(absl::ToUnixSeconds(time)).second)
        << info.workflow_id() << " was started twice";
    auto result = api().AwaitClosed(Ref(info.workflow_id()));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->status(), v1::EXECUTION_STATUS_COMPLETED);
    EXPECT_EQ(Read<int64_t>(result->result()), 9);
  }
  EXPECT_EQ(seconds.size(), shown->state().counts().started());
  EXPECT_EQ(static_cast<int64_t>(seconds.size()), *seconds.rbegin() - *seconds.begin() + 1)
      << "a second is missing";
}

TEST_F(ScheduleProcess, WaitsForTheRunBeforeOverAKill) {
  auto client = Client::Connect(fluxd_.target());
  ASSERT_TRUE(client.ok()) << client.status();
  const Schedules schedules(*client);
  ASSERT_TRUE(schedules
                  .Create("one", kGated,
                          {.times = {.intervals = {{.every = absl::Seconds(1)}}},
                           .overlap = ScheduleOverlap::kBufferOne},
                          std::string("door"))
                  .ok());
  ASSERT_TRUE(Eventually([&] {
    auto info = schedules.Get("one");
    return info.ok() && info->running == 1 && info->waiting == 1;
  }));
  KillFluxd();
  StartFluxd();
  auto info = schedules.Get("one");
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->running, 1u);
  EXPECT_EQ(info->waiting, 1u);
  EXPECT_EQ(info->counts.started, 1u);
  ledger_.OpenGate("door");
  ASSERT_TRUE(Eventually([&] {
    info = schedules.Get("one");
    return info.ok() && info->counts.started >= 2;
  }));
  // SIGTERM while it fires is as good.
  EXPECT_EQ(ExitCode(fluxd_.process().Terminate()), 0);
}

TEST_F(ScheduleProcess, TheSdkSaysItAll) {
  auto client = Client::Connect(fluxd_.target(), {.namespace_ = "team-a"});
  ASSERT_TRUE(client.ok()) << client.status();
  const Schedules schedules(*client);
  const absl::Time end = absl::FromUnixSeconds(4'000'000'000);
  const ScheduleOptions options = {
      .times = {.crons = {"30 2 * * *"},
                .intervals = {{.every = absl::Hours(6), .offset = absl::Hours(1)}},
                .time_zone = "Europe/Berlin",
                .end = end,
                .jitter = absl::Minutes(1)},
      .overlap = ScheduleOverlap::kBufferAll,
      .catchup_window = absl::Hours(1),
      .labels = {{"team", "a"}},
      .paused = true,
      .note = "not yet"};
  ASSERT_TRUE(schedules.Create("nightly", kChain, options, int64_t{1}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(schedules.Create("nightly", kChain, options, int64_t{1})));
  const absl::Status bad =
      schedules.Create("bad", kChain, {.times = {.crons = {"61 * * * *"}}}, int64_t{1});
  EXPECT_TRUE(absl::IsInvalidArgument(bad));
  EXPECT_THAT(std::string(Message(bad)), HasSubstr("minute field"));
  EXPECT_TRUE(absl::IsNotFound(
      schedules.CreateRaw("raw", "nobody-knows-it", {.times = {.crons = {"@daily"}}}, {})));

  auto info = schedules.Get("nightly");
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->workflow, "chain");
  EXPECT_EQ(info->times.crons, options.times.crons);
  EXPECT_EQ(info->times.intervals.at(0).offset, absl::Hours(1));
  EXPECT_EQ(info->times.time_zone, "Europe/Berlin");
  EXPECT_EQ(info->times.start, absl::InfinitePast());
  EXPECT_EQ(info->times.end, end);
  EXPECT_EQ(info->overlap, ScheduleOverlap::kBufferAll);
  EXPECT_TRUE(info->paused);
  EXPECT_EQ(info->note, "not yet");
  EXPECT_THAT(info->next, IsEmpty());

  auto triggered = schedules.Trigger("nightly");
  ASSERT_TRUE(triggered.ok()) << triggered.status();
  EXPECT_EQ(triggered->outcome, TriggerOutcome::kStarted) << triggered->detail;
  auto result = client->Attach<int64_t>(triggered->workflow_id, triggered->run_id).Result();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, 5);
  auto times = schedules.Backfill("nightly", absl::Now() - absl::Hours(12), absl::Now());
  ASSERT_TRUE(times.ok()) << times.status();
  EXPECT_GE(*times, 2u);
  ASSERT_TRUE(Eventually([&] {
    info = schedules.Get("nightly");
    return info.ok() && info->counts.started == 1 + *times && info->running == 0;
  }));
  EXPECT_EQ(info->recent.front().status, ExecutionStatus::kCompleted);

  ASSERT_TRUE(schedules.Resume("nightly", "go").ok());
  EXPECT_EQ(schedules.Get("nightly")->next.size(), 5u);
  ASSERT_TRUE(schedules
                  .Update("nightly", kChain,
                          {.times = {.crons = {"@yearly"}}, .revision = info->revision}, int64_t{2})
                  .ok());
  EXPECT_TRUE(absl::IsAborted(
      schedules.Update("nightly", kChain,
                       {.times = {.crons = {"@yearly"}}, .revision = info->revision}, int64_t{2})));
  auto list = schedules.List();
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ(list->at(0).id, "nightly");
  EXPECT_EQ(list->at(0).times.crons, std::vector<std::string>{"@yearly"});
  EXPECT_EQ(list->at(0).overlap, ScheduleOverlap::kSkip);
  ASSERT_TRUE(schedules.Pause("nightly").ok());
  ASSERT_TRUE(schedules.Delete("nightly").ok());
  EXPECT_TRUE(absl::IsNotFound(schedules.Get("nightly").status()));
  EXPECT_THAT(*schedules.List(), IsEmpty());
}

TEST_F(ScheduleProcess, FluxctlMakesShowsChangesAndDeletesOne) {
  Finished run =
      Ctl({"schedule",      "create",           "nightly",  "--workflow", "chain",
           "--cron",        "30 2 * * MON-FRI", "--every",  "6h+1h",      "--time-zone",
           "Europe/Berlin", "--input",          "5",        "--label",    "team=a",
           "--overlap",     "buffer-one",       "--jitter", "30s",        "--max-actions",
           "1000"});
  EXPECT_EQ(run.exit_code, 0) << run.log;
  EXPECT_THAT(run.output, StartsWith("NEXT TIMES"));
  EXPECT_THAT(run.log, HasSubstr("created nightly"));
  run = Ctl({"schedule", "create", "nightly", "--workflow", "chain", "--every", "1h", "-i", "5"});
  EXPECT_EQ(run.exit_code, 4);
  EXPECT_THAT(run.log, AllOf(HasSubstr("exists"), HasSubstr("schedule update nightly")));

  run = Ctl({"schedule", "list"});
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_THAT(run.output, AllOf(StartsWith("SCHEDULE"), HasSubstr("nightly"),
                                HasSubstr("30 2 * * MON-FRI, every 6h"), HasSubstr("active")));
  const Json shown = CtlJson({"schedule", "show", "nightly"});
  EXPECT_EQ(shown["schedule"]["spec"]["time_zone"], "Europe/Berlin");
  EXPECT_EQ(shown["schedule"]["spec"]["intervals"][0]["offset_ms"], 3'600'000);
  EXPECT_EQ(shown["schedule"]["policies"]["overlap"], "buffer_one");
  EXPECT_EQ(shown["schedule"]["start"]["inputs"][0], 5);
  EXPECT_EQ(shown["state"]["actions_left"], 1000);
  EXPECT_EQ(shown["next_time"].size(), 5u);
  EXPECT_EQ(shown["revision"], 1);

  run = Ctl({"schedule", "update", "nightly", "--cron", "@daily", "--overlap", "skip",
             "--pause-on-failure", "--end-at", "2999-01-01"});
  EXPECT_EQ(run.exit_code, 0) << run.log;
  const Json updated = CtlJson({"schedule", "show", "nightly"});
  EXPECT_EQ(updated["schedule"]["spec"]["crons"][0], "@daily");
  EXPECT_EQ(updated["schedule"]["spec"]["intervals"].size(), 0u) << "new times replace the old";
  EXPECT_EQ(updated["schedule"]["spec"]["time_zone"], "Europe/Berlin") << "what is not given stays";
  EXPECT_EQ(updated["schedule"]["spec"]["end_time"], "2999-01-01T00:00:00.000Z");
  EXPECT_EQ(updated["schedule"]["start"]["labels"]["team"], "a");
  EXPECT_EQ(updated["schedule"]["policies"]["pause_on_failure"], true);
  EXPECT_EQ(updated["revision"], 2);
  run = Ctl({"schedule", "update", "nightly", "--no-pause-on-failure", "--end-at", "none"});
  EXPECT_EQ(run.exit_code, 0) << run.log;
  EXPECT_EQ(CtlJson({"schedule", "show", "nightly"})["schedule"]["policies"]["pause_on_failure"],
            false);

  run = Ctl({"schedule", "pause", "nightly", "--note", "moving"});
  EXPECT_EQ(run.exit_code, 0) << run.log;
  run = Ctl({"schedule", "show", "nightly"});
  EXPECT_THAT(run.output, AllOf(HasSubstr("paused by fluxctl:"), HasSubstr(": moving"),
                                Not(HasSubstr("NEXT TIMES"))));
  run = Ctl({"schedule", "resume", "nightly"});
  EXPECT_EQ(run.exit_code, 0) << run.log;
  EXPECT_THAT(run.output, StartsWith("NEXT TIMES"));

  run = Ctl({"schedule", "delete", "nightly"});
  EXPECT_EQ(run.exit_code, 0) << run.log;
  EXPECT_THAT(run.output, IsEmpty());
  EXPECT_THAT(run.log, HasSubstr("goes on"));
  run = Ctl({"schedule", "show", "nightly"});
  EXPECT_EQ(run.exit_code, 3);
  EXPECT_THAT(run.log, HasSubstr("no schedule \"nightly\""));
  run = Ctl({"schedule", "list"});
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_THAT(run.log, HasSubstr("no schedules"));
}

TEST_F(ScheduleProcess, FluxctlTriggersAndBackfills) {
  ASSERT_EQ(Ctl({"schedule", "create", "gate", "--workflow", "gated", "--every", "1h", "--paused",
                 "--note", "by hand", "--input", "\"door\""})
                .exit_code,
            0);
  Finished run = Ctl({"schedule", "trigger", "gate"});
  EXPECT_EQ(run.exit_code, 0) << run.log;
  EXPECT_THAT(run.output, AllOf(StartsWith("WORKFLOW ID"), HasSubstr("started")));
  run = Ctl({"schedule", "trigger", "gate"});
  EXPECT_EQ(run.exit_code, 4);
  EXPECT_THAT(run.log, AllOf(HasSubstr("is open"), HasSubstr("--overlap allow-all")));
  EXPECT_EQ(CtlJson({"schedule", "trigger", "gate", "--overlap", "buffer-all"})["outcome"],
            "waiting");
  run = Ctl({"schedule", "backfill", "gate", "--from", "5h", "--overlap", "allow-all"});
  EXPECT_EQ(run.exit_code, 0) << run.log;
  EXPECT_THAT(run.log, HasSubstr("5 times"));
  ledger_.OpenGate("door");
  ASSERT_TRUE(Eventually([&] {
    const Json shown = CtlJson({"schedule", "show", "gate"});
    return shown["state"]["counts"]["started"] == 7 && shown["state"]["running"].empty();
  }));
  run = Ctl({"schedule", "show", "gate"});
  EXPECT_THAT(run.output, AllOf(HasSubstr("7 started, 1 skipped"), HasSubstr("backfill"),
                                HasSubstr("trigger"), HasSubstr("completed")));
  run = Ctl({"schedule", "list", "-o", "jsonl"});
  const Json line = Json::parse(run.output, nullptr, false);
  EXPECT_EQ(line["schedule_id"], "gate");
  EXPECT_EQ(line["paused"], true);
  EXPECT_EQ(line["next_time"], nullptr);
}

TEST_F(ScheduleProcess, FluxctlSaysWhatIsWrong) {
  struct Bad {
    std::vector<std::string> arguments;
    int exit_code;
    std::string part;
  };
  const std::vector<Bad> cases = {
      {{"create", "x", "--workflow", "chain", "-i", "1"}, 2, "--cron"},
      {{"create", "x", "--every", "1h"}, 2, "--workflow"},
      {{"create", "x", "--workflow", "chain", "-i", "1", "--cron", "0 25 * * *"}, 2, "hour field"},
      {{"create", "x", "--workflow", "chain", "-i", "1", "--every", "1h+2h"}, 2, "offset"},
      {{"create", "x", "--workflow", "chain", "-i", "1", "--every", "soon"}, 2, "--every"},
      {{"create", "x", "--workflow", "chain", "-i", "1", "--every", "1h", "--time-zone", "CEST"},
       2,
       "unknown time zone"},
      {{"create", "x", "--workflow", "chain", "-i", "1", "--every", "1h", "--overlap", "skipp"},
       2,
       "did you mean skip"},
      {{"create", "x", "--workflow", "chain", "-i", "{", "--every", "1h"}, 2, "--input"},
      {{"create", "x", "--workflow", "chain", "--every", "1h"}, 2, "takes 1 input"},
      {{"create", "x", "--workflow", "nobody", "--every", "1h"}, 3, "definition list"},
      {{"update", "x", "--every", "1h"}, 3, "no schedule \"x\""},
      {{"backfill", "x"}, 2, "--from"},
      {{"backfill", "x", "--from", "sometimes"}, 2, "--from"},
      {{"trigger", "x"}, 3, "no schedule \"x\""},
      {{"delete", "x"}, 3, "no schedule \"x\""},
      {{"pauze", "x"}, 2, "did you mean \"pause\""},
  };
  for (const Bad& bad : cases) {
    std::vector<std::string> arguments = {"schedule"};
    arguments.insert(arguments.end(), bad.arguments.begin(), bad.arguments.end());
    const Finished run = Ctl(arguments);
    EXPECT_EQ(run.exit_code, bad.exit_code) << bad.part << ": " << run.log;
    EXPECT_THAT(run.log, HasSubstr(bad.part));
    EXPECT_THAT(run.output, IsEmpty());
  }
  const Finished help = Ctl({"schedule", "create", "--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, AllOf(HasSubstr("--time-zone"), HasSubstr("30 2 * * *")));
}

}  // namespace
}  // namespace flux::e2e
