#include "client/fluxctl/view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "client/fluxctl/bulk_view.h"
#include "client/fluxctl/table.h"

namespace flux::ctl {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int64_t kNowMs = 1'714'564'800'000;
const absl::Time kNow = absl::FromUnixMillis(kNowMs);

v1::StepInfo Step(const std::string& name, const std::string& kind, v1::StepState state) {
  v1::StepInfo step;
  step.set_name(name);
  step.set_kind(kind);
  step.set_state(state);
  return step;
}

v1::DescribeExecutionResponse Execution() {
  v1::DescribeExecutionResponse response;
  response.set_server_time_ms(kNowMs);
  v1::ExecutionInfo& info = *response.mutable_info();
  info.set_workflow_id("chart-17");
  info.set_run_id("0123456789abcdef0123456789abcdef");
  info.set_workflow("code-chart");
  info.set_version("2");
  info.set_status(v1::EXECUTION_STATUS_RUNNING);
  info.set_start_time_ms(kNowMs - 120'000);
  info.set_steps_completed(3);
  info.set_history_records(9);

  v1::StepInfo split = Step("split", "task", v1::STEP_STATE_COMPLETED);
  split.set_attempt(1);
  split.set_max_attempts(5);
  split.set_scheduled_time_ms(kNowMs - 120'000);
  split.set_end_time_ms(kNowMs - 118'800);
  split.mutable_output()->set_encoding(v1::ENCODING_JSON);
  split.mutable_output()->set_data("[1, 2]");
  *response.add_steps() = split;

  v1::StepInfo codes = Step("codes", "map", v1::STEP_STATE_WAITING);
  codes.set_scheduled_time_ms(kNowMs - 118'000);
  codes.set_items(1000);
  codes.set_items_done(412);
  codes.set_items_failed(3);
  v1::FrameInfo& first = *codes.add_frames();
  first.set_label("item 17");
  v1::StepInfo parse = Step("parse", "task", v1::STEP_STATE_RUNNING);
  parse.set_attempt(2);
  parse.set_max_attempts(5);
  parse.set_worker("w1");
  parse.set_scheduled_time_ms(kNowMs - 3'000);
  *first.add_steps() = parse;
  v1::FrameInfo& second = *codes.add_frames();
  second.set_label("item 18");
  *second.add_steps() = Step("parse", "task", v1::STEP_STATE_COMPLETED);
  v1::StepInfo name = Step("name", "task", v1::STEP_STATE_BACKING_OFF);
  name.set_attempt(1);
  name.set_max_attempts(3);
  name.set_next_time_ms(kNowMs + 5'000);
  name.mutable_failure()->set_type("io");
  name.mutable_failure()->set_message("disk\nis gone");
  *second.add_steps() = name;
  *response.add_steps() = codes;

  v1::StepInfo merge = Step("merge", "task", v1::STEP_STATE_PENDING);
  merge.set_reason("waits for codes");
  *response.add_steps() = merge;
  return response;
}

TEST(StepsTable, DrawsTheTreeWithReasons) {
  const auto response = Execution();
  Table table = StepsTable(response, kNow, {.frames_max = 10, .unicode = true});
  EXPECT_EQ(Render(Theme{.unicode = true}, table),
            "STEP                  KIND  STATE        ATTEMPT   TIME  DETAIL\n"
            "├─ split              task  completed        1/5   1.2s\n"
            "├─ codes              map   waiting            -  1m58s  412/1000 done, 3 failed, 2 "
            "in flight\n"
            "│  ├─ item 17: parse  task  running          2/5   3.0s  on w1\n"
            "│  ├─ item 18               backing off\n"
            "│  │  ├─ parse        task  completed          -      -\n"
            "│  │  └─ name         task  backing off      1/3      -  next attempt in 5s; last "
            "failure: io: disk\\nis gone\n"
            "│  └─ 998 more                                           --items N shows more\n"
            "└─ merge              task  pending            -      -  waits for codes\n");
}

TEST(StepsTable, IsAsciiWhereAsked) {
  const auto response = Execution();
  Table table = StepsTable(response, kNow, {.frames_max = 10, .unicode = false});
  const std::string text = Render(Theme{}, table);
  EXPECT_THAT(text, HasSubstr("|- split"));
  EXPECT_THAT(text, HasSubstr("|  |  `- name"));
  for (const char c : text) EXPECT_LT(static_cast<unsigned char>(c), 0x80);
}

TEST(StepsTable, ShowsPayloadsOnlyWhenAsked) {
  const auto response = Execution();
  Table with = StepsTable(response, kNow, {.payloads = true});
  Table without = StepsTable(response, kNow, {});
  EXPECT_THAT(Render(Theme{}, with), HasSubstr("= [1, 2]"));
  EXPECT_THAT(Render(Theme{}, without), Not(HasSubstr("[1, 2]")));
}

TEST(MapText, MarksACountThatMayBeHigher) {
  v1::StepInfo map = Step("m", "map", v1::STEP_STATE_WAITING);
  map.set_items(5);
  *map.add_frames()->add_steps() = Step("a", "task", v1::STEP_STATE_RUNNING);
  *map.add_frames()->add_steps() = Step("a", "task", v1::STEP_STATE_PENDING);
  EXPECT_EQ(MapText(map, 2), "0/5 done, 2+ in flight");
  EXPECT_EQ(MapText(map, 3), "0/5 done, 2 in flight");
  map.set_state(v1::STEP_STATE_CANCELLED);
  EXPECT_EQ(MapText(map, 3), "0/5 done");
}

TEST(StepDetail, EndsWithTheStepsLabels) {
  v1::StepInfo step;
  (*step.mutable_labels())["model"] = "v2";
  (*step.mutable_labels())["cost"] = "3";
  EXPECT_EQ(StepDetail(step, kNow), "[cost=3, model=v2]");
  step.set_state(v1::STEP_STATE_PENDING);
  EXPECT_EQ(StepDetail(step, kNow), "waits for earlier steps [cost=3, model=v2]");
}

TEST(StepDetail, ExplainsEveryState) {
  v1::StepInfo step = Step("s", "task", v1::STEP_STATE_PENDING);
  EXPECT_EQ(StepDetail(step, kNow), "waits for earlier steps");
  step.set_state(v1::STEP_STATE_SCHEDULED);
  EXPECT_EQ(StepDetail(step, kNow), "waits for a worker");
  step.set_queue("io");
  EXPECT_EQ(StepDetail(step, kNow), "waits for a worker on queue io");
  step.set_reason("no worker has task x");
  EXPECT_EQ(StepDetail(step, kNow), "no worker has task x");
  step.set_state(v1::STEP_STATE_WAITING);
  step.set_reason("sleeps");
  step.set_next_time_ms(kNowMs + 3'600'000);
  EXPECT_EQ(StepDetail(step, kNow), "sleeps; until in 1h00m");
  step.set_next_time_ms(kNowMs - 1);
  EXPECT_EQ(StepDetail(step, kNow), "sleeps; until now");
  step.set_state(v1::STEP_STATE_FAILED);
  step.mutable_failure()->set_type("rejected");
  EXPECT_EQ(StepDetail(step, kNow), "rejected");
  step.mutable_failure()->set_message("no");
  EXPECT_EQ(StepDetail(step, kNow), "rejected: no");
  step.set_state(v1::STEP_STATE_COMPLETED);
  EXPECT_EQ(StepDetail(step, kNow), "");
  step.set_state(v1::STEP_STATE_PARKED);
  step.set_reason("attempts used up");
  EXPECT_EQ(StepDetail(step, kNow), "attempts used up; last failure: rejected: no");
}

TEST(ExecutionBlock, HoldsWhatOneAsksFirst) {
  auto response = Execution();
  (*response.mutable_info()->mutable_labels())["team"] = "billing";
  response.mutable_failure()->set_message("bad \x1b[31m");
  EXPECT_EQ(Render(Theme{}, ExecutionBlock(response, kNow)),
            "Workflow ID:  chart-17\n"
            "Run ID:       0123456789abcdef0123456789abcdef\n"
            "Workflow:     code-chart 2\n"
            "Status:       running\n"
            "Started:      2m00s ago (2024-05-01T11:58:00.000Z)\n"
            "Duration:     2m00s\n"
            "Steps:        3 completed, 9 records\n"
            "Labels:       team=billing\n"
            "Failure:      bad \\x1b[31m\n");
}

TEST(ExecutionBlock, SaysWhatAnUnusualStatusMeans) {
  v1::DescribeExecutionResponse response = Execution();
  for (const auto& [status, text] :
       {std::pair(v1::EXECUTION_STATUS_PAUSED, "paused (nothing more is handed out until"),
        std::pair(v1::EXECUTION_STATUS_FAILING, "failing (undoing what its completed steps did)"),
        std::pair(v1::EXECUTION_STATUS_CANCELLING, "cancelling (undoing")}) {
    response.mutable_info()->set_status(status);
    EXPECT_THAT(Render(Theme{}, ExecutionBlock(response, kNow)), HasSubstr(text));
  }
}

TEST(StepsTable, ShowsWaitsChildrenAndUndoTasks) {
  v1::DescribeExecutionResponse response = Execution();
  response.clear_steps();
  v1::StepInfo wait = Step("approved", "wait_event", v1::STEP_STATE_WAITING);
  wait.set_reason("waits for event approved");
  wait.set_next_time_ms(kNowMs + 3'600'000);
  *response.add_steps() = wait;
  v1::StepInfo child = Step("part", "child", v1::STEP_STATE_WAITING);
  child.set_reason("waits for execution chart-17/part");
  *response.add_steps() = child;
  v1::StepInfo parked = Step("merge", "task", v1::STEP_STATE_PARKED);
  parked.set_reason("is parked: retry it, skip it or set its result");
  parked.mutable_failure()->set_type("io");
  *response.add_steps() = parked;
  *response.add_steps() = Step("publish", "undo", v1::STEP_STATE_RUNNING);
  Table table = StepsTable(response, kNow, {});
  const std::string text = Render(Theme{}, table);
  for (const char* part : {"wait_event  waiting", "waits for event approved; until in 1h00m",
                           "waits for execution chart-17/part",
                           "is parked: retry it, skip it or set its result; last failure: io",
                           "undo        running"}) {
    EXPECT_THAT(text, HasSubstr(part)) << text;
  }
}

TEST(ExecutionsTable, ShowsRelativeAges) {
  google::protobuf::RepeatedPtrField<v1::ExecutionInfo> list;
  *list.Add() = Execution().info();
  v1::ExecutionInfo& closed = *list.Add();
  closed.set_workflow_id("b");
  closed.set_workflow("w");
  closed.set_status(v1::EXECUTION_STATUS_FAILED);
  closed.set_start_time_ms(kNowMs - 7'200'000);
  closed.set_close_time_ms(kNowMs - 7'199'500);
  closed.set_failure_type("flux.timeout.start_to_close");
  Table table = ExecutionsTable(list, kNow);
  EXPECT_EQ(
      Render(Theme{}, table),
      "WORKFLOW ID  WORKFLOW      STATUS     AGE  DURATION  STEPS  FAILURE                      "
      "RUN ID\n"
      "chart-17     code-chart 2  running  2m00s     2m00s      3  -                            "
      "0123456789abcdef0123456789abcdef\n"
      "b            w             failed   2h00m     500ms      0  flux.timeout.start_to_close\n");
}

TEST(HistoryTable, CountsFromTheStartOrShowsTheTime) {
  google::protobuf::RepeatedPtrField<v1::HistoryEvent> events;
  v1::HistoryEvent& started = *events.Add();
  started.set_ordinal(1);
  started.set_time_ms(kNowMs);
  started.set_type("execution.started");
  started.set_identity("me");
  v1::HistoryEvent& failed = *events.Add();
  failed.set_ordinal(2);
  failed.set_time_ms(kNowMs + 1'200);
  failed.set_type("step.attempt_failed");
  failed.set_step("codes[17].parse");
  failed.set_attempt(2);
  failed.mutable_failure()->set_message("boom");
  Table relative = HistoryTable(events, {.origin_ms = kNowMs});
  EXPECT_EQ(Render(Theme{}, relative),
            "   TIME     #  TYPE                 STEP             DETAIL\n"
            "   +0ms     1  execution.started    -                by me\n"
            "  +1.2s     2  step.attempt_failed  codes[17].parse  attempt 2; boom\n");
  Table absolute = HistoryTable(events, {.absolute = true});
  EXPECT_THAT(Render(Theme{}, absolute),
              HasSubstr("2024-05-01T12:00:01.200Z     2  step.attempt_failed"));
}

TEST(QueueViews, SayWhenNobodyCanRunATask) {
  v1::TaskQueueInfo queue;
  queue.set_name("nlp");
  queue.set_ready(4);
  queue.set_oldest_ready_time_ms(kNowMs - 61'000);
  v1::TaskInfo& task = *queue.add_tasks();
  task.set_name("charts.code");
  task.set_ready(4);
  EXPECT_THAT(Render(Theme{}, QueueBlock(queue, kNow)),
              HasSubstr("4 (no worker takes from this queue)"));
  Table tasks = QueueTasksTable(queue);
  EXPECT_THAT(Render(Theme{}, tasks), HasSubstr("no worker has this task"));
  google::protobuf::RepeatedPtrField<v1::TaskQueueInfo> queues;
  *queues.Add() = queue;
  Table table = QueuesTable(queues, kNow);
  EXPECT_EQ(Render(Theme{}, table),
            "QUEUE  READY  RUNNING  WORKERS  SLOTS  CREDIT  OLDEST  SPILLED\n"
            "nlp        4        0        0      0       0   1m01s        0\n");
}

TEST(WorkersTable, ShowsSlotsAndTasks) {
  google::protobuf::RepeatedPtrField<v1::WorkerInfo> workers;
  v1::WorkerInfo& w = *workers.Add();
  w.set_worker_id("host:12");
  w.set_queue("default");
  w.set_state("connected");
  w.set_slots(8);
  w.set_running(3);
  for (const char* task : {"a", "b", "c", "d", "e", "f"}) w.add_tasks(task);
  w.set_connected_time_ms(kNowMs - 60'000);
  w.set_last_seen_time_ms(kNowMs - 1'000);
  w.set_peer("ipv4:127.0.0.1:1");
  Table table = WorkersTable(workers, kNow);
  const std::string text = Render(Theme{}, table);
  EXPECT_THAT(text, HasSubstr("3/8"));
  EXPECT_THAT(text, HasSubstr("a, b, c, d and 2 more"));
}

TEST(DefinitionTable, DrawsBodiesAndSurvivesACycle) {
  v1::Definition definition;
  v1::Scope& root = *definition.add_scopes();
  root.set_parameters(1);
  v1::Step& split = *root.add_steps();
  split.set_name("split");
  split.add_inputs()->set_parameter(0);
  split.mutable_task()->set_task("charts.split");
  split.mutable_task()->set_queue("io");
  v1::Step& map = *root.add_steps();
  map.set_name("codes");
  map.add_inputs()->set_step(0);
  map.mutable_map()->set_body(1);
  map.mutable_map()->set_max_parallel(200);
  v1::Step& code = *definition.add_scopes()->add_steps();
  code.set_name("code");
  code.add_inputs()->set_parameter(0);
  code.mutable_inputs(0)->set_pointer("/text");
  code.mutable_task()->set_task("charts.code");
  code.mutable_task()->mutable_retry()->set_max_attempts(5);
  Table table = DefinitionTable(definition, true);
  EXPECT_EQ(Render(Theme{}, table),
            "STEP        KIND  INPUTS   DETAIL\n"
            "├─ split    task  $0       charts.split, queue io\n"
            "└─ codes    map   split    at most 200 in flight\n"
            "   └─ code  task  $0/text  charts.code, 5 attempts\n");

  // A damaged definition whose body contains itself ends at a depth.
  definition.mutable_scopes(1)->mutable_steps(0)->mutable_map()->set_body(1);
  EXPECT_LT(DefinitionTable(definition, true).rows.size(), 100U);
  // And one that refers to a scope that is not there has no body.
  definition.mutable_scopes(1)->mutable_steps(0)->mutable_map()->set_body(99);
  EXPECT_EQ(DefinitionTable(definition, true).rows.size(), 3U);
}

TEST(CountTable, EndsWithTheTotal) {
  v1::CountExecutionsResponse response;
  response.set_count(12);
  auto& running = *response.add_by_status();
  running.set_status(v1::EXECUTION_STATUS_RUNNING);
  running.set_count(12);
  Table table = CountTable(response);
  EXPECT_EQ(Render(Theme{}, table), "STATUS   COUNT\nrunning     12\ntotal       12\n");
}

TEST(ServerBlock, ShowsDegradation) {
  v1::GetServerInfoResponse info;
  info.set_version("0.1.0");
  info.set_degraded(true);
  info.set_degraded_reason("disk is full");
  info.set_resident_bytes(uint64_t{64} << 20U);
  const std::string text = Render(Theme{}, ServerBlock(info, kNow));
  EXPECT_THAT(text, HasSubstr("degraded: disk is full"));
  EXPECT_THAT(text, HasSubstr("64 MiB"));
}

TEST(Names, AreThoseOfTheProtoInLowerCase) {
  EXPECT_EQ(StatusName(v1::EXECUTION_STATUS_CANCELLING), "cancelling");
  EXPECT_EQ(StateName(v1::STEP_STATE_BACKING_OFF), "backing off");
  EXPECT_EQ(StatusName(static_cast<v1::ExecutionStatus>(99)), "unknown_99");
}

TEST(DefinitionTable, SaysWhatTheNewerKindsAllow) {
  v1::Definition definition;
  v1::Scope& root = *definition.add_scopes();
  v1::Step& wait = *root.add_steps();
  wait.set_name("approved");
  wait.mutable_wait_event()->set_event("approved");
  wait.mutable_wait_event()->set_type("bool");
  wait.mutable_wait_event()->set_timeout_ms(172'800'000);
  wait.mutable_wait_event()->mutable_default_value()->set_encoding(v1::ENCODING_JSON);
  wait.mutable_wait_event()->mutable_default_value()->set_data("false");
  v1::Step& child = *root.add_steps();
  child.set_name("part");
  child.mutable_child()->set_workflow("inner");
  child.mutable_child()->set_version("7");
  child.mutable_child()->set_workflow_id("mine");
  child.mutable_child()->set_parent_close(v1::PARENT_CLOSE_POLICY_ABANDON);
  v1::Step& emit = *root.add_steps();
  emit.set_name("emit");
  emit.mutable_emit()->set_event("done");
  emit.mutable_emit()->set_delay_ms(60'000);
  v1::Step& join = *root.add_steps();
  join.set_name("join");
  join.mutable_join()->set_first(2);
  join.mutable_join()->set_tolerated_failures(1);
  v1::Step& map = *root.add_steps();
  map.set_name("orders");
  map.mutable_map()->set_page_body(1);
  map.mutable_map()->set_body(2);
  map.mutable_map()->set_first(10);
  map.mutable_map()->set_tolerated_failure_permille(25);
  v1::Step& list = *definition.add_scopes()->add_steps();
  list.set_name("list");
  list.mutable_task()->set_task("list");
  v1::Step& ship = *definition.add_scopes()->add_steps();
  ship.set_name("ship");
  ship.mutable_task()->set_task("ship");
  ship.mutable_task()->set_limit_key_pointer("/customer");
  ship.mutable_undo()->mutable_task()->set_task("unship");
  Table table = DefinitionTable(definition, false);
  const std::string text = Render(Theme{}, table);
  for (const char* part :
       {"event approved of bool, timeout 2d00h, else false",
        "inner 7, as mine, abandon when its parent closes", "event done, after 1m00s",
        "done with the first 2, 1 may fail", "in pages, done with the first 10, 2.5% may fail",
        "each page", "each item", "ship, limited by /customer, undo unship"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(EventsTable, SaysWhoReadItOrWhenItComes) {
  google::protobuf::RepeatedPtrField<v1::EventInfo> events;
  for (int i = 0; i < 4; ++i) {
    v1::EventInfo& event = *events.Add();
    event.set_number(static_cast<uint64_t>(i + 1));
    event.set_event("approved");
    event.set_event_id("mail-" + std::to_string(i));
    event.set_time_ms(kNowMs - 60'000);
    event.set_delivered(i < 2);
  }
  events[0].set_readers(1);
  events[2].set_deliver_time_ms(kNowMs + 7'200'000);
  events[3].set_deliver_time_ms(kNowMs - 1);
  Table table = EventsTable(events, kNow, false);
  EXPECT_EQ(Render(Theme{}, table),
            "#  EVENT     EVENT ID    AGE  STATE\n"
            "1  approved  mail-0    1m00s  read by 1 step\n"
            "2  approved  mail-1    1m00s  nobody has read it yet\n"
            "3  approved  mail-2    1m00s  due in 2h00m\n"
            "4  approved  mail-3    1m00s  due now\n");
}

TEST(Diff, ComparesStepsByNameWhereverTheyStand) {
  const auto make = [](bool newer) {
    v1::Definition definition;
    v1::Scope& root = *definition.add_scopes();
    root.set_parameters(2);
    v1::Scope body;
    body.set_parameters(newer ? 3 : 2);
    if (newer) {  // a step in front: every ordinal and capture moves
      v1::Step& first = *root.add_steps();
      first.set_name("first");
      first.mutable_sleep()->set_duration_ms(1'000);
    }
    v1::Step& split = *root.add_steps();
    split.set_name("split");
    split.add_inputs()->set_parameter(0);
    split.mutable_task()->set_task("split");
    split.set_location(newer ? "a.cc:9" : "a.cc:3");
    const uint32_t at = static_cast<uint32_t>(root.steps_size() - 1);
    v1::Step& map = *root.add_steps();
    map.set_name("codes");
    map.add_inputs()->set_step(at);
    if (newer) map.add_inputs()->set_step(0);
    map.add_inputs()->set_parameter(1);
    map.mutable_map()->set_body(1);
    v1::Step& code = *body.add_steps();
    code.set_name("code");
    code.add_inputs()->set_parameter(0);
    code.add_inputs()->set_parameter(newer ? 2 : 1);  // the same capture
    code.mutable_task()->set_task("code");
    code.mutable_task()->mutable_timeouts()->set_start_to_close_ms(newer ? 120'000 : 60'000);
    body.mutable_result()->set_step(0);
    v1::Step& merge = *root.add_steps();
    merge.set_name(newer ? "join" : "merge");
    merge.add_inputs()->set_step(at + 1);
    merge.mutable_task()->set_task("merge");
    root.mutable_result()->set_step(at + 2);
    *definition.add_scopes() = body;
    definition.set_version(newer ? "2" : "1");
    return definition;
  };
  const v1::Definition older = make(false);
  const v1::Definition newer = make(true);
  EXPECT_TRUE(DiffSteps(older, older).empty());
  EXPECT_TRUE(DiffHeads(newer, newer).empty());
  Table table = DiffTable(DiffHeads(older, newer), DiffSteps(older, newer));
  EXPECT_EQ(Render(Theme{}, table),
            "CHANGE   STEP          KIND   FIELD                            FROM   TO\n"
            "changed  the workflow         result                           merge  join\n"
            "changed  the workflow         version                          1      2\n"
            "removed  merge         task\n"
            "changed  code          task   task.timeouts.start_to_close_ms  1m00s  2m00s\n"
            "added    first         sleep\n"
            "added    join          task\n");
}

TEST(BulkView, AFilterIsOneQuery) {
  v1::ExecutionFilter filter;
  EXPECT_EQ(FilterText(filter), "");
  filter.set_query("steps > 3 or steps = 1");
  EXPECT_EQ(FilterText(filter), "steps > 3 or steps = 1");
  filter.add_statuses(v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(FilterText(filter), "status = \"failed\" and (steps > 3 or steps = 1)");
  filter.add_statuses(v1::EXECUTION_STATUS_PAUSED);
  filter.set_workflow("a \"b\" \\");
  filter.set_workflow_id_prefix("run-");
  filter.set_started_after_ms(1'714'564'800'000);
  filter.set_started_before_ms(1'714'564'800'001);
  EXPECT_EQ(
      FilterText(filter),
      "workflow = \"a \\\"b\\\" \\\\\" and status in (\"failed\", \"paused\") and workflow_id "
      "^= \"run-\" and started >= 2024-05-01T12:00:00.000Z and started < "
      "2024-05-01T12:00:00.001Z and (steps > 3 or steps = 1)");
}

TEST(BulkView, EveryOperationHasAName) {
  v1::Operation operation;
  EXPECT_EQ(OperationText(operation), "unknown");
  const auto* oneof = v1::Operation::descriptor()->FindOneofByName("kind");
  for (int i = 0; i < oneof->field_count(); ++i) {
    operation.Clear();
    operation.GetReflection()->MutableMessage(&operation, oneof->field(i));
    EXPECT_NE(OperationText(operation), "unknown") << oneof->field(i)->name();
  }
  operation.mutable_rewind()->set_step("merge");
  EXPECT_EQ(OperationText(operation), "rewind merge");
  operation.mutable_migrate()->set_definition_hash(std::string(32, '\x1f'));
  EXPECT_EQ(OperationText(operation), "migrate to 1f1f1f1f1f1f");
}

TEST(BulkView, ShowsWhoWhatAndHowFar) {
  v1::BulkOperation operation;
  operation.set_id("0123456789abcdef");
  operation.mutable_filter()->set_namespace_("default");
  operation.mutable_filter()->set_query("steps > 3");
  operation.mutable_operation()->mutable_delete_();
  operation.set_rate_per_second(50);
  operation.set_identity("fluxctl:me@host");
  operation.set_state(v1::BULK_STATE_CANCELLED);
  operation.set_failure("cancelled by you");
  operation.set_start_time_ms(1'714'564'800'000);
  operation.set_end_time_ms(1'714'564'802'500);
  operation.set_matched(9);
  operation.set_done(4);
  operation.set_failed(1);
  const absl::Time now = absl::FromUnixMillis(1'714'564'830'000);
  EXPECT_EQ(Render(Theme{}, BulkBlock(operation, now)),
            "Bulk id:    0123456789abcdef\n"
            "Operation:  delete\n"
            "Namespace:  default\n"
            "Query:      steps > 3\n"
            "State:      cancelled\n"
            "Why:        cancelled by you\n"
            "Progress:   4/9 done, 1 failed\n"
            "Rate:       at most 50/s\n"
            "Started:    2024-05-01T12:00:00.000Z (30s ago)\n"
            "Ended:      2024-05-01T12:00:02.500Z\n"
            "Took:       2.5s\n"
            "By:         fluxctl:me@host\n");
}

}  // namespace
}  // namespace flux::ctl
