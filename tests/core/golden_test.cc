// Histories written by each format version: this version must read them to the same state, byte for
// byte.
//
// A file in golden/ holds lines of "kind hex": the definition, the records, the snapshot after the
// last of them. Files are never rewritten. For a new format version, run this test with
// FLUX_GOLDEN_WRITE=<directory>: it writes the histories below in the current format there, for a
// new set of files.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/strings/escaping.h"
#include "proto/bridge.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

struct History {
  std::string definition;
  std::vector<std::string> records;
  std::string snapshot;
};

History Read(const std::filesystem::path& path) {
  History history;
  std::ifstream file(path);
  std::string kind, hex;
  while (file >> kind >> hex) {
    const std::string bytes = absl::HexStringToBytes(hex);
    if (kind == "definition") history.definition = bytes;
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
    v1::Definition definition;
    ASSERT_TRUE(definition.ParseFromString(history.definition));
    const auto graph = Graph::Compile(definition, "hash-of-the-definition-----------");
    ASSERT_TRUE(graph.ok()) << graph.status();
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
    Execution execution = Create(*graph, records[0], nullptr);
    for (size_t i = 1; i < records.size(); ++i) Apply(execution, records[i], nullptr);
    EXPECT_EQ(absl::BytesToHexString(SaveSnapshot(execution)),
              absl::BytesToHexString(history.snapshot));
    const auto loaded = LoadSnapshot(*graph, history.snapshot, blobs);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(SaveSnapshot(*loaded), history.snapshot);
  }
  EXPECT_GE(files, 4u);
}

void Write(const std::string& directory, const std::string& name, const Driver& run) {
  std::ofstream file(directory + "/" + name + ".history");
  file << "definition "
       << absl::BytesToHexString(SerializeDeterministic(run.live.graph().definition())) << "\n";
  for (const std::string& record : run.records) {
    file << "record " << absl::BytesToHexString(record) << "\n";
  }
  file << "snapshot " << absl::BytesToHexString(SaveSnapshot(run.live)) << "\n";
}

TEST(Golden, WritesHistoriesOfTheCurrentFormatWhenAsked) {
  const char* directory = std::getenv("FLUX_GOLDEN_WRITE");
  if (directory == nullptr) GTEST_SKIP() << "FLUX_GOLDEN_WRITE names no directory";
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
}

}  // namespace
}  // namespace flux::engine::testing
