// The real binary against a coordinator that answers what each test tells it to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/cli/harness.h"

namespace flux::cli {

std::string FluxctlBinary() { return FLUXCTL_BINARY; }

namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using Json = nlohmann::json;

TEST_F(Fluxctl, BareAndGroupsPrintHelp) {
  const Outcome bare = Run({});
  EXPECT_EQ(bare.code, 0);
  EXPECT_THAT(bare.out, HasSubstr("Exit codes:"));
  EXPECT_THAT(bare.err, IsEmpty());
  const Outcome group = Run({"workflow"});
  EXPECT_EQ(group.code, 0);
  EXPECT_THAT(group.out, HasSubstr("fluxctl workflow"));
  EXPECT_THAT(group.out, HasSubstr("terminate"));
  const Outcome help = Run({"workflow", "start", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("Usage: fluxctl workflow start"));
  EXPECT_THAT(Run({"--version"}).out, StartsWith("fluxctl "));
  EXPECT_THAT(Run({"version", "-o", "jsonl"}).out, StartsWith("{\"version\":"));
}

TEST_F(Fluxctl, UsageErrorsAreTwoAndSayWhatIsWrong) {
  const struct {
    std::vector<std::string> arguments;
    const char* message;
  } kCases[] = {
      {{"frobnicate"}, "unknown command \"frobnicate\" for 'fluxctl'"},
      {{"workflow", "strat", "x"}, "did you mean \"start\"?"},
      {{"workflow", "list", "--stats", "running"}, "did you mean \"--status\"?"},
      {{"workflow", "list", "--status", "runing"}, "did you mean running?"},
      {{"workflow", "list", "--started-after", "noon"}, "--started-after: \"noon\" is not a time"},
      {{"workflow", "show"}, "WORKFLOW_ID is required"},
      {{"workflow", "show", "a", "b"}, "unexpected argument \"b\""},
      {{"workflow", "show", "a", "--items", "many"}, "--items"},
      {{"workflow", "start", "w", "--id="}, "has an empty value"},
      {{"workflow", "start", "w", "--input", "{\"a\": tru}"},
       "--input is not JSON: line 1, column"},
      {{"workflow", "start", "w", "--label", "novalue"}, "is not KEY=VALUE"},
      {{"workflow", "start", "w", "--label", "k=1", "--label", "k=2"}, "given twice"},
      {{"workflow", "start", "w", "--args", "[1]", "--input", "1"}, "cannot be combined"},
      {{"workflow", "start", "w", "--args", "{}"}, "must be a JSON array"},
      {{"workflow", "start", "w", "--input", "-", "--input", "-"}, "only one of the parameters"},
      {{"workflow", "start", "w", "--on-conflict", "maybe"}, "not one of reject, use-existing"},
      {{"workflow", "cancel"}, "name the workflow ids"},
      {{"workflow", "cancel", "a", "--workflow", "w"}, "not both"},
      {{"workflow", "delete", "a", "--query", "steps > 3"}, "not both"},
      {{"workflow", "cancel", "--query", "started <= now", "--run-id", "x"}, "exactly one"},
      {{"workflow", "cancel", "--query", " \t"}, "--query is blank"},
      {{"workflow", "list", "--query", ""}, "--query is blank"},
      {{"workflow", "cancel", "--workflow", "w", "--rate", "0"}, "--rate"},
      {{"workflow", "cancel", "--workflow", "w", "--rate", "10001"}, "--rate"},
      {{"workflow", "cancel", "--workflow", "w", "--rate", "-1"}, "--rate"},
      {{"workflow", "cancel", "--workflow", "w", "--rate", "fast"}, "--rate"},
      {{"workflow", "cancel", "a", "--rate", "5"}, "--rate goes with filters"},
      {{"workflow", "pause", "a", "--detach"}, "--detach goes with filters"},
      {{"workflow", "skip"}, "WORKFLOW_ID and STEP are required"},
      {{"workflow", "skip", "a"}, "STEP is required"},
      {{"workflow", "skip", "--workflow", "w"}, "STEP is required"},
      {{"workflow", "skip", "a", "merge", "--workflow", "w"}, "not both"},
      {{"workflow", "park", "a", "merge", "--detach"}, "--detach goes with filters"},
      {{"workflow", "set-result", "--workflow", "w", "merge"}, "give the value with --input"},
      {{"bulk", "show"}, "BULK_ID is required"},
      {{"bulk", "stop", "x"}, "unknown command \"stop\""},
      {{"workflow", "cancel", "a", "b", "--run-id", "x"}, "exactly one workflow id"},
      {{"workflow", "cancel", "[a]"}, "square brackets"},
      {{"-o", "yaml", "workflow", "list"}, "not one of table, json, jsonl"},
      {{"--timeout", "soon", "workflow", "list"}, "--timeout: \"soon\" is not a duration"},
      {{"--address", "http://x", "workflow", "list"}, "is a URL"},
      {{"definition", "show", "x", "--hash", "abc"}, "is not 6 to 64 hex digits"},
      {{"definition", "show", "x", "--hash", "ghijkl"}, "is not 6 to 64 hex digits"},
      {{"workflow", "signal", "a", "e", "--at", "2h"}, "use --in 2h"},
      {{"workflow", "signal", "a", "e", "--at", "soon"},
       "--at: \"soon\" is not a time; give a date"},
      {{"schedule", "create", "s", "--workflow", "w", "--cron", "@daily", "--end-at", "2h"},
       "--end-at: \"2h\" is a duration, not a time"},
      {{"completion", "tcsh"}, "not one of bash, zsh, fish"},
  };
  for (const auto& c : kCases) {
    const Outcome outcome = Run(c.arguments, "1");
    EXPECT_EQ(outcome.code, 2) << c.message << "\n" << outcome.err;
    EXPECT_THAT(outcome.err, StartsWith("fluxctl: ")) << c.message;
    EXPECT_THAT(outcome.err, HasSubstr(c.message));
    EXPECT_THAT(outcome.out, IsEmpty()) << c.message;
  }
  EXPECT_THAT(starts, IsEmpty());
}

TEST_F(Fluxctl, StatusesBecomeExitCodes) {
  const struct {
    grpc::StatusCode status;
    int code;
    const char* word;
  } kCases[] = {
      {grpc::StatusCode::INVALID_ARGUMENT, 2, "(invalid_argument)"},
      {grpc::StatusCode::NOT_FOUND, 3, "(not_found)"},
      {grpc::StatusCode::ALREADY_EXISTS, 4, "(already_exists)"},
      {grpc::StatusCode::FAILED_PRECONDITION, 4, "(failed_precondition)"},
      {grpc::StatusCode::ABORTED, 4, "(aborted)"},
      {grpc::StatusCode::DEADLINE_EXCEEDED, 5, "(deadline_exceeded)"},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, 6, "(resource_exhausted)"},
      {grpc::StatusCode::INTERNAL, 6, "(internal)"},
      {grpc::StatusCode::UNIMPLEMENTED, 6, "(unimplemented)"},
  };
  for (const auto& c : kCases) {
    workflows.on_DescribeExecution = [&](const v1::DescribeExecutionRequest&,
                                         v1::DescribeExecutionResponse*) {
      return grpc::Status(c.status, "the reason \x1b[2J");
    };
    const Outcome outcome = Run({"workflow", "show", "x"});
    EXPECT_EQ(outcome.code, c.code) << c.word;
    EXPECT_THAT(outcome.err, HasSubstr(c.word));
    EXPECT_THAT(outcome.err, Not(HasSubstr("\x1b")));
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

TEST_F(Fluxctl, AnUnreachableAddressIsFiveWithAHint) {
  coordinator.Stop();  // the port is known to be free of listeners
  for (const auto& arguments : std::vector<std::vector<std::string>>{{"workflow", "list"},
                                                                     {"workflow", "watch", "x"},
                                                                     {"workflow", "run", "w"},
                                                                     {"workflow", "result", "x"}}) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 5) << arguments[1];
    EXPECT_THAT(outcome.err, HasSubstr("cannot reach fluxd at " + coordinator.address()));
    EXPECT_THAT(outcome.err, HasSubstr("fluxd --data DIR"));
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

TEST_F(Fluxctl, StartSendsInputsInTheirOrder) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "1");
  const std::string file =
      testing::TempDir() + "fluxctl-input-" + std::to_string(getpid()) + ".json";
  std::ofstream(file) << "\n {\"from\": \"file\"} \n";
  const Outcome outcome = Run({"workflow",
                               "start",
                               "list",
                               "--id",
                               "chart-17",
                               "--input",
                               "[1,2]",
                               "-f",
                               file,
                               "-i",
                               "{}",
                               "-i",
                               "-",
                               "-i",
                               "-5",
                               "--label",
                               "team=billing",
                               "--label",
                               "x=a=b",
                               "--on-conflict",
                               "use-existing",
                               "--reuse",
                               "allow-if-failed",
                               "--version",
                               "2",
                               "--request-id",
                               "r1",
                               "--execution-timeout",
                               "1h",
                               "-n",
                               "prod"},
                              "\"from stdin\"\n");
  std::filesystem::remove(file);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, IsEmpty());
  EXPECT_EQ(outcome.out,
            std::string("WORKFLOW ID  RUN ID                            STARTED\nchart-17     ") +
                kRunId + "  yes\n");
  ASSERT_EQ(starts.size(), 1U);
  const v1::StartWorkflowRequest& request = starts[0];
  EXPECT_EQ(request.workflow(), "list") << "a command's name is a fine workflow name";
  EXPECT_EQ(request.namespace_(), "prod");
  EXPECT_EQ(request.version(), "2");
  EXPECT_EQ(request.request_id(), "r1");
  EXPECT_EQ(request.execution_timeout_ms(), 3'600'000);
  EXPECT_EQ(request.conflict_policy(), v1::CONFLICT_POLICY_USE_EXISTING);
  EXPECT_EQ(request.reuse_policy(), v1::REUSE_POLICY_ALLOW_IF_FAILED);
  EXPECT_EQ(request.labels().at("team"), "billing");
  EXPECT_EQ(request.labels().at("x"), "a=b");
  EXPECT_THAT(request.identity(), StartsWith("fluxctl:tester@"));
  std::vector<std::string> inputs;
  for (const v1::Payload& p : request.inputs()) {
    EXPECT_EQ(p.encoding(), v1::ENCODING_JSON);
    inputs.push_back(p.data());
  }
  EXPECT_THAT(inputs, ElementsAre("[1,2]", "{\"from\": \"file\"}", "{}", "\"from stdin\"", "-5"));
}

TEST_F(Fluxctl, StartTakesAllParametersAsAnArray) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "1");
  const Outcome outcome =
      Run({"workflow", "start", "add", "--args", "[1.50, [2, 3]]", "-o", "json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(starts.size(), 1U);
  ASSERT_EQ(starts[0].inputs_size(), 2);
  EXPECT_EQ(starts[0].inputs(0).data(), "1.50");
  EXPECT_EQ(starts[0].inputs(1).data(), "[2, 3]");
  EXPECT_EQ(starts[0].request_id().size(), 32U) << "made up, so that a repeat is safe";
  const Json json = Json::parse(outcome.out);
  EXPECT_EQ(json["workflow_id"], "made-up");
  EXPECT_EQ(json["started"], true);
}

TEST_F(Fluxctl, AConflictHintsAtTheWayOut) {
  workflows.on_StartWorkflow = [](const v1::StartWorkflowRequest&, v1::StartWorkflowResponse*) {
    return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "workflow id \"a\" is running");
  };
  const Outcome outcome = Run({"workflow", "start", "w", "--id", "a"});
  EXPECT_EQ(outcome.code, 4);
  EXPECT_THAT(outcome.err, HasSubstr("fluxctl: workflow id \"a\" is running (already_exists)\n"));
  EXPECT_THAT(outcome.err, HasSubstr("--on-conflict use-existing"));
  workflows.on_StartWorkflow = [](const v1::StartWorkflowRequest&, v1::StartWorkflowResponse*) {
    return grpc::Status(
        grpc::StatusCode::ALREADY_EXISTS,
        "workflow id \"a\" was used by execution 1, which has closed, and the reuse "
        "policy does not allow it again: use another id");
  };
  const Outcome closed = Run({"workflow", "start", "w", "--id", "a", "--reuse", "reject"});
  EXPECT_EQ(closed.code, 4);
  EXPECT_THAT(closed.err, HasSubstr("hint: give another --id, or --reuse allow"));
  EXPECT_THAT(closed.err, Not(HasSubstr("--on-conflict"))) << "nothing is running";
}

TEST_F(Fluxctl, RunPrintsItsResultOnStdoutAndProgressOnStderr) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "{\"total\": 3.50}");
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  const Outcome outcome =
      Run({"workflow", "run", "code-chart", "--id", "chart-17", "--input", "1"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "{\"total\": 3.50}\n") << "the bytes of the result, nothing else";
  EXPECT_THAT(outcome.err, HasSubstr("fluxctl: started chart-17"));
  EXPECT_THAT(outcome.err, HasSubstr("codes  waiting  10/100 done"));
  EXPECT_THAT(outcome.err, HasSubstr("chart-17  completed"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("\x1b"))) << "no terminal, no control sequences";
  ASSERT_EQ(workflows.watched.size(), 1U);
  EXPECT_EQ(workflows.watched[0].run_id(), kRunId);
}

TEST_F(Fluxctl, AQuietRunIsOnlyItsResult) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "3");
  const Outcome outcome = Run({"workflow", "run", "w", "-q"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, "3\n");
  EXPECT_THAT(outcome.err, IsEmpty());
}

TEST_F(Fluxctl, AFailedRunIsOne) {
  AcceptStarts(v1::EXECUTION_STATUS_FAILED, "");
  const Outcome table = Run({"workflow", "run", "w", "--id", "a", "-q"});
  EXPECT_EQ(table.code, 1);
  EXPECT_THAT(table.out, IsEmpty());
  EXPECT_EQ(table.err, "fluxctl: a failed: rejected: the reviewer said no\n");
  const Outcome json = Run({"workflow", "result", "a", "-o", "json"});
  EXPECT_EQ(json.code, 1);
  const Json document = Json::parse(json.out);
  EXPECT_EQ(document["status"], "failed");
  EXPECT_EQ(document["failure"]["type"], "rejected");
  EXPECT_TRUE(document["result"].is_null());
}

TEST_F(Fluxctl, ResultWaitsUnlessToldNotTo) {
  int asked = 0;
  workflows.on_GetResult = [&](const v1::GetResultRequest& request,
                               v1::GetResultResponse* response) {
    ++asked;
    response->set_run_id(kRunId);
    response->set_status(asked < 3 ? v1::EXECUTION_STATUS_RUNNING : v1::EXECUTION_STATUS_COMPLETED);
    if (asked < 3 && request.wait_ms() == 0) return grpc::Status::OK;
    if (asked >= 3) *response->mutable_result() = JsonPayload("\"late\"");
    return grpc::Status::OK;
  };
  const Outcome waited = Run({"workflow", "result", "a"});
  EXPECT_EQ(waited.code, 0);
  EXPECT_EQ(waited.out, "\"late\"\n");
  EXPECT_EQ(asked, 3);
  asked = 0;
  const Outcome at_once = Run({"workflow", "result", "a", "--no-wait"});
  EXPECT_EQ(at_once.code, 4);
  EXPECT_THAT(at_once.err, HasSubstr("is running and has no result yet"));
  EXPECT_EQ(asked, 1);
}

TEST_F(Fluxctl, ResultEndsAtItsTimeout) {
  workflows.on_GetResult = [](const v1::GetResultRequest& request,
                              v1::GetResultResponse* response) {
    EXPECT_LE(request.wait_ms(), 2000U);
    response->set_status(v1::EXECUTION_STATUS_RUNNING);
    return grpc::Status::OK;
  };
  const Outcome outcome = Run({"workflow", "result", "a", "--timeout", "2s"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.err, HasSubstr("at the end of --timeout (deadline_exceeded)"));
}

TEST_F(Fluxctl, ResultOutlivesARestartOfTheCoordinator) {
  std::promise<void> asked;
  bool first = true;
  workflows.on_GetResult = [&](const v1::GetResultRequest&, v1::GetResultResponse* response) {
    response->set_run_id(kRunId);
    response->set_status(first ? v1::EXECUTION_STATUS_RUNNING : v1::EXECUTION_STATUS_COMPLETED);
    *response->mutable_result() = JsonPayload("7");
    if (std::exchange(first, false)) asked.set_value();
    return grpc::Status::OK;
  };
  Process process(Command({"workflow", "result", "a"}), Environment(coordinator.address()));
  ASSERT_EQ(asked.get_future().wait_for(kPatience), std::future_status::ready);
  coordinator.Stop();
  coordinator.Start();
  const Outcome outcome = process.Finish();
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "7\n");
}

TEST_F(Fluxctl, WatchPrintsALineAChangeOffATerminal) {
  workflows.feed.Send(Picture(0, v1::EXECUTION_STATUS_RUNNING));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  const Outcome outcome = Run({"workflow", "watch", "chart-17"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "2024-05-01T12:00:02.000Z  chart-17  running\n"
            "2024-05-01T12:00:02.000Z  codes  waiting  0/100 done\n"
            "2024-05-01T12:00:02.000Z  codes  completed  100/100 done  2.0s\n"
            "2024-05-01T12:00:02.000Z  chart-17  completed\n");
  EXPECT_THAT(outcome.err, IsEmpty());
}

TEST_F(Fluxctl, WatchGivesObjectsOrOneDocument) {
  workflows.feed.Send(Picture(0, v1::EXECUTION_STATUS_RUNNING));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_FAILED));
  const Outcome lines = Run({"workflow", "watch", "chart-17", "-o", "jsonl"});
  EXPECT_EQ(lines.code, 1);
  std::istringstream stream(lines.out);
  std::vector<std::string> statuses;
  for (std::string line; std::getline(stream, line);)
    statuses.push_back(Json::parse(line)["info"]["status"]);
  EXPECT_THAT(statuses, ElementsAre("running", "failed"));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  const Outcome document = Run({"workflow", "watch", "chart-17", "-o", "json"});
  EXPECT_EQ(document.code, 0);
  EXPECT_EQ(Json::parse(document.out)["closed"], true);
}

TEST_F(Fluxctl, WatchSurvivesARestartOfTheCoordinator) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Process process(Command({"workflow", "watch", "chart-17"}), Environment(coordinator.address()));
  ASSERT_TRUE(process.Await(0, "10/100 done"));
  coordinator.Stop();
  ASSERT_TRUE(process.Await(1, "fluxctl: lost the connection to " + coordinator.address()));
  coordinator.Start();
  workflows.feed.Send(Picture(50, v1::EXECUTION_STATUS_RUNNING));
  ASSERT_TRUE(process.Await(0, "50/100 done"));
  EXPECT_TRUE(process.Await(1, "fluxctl: connected to " + coordinator.address() + " again"));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  const Outcome outcome = process.Finish();
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, Not(HasSubstr("fluxctl:"))) << "notes are on stderr only";
  const std::lock_guard lock(workflows.mutex);
  EXPECT_EQ(workflows.watched.front().run_id(), "");
  EXPECT_EQ(workflows.watched.back().run_id(), kRunId)
      << "the run that was watched, not a later one";
}

TEST_F(Fluxctl, WatchEndsAtItsTimeout) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  const Outcome running = Run({"workflow", "watch", "chart-17", "--timeout", "3s"});
  EXPECT_EQ(running.code, 5);
  EXPECT_THAT(running.err,
              HasSubstr("chart-17 is still running at the end of --timeout (deadline_exceeded)"));

  workflows.AwaitNobodyWatches();
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Process process(Command({"workflow", "watch", "chart-17", "--timeout", "3s"}),
                  Environment(coordinator.address()));
  ASSERT_TRUE(process.Await(0, "10/100 done"));
  coordinator.Stop();
  const Outcome gone = process.Finish();
  EXPECT_EQ(gone.code, 5);
  EXPECT_THAT(gone.err, HasSubstr("fluxd is not to be reached"));
}

TEST_F(Fluxctl, WatchOfNothingIsThree) {
  workflows.watch_status =
      grpc::Status(grpc::StatusCode::NOT_FOUND, "no execution of workflow id \"x\"");
  const Outcome outcome = Run({"workflow", "watch", "x"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_EQ(outcome.err,
            "fluxctl: no execution of workflow id \"x\" (not_found)\n"
            "  hint: 'fluxctl workflow list' shows what there is\n");
}

TEST_F(Fluxctl, ListPagesThroughToItsLimit) {
  List(1234);
  const Outcome limited = Run({"workflow", "list", "--limit", "600", "-o", "jsonl", "--status",
                               "running,failed", "--status", "paused", "--workflow", "w",
                               "--id-prefix", "run-", "--started-after", "2024-05-01"});
  EXPECT_EQ(limited.code, 0);
  EXPECT_EQ(std::count(limited.out.begin(), limited.out.end(), '\n'), 600);
  EXPECT_THAT(limited.err, HasSubstr("there are more than these 600"));
  ASSERT_EQ(lists.size(), 2U);
  EXPECT_EQ(lists[1].page_size(), 100U);
  const v1::ExecutionFilter& filter = lists[0].filter();
  EXPECT_EQ(filter.workflow(), "w");
  EXPECT_EQ(filter.workflow_id_prefix(), "run-");
  EXPECT_EQ(filter.started_after_ms(), kStartMs - 12 * 3'600'000);
  EXPECT_THAT(filter.statuses(),
              ElementsAre(v1::EXECUTION_STATUS_RUNNING, v1::EXECUTION_STATUS_FAILED,
                          v1::EXECUTION_STATUS_PAUSED));

  const Outcome all = Run({"workflow", "list", "--limit", "0", "-o", "json"});
  EXPECT_EQ(Json::parse(all.out)["executions"].size(), 1234U);
  EXPECT_THAT(all.err, IsEmpty());
  const Outcome table = Run({"workflow", "list"});
  EXPECT_THAT(table.out, StartsWith("WORKFLOW ID  WORKFLOW"));
  EXPECT_EQ(std::count(table.out.begin(), table.out.end(), '\n'), 101);
}

TEST_F(Fluxctl, AnEmptyListIsANoteAndAnEmptyDocument) {
  List(0);
  const Outcome table = Run({"workflow", "list"});
  EXPECT_EQ(table.code, 0);
  EXPECT_THAT(table.out, IsEmpty());
  EXPECT_EQ(table.err, "fluxctl: no executions\n");
  EXPECT_EQ(Json::parse(Run({"workflow", "list", "-o", "json"}).out),
            Json::parse(R"({"executions": []})"));
  EXPECT_THAT(Run({"workflow", "list", "-o", "jsonl"}).out, IsEmpty());
}

TEST_F(Fluxctl, CountShowHistoryAndDefinitions) {
  workflows.on_CountExecutions = [](const v1::CountExecutionsRequest&,
                                    v1::CountExecutionsResponse* response) {
    response->set_count(3);
    auto& entry = *response->add_by_status();
    entry.set_status(v1::EXECUTION_STATUS_RUNNING);
    entry.set_count(3);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"workflow", "count"}).out, "STATUS   COUNT\nrunning      3\ntotal        3\n");

  workflows.on_DescribeExecution = [](const v1::DescribeExecutionRequest& request,
                                      v1::DescribeExecutionResponse* response) {
    *response->mutable_info() =
        Info(request.execution().workflow_id(), v1::EXECUTION_STATUS_RUNNING);
    response->set_server_time_ms(kStartMs + 1000);
    v1::StepInfo& step = *response->add_steps();
    step.set_name("a");
    step.set_kind("task");
    step.set_state(v1::STEP_STATE_SCHEDULED);
    step.set_reason("no worker has task charts.split");
    EXPECT_EQ(request.items_max(), 50U);
    return grpc::Status::OK;
  };
  const Outcome show = Run({"workflow", "show", "chart-17", "--items", "50"});
  EXPECT_EQ(show.code, 0) << show.err;
  EXPECT_THAT(show.out, HasSubstr("└─ a  task  scheduled"));
  EXPECT_THAT(show.out, HasSubstr("no worker has task charts.split"));
  EXPECT_THAT(Run({"workflow", "show", "chart-17", "--items", "50", "--ascii"}).out,
              HasSubstr("`- a"));

  workflows.on_GetHistory = [](const v1::GetHistoryRequest& request,
                               v1::GetHistoryResponse* response) {
    const bool first = request.page_token().empty();
    v1::HistoryEvent& event = *response->add_events();
    event.set_ordinal(first ? 1 : 2);
    event.set_time_ms(kStartMs + (first ? 0 : 1500));
    event.set_type(first ? "execution.started" : "step.completed");
    if (first) response->set_next_page_token("2");
    return grpc::Status::OK;
  };
  const Outcome history = Run({"workflow", "history", "chart-17"});
  EXPECT_EQ(history.code, 0);
  EXPECT_EQ(history.out,
            "   TIME     #  TYPE               STEP  DETAIL\n"
            "   +0ms     1  execution.started  -\n"
            "  +1.5s     2  step.completed     -\n");
  EXPECT_EQ(Json::parse(Run({"workflow", "history", "x", "-o", "json"}).out)["events"].size(), 2U);
  EXPECT_EQ(
      Json::parse(Run({"workflow", "history", "x", "-o", "json", "--limit", "1"}).out)["events"]
          .size(),
      1U);

  v1::Definition stored;
  workflows.on_PutDefinition = [&](const v1::PutDefinitionRequest& request,
                                   v1::PutDefinitionResponse* response) {
    stored = request.definition();
    response->set_definition_hash("\x01\x02");
    response->set_created(true);
    response->add_warnings("retries capped to 100");
    return grpc::Status::OK;
  };
  workflows.on_GetDefinition = [&](const v1::GetDefinitionRequest&,
                                   v1::GetDefinitionResponse* response) {
    *response->mutable_definition() = stored;
    return grpc::Status::OK;
  };
  const Outcome put = Run(
      {"definition", "put", "-"},
      R"({"name": "d", "format": 1, "scopes": [{"steps": [{"name": "a", "task": {"task": "t"}}]}]})");
  EXPECT_EQ(put.code, 0) << put.err;
  EXPECT_THAT(put.out, HasSubstr("0102"));
  EXPECT_EQ(put.err, "fluxctl: warning: retries capped to 100\n");
  EXPECT_EQ(stored.scopes(0).steps(0).task().task(), "t");
  EXPECT_THAT(Run({"definition", "show", "d"}).out, HasSubstr("└─ a  task"));
  const std::string copy = stored.SerializeAsString();
  EXPECT_EQ(
      Run({"definition", "put", "-"}, Run({"definition", "show", "d", "-o", "json"}).out).code, 0);
  EXPECT_EQ(stored.SerializeAsString(), copy) << "what show prints, put takes";
  EXPECT_EQ(Run({"definition", "put", "/nonexistent/file.json"}).code, 3);
}

TEST_F(Fluxctl, OperatorsViews) {
  const Outcome workers = Run({"worker", "list"});
  EXPECT_EQ(workers.code, 0);
  EXPECT_THAT(workers.out, HasSubstr("host:12\\x1b[31m"))
      << "a worker cannot paint the operator's terminal";
  EXPECT_EQ(Run({"worker", "list", "--queue", "empty"}).err,
            "fluxctl: no workers are connected to queue empty\n");
  EXPECT_THAT(Run({"task-queue", "list"}).out, HasSubstr("default"));
  EXPECT_THAT(Run({"task-queue", "show", "nlp"}).out, HasSubstr("no worker has this task"));
  EXPECT_THAT(Run({"admin", "info"}).out, HasSubstr("9.9.9"));
  EXPECT_EQ(Json::parse(Run({"admin", "info", "-o", "json"}).out)["counters"]["commits"], 7);
  EXPECT_EQ(Run({"admin", "verify", "fine"}).code, 0);
  const Outcome damaged = Run({"admin", "verify", "damaged"});
  EXPECT_EQ(damaged.code, 6);
  EXPECT_THAT(damaged.err, HasSubstr("step 3 differs"));
}

TEST_F(Fluxctl, CancelByIdReportsEachOutcome) {
  AcceptCancels();
  const Outcome one = Run({"workflow", "cancel", "run-0", "--reason", "wrong input"});
  EXPECT_EQ(one.code, 0) << one.err;
  ASSERT_EQ(cancels.size(), 1U);
  EXPECT_EQ(cancels[0].reason(), "wrong input");
  EXPECT_THAT(cancels[0].identity(), StartsWith("fluxctl:tester@"));
  const Outcome refused = Run({"workflow", "cancel", "run-1"});
  EXPECT_EQ(refused.code, 4);
  EXPECT_EQ(refused.err, "fluxctl: run-1 is completed already (failed_precondition)\n");
  const Outcome several = Run({"workflow", "cancel", "run-0", "run-1", "run-2"});
  EXPECT_EQ(several.code, 4);
  EXPECT_THAT(several.out, HasSubstr("run-0                     cancel requested\n"));
  EXPECT_THAT(several.out, HasSubstr("run-1                     run-1 is completed already\n"));
  EXPECT_THAT(several.out, HasSubstr("run-2                     cancel requested\n"))
      << "one failure does not stop the rest";
  EXPECT_EQ(several.err, "fluxctl: 1 of 3 failed\n");
}

TEST_F(Fluxctl, ALiveViewIsRedrawnInPlace) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Terminal terminal(Command({"workflow", "watch", "chart-17"}), Environment(coordinator.address()),
                    100);
  ASSERT_TRUE(terminal.AwaitScreen("10/100 done"));
  EXPECT_FALSE(terminal.screen().cursor_shown());
  EXPECT_THAT(terminal.screen().Text(), HasSubstr("██"));
  workflows.feed.Send(Picture(60, v1::EXECUTION_STATUS_RUNNING));
  ASSERT_TRUE(terminal.AwaitScreen("60/100 done"));
  EXPECT_THAT(terminal.screen().Text(), Not(HasSubstr("10/100"))) << "drawn over, not below";
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  EXPECT_EQ(terminal.Finish(), 0);
  const std::string text = terminal.screen().Text();
  EXPECT_THAT(text, StartsWith("chart-17  code-chart  completed"));
  EXPECT_THAT(text, HasSubstr("✔ codes"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
  EXPECT_TRUE(terminal.screen().cursor_shown());
  EXPECT_THAT(terminal.bytes(), HasSubstr("\x1b[32m")) << "colour on a terminal";
}

TEST_F(Fluxctl, ALiveViewSaysThatItReconnects) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Terminal terminal(Command({"workflow", "watch", "chart-17", "--no-color"}),
                    Environment(coordinator.address()), 100);
  ASSERT_TRUE(terminal.AwaitScreen("10/100 done"));
  coordinator.Stop();
  ASSERT_TRUE(terminal.AwaitScreen("reconnecting"));
  EXPECT_THAT(terminal.screen().Text(), HasSubstr("fluxctl: lost the connection"));
  coordinator.Start();
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  EXPECT_EQ(terminal.Finish(), 0);
  EXPECT_THAT(terminal.screen().Text(), Not(HasSubstr("reconnecting")));
  EXPECT_THAT(terminal.bytes(), Not(HasSubstr("\x1b[3")));
}

TEST_F(Fluxctl, AnInterruptGivesTheCursorBack) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Terminal terminal(Command({"workflow", "watch", "chart-17"}), Environment(coordinator.address()),
                    100);
  ASSERT_TRUE(terminal.AwaitScreen("10/100 done"));
  terminal.Interrupt();
  EXPECT_EQ(terminal.Finish(), 130);
  EXPECT_TRUE(terminal.screen().cursor_shown());
  EXPECT_THAT(terminal.screen().Text(), HasSubstr("stopped watching; chart-17 goes on"));
}

TEST_F(Fluxctl, RunOnATerminalLeavesItsResultLast) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "{\"text\":\"a\xc2\x9b[2Jb\"}");
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  Terminal terminal(Command({"workflow", "run", "code-chart", "--id", "chart-17"}),
                    Environment(coordinator.address()), 100);
  EXPECT_EQ(terminal.Finish(), 0);
  EXPECT_THAT(terminal.screen().Text(), testing::EndsWith("{\n  \"text\": \"a\\u009b[2Jb\"\n}\n"));
}

TEST_F(Fluxctl, AFullDiskIsNoticed) {
  List(3);
  Process process({"/bin/sh", "-c", "exec " + FluxctlBinary() + " workflow list > /dev/full"},
                  Environment(coordinator.address()));
  const Outcome outcome = process.Finish();
  EXPECT_EQ(outcome.code, 6);
  EXPECT_THAT(outcome.err, HasSubstr("cannot write to standard output"));
}

TEST_F(Fluxctl, BashCompletesCommandsOptionsAndValues) {
  EXPECT_EQ(
      Process({"bash", "-c", "bash -n <(\"$0\" completion bash)", FluxctlBinary()}, Environment(""))
          .Finish()
          .code,
      0);
  const struct {
    const char* words;  // the last one is being completed
    std::vector<std::string> expected;
    bool all;
  } kCases[] = {
      {"fluxctl w", {"workflow", "worker"}, true},
      {"fluxctl workflow st", {"start"}, true},
      {"fluxctl workflow start code-chart --on-c", {"--on-conflict"}, true},
      {"fluxctl workflow start x --on-conflict ''",
       {"reject", "use-existing", "terminate-existing"},
       true},
      {"fluxctl -o json workflow list --status pa", {"paused"}, true},
      {"fluxctl workflow list --output = j", {"json", "jsonl"}, true},
      {"fluxctl workflow list --out", {"--output"}, true},
      {"fluxctl --address workflow task-queue ''", {"list", "show"}, true},
      {"fluxctl completion ''", {"bash", "zsh", "fish"}, true},
      {"fluxctl workflow cancel --y", {"--yes"}, true},
      {"fluxctl workflow cancel --q", {"--query"}, true},
      {"fluxctl workflow del", {"delete", "deletions"}, true},
      {"fluxctl bulk ''", {"list", "show", "watch", "cancel"}, true},
      {"fluxctl definition put /etc/host", {"/etc/hostname"}, false},
      {"fluxctl workflow show ''", {}, true},
  };
  for (const auto& c : kCases) {
    const std::string script = std::string("source <(\"$0\" completion bash); COMP_WORDS=(") +
                               c.words +
                               "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); __fluxctl_complete; "
                               "printf '%s\\n' \"${COMPREPLY[@]}\"";
    const Outcome outcome =
        Process({"bash", "-c", script, FluxctlBinary()}, Environment("")).Finish();
    EXPECT_THAT(outcome.err, IsEmpty()) << c.words;
    std::istringstream stream(outcome.out);
    std::vector<std::string> words;
    for (std::string line; std::getline(stream, line);) {
      if (!line.empty()) words.push_back(line);
    }
    if (c.all) {
      EXPECT_THAT(words, testing::UnorderedElementsAreArray(c.expected)) << c.words;
    } else {
      EXPECT_THAT(words, testing::IsSupersetOf(c.expected)) << c.words;
    }
  }
}

TEST_F(Fluxctl, SignalSendsAnEvent) {
  std::vector<v1::SendEventRequest> events;
  workflows.on_SendEvent = [&](const v1::SendEventRequest& request,
                               v1::SendEventResponse* response) {
    events.push_back(request);
    response->set_run_id(kRunId);
    response->set_duplicate(request.event_id() == "again");
    // An older coordinator does not say it.
    if (request.event_id() == "mail-3") response->set_event_id("as-taken");
    return grpc::Status::OK;
  };
  const Outcome sent = Run({"workflow", "signal", "chart-17", "approved", "--input", "[true]"});
  EXPECT_EQ(sent.code, 0) << sent.err;
  EXPECT_THAT(sent.out, HasSubstr("accepted"));
  const Outcome later = Run({"workflow", "signal", "chart-17", "approved", "--at",
                             "2030-01-01T00:00:00Z", "--event-id", "mail-3", "--run-id", kRunId});
  EXPECT_EQ(later.code, 0) << later.err;
  EXPECT_THAT(later.out, HasSubstr("due at 2030-01-01T00:00:00.000Z"));
  EXPECT_THAT(later.out, HasSubstr("as-taken")) << "what it can be cancelled by";
  const Outcome again = Run({"workflow", "signal", "chart-17", "approved", "--in", "2h",
                             "--event-id", "again", "-o", "json"});
  EXPECT_EQ(again.code, 0) << again.err;
  const Json document = Json::parse(again.out);
  EXPECT_EQ(document["duplicate"], true);
  EXPECT_EQ(document["event_id"], "again");
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].event(), "approved");
  EXPECT_EQ(events[0].payload().data(), "[true]");
  EXPECT_EQ(events[0].event_id().size(), 32U) << "so that a repeated try is the same event";
  EXPECT_EQ(events[0].deliver_time_ms(), 0);
  EXPECT_THAT(events[0].identity(), StartsWith("fluxctl:tester@"));
  EXPECT_EQ(events[1].payload().data(), "null");
  EXPECT_EQ(events[1].deliver_time_ms(), 1'893'456'000'000);
  EXPECT_EQ(events[1].execution().run_id(), kRunId);
  EXPECT_GT(events[2].deliver_time_ms(), kStartMs);

  EXPECT_EQ(Run({"workflow", "signal", "chart-17", "approved", "--input", "{"}).code, 2);
  EXPECT_EQ(Run({"workflow", "signal", "chart-17", "a", "--in", "2h", "--at", "now"}).code, 2);
  EXPECT_EQ(Run({"workflow", "signal", "chart-17"}).code, 2);
  EXPECT_EQ(events.size(), 3U);
}

TEST_F(Fluxctl, EventsAreListedAndRepaired) {
  workflows.on_ListEvents = [](const v1::ListEventsRequest& request,
                               v1::ListEventsResponse* response) {
    if (request.execution().workflow_id() == "empty") return grpc::Status::OK;
    v1::EventInfo& read = *response->add_events();
    read.set_number(1);
    read.set_event("approved");
    read.set_event_id("mail-3");
    read.set_time_ms(kStartMs);
    read.set_delivered(true);
    read.set_readers(2);
    if (request.payloads()) *read.mutable_payload() = JsonPayload("true");
    return grpc::Status::OK;
  };
  const Outcome listed = Run({"event", "list", "chart-17", "--payloads"});
  EXPECT_EQ(listed.code, 0) << listed.err;
  EXPECT_THAT(listed.out, HasSubstr("read by 2 steps"));
  EXPECT_THAT(listed.out, HasSubstr("true"));
  EXPECT_EQ(
      Json::parse(Run({"event", "list", "chart-17", "-o", "json"}).out)["events"][0]["payload"],
      true);
  EXPECT_EQ(Run({"event", "list", "empty"}).err, "fluxctl: no events\n");

  AcceptOperations();
  EXPECT_EQ(Run({"event", "cancel", "chart-17", "mail-3", "--reason", "by mistake"}).code, 0);
  EXPECT_EQ(
      Run({"event", "edit", "chart-17", "approved", "--input", "false", "--number", "4"}).code, 0);
  const Outcome replayed =
      Run({"event", "replay", "chart-17", "approved", "-f", "-"}, "{\"a\": 1}");
  EXPECT_EQ(replayed.code, 0) << replayed.err;
  EXPECT_THAT(replayed.out, HasSubstr("event replayed"));
  ASSERT_EQ(operations.size(), 3U);
  EXPECT_EQ(operations[0].operation().cancel_event().event_id(), "mail-3");
  EXPECT_EQ(operations[0].reason(), "by mistake");
  EXPECT_EQ(operations[1].operation().edit_event().number(), 4U);
  EXPECT_EQ(operations[1].operation().edit_event().payload().data(), "false");
  EXPECT_EQ(operations[2].operation().replay_event().payload().data(), "{\"a\": 1}");
  EXPECT_EQ(Run({"event", "edit", "chart-17", "approved"}).code, 2) << "without a value";
}

TEST_F(Fluxctl, RepairsOneExecution) {
  AcceptOperations();
  const std::vector<std::vector<std::string>> commands = {
      {"pause", "chart-17"},
      {"resume", "chart-17"},
      {"retry", "chart-17"},
      {"retry", "chart-17", "--step", "codes[17].parse"},
      {"park", "chart-17", "merge"},
      {"skip", "chart-17", "codes[17].parse"},
      {"set-result", "chart-17", "merge", "--input", "[1, 2]"},
      {"rewind", "chart-17", "merge", "--run-id", kRunId},
      {"unpark", "chart-17", "merge"}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.begin(), "workflow");
    command.insert(command.end(), {"--reason", "the printer was off"});
    const Outcome done = Run(command);
    EXPECT_EQ(done.code, 0) << command[1] << done.err;
  }
  ASSERT_EQ(operations.size(), commands.size());
  for (const v1::OperateExecutionRequest& request : operations) {
    EXPECT_EQ(request.execution().workflow_id(), "chart-17");
    EXPECT_EQ(request.reason(), "the printer was off");
    EXPECT_THAT(request.identity(), StartsWith("fluxctl:tester@"));
  }
  EXPECT_TRUE(operations[0].operation().has_pause());
  EXPECT_TRUE(operations[1].operation().has_resume());
  EXPECT_EQ(operations[2].operation().retry().step(), "");
  EXPECT_EQ(operations[3].operation().retry().step(), "codes[17].parse");
  EXPECT_EQ(operations[4].operation().park().step(), "merge");
  EXPECT_EQ(operations[5].operation().skip().step(), "codes[17].parse");
  EXPECT_EQ(operations[6].operation().set_result().result().data(), "[1, 2]");
  EXPECT_EQ(operations[7].operation().rewind().step(), "merge");
  EXPECT_EQ(operations[7].execution().run_id(), kRunId);
  EXPECT_EQ(operations[8].operation().unpark().step(), "merge");
  EXPECT_THAT(Run({"workflow", "retry", "chart-17"}).out, HasSubstr("3 steps are tried again"));
  const Outcome refused = Run({"workflow", "skip", "run-1", "merge"});
  EXPECT_EQ(refused.code, 4);
  EXPECT_THAT(refused.err, HasSubstr("hint: 'fluxctl workflow show run-1' shows where it stands"));
}

TEST_F(Fluxctl, WhatMayNotBeDoneTwiceIsSentOnce) {
  int calls = 0;
  workflows.on_OperateExecution = [&](const v1::OperateExecutionRequest&,
                                      v1::OperateExecutionResponse*) {
    return ++calls % 2 == 1 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "try later")
                            : grpc::Status::OK;
  };
  const Outcome rewound = Run({"workflow", "rewind", "chart-17", "merge"});
  EXPECT_EQ(rewound.code, 5);
  EXPECT_THAT(rewound.err, HasSubstr("it may have been done"));
  EXPECT_EQ(calls, 1);
  calls = 0;
  EXPECT_EQ(Run({"workflow", "pause", "chart-17"}).code, 0);
  EXPECT_EQ(calls, 2);
}

TEST_F(Fluxctl, DiffTellsWhatChanged) {
  Define();
  const Outcome table = Run({"definition", "diff", "code-chart@1", "@2"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_EQ(table.out,
            "CHANGE   STEP          KIND  FIELD                    FROM  TO\n"
            "changed  the workflow        version                  1     2\n"
            "changed  merge         task  task.retry.max_attempts  3     5\n");
  EXPECT_THAT(table.err, HasSubstr("from code-chart@1 (111111111111) to code-chart@2"));
  // By the beginning of a hash that only one has, and by one that both have.
  const std::string one = std::string(60, '1') + "01";
  const Outcome json = Run({"definition", "diff", one, "code-chart", "-o", "json"});
  EXPECT_EQ(json.code, 0) << json.err;
  const Json document = Json::parse(json.out);
  EXPECT_EQ(document["from"]["version"], "1");
  EXPECT_EQ(document["to"]["version"], "2");
  EXPECT_EQ(document["steps"][0]["fields"][0]["to"], "5");
  EXPECT_EQ(Run({"definition", "diff", "11111111", "@2"}).code, 2) << "ambiguous";
  EXPECT_THAT(Run({"definition", "diff", "code-chart@2", "code-chart"}).err,
              HasSubstr("do the same"));
  EXPECT_EQ(Run({"definition", "diff", "code-chart@9", "@2"}).code, 3);
}

}  // namespace
}  // namespace flux::cli
