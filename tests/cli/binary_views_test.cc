// What fluxctl prints of what operators look at: as documents, in pages, and by whose clock.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/harness.h"

namespace flux::cli {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Json = nlohmann::json;

constexpr int64_t kHourMs = 3'600'000;

TEST_F(Fluxctl, ViewsAreDocumentsToo) {
  Define();
  List(2);
  workflows.on_CountExecutions = [](const v1::CountExecutionsRequest&,
                                    v1::CountExecutionsResponse* response) {
    response->set_count(3);
    auto& entry = *response->add_by_status();
    entry.set_status(v1::EXECUTION_STATUS_TERMINATED);
    entry.set_count(3);
    return grpc::Status::OK;
  };
  workflows.on_DescribeExecution = [](const v1::DescribeExecutionRequest& request,
                                      v1::DescribeExecutionResponse* response) {
    *response->mutable_info() =
        Info(request.execution().workflow_id(), v1::EXECUTION_STATUS_RUNNING);
    v1::StepInfo& step = *response->add_steps();
    step.set_name("a");
    step.set_state(v1::STEP_STATE_BACKING_OFF);
    step.set_reason("backs off");
    *step.mutable_output() = JsonPayload("{\"n\": 1}");
    EXPECT_TRUE(request.payloads()) << "a document has all there is";
    return grpc::Status::OK;
  };
  const struct {
    std::vector<std::string> command;
    std::string list;  // the array of a listing, of whose elements `expected` is the first's
    Json expected;     // by JSON pointer
  } kCases[] = {
      {{"workflow", "show", "chart-17"},
       "",
       {{"/info/workflow_id", "chart-17"},
        {"/info/status", "running"},
        {"/steps/0/state", "backing_off"},
        {"/steps/0/reason", "backs off"},
        {"/steps/0/output/n", 1},
        {"/result", nullptr}}},
      {{"workflow", "count"},
       "",
       {{"/count", 3}, {"/by_status/0/status", "terminated"}, {"/by_status/0/count", 3}}},
      {{"workflow", "list"},
       "executions",
       {{"/workflow_id", "run-0"}, {"/status", "running"}, {"/close_time", nullptr}}},
      {{"worker", "list"},
       "workers",
       {{"/worker_id", "host:12\x1b[31m"}, {"/queue", "default"}, {"/slots", 4}}},
      {{"worker", "list", "--queue", "empty"}, "workers", nullptr},
      {{"task-queue", "list"}, "queues", {{"/name", "default"}, {"/ready", 0}}},
      {{"task-queue", "show", "nlp"},
       "",
       {{"/queue/name", "nlp"},
        {"/queue/ready", 3},
        {"/queue/tasks/0/name", "charts.code"},
        {"/queue/tasks/0/workers", 0},
        {"/workers", Json::array()}}},
      {{"definition", "list"},
       "definitions",
       {{"/name", "code-chart"}, {"/version", "1"}, {"/tasks", Json::array()}}},
      {{"definition", "show", "code-chart"},
       "",
       {{"/definition/name", "code-chart"},
        {"/definition/scopes/0/steps/0/name", "merge"},
        {"/summary/version", "2"}}},
  };
  for (const auto& c : kCases) {
    const std::string name = testing::PrintToString(c.command);
    SCOPED_TRACE(name);
    std::vector<std::string> command = c.command;
    command.insert(command.end(), {"-o", "json"});
    const Outcome json = Run(command);
    command.back() = "jsonl";
    const Outcome lines = Run(command);
    EXPECT_EQ(json.code, 0) << json.err;
    EXPECT_EQ(lines.code, 0) << lines.err;
    EXPECT_THAT(json.err + lines.err, IsEmpty());
    const Json document = Json::parse(json.out, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(document.is_object()) << json.out;
    std::vector<Json> elements = {document};
    if (!c.list.empty()) {
      ASSERT_TRUE(document.contains(c.list)) << json.out;
      elements = document[c.list].get<std::vector<Json>>();
    }
    std::vector<Json> read;
    std::istringstream stream(lines.out);
    for (std::string line; std::getline(stream, line);) {
      read.push_back(Json::parse(line, nullptr, /*allow_exceptions=*/false));
    }
    EXPECT_EQ(read, elements) << lines.out;
    ASSERT_EQ(elements.empty(), c.expected.is_null()) << json.out;
    for (const auto& [pointer, value] : c.expected.items()) {
      const Json::json_pointer at(pointer);
      ASSERT_TRUE(elements[0].contains(at)) << pointer << " in " << json.out;
      EXPECT_EQ(elements[0][at], value) << pointer;
    }
  }
}

TEST_F(Fluxctl, DefinitionsAreListedInPages) {
  constexpr uint64_t kMany = 1234;
  std::vector<v1::ListDefinitionsRequest> requests;
  workflows.on_ListDefinitions = [&](const v1::ListDefinitionsRequest& request,
                                     v1::ListDefinitionsResponse* response) {
    requests.push_back(request);
    const uint64_t count = request.name() == "nothing" ? 0 : kMany;
    uint64_t at = request.page_token().empty() ? 0 : std::stoull(request.page_token());
    for (uint64_t n = 0; n < request.page_size() && at < count; ++n, ++at) {
      v1::DefinitionSummary& summary = *response->add_definitions();
      summary.set_name("code-chart");
      summary.set_version(std::to_string(at));
      summary.set_definition_hash(std::string(32, '\xab'));
      summary.set_steps(3);
      summary.set_result_type("Report");
      summary.add_parameter_types("string");
      summary.add_tasks("charts.split");
      summary.add_tasks("charts.code");
    }
    if (at < count) response->set_next_page_token(std::to_string(at));
    return grpc::Status::OK;
  };
  const Outcome two = Run({"definition", "list", "--name", "code-chart", "--limit", "2"});
  EXPECT_EQ(two.code, 0) << two.err;
  EXPECT_EQ(two.out,
            "NAME        VERSION  HASH          STEPS  AGE  SIGNATURE       TASKS\n"
            "code-chart  0        abababababab      3    -  Report(string)  charts.split, "
            "charts.code\n"
            "code-chart  1        abababababab      3    -  Report(string)  charts.split, "
            "charts.code\n");
  ASSERT_THAT(requests, SizeIs(1));
  EXPECT_EQ(requests[0].name(), "code-chart");
  EXPECT_EQ(requests[0].page_size(), 2U);

  requests.clear();
  const Outcome all = Run({"definition", "list"});
  EXPECT_EQ(all.code, 0) << all.err;
  EXPECT_EQ(std::count(all.out.begin(), all.out.end(), '\n'), 1 + static_cast<int64_t>(kMany));
  EXPECT_THAT(all.out, HasSubstr("\ncode-chart  1233     ab"));
  ASSERT_THAT(requests, SizeIs(3));
  EXPECT_EQ(requests[2].page_token(), "1000");
  EXPECT_THAT(requests[2].name(), IsEmpty());

  requests.clear();
  const Outcome json = Run({"definition", "list", "--limit", "501", "-o", "json"});
  EXPECT_EQ(json.code, 0) << json.err;
  const Json document = Json::parse(json.out);
  ASSERT_EQ(document["definitions"].size(), 501U);
  EXPECT_EQ(document["definitions"][500]["version"], "500");
  ASSERT_THAT(requests, SizeIs(2));
  EXPECT_EQ(requests[1].page_size(), 1U);

  const Outcome none = Run({"definition", "list", "--name", "nothing"});
  EXPECT_EQ(none.code, 0);
  EXPECT_THAT(none.out, IsEmpty());
  EXPECT_EQ(none.err, "fluxctl: no definitions\n");
}

// A coordinator whose clock is an hour off.
class OtherClock : public Fluxctl, public testing::WithParamInterface<int64_t> {
 protected:
  void SetUp() override {
    const auto ours = std::chrono::system_clock::now().time_since_epoch();
    now_ms_ = std::chrono::duration_cast<std::chrono::milliseconds>(ours).count() + GetParam();
    admin.time_ms = now_ms_;
    began_ms_ = now_ms_ - Admin::kAgeMs;
  }

  int64_t now_ms_ = 0;    // there
  int64_t began_ms_ = 0;  // five minutes ago, there
};

INSTANTIATE_TEST_SUITE_P(Fluxctl, OtherClock, testing::Values(-kHourMs, kHourMs),
                         [](const auto& given) { return given.param < 0 ? "Behind" : "Ahead"; });

TEST_P(OtherClock, AgesAreByIt) {
  Define();
  const auto answer = [this](auto* response) {
    response->set_server_time_ms(now_ms_);
    return grpc::Status::OK;
  };
  workflows.on_ListExecutions = [&](const auto&, v1::ListExecutionsResponse* response) {
    v1::ExecutionInfo& info = *response->add_executions();
    info = Info("chart-17", v1::EXECUTION_STATUS_RUNNING);
    info.set_start_time_ms(began_ms_);
    return answer(response);
  };
  workflows.on_ListDefinitions = [&](const auto&, v1::ListDefinitionsResponse* response) {
    response->add_definitions()->set_created_time_ms(began_ms_);
    return grpc::Status::OK;
  };
  workflows.on_GetDefinition = [&](const auto&, v1::GetDefinitionResponse* response) {
    response->mutable_summary()->set_created_time_ms(began_ms_);
    return answer(response);
  };
  workflows.on_DescribeExecution = [&](const auto&, v1::DescribeExecutionResponse* response) {
    *response->mutable_info() = Info("chart-17", v1::EXECUTION_STATUS_RUNNING);
    response->mutable_info()->set_start_time_ms(began_ms_);
    return answer(response);
  };
  workflows.on_ListEvents = [&](const auto&, v1::ListEventsResponse* response) {
    response->add_events()->set_time_ms(began_ms_);
    return answer(response);
  };
  const auto make = [&](v1::BulkOperation* operation) {
    operation->set_id(kBulkId);
    operation->set_state(v1::BULK_STATE_RUNNING);
    operation->set_start_time_ms(began_ms_);
  };
  bulks.on_ListBulkOperations = [&](const auto&, v1::ListBulkOperationsResponse* response) {
    make(response->add_operations());
    return answer(response);
  };
  bulks.on_GetBulkOperation = [&](const auto&, v1::GetBulkOperationResponse* response) {
    make(response->mutable_operation());
    return answer(response);
  };
  schedules.on_ListSchedules = [&](const auto&, v1::ListSchedulesResponse* response) {
    v1::ScheduleSummary& summary = *response->add_schedules();
    summary.set_schedule_id("nightly");
    summary.set_next_time_ms(now_ms_ + Admin::kAgeMs);
    return answer(response);
  };
  const std::vector<std::vector<std::string>> commands = {{"workflow", "list"},
                                                          {"workflow", "show", "chart-17"},
                                                          {"worker", "list"},
                                                          {"task-queue", "list"},
                                                          {"task-queue", "show", "nlp"},
                                                          {"definition", "list"},
                                                          {"definition", "show", "x"},
                                                          {"event", "list", "chart-17"},
                                                          {"admin", "info"},
                                                          {"bulk", "list"},
                                                          {"bulk", "show", kBulkId},
                                                          {"schedule", "list"}};
  for (const std::vector<std::string>& command : commands) {
    const Outcome shown = Run(command);
    EXPECT_EQ(shown.code, 0) << shown.err;
    EXPECT_THAT(shown.out, HasSubstr("5m00s")) << testing::PrintToString(command);
  }
}

TEST_P(OtherClock, TimesThatCountFromNowAreByIt) {
  List(1);
  AcceptBulks(3);
  std::vector<v1::SendEventRequest> events;
  workflows.on_SendEvent = [&](const v1::SendEventRequest& request, auto*) {
    events.push_back(request);
    return grpc::Status::OK;
  };
  std::vector<v1::CountExecutionsRequest> counts;
  workflows.on_CountExecutions = [&](const v1::CountExecutionsRequest& request, auto*) {
    counts.push_back(request);
    return grpc::Status::OK;
  };
  std::vector<v1::BackfillScheduleRequest> backfills;
  schedules.on_BackfillSchedule = [&](const v1::BackfillScheduleRequest& request, auto*) {
    backfills.push_back(request);
    return grpc::Status::OK;
  };
  std::vector<v1::CreateScheduleRequest> creates;
  schedules.on_CreateSchedule = [&](const v1::CreateScheduleRequest& request, auto*) {
    creates.push_back(request);
    return grpc::Status::OK;
  };
  const std::vector<std::vector<std::string>> commands = {
      {"workflow", "list", "--started-after", "2h", "--started-before", "30m"},
      {"workflow", "count", "--started-after", "2h"},
      {"workflow", "cancel", "--started-before", "2h", "-y", "--detach"},
      {"workflow", "signal", "chart-17", "approved", "--in", "2h"},
      {"workflow", "signal", "chart-17", "approved", "--at", "now"},
      {"schedule", "backfill", "nightly", "--from", "2h", "--to", "now"},
      {"schedule", "create", "nightly", "--workflow", "report", "--every", "1h", "--start-at",
       "now"}};
  for (const std::vector<std::string>& command : commands) {
    const Outcome done = Run(command);
    EXPECT_EQ(done.code, 0) << testing::PrintToString(command) << done.err;
  }
  ASSERT_THAT(lists, SizeIs(1));
  EXPECT_EQ(lists[0].filter().started_after_ms(), now_ms_ - 2 * kHourMs);
  EXPECT_EQ(lists[0].filter().started_before_ms(), now_ms_ - kHourMs / 2);
  ASSERT_THAT(counts, SizeIs(1));
  EXPECT_EQ(counts[0].filter().started_after_ms(), now_ms_ - 2 * kHourMs);
  ASSERT_THAT(bulk_starts, SizeIs(2)) << "a preview, and the start";
  EXPECT_EQ(bulk_starts[0].filter().started_before_ms(), now_ms_ - 2 * kHourMs);
  ASSERT_THAT(events, SizeIs(2));
  EXPECT_EQ(events[0].deliver_time_ms(), now_ms_ + 2 * kHourMs);
  EXPECT_EQ(events[1].deliver_time_ms(), now_ms_);
  ASSERT_THAT(backfills, SizeIs(1));
  EXPECT_EQ(backfills[0].from_time_ms(), now_ms_ - 2 * kHourMs);
  EXPECT_EQ(backfills[0].to_time_ms(), now_ms_);
  ASSERT_THAT(creates, SizeIs(1));
  EXPECT_EQ(creates[0].schedule().spec().start_time_ms(), now_ms_);
}

// What is malformed needs no coordinator to say so.
TEST_F(Fluxctl, AMalformedTimeIsNamedWithoutAsking) {
  coordinator.Stop();
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"workflow", "list", "--started-after", "noon"},
           {"workflow", "signal", "chart-17", "approved", "--at", "2h"},
           {"schedule", "backfill", "nightly", "--from", "noon", "--to", "now"}}) {
    const Outcome refused = Run(command);
    EXPECT_EQ(refused.code, 2) << refused.err;
    EXPECT_THAT(refused.err, HasSubstr("not a time"));
  }
}

}  // namespace
}  // namespace flux::cli
