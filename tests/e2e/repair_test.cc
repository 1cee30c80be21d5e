// What an operator does with fluxctl to executions of a real fluxd: each command by id, and by
// query where there is one; the history then says who did it and why.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/workflows.h"

namespace flux::e2e {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using Arguments = std::vector<std::string>;
using HistoryLine = nlohmann::json;

constexpr char kWho[] = "fluxctl:tester@";
constexpr char kEvent[] = "e2e.news";
constexpr char kMany[] = "label.tenant = \"many\"";

// No worker has these tasks: what has begun stays where it is until an operator moves it.
constexpr flux::Task<int64_t(int64_t, int64_t)> kBoth{"e2e.both"};
constexpr flux::Workflow<int64_t(int64_t)> kDesk{
    "desk", {.version = "1"}, [](flux::Graph& g, Integer n) {
      auto first = g.Call(kNobody, n).Named("first");
      auto news = g.WaitEvent(kNews).Named("news");
      return g.Call(kBoth, first, news).Named("second");
    }};

Arguments Joined(std::initializer_list<Arguments> parts) {
  Arguments all;
  for (const Arguments& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

class Repairs : public EndToEnd {
 protected:
  void SetUp() override {
    StartFluxd();
    v1::Definition definition = DefinitionOf(kDesk);
    for (const char* version : {"1", "2"}) {
      definition.set_version(version);
      const auto hash = api().Put(definition);
      ASSERT_TRUE(hash.ok()) << hash.status();
    }
    for (const std::string& id : all_) {
      v1::StartWorkflowRequest request = StartOf(kDesk, id, int64_t{1});
      request.set_version("1");
      (*request.mutable_labels())["tenant"] = id == "one" ? "one" : "many";
      const auto started = api().Start(request);
      ASSERT_TRUE(started.ok()) << started.status();
    }
  }

  Finished Fluxctl(Arguments arguments) {
    return RunToEnd(FLUXCTL_BINARY, std::move(arguments),
                    {{"FLUX_ADDRESS", fluxd_.target()}, {"USER", "tester"}});
  }

  // As `fluxctl workflow history` has it: those of the type, whose line holds the text.
  std::vector<HistoryLine> Told(const std::string& id, const std::string& type,
                                const std::string& text) {
    const Finished history = Fluxctl({"workflow", "history", id, "-o", "jsonl"});
    EXPECT_EQ(history.exit_code, 0) << history.log;
    std::vector<HistoryLine> told;
    for (const auto line : absl::StrSplit(history.output, '\n', absl::SkipEmpty())) {
      HistoryLine event = HistoryLine::parse(std::string(line));
      if (event["type"] != type || event.dump().find(text) == std::string::npos) continue;
      EXPECT_THAT(event["identity"].get<std::string>(), StartsWith(kWho)) << line;
      told.push_back(std::move(event));
    }
    return told;
  }

  // Does it to "one" by its id, and to the others by query; `type` is what their history calls it.
  // A refusal to act without asking comes first, and changes nothing.
  void Repair(const Arguments& command, const Arguments& rest, const std::string& type) {
    const std::string reason = absl::StrCat("reason ", ++reasons_, ".");
    SCOPED_TRACE(absl::StrCat(command[0], " ", command[1], ", ", reason));
    const Arguments why = {"--reason", reason};
    const Finished one = Fluxctl(Joined({command, {"one"}, rest, why}));
    EXPECT_EQ(one.exit_code, 0) << one.log;
    EXPECT_THAT(Told("one", type, reason), SizeIs(1));

    const Arguments query = {"--query", kMany};
    const Finished refused = Fluxctl(Joined({command, rest, why, query}));
    EXPECT_EQ(refused.exit_code, 2) << refused.log;
    EXPECT_THAT(refused.log, AllOf(HasSubstr("many-0"), HasSubstr("many-1"),
                                   HasSubstr("2 executions without asking")));
    EXPECT_THAT(Told("many-0", type, reason), SizeIs(0));
    const Finished many = Fluxctl(Joined({command, rest, why, query, {"-y"}}));
    EXPECT_EQ(many.exit_code, 0) << many.log;
    EXPECT_THAT(many.log, AllOf(HasSubstr("many-0"), HasSubstr("many-1"), HasSubstr("2/2 done")));
    for (const char* id : {"many-0", "many-1"}) {
      EXPECT_THAT(Told(id, type, absl::StrCat(reason, " (bulk operation ")), SizeIs(1)) << id;
    }
  }

  // An event to each; there is no signal by query.
  void Signal(const Arguments& more) {
    for (const std::string& id : all_) {
      const Finished sent = Fluxctl(Joined({{"workflow", "signal", id, kEvent}, more}));
      EXPECT_EQ(sent.exit_code, 0) << sent.log;
    }
  }

  void ExpectStatus(v1::ExecutionStatus status) {
    for (const std::string& id : all_) {
      const auto described = api().Describe(Ref(id));
      ASSERT_TRUE(described.ok()) << described.status();
      EXPECT_EQ(described->info().status(), status) << id;
    }
  }

  const Arguments all_ = {"one", "many-0", "many-1"};
  int reasons_ = 0;
};

TEST_F(Repairs, EachIsDoneByIdAndByQueryAndItsHistorySaysWhoAndWhy) {
  Repair({"workflow", "pause"}, {}, "execution.paused");
  ExpectStatus(v1::EXECUTION_STATUS_PAUSED);
  Repair({"workflow", "resume"}, {}, "execution.resumed");
  Repair({"workflow", "park"}, {"first"}, "step.parked");
  Repair({"workflow", "unpark"}, {"first"}, "step.retried");
  Repair({"workflow", "park"}, {"first"}, "step.parked");
  Repair({"workflow", "retry"}, {}, "step.retried");
  Repair({"workflow", "retry"}, {"--step", "first"}, "step.retried");

  Signal({"--input", "7", "--event-id", "now"});
  Signal({"--input", "8", "--event-id", "later", "--in", "2h"});
  for (const std::string& id : all_) EXPECT_THAT(Told(id, "event.received", kEvent), SizeIs(2));
  Repair({"event", "cancel"}, {"later"}, "event.cancelled");
  Repair({"event", "edit"}, {kEvent, "--input", "71"}, "event.edited");
  Repair({"event", "replay"}, {kEvent, "--input", "72"}, "event.replayed");

  Repair({"workflow", "set-result"}, {"first", "--input", "5"}, "step.result_set");
  Repair({"workflow", "skip"}, {"second"}, "step.skip_asked");
  ExpectStatus(v1::EXECUTION_STATUS_SKIPPED);
  Repair({"workflow", "rewind"}, {"first"}, "execution.rewound");
  ExpectStatus(v1::EXECUTION_STATUS_RUNNING);
  Repair({"workflow", "migrate"}, {"--to", "desk@2"}, "execution.migrated");

  Repair({"workflow", "cancel"}, {}, "execution.cancelled");
  ExpectStatus(v1::EXECUTION_STATUS_CANCELLED);
  // A client whose answer was lost sends it again: it is done, once.
  EXPECT_EQ(Fluxctl({"workflow", "cancel", "one", "--reason", "again"}).exit_code, 0);
  EXPECT_THAT(Told("one", "execution.cancelled", ""), SizeIs(1));
  EXPECT_EQ(Fluxctl({"workflow", "terminate", "one"}).exit_code, 4);
  Repair({"workflow", "rewind"}, {"first"}, "execution.rewound");
  Repair({"workflow", "terminate"}, {}, "execution.terminated");
  EXPECT_EQ(Fluxctl({"workflow", "terminate", "one", "--reason", "again"}).exit_code, 0);
  EXPECT_THAT(Told("one", "execution.terminated", ""), SizeIs(1));
  EXPECT_THAT(Fluxctl({"workflow", "history", "one"}).output, HasSubstr(absl::StrCat("by ", kWho)));
  for (const std::string& id : all_) {
    const auto verified = api().Verify(Ref(id));
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_TRUE(verified->equal()) << verified->difference();
  }
}

// What is deleted has no history: a list of its own says it, and the log.
TEST_F(Repairs, ADeletionIsListedWithWhoAndWhy) {
  ASSERT_EQ(Fluxctl({"workflow", "terminate", "one", "many-0", "many-1"}).exit_code, 0);
  EXPECT_EQ(Fluxctl({"workflow", "delete", "one", "--reason", "no longer ours"}).exit_code, 0);
  const Arguments query = {"workflow", "delete", "--query", kMany, "--reason", "gone too"};
  const Finished refused = Fluxctl(query);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.log, AllOf(HasSubstr("many-0"), HasSubstr("many-1"),
                                 HasSubstr("refusing to delete 2 executions")));
  const Finished done = Fluxctl(Joined({query, {"-y"}}));
  EXPECT_EQ(done.exit_code, 0) << done.log;
  EXPECT_THAT(done.log, HasSubstr("2/2 done"));
  for (const std::string& id : all_) {
    const Finished shown = Fluxctl({"workflow", "show", id});
    EXPECT_EQ(shown.exit_code, 3);
    EXPECT_THAT(shown.log, AllOf(HasSubstr("check both"), HasSubstr("'fluxctl workflow list'")));
    EXPECT_THAT(fluxd_.log(), HasSubstr(absl::StrCat("execution \"", id, "\" run "))) << id;
  }
  EXPECT_THAT(fluxd_.log(),
              AllOf(HasSubstr(absl::StrCat(" was deleted by ", kWho)),
                    HasSubstr(": no longer ours"), HasSubstr(": gone too (bulk operation ")));
  const Finished all = Fluxctl({"workflow", "deletions", "-o", "jsonl"});
  EXPECT_EQ(all.exit_code, 0) << all.log;
  for (const std::string& id : all_) {
    EXPECT_THAT(all.output, HasSubstr(absl::StrCat("\"workflow_id\":\"", id, "\""))) << id;
  }
  const Finished one = Fluxctl({"workflow", "deletions", "one"});
  EXPECT_THAT(one.output, AllOf(HasSubstr("terminated"), HasSubstr("no longer ours"),
                                HasSubstr(kWho), Not(HasSubstr("many-"))));
}

}  // namespace
}  // namespace flux::e2e
