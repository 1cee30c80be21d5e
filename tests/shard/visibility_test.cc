// Lists and counts by query: held against a plain filter over every execution, at every moment of
// its way from memory to disk and back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "engine/shard/index.h"
#include "engine/shard/keys.h"
#include "engine/visibility/query.h"
#include "proto/bridge.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

absl::StatusOr<v1::ListExecutionsResponse> ListPage(World& world, const std::string& query,
                                                    uint32_t size = 1000,
                                                    const std::string& token = "") {
  v1::ListExecutionsRequest request;
  request.mutable_filter()->set_query(query);
  request.set_page_size(size);
  request.set_page_token(token);
  return world.Ask<v1::ListExecutionsResponse>(
      [&](auto reply) { world.engine().List(request, std::move(reply)); });
}

std::vector<std::string> List(World& world, const std::string& query, uint32_t size = 1000) {
  std::vector<std::string> ids;
  std::string token;
  do {
    const auto page = ListPage(world, query, size, token);
    EXPECT_TRUE(page.ok()) << query << ": " << page.status();
    if (!page.ok()) break;
    for (const v1::ExecutionInfo& info : page->executions()) ids.push_back(info.workflow_id());
    token = page->next_page_token();
  } while (!token.empty());
  return ids;
}

v1::CountExecutionsResponse Count(World& world, const std::string& query) {
  v1::CountExecutionsRequest request;
  request.mutable_filter()->set_query(query);
  const auto counted = world.Ask<v1::CountExecutionsResponse>(
      [&](auto reply) { world.engine().Count(request, std::move(reply)); });
  EXPECT_TRUE(counted.ok()) << query << ": " << counted.status();
  return counted.ok() ? *counted : v1::CountExecutionsResponse();
}

v1::StartWorkflowRequest Labelled(const std::string& workflow, const std::string& id,
                                  const std::map<std::string, std::string>& labels) {
  v1::StartWorkflowRequest request;
  request.set_workflow(workflow);
  request.set_workflow_id(id);
  *request.add_inputs() = Json("1");
  for (const auto& [name, value] : labels) (*request.mutable_labels())[name] = value;
  return request;
}

TEST(Visibility, FindsWhatWasJustStartedAndWhatIsOnDiskAlike) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  world.Define(Nap("nap", 3'600'000));
  ASSERT_TRUE(world.Start(Labelled("chain", "a", {{"tenant", "acme"}})).ok());
  world.Advance(10);
  ASSERT_TRUE(world.Start(Labelled("nap", "b", {{"tenant", "acme"}})).ok());
  world.Advance(10);
  ASSERT_TRUE(world.Start(Labelled("nap", "c", {{"tenant", "other"}})).ok());
  const auto check = [&](bool completed) {
    EXPECT_THAT(List(world, ""), ElementsAre("c", "b", "a"));
    EXPECT_THAT(List(world, R"(label.tenant = "acme")"), ElementsAre("b", "a"));
    EXPECT_THAT(List(world, R"(label.tenant in ("acme", "other") and workflow = "nap")"),
                ElementsAre("c", "b"));
    EXPECT_THAT(List(world, R"(workflow = "chain")"), ElementsAre("a"));
    EXPECT_THAT(List(world, R"(workflow_id = "b")"), ElementsAre("b"));
    EXPECT_THAT(List(world, R"(workflow_id ^= "c")"), ElementsAre("c"));
    EXPECT_EQ(Count(world, R"(status = "open")").count(), completed ? 2u : 3u);
    EXPECT_EQ(Count(world, R"(status = "completed" and workflow = "chain")").count(),
              completed ? 1u : 0u);
    EXPECT_EQ(Count(world, R"(label.tenant = "acme")").count(), 2u);
    const auto page = ListPage(world, R"(workflow_id = "a")");
    ASSERT_TRUE(page.ok());
    EXPECT_EQ(page->executions(0).labels().at("tenant"), "acme");
    EXPECT_EQ(page->executions(0).status(),
              completed ? v1::EXECUTION_STATUS_COMPLETED : v1::EXECUTION_STATUS_RUNNING);
  };
  check(false);
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.RunWorker(worker);
  check(true);
  world.Advance(3'000);  // flushed and evicted
  EXPECT_EQ(world.Counter("evictions"), 3u);
  check(true);
  EXPECT_THAT(List(world, "closed > -1h"), ElementsAre("a"));
  EXPECT_THAT(List(world, "duration > 2s"), ElementsAre("c", "b"));
  EXPECT_THAT(List(world, "steps = 1"), ElementsAre("a"));
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  check(true);
}

TEST(Visibility, AnIndexRowFollowsItsExecution) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 5'000));
  ASSERT_TRUE(world.Start(Labelled("nap", "a", {{"x", "1"}, {"y", "2"}})).ok());
  world.Advance(2'000);
  EXPECT_EQ(CountRows(world, keys::Table::kVisible), 1u);
  EXPECT_EQ(CountRows(world, keys::Table::kByWorkflow), 1u);
  EXPECT_EQ(CountRows(world, keys::Table::kByLabel), 2u);
  EXPECT_EQ(CountRows(world, keys::Table::kEnded), 0u);
  EXPECT_EQ(CountRows(world, keys::Table::kCounts), 2u) << "and the version of the index";
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.Advance(4'000);
  world.RunWorker(worker);
  world.Advance(2'000);
  EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
  world.Advance(2'000);
  EXPECT_EQ(CountRows(world, keys::Table::kVisible), 1u);
  EXPECT_EQ(CountRows(world, keys::Table::kByWorkflow), 1u);
  EXPECT_EQ(CountRows(world, keys::Table::kByLabel), 2u);
  EXPECT_EQ(CountRows(world, keys::Table::kEnded), 1u);
  EXPECT_THAT(List(world, R"(status = "running")"), IsEmpty());
  EXPECT_THAT(List(world, R"(status = "completed" and label.y = "2")"), ElementsAre("a"));
}

TEST(Visibility, LabelsThatTasksSetAreFound) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 2));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start(Labelled("chain", "a", {{"stage", "new"}, {"gone", "soon"}})).ok());
  world.Advance(1'500);
  ASSERT_EQ(world.stream(worker).tasks.size(), 1u);
  v1::ConnectRequest message;
  v1::TaskResult* result = message.add_results();
  *result->mutable_token() = world.stream(worker).tasks.front().token();
  *result->mutable_value() = Json("1");
  (*result->mutable_labels())["stage"] = "half way";
  (*result->mutable_labels())["gone"] = "";
  (*result->mutable_labels())["pages"] = "17";
  world.Message(worker, std::move(message));
  world.Settle();
  const auto check = [&] {
    EXPECT_THAT(List(world, R"(label.stage = "new")"), IsEmpty());
    EXPECT_THAT(List(world, R"(label.stage = "half way")"), ElementsAre("a"));
    EXPECT_THAT(List(world, R"(label.gone = "soon")"), IsEmpty());
    EXPECT_THAT(List(world, R"(label.gone = "" and label.pages = "17")"), ElementsAre("a"));
  };
  check();
  world.stream(worker).tasks.pop_front();
  world.RunWorker(worker);
  world.Advance(2'000);
  EXPECT_EQ(CountRows(world, keys::Table::kByLabel), 2u);
  check();
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  check();
}

TEST(Visibility, PagesNeitherRepeatNorSkipWhileOthersStart) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  std::vector<std::string> expected;
  for (int i = 0; i < 40; ++i) {
    // Several in one millisecond, too.
    ASSERT_TRUE(world.Start(Labelled("nap", absl::StrCat("n", i), {})).ok());
    expected.insert(expected.begin(), absl::StrCat("n", i));
    if (i % 4 == 0) world.Advance(1);
  }
  for (uint32_t size : {1u, 3u, 7u, 39u, 40u, 41u}) {
    std::vector<std::string> seen;
    std::string token;
    do {
      const auto page = ListPage(world, "started > -1h", size, token);
      ASSERT_TRUE(page.ok());
      for (const v1::ExecutionInfo& info : page->executions()) seen.push_back(info.workflow_id());
      token = page->next_page_token();
      ASSERT_TRUE(
          world.Start(Labelled("nap", absl::StrCat("new", size, "-", seen.size()), {})).ok());
      world.Advance(700);
    } while (!token.empty());
    std::erase_if(seen, [](const std::string& id) { return id[0] == 'n' && id[1] == 'e'; });
    std::vector<std::string> sorted = seen;
    std::sort(sorted.begin(), sorted.end());
    std::vector<std::string> all = expected;
    std::sort(all.begin(), all.end());
    EXPECT_EQ(sorted, all) << size;
  }
}

TEST(Visibility, RefusesQueriesAndTokensThatAreNone) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  const auto wrong = ListPage(world, "tenant = 1");
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wrong.status().message()), HasSubstr("label.<name>"));
  for (const std::string token :
       {"x", "1-2", "1-00000000000000000000000000000000-x", "1-00-1", "--"}) {
    const auto page = ListPage(world, "", 10, token);
    EXPECT_EQ(page.status().code(), absl::StatusCode::kInvalidArgument) << token;
  }
  v1::CountExecutionsRequest request;
  request.mutable_filter()->set_query("status");
  const auto counted = world.Ask<v1::CountExecutionsResponse>(
      [&](auto reply) { world.engine().Count(request, std::move(reply)); });
  EXPECT_EQ(counted.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Visibility, AStoreWithoutAnIndexGetsOne) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  world.Define(Nap("nap", 1'000'000));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(world
                    .Start(Labelled(i % 3 == 0 ? "nap" : "chain", absl::StrCat("e", i),
                                    {{"third", absl::StrCat(i % 3)}}))
                    .ok());
  }
  world.RunWorker(worker);
  world.Advance(3'000);
  const std::vector<std::string> all = List(world, "");
  const std::vector<std::string> third = List(world, R"(label.third = "1")");
  EXPECT_EQ(third.size(), 10u);
  // As a store of format 1 had it: rows by workflow id, others where this index lies now.
  store::RowBatch batch;
  batch.epoch = world.engine().EpochOf(0);
  for (keys::Table table : {keys::Table::kVisible, keys::Table::kByWorkflow, keys::Table::kByLabel,
                            keys::Table::kEnded, keys::Table::kCounts}) {
    batch.delete_ranges.push_back(keys::TableRange(0, table));
  }
  batch.puts.push_back({keys::VisiblePrefix(0, "default") + "old", "rows"});
  ASSERT_TRUE(world.store().rows().WriteSync(std::move(batch)).ok());
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  EXPECT_EQ(List(world, ""), all);
  EXPECT_EQ(List(world, R"(label.third = "1")"), third);
  EXPECT_EQ(Count(world, R"(status = "completed")").count(), 20u);
  EXPECT_EQ(Count(world, R"(status = "running" and workflow = "nap")").count(), 10u);
  EXPECT_EQ(Count(world, R"(closed > -1h)").count(), 20u);
}

// Two steps beside each other, which are parked when they fail.
v1::Definition Parks() {
  v1::Definition definition = Chain("parks", 2);
  for (v1::Step& step : *definition.mutable_scopes(0)->mutable_steps()) {
    step.mutable_inputs(0)->set_parameter(0);
    step.set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  }
  return definition;
}

TEST(Visibility, FindsWhatHasParkedSteps) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Parks());
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (const char* id : {"both", "one", "fine"}) {
    ASSERT_TRUE(world.Start(Labelled("parks", id, {})).ok());
    for (int step = 0; step < 2; ++step) {
      const v1::Task task = world.Take(worker);
      if (id[0] == 'b' || (id[0] == 'o' && step == 0)) {
        world.AnswerFailure(worker, task, "broken", true);
      } else if (id[0] == 'o') {
        world.Answer(worker, task, "1");
      }
      world.Settle();
    }
    world.Advance(10);
  }
  for (const bool on_disk : {false, true}) {
    SCOPED_TRACE(on_disk);
    EXPECT_THAT(List(world, "parked > 0"), ElementsAre("one", "both"));
    EXPECT_THAT(List(world, "parked = 2"), ElementsAre("both"));
    EXPECT_THAT(List(world, "parked = 0"), ElementsAre("fine"));
    EXPECT_EQ(Count(world, "parked > 0").count(), 2u);
    EXPECT_EQ(ListPage(world, "parked = 2")->executions(0).parked_steps(), 2u);
    EXPECT_EQ(world.Describe("one").info().parked_steps(), 1u);
    if (on_disk) break;
    world.Advance(60'000);
    world.Crash();
    ASSERT_TRUE(world.Open().ok());
  }
  ASSERT_TRUE(world.Operate("both", "skip { step: \"s0\" }").ok());
  EXPECT_THAT(List(world, "parked = 1"), ElementsAre("one", "both"));
  // What has ended waits for nobody.
  ASSERT_TRUE(world.Operate("one", "cancel {}").ok());
  EXPECT_THAT(List(world, "parked > 0"), ElementsAre("both"));
  EXPECT_EQ(world.Describe("one").info().parked_steps(), 0u);
}

TEST(Visibility, RowsFromBeforeThereWereParkedStepsSayNone) {
  IndexValue value;
  value.close_ms = 300;
  value.workflow = "w";
  value.workflow_id = "id";
  value.version = "2";
  value.failure_type = "bad";
  const std::string before("\xac\x02w\0id\0002\0bad\0", 13);
  EXPECT_EQ(value.Encode(), before);
  ASSERT_TRUE(IndexValue::Decode(before).has_value());
  EXPECT_EQ(IndexValue::Decode(before)->failure_type, "bad");
  EXPECT_EQ(IndexValue::Decode(before)->parked, 0u);
  value.parked = 300;
  EXPECT_EQ(value.Encode(), before + "\xac\x02");
  EXPECT_EQ(IndexValue::Decode(value.Encode())->parked, 300u);
  EXPECT_FALSE(IndexValue::Decode(before + "\xac").has_value()) << "cut short";
}

// Every execution's fields as the engine tells them, and the queries' answers over all of them.
class Model {
 public:
  explicit Model(World& world) : world_(world) {}

  void Check(const std::vector<std::string>& ids, const std::vector<std::string>& queries) {
    std::vector<v1::ExecutionSummary> all;
    for (const std::string& id : ids) {
      const v1::ExecutionInfo info = world_.Describe(id).info();
      v1::ExecutionSummary& summary = all.emplace_back();
      summary.set_workflow_id(info.workflow_id());
      summary.set_run_id(RunId::FromText(info.run_id())->Bytes());
      summary.set_workflow(info.workflow());
      summary.set_version(info.version());
      summary.set_status(info.status());
      summary.set_start_time_ms(info.start_time_ms());
      summary.set_close_time_ms(info.close_time_ms());
      *summary.mutable_labels() = info.labels();
      summary.set_steps_completed(info.steps_completed());
      summary.set_failure_type(info.failure_type());
      summary.set_parked_steps(info.parked_steps());
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return a.start_time_ms() != b.start_time_ms() ? a.start_time_ms() > b.start_time_ms()
                                                    : a.run_id() > b.run_id();
    });
    for (const std::string& text : queries) {
      const Query query = *Query::Parse(text, world_.now_ms());
      std::vector<std::string> expected;
      std::map<v1::ExecutionStatus, uint64_t> counts;
      for (const v1::ExecutionSummary& summary : all) {
        if (query.Check(FieldsOf(summary)) != Match::kYes) continue;
        expected.push_back(summary.workflow_id());
        ++counts[summary.status()];
      }
      EXPECT_EQ(List(world_, text, 7), expected) << text;
      const v1::CountExecutionsResponse counted = Count(world_, text);
      EXPECT_EQ(counted.count(), expected.size()) << text;
      std::map<v1::ExecutionStatus, uint64_t> by_status;
      for (const auto& each : counted.by_status()) by_status[each.status()] = each.count();
      EXPECT_EQ(by_status, counts) << text;
    }
  }

 private:
  World& world_;
};

TEST(Visibility, AgreesWithAFilterOverAllAtEveryMoment) {
  const std::vector<std::string> queries = {
      "",
      R"(status = "running")",
      R"(status = "failed")",
      R"(status in ("completed", "cancelled", "paused") and workflow = "chain")",
      R"(workflow in ("nap", "none"))",
      R"(label.tenant = "t1")",
      R"(label.tenant in ("t1", "t2") and status = "closed" and label.tier = "gold")",
      R"(label.tier != "gold" and not workflow = "nap")",
      R"(label.tenant = "t1" or label.tier = "gold")",
      R"(failure_type = "broken" and started > -4s)",
      R"(started <= -1s and started > -3s)",
      R"(closed > -2s)",
      R"(closed < -1s and workflow = "chain")",
      R"(duration > 1s)",
      R"(steps >= 2 or workflow_id ^= "e1")",
      R"(workflow_id ^= "e1" and status != "completed")",
      R"(workflow_id in ("e1", "e2", "e30"))",
      R"(version = "1" and steps = 0)",
      R"(parked > 0)",
      R"(parked = 0 and workflow = "parks")",
      R"(parked = 1 or label.tier = "gold")",
  };
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    World world;
    ASSERT_TRUE(world.Open().ok());
    world.Define(Chain("chain", 3));
    world.Define(Nap("nap", 2'500));
    world.Define(Parks());
    StreamId worker = world.Connect("s0", {"t"}, 8);
    Model model(world);
    std::vector<std::string> ids;
    for (int round = 0; round < 60; ++round) {
      switch (random() % 6) {
        case 0:
        case 1: {
          const std::string id = absl::StrCat("e", ids.size());
          std::map<std::string, std::string> labels = {{"tenant", absl::StrCat("t", random() % 3)}};
          if (random() % 3 == 0) labels["tier"] = "gold";
          const char* const kWorkflows[] = {"nap", "chain", "parks"};
          ASSERT_TRUE(world.Start(Labelled(kWorkflows[random() % 3], id, labels)).ok());
          ids.push_back(id);
          break;
        }
        case 2: {
          auto& tasks = world.stream(worker).tasks;
          for (int i = 0; i < 3 && !tasks.empty(); ++i) {
            const v1::Task task = tasks.front();
            tasks.pop_front();
            if (random() % 5 == 0) {
              world.AnswerFailure(worker, task, "broken", true);
            } else {
              world.Answer(worker, task, "1");
            }
          }
          world.Settle();
          break;
        }
        case 3: {
          if (ids.empty()) break;
          v1::CancelExecutionRequest request;
          request.mutable_execution()->set_workflow_id(ids[random() % ids.size()]);
          (void)world
              .Ask<v1::CancelExecutionResponse>(
                  [&](auto reply) { world.engine().Cancel(request, std::move(reply)); })
              .ok();
          break;
        }
        case 4:
          world.Advance(static_cast<int64_t>(random() % 1'500));
          break;
        default:
          if (random() % 3 != 0) break;
          world.Crash({.unsynced_kept = random() % 10});
          ASSERT_TRUE(world.Open().ok());
          worker = world.Connect(absl::StrCat("s", round + 1), {"t"}, 8);
          world.Settle();
      }
      if (round % 5 == 4) model.Check(ids, queries);
    }
    world.Advance(20'000);
    model.Check(ids, queries);
  }
}

}  // namespace
}  // namespace flux::engine::testing
