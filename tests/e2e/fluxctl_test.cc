// What people look with: each reading command of fluxctl, and those that start, against a real
// fluxd with a worker and with a step whose task no worker has. In every form that it prints.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/bridge.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/workflows.h"

namespace flux::e2e {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using Arguments = std::vector<std::string>;
using Json = nlohmann::json;
using Row = std::vector<std::string>;

constexpr char kNobodyHasIt[] = "no worker has task e2e.nobody-has-it on queue default";

constexpr flux::Workflow<int64_t(int64_t)> kStuck{
    "stuck", {.version = "7"}, [](flux::Graph& g, Integer n) {
      return g.Call(kAddOne, g.Call(kNobody, n).Named("first")).Named("second");
    }};
constexpr flux::Workflow<int64_t(bool)> kRefusal{
    "refusal", {}, [](flux::Graph& g, flux::Value<bool> marked) {
      return g.Call(kRefuse, marked).Named("refuse");
    }};

// The cells of a table: no text of these tests has two blanks in a row, and no cell is empty.
std::vector<Row> Rows(const std::string& table) {
  std::vector<Row> rows;
  for (const auto line : absl::StrSplit(table, '\n', absl::SkipEmpty())) {
    Row& row = rows.emplace_back();
    for (const auto cell : absl::StrSplit(line, "  ", absl::SkipEmpty())) {
      row.emplace_back(ToStd(absl::StripAsciiWhitespace(cell)));
    }
  }
  return rows;
}

std::vector<Json> Lines(const std::string& text) {
  std::vector<Json> lines;
  for (const auto line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines.push_back(Json::parse(std::string(line), nullptr, /*allow_exceptions=*/false));
    EXPECT_TRUE(lines.back().is_object()) << line;
  }
  return lines;
}

class FluxctlViews : public EndToEnd {
 protected:
  void SetUp() override {
    // What waits stays in memory, so that queues show it as ready and not as spilled.
    SetFlags({{"idle-before-eviction", "1h"}});
    StartFluxd();
    for (const v1::Definition& definition : {DefinitionOf(kChain), DefinitionOf(kStuck),
                                             DefinitionOf(kRefusal), DefinitionOf(kGated)}) {
      const auto hash = api().Put(definition);
      ASSERT_TRUE(hash.ok()) << hash.status();
    }
    StartWorker({.id = "w1", .slots = 3});
    ASSERT_TRUE(Eventually([&] {
      const auto workers = api().Workers();
      return workers.ok() && workers->size() == 1;
    }));
  }

  Finished Fluxctl(Arguments arguments) {
    arguments.emplace_back("--ascii");
    return RunToEnd(FLUXCTL_BINARY, std::move(arguments),
                    {{"FLUX_ADDRESS", fluxd_.target()}, {"USER", "tester"}});
  }
  // Of a command that must succeed.
  std::string Table(Arguments arguments) {
    const Finished done = Fluxctl(std::move(arguments));
    EXPECT_EQ(done.exit_code, 0) << done.log;
    return done.output;
  }
  Json Document(Arguments arguments) {
    arguments.insert(arguments.end(), {"-o", "json"});
    const std::string text = Table(std::move(arguments));
    Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    EXPECT_TRUE(json.is_object()) << text;
    return json;
  }
  std::vector<Json> JsonLines(Arguments arguments) {
    arguments.insert(arguments.end(), {"-o", "jsonl"});
    return Lines(Table(std::move(arguments)));
  }
  // The listing in all its forms: the elements of the document's only array.
  std::vector<Json> Listed(const Arguments& arguments, const std::string& name) {
    const Json document = Document(arguments);
    EXPECT_EQ(document.size(), 1U) << document;
    std::vector<Json> elements = document[name].get<std::vector<Json>>();
    const std::vector<Json> lines = JsonLines(arguments);
    EXPECT_THAT(lines, SizeIs(elements.size()));
    for (size_t i = 0; i < lines.size() && i < elements.size(); ++i) {
      for (const auto& [key, value] : elements[i].items()) EXPECT_TRUE(lines[i].contains(key));
    }
    return elements;
  }
  void StartStuck(const std::string& id) {
    const auto started = api().Start(StartOf(kStuck, id, int64_t{1}));
    ASSERT_TRUE(started.ok()) << started.status();
  }
};

TEST_F(FluxctlViews, StartAndRunSayWhatBecameOfIt) {
  const std::vector<Row> started =
      Rows(Table({"workflow", "start", "stuck", "--id", "stuck-1", "--input", "1"}));
  ASSERT_THAT(started, SizeIs(2));
  EXPECT_THAT(started[0], ElementsAre("WORKFLOW ID", "RUN ID", "STARTED"));
  EXPECT_THAT(started[1], ElementsAre("stuck-1", SizeIs(32), "yes"));
  const Arguments again = {"workflow", "start", "stuck",         "--id",        "stuck-1",
                           "--input",  "1",     "--on-conflict", "use-existing"};
  EXPECT_EQ(Document(again),
            Json({{"workflow_id", "stuck-1"}, {"run_id", started[1][1]}, {"started", false}}));
  EXPECT_THAT(JsonLines(again), SizeIs(1));
  EXPECT_EQ(Fluxctl({"workflow", "start", "stuck", "--id", "stuck-1", "--input", "1"}).exit_code,
            4);

  const Finished run = Fluxctl({"workflow", "run", "chain", "--id", "chain-1", "--input", "3"});
  EXPECT_EQ(run.exit_code, 0) << run.log;
  EXPECT_EQ(run.output, "7\n");
  EXPECT_THAT(run.log, AllOf(HasSubstr("started chain-1 (run "), HasSubstr("four  completed"),
                             HasSubstr("chain-1  completed")));
  const Json result = Document({"workflow", "run", "chain", "--input", "10", "--quiet"});
  EXPECT_EQ(result["status"], "completed");
  EXPECT_EQ(result["result"], 14);
  EXPECT_EQ(result["failure"], nullptr);
  const std::vector<Json> line = JsonLines({"workflow", "run", "chain", "--input", "20"});
  ASSERT_THAT(line, SizeIs(1));
  EXPECT_EQ(line[0]["result"], 24);

  const Finished failed = Fluxctl({"workflow", "run", "refusal", "--input", "true", "--id", "no"});
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_THAT(failed.output, IsEmpty());
  EXPECT_THAT(failed.log, HasSubstr("no failed: e2e.refused: it will never work"));
}

TEST_F(FluxctlViews, ListAndCountTellTheOpenFromTheClosed) {
  ASSERT_NO_FATAL_FAILURE(StartStuck("stuck-1"));
  EXPECT_EQ(Table({"workflow", "run", "chain", "--id", "chain-1", "--input", "3", "-q"}), "7\n");

  const std::vector<Row> rows = Rows(Table({"workflow", "list"}));
  ASSERT_THAT(rows, SizeIs(3));
  EXPECT_THAT(rows[0], ElementsAre("WORKFLOW ID", "WORKFLOW", "STATUS", "AGE", "DURATION", "STEPS",
                                   "FAILURE", "RUN ID"));
  ASSERT_THAT(rows[1], SizeIs(8)) << "the newest first";
  EXPECT_THAT(Row(rows[1].begin(), rows[1].begin() + 3),
              ElementsAre("chain-1", "chain", "completed"));
  EXPECT_EQ(rows[1][5], "4");
  ASSERT_THAT(rows[2], SizeIs(8));
  EXPECT_THAT(Row(rows[2].begin(), rows[2].begin() + 3),
              ElementsAre("stuck-1", "stuck 7", "running"));
  const std::vector<Json> executions = Listed({"workflow", "list"}, "executions");
  ASSERT_THAT(executions, SizeIs(2));
  EXPECT_EQ(executions[0]["workflow_id"], "chain-1");
  EXPECT_EQ(executions[0]["run_id"], rows[1][7]);
  EXPECT_EQ(executions[0]["steps_completed"], 4);
  EXPECT_TRUE(executions[0]["close_time"].is_string());
  EXPECT_EQ(executions[1]["status"], "running");
  EXPECT_EQ(executions[1]["version"], "7");
  EXPECT_EQ(executions[1]["close_time"], nullptr);
  EXPECT_THAT(Rows(Table({"workflow", "list", "--status", "running", "--started-after", "1h"})),
              SizeIs(2));
  EXPECT_THAT(Fluxctl({"workflow", "list", "--started-before", "1h"}).log,
              HasSubstr("no executions match"));

  EXPECT_THAT(Rows(Table({"workflow", "count"})),
              ElementsAre(ElementsAre("STATUS", "COUNT"), ElementsAre("running", "1"),
                          ElementsAre("completed", "1"), ElementsAre("total", "2")));
  const Json count = Document({"workflow", "count", "--workflow", "stuck"});
  EXPECT_EQ(count["count"], 1);
  EXPECT_EQ(count["by_status"], Json::parse(R"([{"status": "running", "count": 1}])"));
  EXPECT_THAT(JsonLines({"workflow", "count"}), SizeIs(1));
}

TEST_F(FluxctlViews, ShowDrawsTheStepsAndSaysWhyEachWaits) {
  ASSERT_NO_FATAL_FAILURE(StartStuck("stuck-1"));
  const std::string shown = Table({"workflow", "show", "stuck-1", "--payloads"});
  EXPECT_THAT(shown,
              AllOf(StartsWith("Workflow ID:  stuck-1\n"), HasSubstr("Workflow:     stuck 7 ("),
                    HasSubstr("Status:       running\n"), HasSubstr("Input:        1\n")));
  const size_t tree = shown.find("\n\n");
  ASSERT_NE(tree, std::string::npos) << shown;
  const std::vector<Row> rows = Rows(shown.substr(tree));
  ASSERT_THAT(rows, SizeIs(3)) << shown;
  EXPECT_THAT(rows[0], ElementsAre("STEP", "KIND", "STATE", "ATTEMPT", "TIME", "DETAIL"));
  ASSERT_THAT(rows[1], SizeIs(6)) << shown;
  EXPECT_THAT(Row(rows[1].begin(), rows[1].begin() + 3),
              ElementsAre("|- first", "task", "scheduled"));
  EXPECT_EQ(rows[1][5], kNobodyHasIt);
  ASSERT_THAT(rows[2], SizeIs(6)) << shown;
  EXPECT_THAT(Row(rows[2].begin(), rows[2].begin() + 3),
              ElementsAre("`- second", "task", "pending"));
  EXPECT_EQ(rows[2][5], "waits for step first");

  const Json document = Document({"workflow", "show", "stuck-1"});
  EXPECT_EQ(document["info"]["workflow_id"], "stuck-1");
  EXPECT_EQ(document["inputs"], Json::parse("[1]"));
  ASSERT_EQ(document["steps"].size(), 2U);
  EXPECT_EQ(document["steps"][0]["state"], "scheduled");
  EXPECT_EQ(document["steps"][0]["reason"], kNobodyHasIt);
  EXPECT_EQ(document["steps"][1]["state"], "pending");
  EXPECT_TRUE(document["server_time"].is_string());
  EXPECT_THAT(JsonLines({"workflow", "show", "stuck-1"}), SizeIs(1));
}

TEST_F(FluxctlViews, ResultAndWatchWaitForTheEnd) {
  ASSERT_TRUE(api().Start(StartOf(kGated, "gated-1", std::string("gate"))).ok());
  const Finished early = Fluxctl({"workflow", "result", "gated-1", "--no-wait"});
  EXPECT_EQ(early.exit_code, 4);
  EXPECT_THAT(early.log, HasSubstr("gated-1 is running and has no result yet"));

  const auto watch = [&](const std::string& output) {
    return Process::Start({FLUXCTL_BINARY,
                           {"workflow", "watch", "gated-1", "-o", output},
                           {{"FLUX_ADDRESS", fluxd_.target()}},
                           directory_ / output,
                           directory_ / (output + ".err")});
  };
  auto table = watch("table");
  auto lines = watch("jsonl");
  ASSERT_TRUE(table.ok() && lines.ok());
  // Both have seen it run before it may end.
  for (const char* output : {"table", "jsonl"}) {
    EXPECT_TRUE(Eventually([&] {
      return ReadFile(directory_ / output).find("running") != std::string::npos;
    })) << output;
  }
  ledger_.OpenGate("gate");
  EXPECT_EQ(ExitCode(table->Wait()), 0);
  EXPECT_EQ(ExitCode(lines->Wait()), 0);
  EXPECT_THAT(ReadFile(directory_ / "table"),
              AllOf(HasSubstr("gated-1  running\n"), HasSubstr("wait  completed"),
                    EndsWith("gated-1  completed\n")));
  const std::vector<Json> seen = Lines(ReadFile(directory_ / "jsonl"));
  ASSERT_GE(seen.size(), 2U);
  EXPECT_EQ(seen.front()["closed"], false);
  EXPECT_EQ(seen.back()["closed"], true);
  EXPECT_EQ(seen.back()["steps"][0]["state"], "completed");
  EXPECT_EQ(Document({"workflow", "watch", "gated-1"})["info"]["status"], "completed");

  EXPECT_EQ(Table({"workflow", "result", "gated-1"}), "\"w1\"\n");
  const Json result = Document({"workflow", "result", "gated-1"});
  EXPECT_EQ(result["result"], "w1");
  EXPECT_EQ(result["status"], "completed");
  EXPECT_THAT(JsonLines({"workflow", "result", "gated-1"}), SizeIs(1));
}

TEST_F(FluxctlViews, WorkersAndQueuesShowWhoWaitsForWhom) {
  ASSERT_NO_FATAL_FAILURE(StartStuck("stuck-1"));
  const std::vector<Row> workers = Rows(Table({"worker", "list"}));
  ASSERT_THAT(workers, SizeIs(2));
  EXPECT_THAT(workers[0], ElementsAre("WORKER", "QUEUE", "STATE", "RUNNING", "CREDIT", "DONE",
                                      "FAILED", "UP", "SEEN", "PEER", "TASKS"));
  ASSERT_THAT(workers[1], SizeIs(11));
  EXPECT_THAT(Row(workers[1].begin(), workers[1].begin() + 4),
              ElementsAre("w1", "default", "connected", "0/3"));
  const std::vector<Json> worker = Listed({"worker", "list", "--queue", "default"}, "workers");
  ASSERT_THAT(worker, SizeIs(1));
  EXPECT_EQ(worker[0]["worker_id"], "w1");
  EXPECT_EQ(worker[0]["slots"], 3);
  EXPECT_THAT(worker[0]["tasks"].get<std::vector<std::string>>(), Contains("e2e.add-one"));
  EXPECT_THAT(Fluxctl({"worker", "list", "--queue", "gpu"}).log,
              HasSubstr("no workers are connected to queue gpu"));

  const std::vector<Row> queues = Rows(Table({"task-queue", "list"}));
  ASSERT_THAT(queues, SizeIs(2));
  EXPECT_THAT(queues[0], ElementsAre("QUEUE", "READY", "RUNNING", "WORKERS", "SLOTS", "CREDIT",
                                     "OLDEST", "SPILLED"));
  ASSERT_THAT(queues[1], SizeIs(8));
  EXPECT_THAT(Row(queues[1].begin(), queues[1].begin() + 5),
              ElementsAre("default", "1", "0", "1", "3"));
  const std::vector<Json> queue = Listed({"task-queue", "list"}, "queues");
  ASSERT_THAT(queue, SizeIs(1));
  EXPECT_EQ(queue[0]["ready"], 1);
  EXPECT_EQ(queue[0]["workers"], 1);
  EXPECT_TRUE(queue[0]["oldest_ready_time"].is_string());

  const std::string shown = Table({"task-queue", "show", "default"});
  EXPECT_THAT(shown, AllOf(StartsWith("Queue:         default\n"), HasSubstr("Ready:         1\n"),
                           HasSubstr("\n\nTASK "), HasSubstr("\n\nWORKER ")));
  EXPECT_THAT(Rows(shown),
              Contains(ElementsAre("e2e.nobody-has-it", "1", "0", "0", "no worker has this task")));
  const Json document = Document({"task-queue", "show", "default"});
  EXPECT_EQ(document["queue"]["ready"], 1);
  EXPECT_EQ(document["workers"][0]["worker_id"], "w1");
  bool told = false;
  for (const Json& task : document["queue"]["tasks"]) {
    if (task["name"] != "e2e.nobody-has-it") continue;
    told = true;
    EXPECT_EQ(task["ready"], 1);
    EXPECT_EQ(task["workers"], 0);
  }
  EXPECT_TRUE(told) << document;
  EXPECT_THAT(JsonLines({"task-queue", "show", "default"}), SizeIs(1));
}

TEST_F(FluxctlViews, DefinitionsAreListedAndShown) {
  const std::vector<Row> rows = Rows(Table({"definition", "list"}));
  ASSERT_THAT(rows, SizeIs(5));
  EXPECT_THAT(rows[0],
              ElementsAre("NAME", "VERSION", "HASH", "STEPS", "AGE", "SIGNATURE", "TASKS"));
  ASSERT_THAT(rows[4], SizeIs(7)) << "by name";
  EXPECT_THAT(Row(rows[4].begin(), rows[4].begin() + 2), ElementsAre("stuck", "7"));
  EXPECT_EQ(rows[4][3], "2");
  EXPECT_THAT(rows[4][6], AllOf(HasSubstr("e2e.add-one"), HasSubstr("e2e.nobody-has-it")));
  const std::vector<Json> listed = Listed({"definition", "list", "--name", "stuck"}, "definitions");
  ASSERT_THAT(listed, SizeIs(1));
  EXPECT_EQ(listed[0]["name"], "stuck");
  EXPECT_EQ(listed[0]["steps"], 2);
  EXPECT_THAT(listed[0]["definition_hash"].get<std::string>(), StartsWith(rows[4][2]));
  EXPECT_THAT(Listed({"definition", "list", "--limit", "2"}, "definitions"), SizeIs(2));
  EXPECT_THAT(Fluxctl({"definition", "list", "--name", "nothing"}).log,
              HasSubstr("no definitions"));

  const std::string shown = Table({"definition", "show", "stuck"});
  EXPECT_THAT(shown, AllOf(StartsWith("Workflow:    stuck\n"), HasSubstr("Version:     7\n"),
                           HasSubstr(absl::StrCat("Hash:        ", rows[4][2]))));
  const size_t tree = shown.find("\n\n");
  ASSERT_NE(tree, std::string::npos) << shown;
  EXPECT_THAT(Rows(shown.substr(tree)),
              ElementsAre(ElementsAre("STEP", "KIND", "INPUTS", "DETAIL"),
                          ElementsAre("|- first", "task", "$0", HasSubstr("e2e.nobody-has-it")),
                          ElementsAre("`- second", "task", "first", HasSubstr("e2e.add-one"))));
  const Json document = Document({"definition", "show", "stuck", "--version", "7"});
  EXPECT_EQ(document["summary"]["name"], "stuck");
  EXPECT_EQ(document["definition"]["scopes"][0]["steps"][0]["name"], "first");
  EXPECT_THAT(JsonLines({"definition", "show", "stuck"}), SizeIs(1));
  EXPECT_EQ(Fluxctl({"definition", "show", "stuck", "--version", "8"}).exit_code, 3);
}

// More of them than fluxctl asks for at a time, and than the server sends unasked.
TEST_F(FluxctlViews, ManyDefinitionsComeInPages) {
  constexpr int kMany = 501;
  v1::Definition definition = DefinitionOf(kStuck);
  definition.set_name("many");
  Arguments versions;
  for (int i = 1; i <= kMany; ++i) {
    versions.push_back(absl::StrCat(i));
    definition.set_version(versions.back());
    const auto hash = api().Put(definition);
    ASSERT_TRUE(hash.ok()) << hash.status();
  }
  std::reverse(versions.begin(), versions.end());  // the newest first

  const auto page = [&](uint32_t size, const std::string& token) {
    v1::ListDefinitionsRequest request;
    request.set_name("many");
    request.set_page_size(size);
    request.set_page_token(token);
    v1::ListDefinitionsResponse response;
    grpc::ClientContext context;
    const absl::Status status =
        FromGrpc(api().workflows().ListDefinitions(&context, request, &response));
    return status.ok() ? absl::StatusOr<v1::ListDefinitionsResponse>(response) : status;
  };
  for (const auto& [size, pages] : std::vector<std::pair<uint32_t, int>>{{0, 6}, {167, 3}}) {
    SCOPED_TRACE(size);
    Arguments found;
    std::string token;
    int count = 0;
    do {
      const auto next = page(size, token);
      ASSERT_TRUE(next.ok()) << next.status();
      ASSERT_LE(next->definitions_size(), size == 0 ? 100 : static_cast<int>(size));
      for (const v1::DefinitionSummary& summary : next->definitions()) {
        EXPECT_EQ(summary.name(), "many");
        found.push_back(summary.version());
      }
      token = next->next_page_token();
      ASSERT_LE(++count, pages);
    } while (!token.empty());
    EXPECT_EQ(count, pages);
    EXPECT_EQ(found, versions);
  }
  for (const char* beyond : {"501", "18446744073709551615"}) {
    const auto none = page(100, beyond);
    ASSERT_TRUE(none.ok()) << none.status();
    EXPECT_EQ(none->definitions_size(), 0);
    EXPECT_THAT(none->next_page_token(), IsEmpty());
  }
  EXPECT_EQ(page(100, "many").status().code(), absl::StatusCode::kInvalidArgument);

  const std::vector<Row> rows = Rows(Table({"definition", "list", "--name", "many"}));
  ASSERT_THAT(rows, SizeIs(kMany + 1)) << "one line of headers";
  EXPECT_EQ(rows[0][0], "NAME");
  EXPECT_EQ(rows[1][1], versions.front());
  EXPECT_EQ(rows[kMany][1], versions.back());
  const std::vector<Json> listed = Listed({"definition", "list", "--name", "many"}, "definitions");
  Arguments found;
  for (const Json& summary : listed) found.push_back(summary["version"]);
  EXPECT_EQ(found, versions);
}

}  // namespace
}  // namespace flux::e2e
