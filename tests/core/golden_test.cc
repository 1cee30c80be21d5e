// Histories written by each format version: this version must read them to the same state, byte for
// byte.
//
// A file in golden/ holds lines of "kind hex": the definition, that of the version it moved to if
// it did, the records, the snapshot after the last of them. Files are never rewritten. For a new
// format version, run this test with FLUX_GOLDEN_WRITE=<directory>: it writes the histories below
// in the current format there, for a new set of files.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

// What the definitions of a file are known by in its records, in order.
constexpr const char* kHashes[] = {"hash-of-the-definition-----------",
                                   "hash-of-the-second-version-------"};

struct History {
  std::vector<std::string> definitions;
  std::vector<std::string> records;
  std::string snapshot;
};

History Read(const std::filesystem::path& path) {
  History history;
  std::ifstream file(path);
  std::string kind, hex;
  while (file >> kind >> hex) {
    const std::string bytes = absl::HexStringToBytes(hex);
    if (kind == "definition") history.definitions.push_back(bytes);
    if (kind == "record") history.records.push_back(bytes);
    if (kind == "snapshot") history.snapshot = bytes;
  }
  return history;
}

TEST(Golden, EveryHistoryReadsToTheStateItWasWrittenWith) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(FLUX_GOLDEN_DIRECTORY)) {
    if (entry.path().extension() != ".history") continue;
    SCOPED_TRACE(entry.path().filename().string());
    ++files;
    const History history = Read(entry.path());
    std::map<std::string, std::shared_ptr<const Graph>> graphs;
    ASSERT_GE(history.definitions.size(), 1u);
    ASSERT_LE(history.definitions.size(), std::size(kHashes));
    for (size_t i = 0; i < history.definitions.size(); ++i) {
      v1::Definition definition;
      ASSERT_TRUE(definition.ParseFromString(history.definitions[i]));
      const auto graph = Graph::Compile(definition, kHashes[i]);
      ASSERT_TRUE(graph.ok()) << graph.status();
      graphs[kHashes[i]] = *graph;
    }
    std::shared_ptr<const Graph> graph = graphs[kHashes[0]];
    const BlobReader blobs = [](uint64_t ordinal) {
      // What was written under the ordinal: the same digit over and over.
      return Json(std::string(kBlobBytesMin + ordinal, '7'));
    };
    ASSERT_GE(history.records.size(), 2u);
    std::vector<v1::Record> records;
    for (const std::string& bytes : history.records) {
      auto record = ParseRecord(bytes, blobs);
      ASSERT_TRUE(record.ok()) << record.status();
      EXPECT_EQ(SerializeRecord(*record), bytes);
      records.push_back(*std::move(record));
    }
    Execution execution = Create(graph, records[0], nullptr);
    for (size_t i = 1; i < records.size(); ++i) {
      if (records[i].has_migrated()) {
        graph = graphs[records[i].migrated().definition_hash()];
        ASSERT_NE(graph, nullptr);
      }
      Apply(execution, records[i], nullptr, graph);
    }
    EXPECT_EQ(absl::BytesToHexString(SaveSnapshot(execution)),
              absl::BytesToHexString(history.snapshot));
    const auto loaded = LoadSnapshot(graph, history.snapshot, blobs);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(SaveSnapshot(*loaded), history.snapshot);
  }
  EXPECT_GE(files, 20u);
}

// `first`: what it was started with, if it has moved to another version.
void Write(const std::string& directory, const std::string& name, const Driver& run,
           const v1::Definition* first = nullptr) {
  std::ofstream file(directory + "/" + name + ".history");
  for (const v1::Definition* definition : {first, &run.live.graph().definition()}) {
    if (definition == nullptr) continue;
    file << "definition " << absl::BytesToHexString(SerializeDeterministic(*definition)) << "\n";
  }
  for (const std::string& record : run.records) {
    file << "record " << absl::BytesToHexString(record) << "\n";
  }
  file << "snapshot " << absl::BytesToHexString(SaveSnapshot(run.live)) << "\n";
}

// Where today's histories are written: where FLUX_GOLDEN_WRITE says, or aside, to be compared.
std::string Aside() {
  if (const char* directory = std::getenv("FLUX_GOLDEN_WRITE")) return directory;
  const std::string aside = ::testing::TempDir() + "/flux-golden";
  std::filesystem::create_directories(aside);
  return aside;
}

// Byte for byte what is kept: a change of format shows here, and is then a new file.
void ExpectAsKept(const std::string& directory, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto read = [&](const std::string& folder) {
      std::ifstream file(folder + "/" + name + ".history", std::ios::binary);
      EXPECT_TRUE(file.good()) << folder << " lacks " << name;
      return std::string(std::istreambuf_iterator<char>(file), {});
    };
    EXPECT_EQ(read(directory), read(FLUX_GOLDEN_DIRECTORY)) << name;
  }
}

TEST(Golden, TodaysHistoriesOfTheFirstFormatAreThoseThatAreKept) {
  const std::string directory = Aside();
  {
    DefinitionBuilder b("chain", 1);
    b.Task(0, "first", {FromParameter(0, "/name")});
    b.step(0, 0).mutable_task()->mutable_timeouts()->set_schedule_to_close_ms(60'000);
    b.Task(0, "second", {FromStep(0)});
    b.Result(0, FromStep(1));
    Driver run(b.Compile(), {Json("{\"name\":\"x\"}")});
    run.FailTask("first", "io");
    run.Advance(5'000);
    run.Redeliver("first");
    run.Complete("first", "1");
    run.End("second", AttemptEnd::kWorkerLost);
    Write(directory, "v1-chain-backing-off", run);
  }
  {
    DefinitionBuilder b("map", 1);
    const uint32_t body = b.Scope(2);
    b.Task(body, "work", {FromParameter(0), FromParameter(1)});
    b.Result(body, FromStep(0));
    b.Map(0, "each", body, {FromParameter(0), Literal("\"captured\"")}, 2);
    b.Join(0, "all", {FromStep(0), FromParameter(0)});
    b.Result(0, FromStep(1));
    Driver run(b.Compile(), {ListPayload({Json("1"), Json("2"), Json("3"), Json("4"), Json("5")})});
    run.Complete("each[1].work", "10");
    run.SkipResult("each[0].work");
    run.Complete("each[3].work", "[1,2]");
    Write(directory, "v1-map-in-flight", run);
  }
  {
    DefinitionBuilder b("branches", 1);
    b.Task(0, "slow");
    const uint32_t turn = b.Scope(1);
    b.Task(turn, "poll", {FromParameter(0)});
    b.Result(turn, FromStep(0));
    b.Loop(0, "loop", turn, {Literal("0")}, 10);
    const uint32_t yes = b.Scope(1);
    b.Task(yes, "then", {FromParameter(0)});
    b.Result(yes, FromStep(0));
    b.Switch(0, "if", {FromParameter(0), FromStep(0)}, {{"true", yes}});
    b.Task(0, "risky");
    const uint32_t handler = b.Scope(1);
    b.Sleep(handler, "calm", 1'000);
    b.Result(handler, FromParameter(0));
    b.Catch(0, 3, {"broken"}, handler);
    b.Task(0, "parked");
    b.step(0, 4).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
    b.Result(0, FromStep(1));
    Driver run(b.Compile(), {Json("true")});
    run.Complete("loop[0].poll", "1");
    run.Complete("loop[1].poll", "2");
    run.FailTask("risky", "broken", true);
    run.FailTask("parked", "bad", true);
    Write(directory, "v1-loop-switch-catch-park", run);
    run.Complete("slow", "5");
    run.Advance(1'000);
    ASSERT_TRUE(run.Do(Cancel{"enough", "ann"}).ok());
    Write(directory, "v1-cancelled", run);
  }
  {
    DefinitionBuilder b("blobs", 1);
    b.Task(0, "t", {FromParameter(0)});
    b.Task(0, "u", {FromStep(0)});
    b.Result(0, FromStep(1));
    Driver run(b.Compile(), {Json(std::string(kBlobBytesMin + 1, '7'))});
    run.Complete("t", std::string(kBlobBytesMin + 2, '7'));
    run.FailTask("u", "bad", true);
    Write(directory, "v1-blobs-failed", run);
  }
  ExpectAsKept(directory, {"v1-chain-backing-off", "v1-map-in-flight", "v1-loop-switch-catch-park",
                           "v1-cancelled", "v1-blobs-failed"});
}

// Events taken by turns, kept, delayed and edited; a default; a parked reader.
void WriteEvents(const std::string& directory) {
  DefinitionBuilder b("events", 0);
  const uint32_t turn = b.Scope(1);
  b.Wait(turn, "next", "go");
  b.Task(turn, "work", {FromStep(0)});
  b.Wait(turn, "same", "go");
  b.Result(turn, FromStep(1));
  b.Loop(0, "loop", turn, {Literal("0")}, 10);
  b.Wait(0, "once", "on", 60'000);
  b.Task(0, "reads", {FromStep(1)});
  b.step(0, 2).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  b.Wait(0, "late", "never", 5'000, "\"default\"");
  b.Wait(0, "open", "never", 600'000);
  b.Result(0, FromStep(0));
  Driver run(b.Compile());
  for (const char* data : {"1", "2", "3"}) run.Send("go", data, absl::StrCat("id-", data)).value();
  run.Send("go", "4", "later", run.now_ms + 100'000).value();
  run.Send("go", "5", "later", run.now_ms + 200'000).value();
  run.Send("never", "6", "cancelled", run.now_ms + 100'000).value();
  EXPECT_EQ(run.Try(CancelEvent{"cancelled", "ann", "a mistake"}), "");
  run.Send("on", std::string(kBlobBytesMin + 1, '7'), "large").value();
  run.FailTask("reads", "bad", true);
  run.Complete("loop[0].work", "10");
  run.Advance(5'000);
  Write(directory, "v1-events", run);
  EXPECT_EQ(run.Edit("on", std::string(kBlobBytesMin + 2, '7')), "");
  run.Complete("reads", "0");
  EXPECT_EQ(run.Edit("go", "33", 3), "");
  EXPECT_EQ(run.Replay("go", "22"), "");
  EXPECT_EQ(run.Replay("on", std::string(kBlobBytesMin + 3, '7')), "");
  Write(directory, "v1-events-edited-replayed", run);
}

void WriteMessages(const std::string& directory) {
  DefinitionBuilder b("messages", 1);
  const uint32_t item = b.Scope(1);
  b.Child(item, "child", "sub", {FromParameter(0)});
  b.Result(item, FromStep(0));
  b.Map(0, "m", item, {Literal("[1,2,3,4]")});
  b.step(0, 0).mutable_map()->set_tolerated_failures(1);
  b.Emit(0, "emit", "go", FromParameter(0), Literal("\"other\""));
  b.Child(0, "detached", "sub", {}, /*detached=*/true);
  b.Emit(0, "refused", "go", FromParameter(0), Literal("\"gone\""));
  const uint32_t handler = b.Scope(1);
  b.Result(handler, FromParameter(0));
  b.Catch(0, 3, {}, handler);
  b.Child(0, "slow", "sub");
  b.step(0, 4).mutable_child()->set_parent_close(v1::PARENT_CLOSE_POLICY_TERMINATE);
  b.Task(0, "beside");
  b.Result(0, FromStep(0));
  Driver run(b.Compile(), {Json("1")}, 1'000'000, 1, [](v1::ExecutionStarted& started) {
    started.mutable_parent()->set_namespace_("default");
    started.mutable_parent()->set_workflow_id("mother");
    started.mutable_parent()->set_run_id(std::string(16, 'm'));
    started.mutable_parent()->mutable_ref()->set_step(2);
    started.mutable_parent()->set_outbox(3);
  });
  for (const uint64_t number : PendingOutbox(run.live)) {
    const OutboxMessage message = BuildOutboxMessage(run.live, number).value();
    if (message.event.execution().workflow_id() == "gone") {
      run.Settle(number, "flux.not_found");
    } else if (message.kind == v1::OUTBOX_KIND_START_CHILD &&
               message.start.workflow_id() != "run-1/m[3].child") {
      run.ChildStarted(number, static_cast<char>('a' + number));
    }
  }
  const auto run_of = [&](std::string_view path) {
    return run.live.state().FindStep(run.Key(path))->extra->child->run_id[0];
  };
  run.ChildClosed("m[0].child", v1::EXECUTION_STATUS_COMPLETED, std::string(kBlobBytesMin + 1, '7'),
                  run_of("m[0].child"));
  run.ChildClosed("m[1].child", v1::EXECUTION_STATUS_FAILED, "bad", run_of("m[1].child"));
  run.ChildClosed("m[2].child", v1::EXECUTION_STATUS_SKIPPED, "", run_of("m[2].child"));
  Write(directory, "v1-messages", run);
  run.FailTask("beside", "bad", true);
  Write(directory, "v1-messages-given-up", run);
}

void WriteUndoing(const std::string& directory) {
  DefinitionBuilder b("undoing", 1);
  const uint32_t item = b.Scope(1);
  b.Undo(item, b.Task(item, "work", {FromParameter(0)}), "work");
  b.Result(item, FromStep(0));
  b.Map(0, "m", item, {Literal("[1,2]")});
  b.Undo(0, b.Task(0, "t", {FromParameter(0)}), "t");
  b.Result(0, FromStep(b.Task(0, "last", {FromStep(0), FromStep(1)})));
  Driver run(b.Compile(), {Json("0")});
  run.Complete("m[1].work", "1");
  run.Complete("t", "2");
  run.Complete("m[0].work", "3");
  Write(directory, "v1-to-be-undone", run);
  run.FailTask("last", "bad", true);
  run.FailTask("m[0].work.undo", "io", true);
  run.FailTask("t.undo", "io");
  Write(directory, "v1-undoing", run);
  run.Advance(1'000);
  run.Complete("t.undo", "null");
  EXPECT_EQ(run.Try(Terminate{"now", "ann"}), "");
  EXPECT_EQ(run.Rewind("t"), "");
  Write(directory, "v1-undone-in-part", run);
}

void WriteContinuations(const std::string& directory) {
  DefinitionBuilder b("continues", 0);
  b.Undo(0, b.Task(0, "t"), "t");
  b.Task(0, "u");
  b.Result(0, FromStep(0));
  DefinitionBuilder f("fragment", 1);
  const uint32_t turn = f.Scope(2);
  f.Task(turn, "work", {FromParameter(0), Literal("\"literal\"")});
  f.Wait(turn, "w", "go");
  f.Result(turn, FromStep(f.Join(turn, "j", {FromStep(0), Literal("1"), FromParameter(1)})));
  f.Result(0, FromStep(f.Loop(0, "l", turn, {FromParameter(0), Literal("2")}, 5)));
  Driver run(b.Compile());
  run.Continue("t", f.definition(), {Json("[1]")});
  run.Send("go", "1", "id-1").value();
  run.Complete("t.l[0].work", "10");
  DefinitionBuilder link("link", 1);
  link.Result(0, FromStep(link.Task(0, "go", {FromParameter(0)})));
  run.Continue("u", link.definition(), {Json("1")});
  ReportResult labelled;
  labelled.result = run.ResultFor("u.go");
  *labelled.result.mutable_continuation()->mutable_fragment() = link.definition();
  *labelled.result.mutable_continuation()->add_inputs() = Json("2");
  (*labelled.result.mutable_labels())["stage"] = "second";
  (*labelled.result.mutable_labels())["team"] = "";
  EXPECT_TRUE(run.Do(std::move(labelled)).ok());
  run.Continue("t.l[1].work", link.definition(), {Json("3")});
  Write(directory, "v1-continuations", run);
}

void WriteRepair(const std::string& directory) {
  DefinitionBuilder b("repaired", 1);
  b.definition().set_execution_timeout_ms(3'600'000);
  b.Task(0, "a", {FromParameter(0)});
  b.Task(0, "b", {FromStep(0)});
  b.Task(0, "c", {FromStep(1)});
  b.step(0, 2).mutable_task()->mutable_timeouts()->set_schedule_to_close_ms(60'000);
  b.Task(0, "x");
  b.Task(0, "y", {FromStep(3)});
  b.Result(0, FromStep(b.Task(0, "end", {FromStep(2), FromStep(4)})));
  Driver run(b.Compile(), {Json("0")});
  run.Complete("a", "1");
  EXPECT_EQ(run.Park("x"), "");
  EXPECT_EQ(run.Resolve("b", std::string(kBlobBytesMin + 1, '7')), "");
  EXPECT_EQ(run.SkipStep("y"), "");
  run.Advance(10'000);
  run.FailTask("c", "bad", true);
  EXPECT_EQ(run.Retry("c"), "");
  EXPECT_EQ(run.Retry("x"), "");
  EXPECT_EQ(run.Try(Pause{"ann", "lunch"}), "");
  Write(directory, "v1-paused", run);
  EXPECT_EQ(run.Try(Resume{"ann", "back"}), "");
  run.Complete("c", "3");
  run.Complete("x", "4");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_SKIPPED);
  EXPECT_EQ(run.Rewind("b"), "");
  run.Complete("b", "2");
  EXPECT_EQ(run.Rewind("x"), "");
  Write(directory, "v1-rewound", run);
}

void WriteEarly(const std::string& directory) {
  DefinitionBuilder b("early", 1);
  for (const char* name : {"a", "b", "c", "d"}) b.Task(0, name);
  b.Early(0, "two", {FromStep(0), FromStep(1), FromStep(2)}, 2, 1);
  b.Early(0, "one", {FromStep(3), FromParameter(0)}, 2);
  b.Task(0, "slow");
  b.Task(0, "fast");
  b.Early(0, "first", {FromStep(6), FromStep(7)}, 1);
  const uint32_t page = b.Scope(1);
  b.Result(page, FromStep(b.Task(page, "fetch", {FromParameter(0)})));
  const uint32_t item = b.Scope(1);
  b.Result(item, FromStep(b.Task(item, "work", {FromParameter(0)})));
  b.Pages(0, "m", page, item, {FromParameter(0)}, 2);
  b.step(0, 9).mutable_map()->set_tolerated_failure_permille(100);
  b.Result(0, FromStep(9));
  Driver run(b.Compile(), {Json("\"cursor\"")});
  run.Complete("a", "1");
  run.FailTask("b", "bad", true);
  run.Complete("fast", "2");
  run.Complete("m[page].fetch", "{\"items\":[1,{\"a\":2},3],\"next\":[7]}");
  run.Complete("m[1].work", "20");
  run.FailTask("m[0].work", "bad", true);
  run.Complete("m[page].fetch", "{\"items\":[4,5,6,7],\"next\":8}");
  run.SkipResult("m[2].work");
  Write(directory, "v1-early-pages", run);
}

void WriteMigrated(const std::string& directory) {
  const auto version = [](const char* number) {
    DefinitionBuilder b("moves", 1);
    b.definition().set_version(number);
    b.Undo(0, b.Task(0, "done", {FromParameter(0)}), "done");
    const uint32_t item = b.Scope(2);
    b.Result(item, FromStep(b.Task(item, "work", {FromParameter(0), FromParameter(1)})));
    b.Map(0, "map", item, {Literal("[1,2,3]"), Literal("\"captured\"")}, 2);
    return b;
  };
  DefinitionBuilder first = version("1");
  first.Result(0, FromStep(first.Task(0, "end", {FromStep(1)})));
  // The pending step becomes a sleep, and more follow; another literal stands before the map's.
  DefinitionBuilder second = version("2");
  const uint32_t handler = second.Scope(2);
  second.Result(handler, FromParameter(1));
  second.Catch(0, 0, {}, handler, {Literal("\"new\"")});
  second.Sleep(0, "end", 1'000);
  second.After(0, 2, 1);
  second.Result(0, FromStep(second.Task(0, "more", {FromStep(1)})));
  Driver run(first.Compile(), {Json("0")});
  run.Complete("done", "5");
  run.Complete("map[1].work", "20");
  const auto graph = Graph::Compile(second.definition(), kHashes[1]);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(run.Try(Migrate{*graph, "ann", "a new version"}), "");
  run.Complete("map[0].work", "10");
  Write(directory, "v1-migrated", run, &first.definition());
}

void WriteBlocks(const std::string& directory) {
  DefinitionBuilder b("blocks", 1);
  const uint32_t body = b.Scope(1);
  b.Task(body, "inner", {FromParameter(0)});
  b.Task(body, "other");
  b.Skip(body, "nothing");
  b.Result(body, FromStep(0));
  b.Block(0, "block", body, {FromParameter(0)});
  b.Fail(0, "caught", "mine", {FromParameter(0)});
  const uint32_t handler = b.Scope(1);
  b.Result(handler, FromStep(b.Task(handler, "mend", {FromParameter(0)})));
  b.Catch(0, 1, {"mine"}, handler);
  b.Skip(0, "skips", {FromParameter(0)});
  b.Task(0, "never", {FromStep(2)});
  const uint32_t empty = b.Scope(0);
  b.Result(empty, FromStep(b.Skip(empty, "none")));
  b.Block(0, "skipped", empty);
  b.Fail(0, "fails", "worse", {FromStep(0), FromStep(1)});
  b.Result(0, FromStep(5));
  Driver run(b.Compile(), {Json("{\"a\":1}")});
  run.Complete("block.inner", "1");
  Write(directory, "v1-block-fail-skip", run);
  run.Complete("block.other", "0");
  run.Complete("caught.catch.mend", "2");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  Write(directory, "v1-block-fail-skip-failed", run);
}

void WriteRefused(const std::string& directory) {
  DefinitionBuilder b("refused", 1);
  b.Task(0, "first", {FromParameter(0)});
  b.Task(0, "beside");
  b.Result(0, FromStep(b.Task(0, "last", {FromStep(0)})));
  Driver run(b.Compile(), {Json("0")});
  const auto late = [&](v1::TaskResult result, const char* worker) {
    ReportResult command;
    command.result = std::move(result);
    command.worker_id = worker;
    EXPECT_EQ(*run.Do(std::move(command)), Verdict::kStale);
  };
  const v1::TaskResult first = run.ResultFor("first");
  run.Redeliver("first");
  late(first, "worker-1");
  late(first, "worker-2");  // told already
  const v1::TaskResult beside = run.ResultFor("beside");
  EXPECT_EQ(run.Park("beside"), "");
  late(beside, "worker-1");
  run.Complete("first", "1");
  Write(directory, "v1-refused", run);
}

TEST(Golden, TodaysHistoriesOfMovesBlocksAndRefusalsAreThoseThatAreKept) {
  const std::string directory = Aside();
  WriteMigrated(directory);
  WriteBlocks(directory);
  WriteRefused(directory);
  ExpectAsKept(directory,
               {"v1-migrated", "v1-block-fail-skip", "v1-block-fail-skip-failed", "v1-refused"});
}

TEST(Golden, TodaysHistoriesOfEventsMessagesAndRepairAreThoseThatAreKept) {
  const std::string directory = Aside();
  WriteEvents(directory);
  WriteMessages(directory);
  WriteUndoing(directory);
  WriteContinuations(directory);
  WriteRepair(directory);
  WriteEarly(directory);
  ExpectAsKept(directory, {"v1-continuations", "v1-early-pages", "v1-events-edited-replayed",
                           "v1-events", "v1-messages-given-up", "v1-messages", "v1-paused",
                           "v1-rewound", "v1-to-be-undone", "v1-undoing", "v1-undone-in-part"});
}

}  // namespace
}  // namespace flux::engine::testing
