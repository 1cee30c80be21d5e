// Limits that hold although nobody can be asked any more: what a worker, a burst or a long life
// brings must never become something the store refuses, which would stop the coordinator for good.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/shard/keys.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

v1::StartWorkflowRequest StartOf(const std::string& workflow, const std::string& id) {
  v1::StartWorkflowRequest request;
  request.set_workflow(workflow);
  request.set_workflow_id(id);
  *request.add_inputs() = Json("1");
  return request;
}

TEST(Limits, ATasksLabelsAndFailureTypesAreHeldToWhatAStartsAre) {
  struct Case {
    const char* name;
    std::map<std::string, std::string> labels;
    std::string failure_type;
    const char* words;
    std::map<std::string, std::string> step_labels = {};
  };
  std::map<std::string, std::string> many;
  for (int i = 0; i < 64; ++i) many[absl::StrCat("label", i)] = "x";
  std::map<std::string, std::string> more = many;
  more["one"] = "x";
  const Case cases[] = {
      {"a long name", {{std::string(257, 'n'), "x"}}, "", "label name has 257 bytes"},
      {"a long value", {{"n", std::string(2'000, 'x')}}, "", "value of label n has 2000 bytes"},
      {"a control character", {{"n", std::string("a\0b", 3)}}, "", "control character"},
      {"no name", {{"", "x"}}, "", "label name is empty"},
      {"too many with those there are", many, "", "65 labels; at most 64"},
      {"a long type", {}, std::string(60'000, 't'), "the failure's type has 60000 bytes"},
      {"a type with a zero", {}, std::string("a\0b", 3), "control character"},
      {"a step's long name", {}, "", "label name has 257", {{std::string(257, 'n'), "x"}}},
      {"a step's long value", {}, "", "value of label n has 257", {{"n", std::string(257, 'x')}}},
      {"too many of a step", {}, "", "the step would have 65 labels; at most 64", more},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    World world;
    ASSERT_TRUE(world.Open().ok());
    world.Define(Chain("chain", 1));
    v1::StartWorkflowRequest start = StartOf("chain", "a");
    (*start.mutable_labels())["tenant"] = "acme";
    ASSERT_TRUE(world.Start(start).ok());
    const StreamId worker = world.Connect("s1", {"t"}, 4);
    world.Settle();
    const v1::Task task = world.Take(worker);
    v1::ConnectRequest message;
    v1::TaskResult& result = *message.add_results();
    *result.mutable_token() = task.token();
    if (c.failure_type.empty()) {
      *result.mutable_value() = Json("2");
    } else {
      result.mutable_failure()->set_type(c.failure_type);
    }
    for (const auto& [name, value] : c.labels) (*result.mutable_labels())[name] = value;
    for (const auto& [name, value] : c.step_labels) (*result.mutable_step_labels())[name] = value;
    world.Message(worker, message);
    world.Settle();
    ASSERT_EQ(world.stream(worker).acks.size(), 1u);
    EXPECT_EQ(world.stream(worker).acks[0].status(), v1::ACK_STATUS_INVALID);
    EXPECT_THAT(world.stream(worker).acks[0].detail(), HasSubstr(c.words));
    const v1::GetResultResponse answer = world.Result("a");
    EXPECT_EQ(answer.status(), v1::EXECUTION_STATUS_FAILED);
    EXPECT_EQ(answer.failure().type(), "flux.invalid_result");
    world.Advance(5'000);  // and all of it goes to its rows
    EXPECT_TRUE(world.fatal().ok()) << world.fatal();
    world.Crash();
    EXPECT_TRUE(world.Open().ok());
  }
}

v1::Payload WithMetadata(size_t bytes) {
  v1::Payload payload = Json("7");
  payload.set_content_type("t");
  (*payload.mutable_metadata())["k"] = std::string(bytes - 3, 'm');
  return payload;
}

TEST(Limits, APayloadCountsWithAllThatItCarries) {
  EngineOptions options;
  options.payload_bytes_max = 1'000;
  for (const size_t bytes : {1'000u, 1'001u}) {
    const bool fits = bytes == 1'000;
    SCOPED_TRACE(bytes);
    World world(options);
    ASSERT_TRUE(world.Open().ok());
    world.Define(Parse(R"(
      name: "both"
      scopes {
        parameters: 1
        steps { name: "wait" wait_event { event: "go" } }
        steps { name: "use" inputs { parameter: 0 } task { task: "t" } }
        result { step: 1 }
      })"));
    v1::StartWorkflowRequest start = StartOf("both", "a");
    *start.mutable_inputs(0) = WithMetadata(bytes);
    EXPECT_EQ(world.Start(start).status().code(),
              fits ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted);
    if (!fits) {
      EXPECT_TRUE(world.Start(StartOf("both", "a")).ok());
    }
    v1::SendEventRequest event;
    event.mutable_execution()->set_workflow_id("a");
    event.set_event("go");
    *event.mutable_payload() = WithMetadata(bytes);
    EXPECT_EQ(world
                  .Ask<v1::SendEventResponse>(
                      [&](auto reply) { world.engine().SendEvent(event, std::move(reply)); })
                  .status()
                  .code(),
              fits ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted);
    if (!fits) {
      EXPECT_TRUE(world.SendEvent("a", "go", "1").ok());
    }
    const StreamId worker = world.Connect("s1", {"t"}, 1);
    world.Settle();
    v1::ConnectRequest message;
    *message.add_results()->mutable_token() = world.Take(worker).token();
    *message.mutable_results(0)->mutable_value() = WithMetadata(bytes);
    world.Message(worker, message);
    world.Settle();
    const v1::GetResultResponse answer = world.Result("a");
    EXPECT_EQ(answer.failure().type(), fits ? "" : "flux.payload_too_large");
    if (fits) {
      EXPECT_EQ(answer.result().metadata().at("k").size(), 997u);
    } else {
      EXPECT_THAT(answer.failure().message(), HasSubstr("the result has 1001 bytes"));
    }
  }
}

TEST(Limits, APayloadOfMuchMetadataLiesUnderItsOwnKeyToo) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  v1::StartWorkflowRequest start = StartOf("chain", "a");
  *start.mutable_inputs(0) = WithMetadata(100'000);
  ASSERT_TRUE(world.Start(start).ok());
  const StreamId worker = world.Connect("s1", {"t"}, 1);
  world.Settle();
  v1::ConnectRequest message;
  *message.add_results()->mutable_token() = world.Take(worker).token();
  *message.mutable_results(0)->mutable_value() = WithMetadata(90'000);
  world.Message(worker, message);
  world.Settle();
  EXPECT_EQ(CountRows(world, keys::Table::kPayload), 2u);
  world.Advance(5'000);
  // Once each, and not in the records again.
  EXPECT_LT(world.Counter("commit_bytes") + world.Counter("row_bytes"), 200'000u);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  EXPECT_EQ(world.Result("a").result().metadata().at("k").size(), 89'997u);
  EXPECT_TRUE(world.Verify("a")->equal()) << world.Verify("a")->difference();
}

TEST(Limits, WhoStopsAnExecutionAndWhyIsHeldToWhatOperationsAre) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  struct Case {
    std::string identity;
    std::string reason;
    const char* words;  // null: it is done
  };
  const Case cases[] = {
      {std::string(257, 'i'), "", "identity has 257 bytes; at most 256"},
      {"a\nb", "", "identity has a control character"},
      {"", std::string(65'537, 'r'), "the reason has 65537 bytes; at most 65536"},
      {std::string(256, 'i'), std::string(65'536, 'r'), nullptr},
  };
  int runs = 0;
  for (const Case& c : cases) {
    for (const bool terminate : {false, true}) {
      const std::string id = absl::StrCat("a-", ++runs);
      ASSERT_TRUE(world.Start(StartOf("chain", id)).ok());
      absl::Status status;
      const auto stop = [&](auto request, auto response, auto method) {
        request.mutable_execution()->set_workflow_id(id);
        request.set_identity(c.identity);
        request.set_reason(c.reason);
        status = world
                     .Ask<decltype(response)>(
                         [&](auto reply) { (world.engine().*method)(request, std::move(reply)); })
                     .status();
      };
      if (terminate) {
        stop(v1::TerminateExecutionRequest(), v1::TerminateExecutionResponse(), &Engine::Terminate);
      } else {
        stop(v1::CancelExecutionRequest(), v1::CancelExecutionResponse(), &Engine::Cancel);
      }
      if (c.words == nullptr) {
        EXPECT_TRUE(status.ok()) << status;
        continue;
      }
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(status.ToString(), HasSubstr(c.words));
      EXPECT_EQ(world.Result(id).status(), v1::EXECUTION_STATUS_RUNNING);
    }
  }
}

TEST(Limits, LabelsOfAStepAreKeptWithItAndHeldToTheSame) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  v1::Definition definition = Chain("chain", 2);
  v1::Step* step = definition.mutable_scopes(0)->mutable_steps(0);
  step->mutable_task()->mutable_retry()->set_max_attempts(1);
  (*step->mutable_labels())["model"] = "v1";
  (*step->mutable_labels())["team"] = "ocr";
  world.Define(definition);
  const StreamId worker = world.Connect("s1", {"t"}, 1);
  ASSERT_TRUE(world.Start(StartOf("chain", "good")).ok());
  world.Settle();
  v1::ConnectRequest message;
  v1::TaskResult& result = *message.add_results();
  *result.mutable_token() = world.Take(worker).token();
  *result.mutable_value() = Json("2");
  (*result.mutable_step_labels())["model"] = "v2";
  world.Message(worker, message);
  world.Settle();
  const auto labels_of = [&](int index) {
    const auto labels = world.Describe("good").steps(index).labels();
    return std::map<std::string, std::string>(labels.begin(), labels.end());
  };
  using Labels = std::map<std::string, std::string>;
  EXPECT_EQ(labels_of(0), (Labels{{"model", "v2"}, {"team", "ocr"}}));
  EXPECT_EQ(labels_of(1), Labels{});
  EXPECT_TRUE(world.Describe("good").info().labels().empty()) << "they are the step's alone";
  EXPECT_TRUE(world.Verify("good")->equal()) << world.Verify("good")->difference();
  const auto events = world.History("good");
  const auto told = std::find_if(events.begin(), events.end(), [](const v1::HistoryEvent& event) {
    return event.type() == "step.completed";
  });
  ASSERT_NE(told, events.end());
  EXPECT_EQ(told->detail(), "labels model=v2");
  // What was made of the step goes when it is done again.
  ASSERT_TRUE(world.Operate("good", "rewind { step: 's0' }").ok());
  EXPECT_EQ(labels_of(0), (Labels{{"model", "v1"}, {"team", "ocr"}}));
  EXPECT_TRUE(world.Verify("good")->equal()) << world.Verify("good")->difference();
}

TEST(Limits, ATaskMayReplaceLabelsAndRemoveThemAtTheLimit) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  v1::StartWorkflowRequest start = StartOf("chain", "a");
  for (int i = 0; i < 64; ++i) (*start.mutable_labels())[absl::StrCat("label", i)] = "x";
  ASSERT_TRUE(world.Start(start).ok());
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.Settle();
  v1::ConnectRequest message;
  v1::TaskResult& result = *message.add_results();
  *result.mutable_token() = world.Take(worker).token();
  *result.mutable_value() = Json("2");
  (*result.mutable_labels())["label1"] = "y";
  (*result.mutable_labels())["label2"] = "";
  (*result.mutable_labels())["more"] = "z";
  world.Message(worker, message);
  world.Settle();
  EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
  const auto labels = world.Describe("a").info().labels();
  EXPECT_EQ(labels.size(), 64u);
  EXPECT_EQ(labels.at("label1"), "y");
  EXPECT_EQ(labels.at("more"), "z");
}

TEST(Limits, TheBatchBehindACommitGrowsOnlySoFar) {
  EngineOptions options;
  options.batch_bytes_max = 4'000;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const uint64_t before = world.Counter("commits");
  constexpr int kStarts = 200;
  for (int i = 0; i < kStarts; ++i) {
    world.PostStart(StartOf("chain", absl::StrCat("w-", i)));
  }
  // Their ids are looked up; then all are decided at once, while nothing the disk is given is done.
  world.Turn();
  while (world.RunJob()) {
  }
  for (int i = 0; i < 10; ++i) world.Turn();
  EXPECT_TRUE(world.engine().held_up());
  world.Settle();
  EXPECT_FALSE(world.engine().held_up());
  EXPECT_GT(world.Counter("commits") - before, 3u);
  const StreamId worker = world.Connect("s1", {"t"}, kStarts);
  world.RunWorker(worker);
  for (int i = 0; i < kStarts; ++i) {
    EXPECT_EQ(world.Result(absl::StrCat("w-", i)).status(), v1::EXECUTION_STATUS_COMPLETED) << i;
  }
}

// Rule 13: what has arrived goes before any deadline, however long it waits for the disk.
TEST(Limits, NoDeadlineFiresWhileMessagesWaitBehindAFullBatch) {
  EngineOptions options;
  options.batch_bytes_max = 1;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  v1::Definition definition = Chain("chain", 1);
  v1::TaskStep* step = definition.mutable_scopes(0)->mutable_steps(0)->mutable_task();
  step->mutable_timeouts()->set_heartbeat_ms(3'000);
  world.Define(definition);
  ASSERT_TRUE(world.Start(StartOf("chain", "a")).ok());
  const StreamId worker = world.Connect("s1", {"t"}, 1);
  world.Settle();
  const v1::Task task = world.Take(worker);

  // A commit is under way, the batch behind it is full, and the result waits behind other starts.
  for (int i = 0; i < 5; ++i) world.PostStart(StartOf("chain", ""));
  world.Answer(worker, task, "2");
  world.Turn();
  ASSERT_TRUE(world.engine().held_up());
  for (int i = 0; i < 20; ++i) {
    (void)world.engine().NextDeadlineMs();
    world.Sleep(1'000);
    world.Turn();
  }
  ASSERT_TRUE(world.engine().held_up());
  world.Settle();
  EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(world.Describe("a").steps(0).attempt(), 1u);
  EXPECT_EQ(world.Counter("attempts_expired"), 0u);
}

TEST(Limits, TwoStartsThatReplaceARunWhileItIsLoadedMakeOneNewRun) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  const auto first = world.Start(StartOf("nap", "a"));
  ASSERT_TRUE(first.ok());
  world.Advance(5'000);
  ASSERT_EQ(world.Counter("evictions"), 1u);
  v1::StartWorkflowRequest replace = StartOf("nap", "a");
  replace.set_conflict_policy(v1::CONFLICT_POLICY_TERMINATE_EXISTING);
  replace.set_request_id("once");
  const auto one = world.PostStart(replace);
  const auto two = world.PostStart(replace);  // sent again by a client that got no answer
  world.Settle();
  ASSERT_TRUE(one->has_value() && (*one)->ok());
  ASSERT_TRUE(two->has_value() && (*two)->ok());
  EXPECT_NE((**one)->run_id(), first->run_id());
  EXPECT_EQ((**one)->run_id(), (**two)->run_id());
  EXPECT_TRUE((**one)->started());
  EXPECT_FALSE((**two)->started());
}

TEST(Limits, RowsOfManyClosedSessionsDoNotStandInTheWayOfARestart) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  // As earlier versions left them.
  store::RowBatch batch;
  batch.epoch = world.store().log().Claim(0)->epoch;
  for (int i = 0; i < 6'000; ++i) {
    v1::SessionChange session;
    session.set_session_id(absl::StrCat(i, "-", std::string(240, 's')));
    session.set_closed(true);
    batch.puts.push_back({keys::Session(session.session_id()), session.SerializeAsString()});
    if (batch.puts.size() == 1'000) {
      ASSERT_TRUE(world.store().rows().WriteSync(batch).ok());
      batch.puts.clear();
    }
  }
  ASSERT_EQ(CountRows(world, keys::Table::kSession), 6'000u);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  EXPECT_EQ(CountRows(world, keys::Table::kSession), 0u);
}

TEST(Limits, ASessionLeavesNothingBehind) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  for (int i = 0; i < 100; ++i) world.Disconnect(world.Connect(absl::StrCat(i), {"t"}, 1));
  const StreamId stays = world.Connect("stays", {"t"}, 1);
  world.Settle();
  EXPECT_EQ(CountRows(world, keys::Table::kSession), 101u) << "durable at hello";
  world.Pass(stays, 30'000, false);  // past the grace
  EXPECT_EQ(CountRows(world, keys::Table::kSession), 1u);
}

TEST(Limits, AnIndexOfManyLabelsCanBeBuiltAnew) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  for (int i = 0; i < 200; ++i) {
    v1::StartWorkflowRequest start = StartOf("nap", absl::StrCat("n-", i));
    for (int j = 0; j < 64; ++j) {
      (*start.mutable_labels())[absl::StrCat("label", j)] = std::string(200, 'v');
    }
    world.PostStart(std::move(start));
  }
  world.Settle();
  world.Advance(5'000);
  const size_t before = CountRows(world, keys::Table::kByLabel);
  ASSERT_GT(before, 1'000u);
  const auto claim = world.store().log().Claim(0);
  ASSERT_TRUE(claim.ok());
  store::RowBatch batch;
  batch.epoch = claim->epoch;
  batch.deletes.push_back(keys::IndexVersion());
  ASSERT_TRUE(world.store().rows().WriteSync(std::move(batch)).ok());
  world.Crash();
  const absl::Status opened = world.Open();
  ASSERT_TRUE(opened.ok()) << opened;
  EXPECT_EQ(CountRows(world, keys::Table::kByLabel), before);
}

}  // namespace
}  // namespace flux::engine::testing
