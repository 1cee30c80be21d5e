// Commands that act on many executions, in the real binary: by query, as bulk operations.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/cli/harness.h"

namespace flux::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using Json = nlohmann::json;

TEST_F(Fluxctl, ByFilterIsRefusedWithoutATerminalOrYes) {
  AcceptBulks(12);
  const Outcome refused = Run({"workflow", "cancel", "--workflow", "code-chart"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("refusing to cancel 12 executions without asking"));
  EXPECT_THAT(refused.err, HasSubstr("run-9"));
  EXPECT_THAT(refused.err, HasSubstr("and 2 more"));
  EXPECT_THAT(refused.out, IsEmpty());
  ASSERT_EQ(bulk_starts.size(), 1U);
  EXPECT_TRUE(bulk_starts[0].preview());
  EXPECT_THAT(bulk_starts[0].filter().statuses(), testing::Contains(v1::EXECUTION_STATUS_RUNNING))
      << "only open ones";
  EXPECT_THAT(bulk_starts[0].filter().statuses(),
              Not(testing::Contains(v1::EXECUTION_STATUS_COMPLETED)));
  EXPECT_TRUE(bulk_starts[0].operation().has_cancel());
}

TEST_F(Fluxctl, ByFilterTheCoordinatorDoesIt) {
  AcceptBulks(12);
  const Outcome done =
      Run({"workflow", "cancel", "--query", "label.tenant = \"acme\" and started > -2h", "-y",
           "--rate", "50", "--reason", "their contract ended", "-n", "prod"});
  EXPECT_EQ(done.code, 4) << "run-1 refuses";
  EXPECT_EQ(done.out,
            "BULK ID           STATE      MATCHED  DONE  REFUSED  FAILED  TOOK\n"
            "0123456789abcdef  completed       12    11        1       0  1.5s\n"
            "\n"
            "WORKFLOW ID  RUN ID                            ERROR\n"
            "run-1        0123456789abcdef0123456789abcdef  run-1 is completed already\n");
  EXPECT_THAT(done.err, HasSubstr("bulk operation 0123456789abcdef  running  3/12 done, 1 refused\n"
                                  "bulk operation 0123456789abcdef  running  7/12 done, 1 refused\n"
                                  "bulk operation 0123456789abcdef  completed  11/12 done, 1 "
                                  "refused\n"
                                  "fluxctl: 1 refused and 0 failed of 12\n"));
  ASSERT_EQ(bulk_starts.size(), 2U);
  const v1::StartBulkOperationRequest preview = bulk_starts[0];
  const v1::StartBulkOperationRequest start = bulk_starts[1];
  EXPECT_EQ(preview.filter().query(), "label.tenant = \"acme\" and started > -2h");
  EXPECT_EQ(preview.filter().namespace_(), "prod");
  EXPECT_EQ(preview.filter().started_before_ms(), 0);
  EXPECT_FALSE(start.preview());
  EXPECT_EQ(start.filter().query(), preview.filter().query());
  EXPECT_EQ(start.filter().started_before_ms(), kStartMs + 1)
      << "what started after the preview was agreed to by nobody";
  EXPECT_EQ(start.rate_per_second(), 50U);
  EXPECT_EQ(start.reason(), "their contract ended");
  EXPECT_THAT(start.identity(), StartsWith("fluxctl:tester@"));
  EXPECT_EQ(start.request_id().size(), 32U) << "so that a repeated try begins nothing twice";
  EXPECT_THAT(cancels, IsEmpty());

  const Outcome json = Run({"workflow", "terminate", "--workflow", "w", "--started-before",
                            "2020-01-01", "-y", "-o", "json"});
  EXPECT_EQ(json.code, 4);
  const Json document = Json::parse(json.out);
  EXPECT_EQ(document["state"], "completed");
  EXPECT_EQ(document["done"], 11);
  EXPECT_EQ(document["errors"][0]["message"], "run-1 is completed already");
  EXPECT_TRUE(bulk_starts.back().operation().has_terminate());
  EXPECT_EQ(bulk_starts.back().filter().started_before_ms(), 1'577'836'800'000);
  EXPECT_NE(bulk_starts.back().request_id(), start.request_id());
  const Outcome line = Run({"workflow", "cancel", "--workflow", "w", "-y", "-o", "jsonl"});
  EXPECT_EQ(std::count(line.out.begin(), line.out.end(), '\n'), 1);

  AcceptBulks(1);
  const Outcome fine = Run({"workflow", "cancel", "--workflow", "w", "-y"});
  EXPECT_EQ(fine.code, 0) << fine.err;
  EXPECT_THAT(fine.out, Not(HasSubstr("ERROR")));
  AcceptBulks(5, /*fails=*/true);
  const Outcome failed = Run({"workflow", "cancel", "--workflow", "w", "-y"});
  EXPECT_EQ(failed.code, 6);
  EXPECT_THAT(failed.out, HasSubstr("the disk is full"));
  EXPECT_THAT(failed.err, HasSubstr("1 refused and 1 failed of 5"));
}

TEST_F(Fluxctl, ByFilterItBeginsOnceHoweverOftenItIsSent) {
  AcceptBulks(1);
  const auto accept = bulks.on_StartBulkOperation;
  bool lost = false;
  bulks.on_StartBulkOperation = [&](const v1::StartBulkOperationRequest& request,
                                    v1::StartBulkOperationResponse* response) {
    grpc::Status status = accept(request, response);
    if (request.preview() || std::exchange(lost, true)) return status;
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the answer is lost");
  };
  EXPECT_EQ(Run({"workflow", "cancel", "--workflow", "w", "-y"}).code, 0);
  ASSERT_EQ(bulk_starts.size(), 3U);
  EXPECT_EQ(bulk_starts[1].request_id(), bulk_starts[2].request_id());
  EXPECT_EQ(bulk_starts[1].request_id().size(), 32U);

  bulks.on_StartBulkOperation = [&](const v1::StartBulkOperationRequest& request,
                                    v1::StartBulkOperationResponse* response) {
    if (request.preview()) return accept(request, response);
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "8 bulk operations are running");
  };
  const Outcome full = Run({"workflow", "cancel", "--workflow", "w", "-y"});
  EXPECT_EQ(full.code, 6);
  EXPECT_THAT(full.err, HasSubstr("hint: 'fluxctl bulk list' shows them"));
}

TEST_F(Fluxctl, ByFilterWhatNoLongerMatchedIsTold) {
  AcceptBulks(5);
  bulks.on_GetBulkOperation = [this](const v1::GetBulkOperationRequest&,
                                     v1::GetBulkOperationResponse* response) {
    bulk.set_done(3);
    bulk.set_state(v1::BULK_STATE_COMPLETED);
    *response->mutable_operation() = bulk;
    return grpc::Status::OK;
  };
  const Outcome outcome = Run({"workflow", "cancel", "--workflow", "w", "-y"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.err, HasSubstr("fluxctl: 2 did not match any more when their turn came\n"));
}

TEST_F(Fluxctl, ByFilterNothingMatches) {
  AcceptBulks(0);
  const Outcome some = Run({"workflow", "delete", "--query", "steps > 3", "-y"});
  EXPECT_EQ(some.code, 0);
  EXPECT_EQ(some.err,
            "fluxctl: no executions match that are completed, failed, cancelled, terminated, "
            "skipped; --status asks for others\n");
  EXPECT_EQ(Run({"workflow", "delete", "--query", "steps > 3", "--status", "failed"}).err,
            "fluxctl: no executions match\n");
  ASSERT_EQ(bulk_starts.size(), 2U) << "two previews";
  EXPECT_THAT(bulk_starts[1].filter().statuses(), ElementsAre(v1::EXECUTION_STATUS_FAILED));
}

TEST_F(Fluxctl, ByFilterAsksOnATerminal) {
  AcceptBulks(12);
  {
    Terminal terminal(Command({"workflow", "cancel", "--workflow", "code-chart"}),
                      Environment(coordinator.address()), 120);
    ASSERT_TRUE(terminal.AwaitScreen("Cancel these 12 executions? [y/N]"));
    EXPECT_THAT(terminal.screen().Text(), HasSubstr("and 2 more"));
    EXPECT_THAT(terminal.screen().Text(), HasSubstr("run-9"));
    terminal.Type("n\n");
    EXPECT_EQ(terminal.Finish(), 0);
    EXPECT_THAT(terminal.screen().Text(), HasSubstr("nothing was done"));
    Settle();
    EXPECT_EQ(bulk_starts.size(), 1U) << "the preview";
  }
  Terminal terminal(Command({"workflow", "cancel", "--workflow", "code-chart"}),
                    Environment(coordinator.address()), 120);
  ASSERT_TRUE(terminal.AwaitScreen("[y/N]"));
  terminal.Type("y\n");
  EXPECT_EQ(terminal.Finish(), 4);
  EXPECT_THAT(terminal.screen().Text(), HasSubstr("cancel  completed  ██"));
  EXPECT_THAT(terminal.screen().Text(), Not(HasSubstr("cancel  running"))) << "drawn over";
  EXPECT_TRUE(terminal.screen().cursor_shown());
  Settle();
  EXPECT_EQ(bulk_starts.size(), 3U);
}

TEST_F(Fluxctl, ByFilterAnInterruptLeavesItRunning) {
  AcceptBulks(12);
  bulk_hangs = true;
  Terminal terminal(Command({"workflow", "cancel", "--workflow", "code-chart", "-y"}),
                    Environment(coordinator.address()), 150);
  ASSERT_TRUE(terminal.AwaitScreen("cancel  running"));
  EXPECT_FALSE(terminal.screen().cursor_shown());
  terminal.Interrupt();
  EXPECT_EQ(terminal.Finish(), 130);
  EXPECT_TRUE(terminal.screen().cursor_shown());
  const std::string text = terminal.screen().Text();
  EXPECT_THAT(text, HasSubstr("stopped watching; bulk operation 0123456789abcdef goes on"));
  EXPECT_THAT(text, HasSubstr("fluxctl bulk watch 0123456789abcdef"));
  Settle();
  EXPECT_EQ(bulk.state(), v1::BULK_STATE_RUNNING);
}

TEST_F(Fluxctl, ByFilterDetached) {
  AcceptBulks(12);
  const Outcome table = Run({"workflow", "pause", "--workflow", "code-chart", "-y", "--detach"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_EQ(table.out, "0123456789abcdef\n") << "for a script";
  EXPECT_THAT(table.err, HasSubstr("it acts on 12 executions; 'fluxctl bulk watch "));
  const Outcome json =
      Run({"workflow", "pause", "--workflow", "code-chart", "-y", "--detach", "-o", "json"});
  EXPECT_EQ(Json::parse(json.out)["id"], kBulkId);
  EXPECT_EQ(bulk_polls, 0);
}

TEST_F(Fluxctl, ByFilterOutlivesARestartOfTheCoordinator) {
  AcceptBulks(12);
  bulk_hangs = true;
  Process process(Command({"workflow", "cancel", "--workflow", "code-chart", "-y"}),
                  Environment(coordinator.address()));
  ASSERT_TRUE(process.Await(1, "11/12 done"));
  coordinator.Stop();
  ASSERT_TRUE(process.Await(1, "fluxctl: lost the connection to " + coordinator.address()));
  {
    const std::lock_guard lock(bulks.mutex);
    bulk_hangs = false;
  }
  coordinator.Start();
  const Outcome outcome = process.Finish();
  EXPECT_EQ(outcome.code, 4);
  EXPECT_THAT(outcome.err, HasSubstr("fluxctl: connected to " + coordinator.address() + " again"));
  EXPECT_THAT(outcome.out, HasSubstr("completed"));
}

TEST_F(Fluxctl, BulkOperationsAreListedShownWatchedAndCancelled) {
  AcceptBulks(12);
  EXPECT_EQ(Run({"bulk", "list"}).err, "fluxctl: no bulk operations\n");
  EXPECT_EQ(Json::parse(Run({"bulk", "list", "-o", "json"}).out),
            Json::parse(R"({"operations": []})"));
  bulk_hangs = true;
  ASSERT_EQ(Run({"workflow", "retry", "--query", "steps > 3 or steps = 1", "--step", "merge", "-y",
                 "--detach", "--reason", "the printer is back"})
                .code,
            0);
  const Outcome list = Run({"bulk", "list"});
  EXPECT_EQ(list.code, 0) << list.err;
  EXPECT_THAT(list.out, HasSubstr("0123456789abcdef  retry merge  running       12     0"));
  EXPECT_THAT(list.out, HasSubstr("status in (\"running\", \"failed\") and started < "
                                  "2024-05-01T12:00:00.001Z and (steps > 3 or steps = 1)"));
  EXPECT_EQ(Json::parse(Run({"bulk", "list", "-o", "jsonl"}).out)["id"], kBulkId);
  EXPECT_EQ(Run({"-n", "elsewhere", "bulk", "list"}).err, "fluxctl: no bulk operations\n");
  const Outcome show = Run({"bulk", "show", kBulkId});
  EXPECT_EQ(show.code, 0) << show.err;
  EXPECT_THAT(show.out, HasSubstr("retry merge"));
  EXPECT_THAT(show.out, HasSubstr("3/12 done, 1 refused"));
  EXPECT_THAT(show.out, HasSubstr("the printer is back"));
  EXPECT_THAT(show.out, HasSubstr("run-1 is completed already"));
  EXPECT_EQ(Json::parse(Run({"bulk", "show", kBulkId, "-o", "json"}).out)["matched"], 12);

  Process watch(Command({"bulk", "watch", kBulkId, "-o", "jsonl"}),
                Environment(coordinator.address()));
  ASSERT_TRUE(watch.Await(0, "\"running\""));
  const Outcome cancel = Run({"bulk", "cancel", kBulkId});
  EXPECT_EQ(cancel.code, 0) << cancel.err;
  EXPECT_THAT(cancel.out, HasSubstr("cancelled"));
  const Outcome watched = watch.Finish();
  EXPECT_EQ(watched.code, 4);
  EXPECT_THAT(watched.err, HasSubstr("ended early: cancelled by fluxctl:tester@"));
  std::istringstream stream(watched.out);
  std::vector<std::string> states;
  for (std::string line; std::getline(stream, line);) {
    states.push_back(Json::parse(line)["state"]);
  }
  EXPECT_THAT(states, ElementsAre("running", "cancelled"));
  EXPECT_EQ(Run({"bulk", "cancel", kBulkId}).code, 4) << "it has ended";
  for (const char* command : {"show", "watch", "cancel"}) {
    const Outcome unknown = Run({"bulk", command, "none"});
    EXPECT_EQ(unknown.code, 3) << command;
    EXPECT_THAT(unknown.err, HasSubstr("no bulk operation \"none\""));
    EXPECT_THAT(unknown.err, HasSubstr("hint: 'fluxctl bulk list'"));
  }
}

TEST_F(Fluxctl, AWatchedBulkOperationEndsAtItsTimeout) {
  AcceptBulks(12);
  bulk_hangs = true;
  ASSERT_EQ(Run({"workflow", "cancel", "--workflow", "w", "-y", "--detach"}).code, 0);
  const Outcome late = Run({"bulk", "watch", kBulkId, "--timeout", "1s"});
  EXPECT_EQ(late.code, 5);
  EXPECT_THAT(late.err, HasSubstr("has not ended at the end of --timeout (deadline_exceeded)"));
  EXPECT_THAT(late.err, HasSubstr("goes on"));
  {
    const std::lock_guard lock(bulks.mutex);
    bulk.set_state(v1::BULK_STATE_FAILED);
    bulk.set_failure("the index is damaged");
  }
  const Outcome failed = Run({"bulk", "watch", kBulkId});
  EXPECT_EQ(failed.code, 6);
  EXPECT_THAT(failed.err, HasSubstr("ended early: the index is damaged"));
  coordinator.Stop();
  EXPECT_EQ(Run({"bulk", "watch", kBulkId}).code, 5);
}

TEST_F(Fluxctl, AQueryGoesToTheServerAndItsErrorsShowThePlace) {
  List(3);
  const std::string query = "status = \"failed\" and tenant = \"acme\"";
  ASSERT_EQ(Run({"workflow", "list", "--query", query, "--workflow", "w"}).code, 0);
  EXPECT_EQ(lists[0].filter().query(), query);
  EXPECT_EQ(lists[0].filter().workflow(), "w");
  const grpc::Status refusal(grpc::StatusCode::INVALID_ARGUMENT,
                             "query, position 23: no field is called \"tenant\"");
  workflows.on_ListExecutions = [&](const auto&, auto*) { return refusal; };
  workflows.on_CountExecutions = [&](const auto&, auto*) { return refusal; };
  bulks.on_StartBulkOperation = [&](const auto&, auto*) { return refusal; };
  Define();
  const std::vector<std::vector<std::string>> commands = {
      {"list"},
      {"count"},
      {"cancel"},
      {"delete"},
      {"migrate", "--to", "code-chart@2", "--dry-run"}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.begin(), "workflow");
    command.insert(command.end(), {"--query", query});
    const Outcome outcome = Run(command);
    EXPECT_EQ(outcome.code, 2) << command[1];
    EXPECT_EQ(outcome.err,
              "fluxctl: query, position 23: no field is called \"tenant\" (invalid_argument)\n"
              "  status = \"failed\" and tenant = \"acme\"\n"
              "                        ^\n")
        << command[1];
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

TEST_F(Fluxctl, DeletesByIdAndByFilter) {
  AcceptOperations();
  AcceptBulks(1);
  const Outcome one = Run({"workflow", "delete", "run-0", "--run-id", kRunId, "--reason", "gdpr"});
  EXPECT_EQ(one.code, 0) << one.err;
  EXPECT_THAT(one.out, HasSubstr("deleted"));
  ASSERT_EQ(operations.size(), 1U);
  EXPECT_TRUE(operations[0].operation().has_delete_());
  EXPECT_EQ(operations[0].execution().run_id(), kRunId);
  EXPECT_EQ(operations[0].reason(), "gdpr");
  EXPECT_EQ(Run({"workflow", "delete", "run-1"}).code, 4);
  const Outcome many = Run({"workflow", "delete", "--query", "closed < -30d", "-y"});
  EXPECT_EQ(many.code, 0) << many.err;
  EXPECT_EQ(operations.size(), 2U) << "the coordinator does what is found by filter";
  EXPECT_TRUE(bulk_starts.back().operation().has_delete_());
  EXPECT_THAT(
      bulk_starts.back().filter().statuses(),
      testing::UnorderedElementsAre(v1::EXECUTION_STATUS_COMPLETED, v1::EXECUTION_STATUS_FAILED,
                                    v1::EXECUTION_STATUS_CANCELLED, v1::EXECUTION_STATUS_TERMINATED,
                                    v1::EXECUTION_STATUS_SKIPPED));
  EXPECT_THAT(Run({"workflow", "delete", "--query", "closed < -30d"}).err,
              HasSubstr("refusing to delete 1 execution without asking"));
}

TEST_F(Fluxctl, RepairsManyWithAPreview) {
  AcceptBulks(3);
  const Outcome refused = Run({"workflow", "retry", "--workflow", "code-chart"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("refusing to retry 3 executions without asking"));
  EXPECT_THAT(Run({"workflow", "skip", "--workflow", "code-chart", "merge"}).err,
              HasSubstr("refusing to skip merge in 3 executions without asking"));
  EXPECT_THAT(Run({"event", "edit", "--workflow", "code-chart", "approved", "-i", "1"}).err,
              HasSubstr("refusing to edit event approved in 3 executions without asking"));
  const Outcome done = Run({"workflow", "retry", "--workflow", "code-chart", "-y", "-o", "json"});
  EXPECT_EQ(done.code, 4) << "run-1 refuses";
  EXPECT_THAT(bulk_starts.back().filter().statuses(),
              testing::Contains(v1::EXECUTION_STATUS_FAILED));
  const struct {
    std::vector<std::string> arguments;
    std::function<bool(const v1::Operation&)> expected;
  } kCases[] = {
      {{"workflow", "pause"}, [](const v1::Operation& o) { return o.has_pause(); }},
      {{"workflow", "resume"}, [](const v1::Operation& o) { return o.has_resume(); }},
      {{"workflow", "retry", "--step", "merge"},
       [](const v1::Operation& o) { return o.retry().step() == "merge"; }},
      {{"workflow", "park", "merge"},
       [](const v1::Operation& o) { return o.park().step() == "merge"; }},
      {{"workflow", "unpark", "merge"},
       [](const v1::Operation& o) { return o.unpark().step() == "merge"; }},
      {{"workflow", "skip", "codes[17].parse"},
       [](const v1::Operation& o) { return o.skip().step() == "codes[17].parse"; }},
      {{"workflow", "set-result", "merge", "--input", "[1]"},
       [](const v1::Operation& o) {
         return o.set_result().step() == "merge" && o.set_result().result().data() == "[1]";
       }},
      {{"workflow", "rewind", "merge"},
       [](const v1::Operation& o) { return o.rewind().step() == "merge"; }},
      {{"event", "cancel", "mail-3"},
       [](const v1::Operation& o) { return o.cancel_event().event_id() == "mail-3"; }},
      {{"event", "edit", "approved", "--input", "false"},
       [](const v1::Operation& o) {
         return o.edit_event().event() == "approved" && o.edit_event().payload().data() == "false";
       }},
      {{"event", "replay", "approved", "--input", "[2]"},
       [](const v1::Operation& o) {
         return o.replay_event().event() == "approved" &&
                o.replay_event().payload().data() == "[2]";
       }},
  };
  for (const auto& c : kCases) {
    std::vector<std::string> command = c.arguments;
    command.insert(command.end(), {"--query", "steps > 3", "-y", "--detach"});
    const Outcome outcome = Run(command);
    EXPECT_EQ(outcome.code, 0) << c.arguments[1] << outcome.err;
    EXPECT_TRUE(c.expected(bulk_starts.back().operation()))
        << bulk_starts.back().ShortDebugString();
    EXPECT_THAT(bulk_starts.back().filter().query(), HasSubstr("steps > 3"));
  }
  EXPECT_EQ(Run({"workflow", "pause"}).code, 2) << "neither ids nor filters";
}

TEST_F(Fluxctl, AStepOrAnEventIsTheOnlyArgumentBesideFilters) {
  const struct {
    std::vector<std::string> arguments;
    const char* message;
  } kCases[] = {
      {{"event", "edit", "approved", "-i", "1"}, "EVENT is required"},
      {{"event", "edit", "-i", "1"},
       "WORKFLOW_ID and EVENT are required; or a filter, such as --query, and EVENT"},
      {{"event", "edit", "--query", "steps > 3", "-i", "1"}, "EVENT is required"},
      {{"event", "edit", "--query", "steps > 3", "approved"}, "give the value with --input"},
      {{"event", "replay", "chart-17", "approved", "--query", "steps > 3", "-i", "1"},
       "with filters, EVENT is the only argument"},
      {{"event", "cancel", "chart-17", "mail-3", "--query", "steps > 3"},
       "with filters, EVENT_ID is the only argument"},
      {{"workflow", "unpark", "chart-17"}, "STEP is required"},
  };
  for (const auto& c : kCases) {
    const Outcome outcome = Run(c.arguments);
    EXPECT_EQ(outcome.code, 2) << c.message << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(c.message));
  }
}

TEST_F(Fluxctl, ByFilterOnlyThoseAreMeantThatCouldTakeIt) {
  AcceptBulks(3);
  const std::vector<std::vector<std::string>> open = {{"workflow", "unpark", "merge"},
                                                      {"event", "cancel", "mail-3"},
                                                      {"event", "edit", "approved", "-i", "1"}};
  for (std::vector<std::string> command : open) {
    command.insert(command.end(), {"--workflow", "code-chart", "-y", "--detach"});
    EXPECT_EQ(Run(command).code, 0) << command[1];
    EXPECT_THAT(bulk_starts.back().filter().statuses(),
                testing::ElementsAre(v1::EXECUTION_STATUS_RUNNING, v1::EXECUTION_STATUS_PAUSED))
        << command[1];
  }
  // An execution in which all is well has nothing to retry.
  const struct {
    std::vector<std::string> arguments;
    const char* query;
  } kToMend[] = {{{"unpark", "merge", "--query", "steps > 3 or steps = 1"},
                  "(steps > 3 or steps = 1) and (parked > 0)"},
                 {{"unpark", "merge", "--workflow", "code-chart"}, "parked > 0"},
                 {{"retry", "--workflow", "code-chart"}, "status = \"failed\" or parked > 0"},
                 {{"retry", "--query", "workflow = ')\\')'"},
                  "(workflow = ')\\')') and (status = \"failed\" or parked > 0)"},
                 {{"retry", "--step", "merge", "--query", "steps > 3"}, "steps > 3"},
                 // No query by themselves, and they must not become one.
                 {{"retry", "--query", "steps > 3) or (steps = 1"}, "steps > 3) or (steps = 1"},
                 {{"retry", "--query", "(steps > 3"}, "(steps > 3"},
                 {{"retry", "--query", "workflow = 'a"}, "workflow = 'a"},
                 // Whoever names the statuses means them.
                 {{"unpark", "merge", "--query", "steps > 3", "--status", "running"}, "steps > 3"}};
  for (const auto& c : kToMend) {
    std::vector<std::string> command = c.arguments;
    command.insert(command.begin(), "workflow");
    command.insert(command.end(), {"-y", "--detach"});
    EXPECT_EQ(Run(command).code, 0) << c.query;
    EXPECT_TRUE(bulk_starts[bulk_starts.size() - 2].preview());
    EXPECT_EQ(bulk_starts[bulk_starts.size() - 2].filter().query(), c.query);
    EXPECT_EQ(bulk_starts.back().filter().query(), c.query);
  }
  // What has closed is reopened by a replay.
  Run({"event", "replay", "approved", "-i", "1", "--workflow", "code-chart", "-y", "--detach"});
  EXPECT_THAT(bulk_starts.back().filter().statuses(), testing::IsEmpty());
}

TEST_F(Fluxctl, MigratesToANamedDefinition) {
  List(2);
  AcceptOperations();
  Define();
  const Outcome dry = Run({"workflow", "migrate", "run-0", "--to", "code-chart@2", "--dry-run"});
  EXPECT_EQ(dry.code, 0) << dry.err;
  EXPECT_THAT(dry.out, HasSubstr("can be migrated"));
  ASSERT_EQ(operations.size(), 1U);
  EXPECT_TRUE(operations[0].operation().migrate().dry_run());
  EXPECT_EQ(operations[0].operation().migrate().definition_hash(),
            std::string(30, '\x11') + "\x02\x11");
  const Outcome each = Run({"workflow", "migrate", "--workflow", "code-chart", "--query",
                            "steps > 3", "--to", "@1", "--dry-run"});
  EXPECT_EQ(each.code, 4) << each.err;
  EXPECT_THAT(each.out, HasSubstr("can be migrated"));
  EXPECT_THAT(each.out, HasSubstr("run-1 is completed already")) << "of each why not";
  EXPECT_EQ(lists.back().filter().query(), "steps > 3");
  ASSERT_EQ(operations.size(), 3U);
  EXPECT_TRUE(operations[2].operation().migrate().dry_run());
  AcceptBulks(2);
  const Outcome many = Run({"workflow", "migrate", "--workflow", "code-chart", "--to", "@1", "-y"});
  EXPECT_EQ(many.code, 4) << many.err;
  EXPECT_EQ(operations.size(), 3U);
  EXPECT_FALSE(bulk_starts.back().operation().migrate().dry_run());
  EXPECT_EQ(bulk_starts.back().operation().migrate().definition_hash(),
            std::string(30, '\x11') + "\x01\x11");
  EXPECT_THAT(Run({"workflow", "migrate", "--workflow", "code-chart", "--to", "@1", "--dry-run",
                   "--detach"})
                  .err,
              HasSubstr("not with --dry-run"));
  EXPECT_EQ(Run({"workflow", "migrate", "run-0", "--to", "code-chart@9"}).code, 3);
}

}  // namespace
}  // namespace flux::cli
