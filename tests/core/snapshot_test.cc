// Snapshots, records with blobs, descriptions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/logging.h"
#include "proto/bridge.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

// A map in flight over a task's output, a loop, a lazy block, a backing-off task and a sleep:
// something of everything.
std::shared_ptr<const Graph> Everything() {
  DefinitionBuilder b("everything", 1);
  b.Task(0, "list");
  const uint32_t item = b.Scope(2);
  b.Task(item, "work", {FromParameter(0), FromParameter(1)});
  b.Result(item, FromStep(0));
  b.Map(0, "each", item, {FromStep(0), FromParameter(0)}, 2);
  const uint32_t turn = b.Scope(1);
  b.Task(turn, "poll", {FromParameter(0)});
  b.Result(turn, FromStep(0));
  b.Loop(0, "again", turn, {Literal("{\"n\":1}", "/n")}, 3);
  const uint32_t body = b.Scope(2);
  b.Task(body, "late", {FromParameter(0), FromParameter(1)});
  b.Result(body, FromStep(0));
  b.Block(0, "block", body, {FromStep(0), FromStep(1)});
  b.Sleep(0, "nap", 60'000);
  b.Task(0, "flaky");
  b.Join(0, "all", {FromStep(0), FromStep(0), FromStep(1), FromParameter(0)});
  b.Result(0, FromStep(6));
  return b.Compile();
}

std::unique_ptr<Driver> InTheMiddle() {
  auto run = std::make_unique<Driver>(Everything(), std::vector<v1::Payload>{Json("\"in\"")});
  run->Complete("list", "[[1],[2],[3],[4]]");
  run->Complete("each[1].work", "\"done 1\"");
  run->Complete("again[0].poll", "5");
  run->End("flaky", AttemptEnd::kHeartbeat);
  return run;
}

TEST(Snapshot, LoadsToWhatWasSavedAndGoesOnAlike) {
  const auto run = InTheMiddle();
  const std::string bytes = SaveSnapshot(run->live);
  auto loaded = LoadSnapshot(run->live.graph_ptr(), bytes, run->blob_reader);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(SaveSnapshot(*loaded), bytes);
  EXPECT_EQ(loaded->ordinal(), run->live.ordinal());
  EXPECT_EQ(loaded->run(), run->live.run());
  EXPECT_EQ(loaded->next_blob(), run->live.next_blob());
  EXPECT_EQ(ReadyTasks(*loaded), ReadyTasks(run->live));
  EXPECT_EQ(MemoryBytes(*loaded), MemoryBytes(run->live));
  EXPECT_EQ(SerializeDeterministic(Summarize(*loaded)),
            SerializeDeterministic(Summarize(run->live)));
  run->Reload();
  run->Complete("each[0].work", "\"done 0\"");
  run->Complete("each[2].work", "\"done 2\"");
  run->Complete("each[3].work", "\"done 3\"");
  run->Complete("again[1].poll", "6");
  run->Advance(60'000);
  run->Complete("flaky", "7");
  run->Complete("again[2].poll", "8");
  run->Complete("block.late", "9");
  EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_COMPLETED);
}

// A value that several hold is written once.
TEST(Snapshot, SharedValuesAreWrittenOnce) {
  DefinitionBuilder b("shared", 0);
  b.Task(0, "big");
  std::vector<v1::Input> many(50, FromStep(0));
  b.Join(0, "list", many);
  b.Task(0, "end", {FromStep(1)});
  b.Result(0, FromStep(2));
  Driver run(b.Compile());
  const size_t before = SaveSnapshot(run.live).size();
  run.Complete("big", "\"" + std::string(5'000, 'x') + "\"");
  EXPECT_LT(SaveSnapshot(run.live).size(), before + 6'000);
}

TEST(Snapshot, DamageIsDataLossAndSaysWhat) {
  const auto run = InTheMiddle();
  v1::Snapshot good;
  ASSERT_TRUE(good.ParseFromString(SaveSnapshot(run->live)));
  struct Case {
    const char* name;
    std::function<void(v1::Snapshot&)> damage;
    const char* message;
  };
  const Case kCases[] = {
      {"NewerFormat", [](auto& s) { s.set_format(2); }, "format 2"},
      {"NoFormat", [](auto& s) { s.clear_format(); }, "format 0"},
      {"NoFrames", [](auto& s) { s.clear_frames(); }, "no root frame"},
      {"RunId", [](auto& s) { s.mutable_started()->set_run_id("x"); }, "run id"},
      {"Inputs", [](auto& s) { s.mutable_started()->clear_inputs(); }, "fewer inputs"},
      {"Status", [](auto& s) { s.clear_status(); }, "status is unknown"},
      {"FrameOrder", [](auto& s) { s.mutable_frames(1)->set_number(0); },
       "frame 0 is out of place"},
      {"FrameNumber", [](auto& s) { s.set_next_frame(2); }, "out of place"},
      {"FrameScope", [](auto& s) { s.mutable_frames(1)->set_scope(77); }, "of no scope"},
      {"FrameOwner", [](auto& s) { s.mutable_frames(1)->set_parent_step(6); },
       "hangs below no step"},
      {"FrameItem", [](auto& s) { s.mutable_frames(2)->set_item(99); }, "does not fit its owner"},
      {"FrameSteps", [](auto& s) { s.mutable_frames(1)->clear_steps(); }, "does not fit its scope"},
      {"StepState", [](auto& s) { s.mutable_frames(0)->mutable_steps(0)->set_state(0); },
       "unknown state 0"},
      {"MapStatuses",
       [](auto& s) { s.mutable_frames(0)->mutable_steps(1)->mutable_map()->set_statuses("\x02"); },
       "items are not those"},
      {"MapStatus",
       [](auto& s) {
         s.mutable_frames(0)->mutable_steps(1)->mutable_map()->set_statuses("\x09\x09\x09\x09");
       },
       "unknown status"},
      {"MapOutputs",
       [](auto& s) { s.mutable_frames(0)->mutable_steps(1)->mutable_map()->clear_outputs(); },
       "too few outputs"},
      {"MapOutputsMore",
       [](auto& s) { s.mutable_frames(0)->mutable_steps(1)->mutable_map()->add_outputs(); },
       "too many outputs"},
      {"SharedIndex",
       [](auto& s) { s.mutable_frames(0)->mutable_steps(0)->mutable_output()->set_shared(900); },
       "shared value 900"},
      {"ItemIndex",
       [](auto& s) {
         for (auto& frame : *s.mutable_frames()) {
           for (auto& value : *frame.mutable_parameters()) {
             if (value.has_item()) value.mutable_item()->set_index(1'000);
           }
         }
       },
       "an item is of no split payload"},
      {"Literal",
       [](auto& s) { s.mutable_frames(0)->mutable_steps(0)->mutable_output()->set_literal(100); },
       "no literal 100"},
      {"Input", [](auto& s) { s.mutable_frames(0)->mutable_parameters(0)->set_input(5); },
       "no input 5"},
      {"Marker",
       [](auto& s) {
         s.mutable_frames(0)->mutable_parameters(0)->set_marker(v1::SNAPSHOT_MARKER_UNSPECIFIED);
       },
       "unknown marker"},
      {"Timer", [](auto& s) { s.mutable_timers(0)->mutable_ref()->set_step(500); },
       "a timer belongs to no step"},
      {"Yielding", [](auto& s) { s.mutable_frames(0)->mutable_steps(5)->set_yielding(true); },
       "yields that is no map"},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    v1::Snapshot bad = good;
    c.damage(bad);
    const auto loaded =
        LoadSnapshot(run->live.graph_ptr(), bad.SerializeAsString(), run->blob_reader);
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(Message(loaded.status())), HasSubstr(c.message));
  }
  EXPECT_EQ(LoadSnapshot(run->live.graph_ptr(), "\xff\xff\xff", run->blob_reader).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(Snapshot, CutAnywhereItNeverCrashes) {
  const google::protobuf::LogSilencer quiet;  // it reports each string that is not UTF-8
  const auto run = InTheMiddle();
  const std::string bytes = SaveSnapshot(run->live);
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    (void)LoadSnapshot(run->live.graph_ptr(), bytes.substr(0, cut), run->blob_reader).ok();
  }
  for (size_t flip = 0; flip < bytes.size(); ++flip) {
    std::string bad = bytes;
    bad[flip] = static_cast<char>(bad[flip] ^ (1 << (flip % 8)));
    (void)LoadSnapshot(run->live.graph_ptr(), bad, run->blob_reader).ok();
  }
}

// ---- blobs ----

TEST(Blobs, LargeInputsAndOutputsAreWrittenByReference) {
  DefinitionBuilder b("blobs", 3);
  b.Task(0, "t", {FromParameter(0), FromParameter(1), FromParameter(2)});
  b.Task(0, "u", {FromStep(0)});
  b.Result(0, FromStep(0));
  const std::string large(kBlobBytesMin + 1, '7');
  Driver run(b.Compile(), {Json(large), Json("1"), Json(large)});
  EXPECT_EQ(run.live.next_blob(), 3u);
  EXPECT_LT(run.records[0].size(), 1'000u);
  EXPECT_LT(SaveSnapshot(run.live).size(), 1'000u);
  EXPECT_EQ(run.live.started().inputs(2).data(), large);
  run.Complete("t", large);
  EXPECT_EQ(run.live.next_blob(), 4u);
  EXPECT_LT(run.records[1].size(), 1'000u);
  EXPECT_LT(SaveSnapshot(run.live).size(), 1'000u);
  run.Reload();
  v1::Task task;
  ASSERT_TRUE(FillTask(run.reloaded, run.Key("u"), 1 << 20, &task).ok());
  EXPECT_EQ(task.inputs(0).payload().data(), large);
  run.Complete("u", "1");
  EXPECT_EQ(run.ResultText(), large);

  // A blob that cannot be read fails what needs it, with the reader's own words.
  const BlobReader broken = [](uint64_t) { return absl::UnavailableError("disk is away"); };
  EXPECT_EQ(ParseRecord(run.records[0], broken).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ParseRecord(run.records[1], broken).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(LoadSnapshot(run.live.graph_ptr(), SaveSnapshot(run.live), broken).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(Blobs, AssignedOnlyAboveTheLimit) {
  v1::ExecutionStarted started;
  *started.add_inputs() = Json(std::string(kBlobBytesMin, '1'));
  AssignInputBlobs(&started);
  EXPECT_EQ(started.input_blobs_size(), 0);
  *started.add_inputs() = Json(std::string(kBlobBytesMin + 1, '1'));
  AssignInputBlobs(&started);
  ASSERT_EQ(started.input_blobs_size(), 2);
  EXPECT_EQ(started.input_blobs(0), 0u);
  EXPECT_EQ(started.input_blobs(1), 1u);
}

TEST(Records, MalformedOrUnknownAreDataLoss) {
  const BlobReader none = [](uint64_t) { return absl::NotFoundError("none"); };
  EXPECT_EQ(ParseRecord("\xff", none).status().code(), absl::StatusCode::kDataLoss);
  v1::Record empty;
  empty.set_time_ms(5);
  const auto unknown = ParseRecord(empty.SerializeAsString(), none);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(Message(unknown.status())), HasSubstr("written by a newer one"));
  v1::Record started;
  started.mutable_started()->add_input_blobs(1);
  EXPECT_EQ(ParseRecord(started.SerializeAsString(), none).status().code(),
            absl::StatusCode::kDataLoss);
}

// ---- descriptions ----

TEST(Describe, GivesEachStepItsStateAndReason) {
  const auto run = InTheMiddle();
  const LiveLookup live = [&](const StepKey& key, uint64_t delivery) {
    LiveTask task;
    EXPECT_TRUE(IsCurrent(run->live, key, delivery));
    if (run->PathOf(key) == "each[0].work") {
      task.running = true;
      task.worker = "host:7";
      task.progress = Json("50");
    } else if (run->PathOf(key) == "each[2].work") {
      task.reason = "no worker has task do.work on queue default";
    }
    return task;
  };
  v1::DescribeExecutionResponse response;
  DescribeExecution(run->live, 0, true, live, &response);
  EXPECT_EQ(response.info().workflow(), "everything");
  EXPECT_EQ(response.info().status(), v1::EXECUTION_STATUS_RUNNING);
  EXPECT_EQ(response.inputs(0).data(), "\"in\"");
  const auto& steps = response.steps();
  EXPECT_EQ(steps[0].output().data(), "[[1],[2],[3],[4]]");
  EXPECT_EQ(steps[1].items(), 4u);
  EXPECT_EQ(steps[1].items_done(), 1u);
  ASSERT_EQ(steps[1].frames_size(), 3);
  EXPECT_EQ(steps[1].frames(0).label(), "item 0");
  EXPECT_EQ(steps[1].frames(0).steps(0).state(), v1::STEP_STATE_RUNNING);
  EXPECT_EQ(steps[1].frames(0).steps(0).reason(), "runs on worker host:7");
  EXPECT_EQ(steps[1].frames(0).steps(0).progress().data(), "50");
  EXPECT_EQ(steps[1].frames(1).steps(0).reason(), "no worker has task do.work on queue default");
  EXPECT_EQ(steps[1].frames(2).label(), "item 1 done");
  EXPECT_EQ(steps[2].frames(0).label(), "turn 1");
  EXPECT_EQ(steps[2].frames(0).steps(0).reason(),
            "waits for a worker with task do.poll on queue default");
  EXPECT_EQ(steps[3].frames(0).steps(0).reason(), "waits for step each");
  EXPECT_EQ(steps[4].kind(), "sleep");
  EXPECT_EQ(steps[4].next_time_ms(), run->now_ms + 60'000);
  EXPECT_THAT(steps[5].reason(), HasSubstr("after attempt 1 of 5: flux.timeout.heartbeat: task"));
  EXPECT_EQ(steps[5].failure().type(), "flux.timeout.heartbeat");
  EXPECT_EQ(steps[6].reason(), "waits for step each");

  v1::WatchExecutionResponse watch;
  DescribeProgress(run->live, live, &watch);
  EXPECT_EQ(watch.steps_size(), 7);
  EXPECT_EQ(watch.steps(1).frames_size(), 0);
  EXPECT_EQ(watch.steps(1).items_done(), 1u);
  EXPECT_FALSE(watch.closed());

  v1::GetResultResponse result;
  FillResult(run->live, &result);
  EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_RUNNING);
}

TEST(Describe, ManyDependenciesAreCutToAFew) {
  DefinitionBuilder b("many", 0);
  std::vector<v1::Input> inputs;
  for (int i = 0; i < 6; ++i) inputs.push_back(FromStep(b.Task(0, absl::StrCat("t", i))));
  b.Join(0, "all", inputs);
  b.Result(0, FromStep(6));
  Driver run(b.Compile());
  EXPECT_EQ(run.ReasonOf("all"), "waits for steps t0, t1, t2 and 3 more");
}

TEST(Describe, FormatsTimesAndSpans) {
  EXPECT_EQ(internal::FormatTime(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(internal::FormatTime(951'782'399'999), "2000-02-28T23:59:59.999Z");
  EXPECT_EQ(internal::FormatTime(951'782'400'000), "2000-02-29T00:00:00.000Z");
  EXPECT_EQ(internal::FormatTime(4'102'444'800'001), "2100-01-01T00:00:00.001Z");
  EXPECT_EQ(internal::FormatTime(-1), "1969-12-31T23:59:59.999Z");
  EXPECT_EQ(internal::FormatSpan(20), "20ms");
  EXPECT_EQ(internal::FormatSpan(1'500), "1.5s");
  EXPECT_EQ(internal::FormatSpan(300'000), "5m");
  EXPECT_EQ(internal::FormatSpan(5'400'000), "1h30m");
  EXPECT_EQ(internal::FormatSpan(90'061'001), "1d1h1m1.001s");
}

}  // namespace
}  // namespace flux::engine::testing
