// Everything that Flux decodes and did not write itself, or that a disk may have changed.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/core.h"
#include "engine/core/json_value.h"
#include "engine/core/record.h"
#include "engine/schedule/cron.h"
#include "engine/server/config.h"
#include "engine/shard/batch.h"
#include "engine/shard/keys.h"
#include "engine/shard/loader.h"
#include "engine/visibility/query.h"
#include "flux/codec.h"
#include "flux/struct.h"
#include "proto/bridge.h"
#include "store/log_format.h"
#include "tests/fuzz/target.h"
#include "tests/shard/world.h"

namespace flux::fuzz {

struct Shape {
  int64_t number = 0;
  std::vector<std::string> names;
  std::optional<double> maybe;
};
FLUX_STRUCT(Shape, number, names, maybe)

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: broken promise: %s\n", what);
  std::abort();
}

std::string AsItIs(std::string_view file) {
  if (!file.empty() && file.back() == '\n') file.remove_suffix(1);
  return std::string(file);
}

namespace {

template <typename Message>
bool Parsed(std::string_view input, Message* message) {
  return message->ParseFromArray(input.data(), static_cast<int>(input.size()));
}

// ---- definitions: what clients send ----

void RunDefinition(std::string_view input) {
  v1::Definition definition;
  if (!Parsed(input, &definition)) return;
  std::vector<std::string> warnings;
  engine::GraphLimits limits;
  limits.steps_max = 1'000;
  limits.scopes_max = 200;
  const auto graph = engine::Graph::Compile(definition, "hash", limits, &warnings);
  if (!graph.ok()) {
    Require(!graph.status().message().empty(), "a refusal has a message");
    return;
  }
  // What compiles runs: its first moves, at least, replay to the same bytes.
  v1::ExecutionStarted started;
  started.set_namespace_("n");
  started.set_workflow_id("w");
  started.set_run_id(engine::RunId::Make(1, 2, 3).Bytes());
  for (uint32_t i = 0; i < (*graph)->scopes()[0].scope->parameters(); ++i) {
    v1::Payload* payload = started.add_inputs();
    payload->set_encoding(v1::ENCODING_JSON);
    payload->set_data("[1,true,{\"a\":\"b\"}]");
  }
  const auto record = engine::DecideStart(**graph, started, 1'000);
  if (!record.ok()) return;
  engine::Effects effects;
  engine::Execution execution = engine::Create(*graph, *record, &effects);
  for (int i = 0; i < 20 && !execution.closed(); ++i) {
    auto fired = engine::Decide(execution, engine::FireTimers{}, 2'000 + i);
    Require(fired.ok(), "timers of an open execution fire");
    for (v1::Record& each : fired->records) engine::Apply(execution, std::move(each), &effects);
    for (const engine::StepKey& key : engine::ReadyTasks(execution)) {
      if (execution.closed() ||
          !engine::IsCurrent(execution, key, engine::Offer(execution, key).delivery))
        break;
      engine::ReportResult report;
      v1::Task task;
      if (!engine::FillTask(execution, key, 1 << 20, &task).ok()) break;
      *report.result.mutable_token() = task.token();
      report.result.mutable_value()->set_encoding(v1::ENCODING_JSON);
      report.result.mutable_value()->set_data("[1]");
      auto decided = engine::Decide(execution, std::move(report), 2'000 + i);
      Require(decided.ok(), "a result is decided on");
      for (v1::Record& each : decided->records) engine::Apply(execution, std::move(each), &effects);
    }
  }
  const std::string snapshot = engine::SaveSnapshot(execution);
  const auto loaded = engine::LoadSnapshot(*graph, snapshot, nullptr);
  Require(loaded.ok(), "what was saved is loaded");
  Require(engine::SaveSnapshot(*loaded) == snapshot, "and saves the same bytes");
}

// ---- records and snapshots: what lies on disk ----

absl::StatusOr<v1::Payload> SmallBlob(uint64_t) {
  v1::Payload payload;
  payload.set_encoding(v1::ENCODING_JSON);
  payload.set_data("1");
  return payload;
}

const std::shared_ptr<const engine::Graph>& WideGraph() {
  static const auto graph = [] {
    v1::Definition definition = engine::testing::Parse(R"(
      name: "wide"
      scopes {
        parameters: 1
        steps { name: "map" inputs { parameter: 0 } map { body: 1 max_parallel: 2 } }
        steps { name: "loop" inputs { literal { data: "0" encoding: ENCODING_JSON } }
                loop { body: 2 turns: 3 } }
        steps { name: "wait" wait_event { event: "go" timeout_ms: 1000 } }
        steps { name: "nap" sleep { duration_ms: 10 } }
        steps { name: "child" child { workflow: "c" } }
        steps { name: "do" task { task: "t" } undo { task { task: "u" } } }
        result { step: 0 }
      }
      scopes {
        parameters: 1
        steps { name: "item" inputs { parameter: 0 } task { task: "t" } }
        result { step: 0 }
      }
      scopes {
        parameters: 1
        steps { name: "turn" inputs { parameter: 0 } task { task: "t" } }
        result { step: 0 }
      })");
    return *engine::Graph::Compile(definition, "hash");
  }();
  return graph;
}

const engine::RunId kWideRun = engine::RunId::Make(1, 2, 3);

v1::Record WideStart() {
  v1::ExecutionStarted started;
  started.set_workflow_id("w");
  started.set_run_id(kWideRun.Bytes());
  v1::Payload* list = started.add_inputs();
  list->set_encoding(v1::ENCODING_JSON);
  list->set_data("[1,2,3,4]");
  return *engine::DecideStart(*WideGraph(), std::move(started), 1'000);
}

// Whatever a record says, the state that comes of it is one: it is saved, loaded and asked as any
// other. Which the loop relies on where a peer's or an older program's records reach it.
void ApplyAnywhere(const v1::Record& record) {
  if (record.has_started() || record.has_migrated()) return;
  engine::Effects effects;
  engine::Execution execution = engine::Create(WideGraph(), WideStart(), &effects);
  engine::Apply(execution, record, &effects);
  const std::string snapshot = engine::SaveSnapshot(execution);
  const auto loaded = engine::LoadSnapshot(WideGraph(), snapshot, SmallBlob);
  Require(loaded.ok(), "what was saved is loaded");
  Require(engine::SaveSnapshot(*loaded) == snapshot, "and saves the same bytes");
  v1::DescribeExecutionResponse response;
  engine::DescribeExecution(execution, 10, true, nullptr, &response);
}

void RunRecord(std::string_view input) {
  const auto record = engine::ParseRecord(input, SmallBlob);
  if (!record.ok()) return;
  const std::string bytes = engine::SerializeRecord(*record);
  const auto again = engine::ParseRecord(bytes, SmallBlob);
  Require(again.ok(), "what was serialised is parsed");
  Require(engine::SerializeRecord(*again) == bytes, "and serialises to the same bytes");
  ApplyAnywhere(*again);
}

// A snapshot of an execution that is under way, so that the bytes to begin with are real ones.
std::string WideSnapshot() {
  engine::Effects effects;
  engine::Execution execution = engine::Create(WideGraph(), WideStart(), &effects);
  return engine::SaveSnapshot(execution);
}

void RunSnapshot(std::string_view input) {
  const auto loaded = engine::LoadSnapshot(WideGraph(), input, SmallBlob);
  if (!loaded.ok()) {
    Require(absl::IsDataLoss(loaded.status()), "a damaged snapshot is DataLoss");
    return;
  }
  engine::SaveSnapshot(*loaded);
  engine::ReadyTasks(*loaded);
  engine::Summarize(*loaded);
  v1::DescribeExecutionResponse response;
  engine::DescribeExecution(*loaded, 10, true, nullptr, &response);
}

// The body of an entry as the loop writes it: a start, and what came of the first results.
std::string LogBody() {
  const v1::Record start = WideStart();
  engine::Effects effects;
  engine::Execution execution = engine::Create(WideGraph(), start, &effects);
  engine::BatchBuilder batch;
  batch.Add(kWideRun, 1, engine::SerializeRecord(start));
  for (const engine::StepKey& key : engine::ReadyTasks(execution)) {
    engine::ReportResult report;
    v1::Task task;
    Require(engine::FillTask(execution, key, 1 << 20, &task).ok(), "a ready task can be filled");
    *report.result.mutable_token() = task.token();
    report.result.mutable_value()->set_encoding(v1::ENCODING_JSON);
    report.result.mutable_value()->set_data("[1]");
    auto decided = engine::Decide(execution, std::move(report), 2'000);
    Require(decided.ok(), "a result is decided on");
    for (v1::Record& record : decided->records) {
      batch.Add(kWideRun, execution.ordinal() + 1, engine::SerializeRecord(record));
      engine::Apply(execution, std::move(record), &effects);
    }
  }
  batch.AddBlob(kWideRun, 5, 100'000);
  return batch.Take();
}

// The input is a body: header and checksum are made to fit, so that what is behind them is reached.
void RunLogEntry(std::string_view input) {
  const auto raw = store::DecodeEntry(3, 7, input);
  if (!raw.ok()) Require(absl::IsDataLoss(raw.status()), "a damaged entry is DataLoss");
  const store::EntryHeaderBuffer header = store::EntryHeader(3, 7, 99, input);
  std::string sealed(header.begin(), header.end());
  sealed.append(input);
  const auto entry = store::DecodeEntry(3, 7, sealed);
  Require(entry.ok() && entry->nonce == 99 && entry->body == input, "what is sealed is read");
  Require(!store::DecodeEntry(3, 8, sealed).ok(), "but not under another key");
  const size_t at = std::hash<std::string_view>()(input) % sealed.size();
  sealed[at] = static_cast<char>(sealed[at] ^ 0x10);
  Require(!store::DecodeEntry(3, 7, sealed).ok(), "nor with a bit of it turned");
  v1::LogBatch batch;
  if (!Parsed(input, &batch)) return;
  for (const v1::LogRecords& records : batch.executions()) {
    engine::RunId::FromBytes(records.run_id());
    for (const std::string& record : records.records()) RunRecord(record);
  }
}

void RunBookkeeping(std::string_view input) {
  const auto found = store::DecodeBookkeeping(3, input);
  if (found.ok()) {
    const std::string bytes = store::EncodeBookkeeping(3, *found);
    Require(store::DecodeBookkeeping(3, bytes).ok(), "what was written is read");
  } else {
    Require(absl::IsDataLoss(found.status()), "damaged bookkeeping is DataLoss");
  }
  const auto chunked = store::ChunkedBytes(input);
  if (!chunked.ok()) Require(absl::IsDataLoss(chunked.status()), "a damaged head is DataLoss");
  store::LsnOfKey(input, 3);
}

// The rows of a run that has left memory, one of which says something else.
class Rows {
 public:
  Rows() : world_(Small()) {
    Require(world_.Open().ok(), "the engine opens");
    world_.Define(engine::testing::Rounds("rounds", 500));
    const engine::StreamId worker = world_.Connect("s", {"t"}, 1);
    Require(world_.Start("rounds", "w", {"1"}).ok(), "a start is taken");
    for (int turn = 0; turn < 60; ++turn) {
      const v1::Task task = world_.Take(worker);
      world_.Answer(worker, task, task.inputs(0).payload().data());
      world_.Advance(30, 10);
    }
    Require(
        world_.Operate("w", "park { step: 'rounds' }").ok() || world_.Operate("w", "pause {}").ok(),
        "it can be left alone");
    world_.Disconnect(worker);
    world_.Advance(60'000, 1'000);
    run_ = *engine::RunId::FromText(world_.Describe("w").info().run_id());
    world_.Advance(10'000, 1'000);
    for (store::ShardId shard = 0; shard < world_.store().shards(); ++shard) {
      const std::optional<std::string> row =
          *world_.store().rows().Get(engine::keys::Root(shard, run_));
      if (!row) continue;
      shard_ = shard;
      epoch_ = world_.store().log().Claim(shard)->epoch;
      rows_.push_back({engine::keys::Root(shard, run_), *row});
    }
    Require(!rows_.empty(), "the run has rows");
    for (std::string prefix :
         {engine::keys::HistoryPrefix(shard_, run_), engine::keys::SnapshotsPrefix(shard_, run_)}) {
      const std::string end = engine::keys::PrefixEnd(prefix);
      Require(world_.store()
                  .rows()
                  .Scan(prefix, end,
                        [&](std::string_view key, std::string_view value) {
                          rows_.push_back({std::string(key), std::string(value)});
                          return true;
                        })
                  .ok(),
              "rows can be read");
    }
  }

  // Row number `index` reads so; then as it was again.
  void Try(size_t index, std::string_view value) {
    const store::KeyValue& row = rows_[index % rows_.size()];
    Write(row.key, std::string(value));
    store::Rows& rows = world_.store().rows();
    engine::Definitions definitions(&world_.store(), epoch_, {}, [](const absl::Status&) {});
    Require(definitions.Load().ok(), "definitions can be read");
    for (const absl::Status& status : {engine::LoadRun(rows, definitions, shard_, run_).status(),
                                       engine::LoadBase(rows, definitions, shard_, run_).status(),
                                       engine::HistoryBegin(rows, shard_, run_).status()}) {
      Require(status.ok() || absl::IsDataLoss(status) || absl::IsNotFound(status),
              "a damaged row is DataLoss, or names a definition that is not there");
    }
    Write(row.key, row.value);
  }
  std::string Root() const { return rows_.front().value; }

 private:
  static engine::EngineOptions Small() {
    engine::EngineOptions options;
    options.log_tail_bytes_max = 1'000;
    options.snapshot_records_min = 10;
    options.history = {.records_min = 20, .turns_min = 5, .records_most = 100};
    return options;
  }
  void Write(const std::string& key, std::string value) {
    store::RowBatch batch;
    batch.shard = shard_;
    batch.epoch = epoch_;
    batch.puts.push_back({key, std::move(value)});
    Require(world_.store().rows().WriteSync(std::move(batch)).ok(), "a row is written");
  }

  engine::testing::World world_;
  engine::RunId run_;
  store::ShardId shard_ = 0;
  store::Epoch epoch_ = 0;
  std::vector<store::KeyValue> rows_;
};

Rows& TheRows() {
  static auto* const rows = new Rows;
  return *rows;
}

// The first byte says which row.
void RunRow(std::string_view input) {
  if (input.empty()) return;
  TheRows().Try(static_cast<uint8_t>(input[0]), input.substr(1));
}

// ---- payloads: what clients and tasks answer, as the SDK reads it ----

template <typename T>
void TryDecode(const Payload& payload) {
  const absl::StatusOr<T> value = Decode<T>(payload);
  if (!value.ok()) {
    Require(!value.status().message().empty(), "a refusal has a message");
    return;
  }
  const absl::StatusOr<Payload> bytes = Encode(*value);
  if (!bytes.ok()) return;  // a number that JSON cannot have
  Require(Decode<T>(*bytes).ok(), "what was encoded is decoded");
}

// The first byte is the encoding.
void RunPayload(std::string_view input) {
  if (input.empty()) return;
  Payload payload;
  payload.encoding = static_cast<Encoding>(static_cast<uint8_t>(input[0]) % 7);
  payload.data = std::string(input.substr(1));
  TryDecode<std::string>(payload);
  TryDecode<int64_t>(payload);
  TryDecode<bool>(payload);
  TryDecode<double>(payload);
  TryDecode<Shape>(payload);
  TryDecode<std::optional<Shape>>(payload);
  TryDecode<std::vector<Shape>>(payload);
  TryDecode<std::vector<std::vector<int64_t>>>(payload);
  TryDecode<v1::Definition>(payload);
}

// ---- workers: any message at any time ----

class Coordinator {
 public:
  Coordinator() {
    Require(world_.Open().ok(), "the engine opens");
    world_.Define(engine::testing::Chain("wf", 3));
    honest_ = world_.Connect("honest", {"t"}, 10);
    world_.Settle();
  }
  void Feed(v1::ConnectRequest message) {
    if (world_.stream(liar_).closed || liar_ == 0) liar_ = world_.Connect("liar", {"x"}, 1);
    world_.Message(liar_, std::move(message));
    world_.Settle();
    Require(world_.fatal().ok(), "no message stops the engine");
  }
  // Whatever came before, work goes on.
  void Prove() {
    const std::string id = absl::StrCat("w", ++number_);
    Require(world_.Start("wf", id, {"5"}).ok(), "a start is taken");
    world_.RunWorker(honest_);
    world_.Pass(honest_, 3'000, /*work=*/true);
    Require(world_.Result(id).status() == v1::EXECUTION_STATUS_COMPLETED, "an execution completes");
  }

 private:
  engine::testing::World world_;
  engine::StreamId honest_ = 0;
  engine::StreamId liar_ = 0;
  int number_ = 0;
};

void RunWorkerMessage(std::string_view input) {
  static std::unique_ptr<Coordinator> coordinator;
  static int fed = 0;
  v1::ConnectRequest message;
  if (!Parsed(input, &message)) return;
  // A liar may take the place of the honest worker, as any worker could: that is no fault.
  if (message.hello().session_id() == "honest") message.mutable_hello()->set_session_id("liar");
  if (coordinator == nullptr) coordinator = std::make_unique<Coordinator>();
  coordinator->Feed(std::move(message));
  if (++fed % 100 == 0) {
    coordinator->Prove();
    coordinator = nullptr;
  }
}

// ---- what people write ----

void RunQuery(std::string_view input) {
  const auto query = engine::Query::Parse(input, 1'700'000'000'000);
  if (!query.ok()) {
    Require(!query.status().message().empty(), "a refusal has a message");
    return;
  }
  v1::ExecutionSummary summary;
  summary.set_run_id(engine::RunId::Make(1, 2, 3).Bytes());
  summary.set_workflow("charts");
  summary.set_status(v1::EXECUTION_STATUS_FAILED);
  query->Check(engine::FieldsOf(summary));
  query->Bounds();
}

void RunJson(std::string_view input) {
  const bool valid = engine::CheckJson(input).ok();
  const auto items = engine::SplitJsonArray(input);
  if (items.ok()) {
    Require(valid, "an array that is split is JSON");
    for (const engine::Slice& slice : *items) {
      Require(slice.offset + uint64_t{slice.size} <= input.size(), "an item lies in its array");
      Require(engine::CheckJson(input.substr(slice.offset, slice.size)).ok(), "an item is JSON");
    }
  }
  engine::FindJsonPointer(input, "/a/0").status().IgnoreError();
  engine::SplitPayloadList(input).status().IgnoreError();
  const engine::Value value = engine::Value::FromData(input, v1::ENCODING_JSON);
  engine::EqualsJson(value, "{\"a\":[1]}").status().IgnoreError();
  engine::JsonString(value).status().IgnoreError();
  engine::WholeNumber(value).status().IgnoreError();
}

void RunConfig(std::string_view input) {
  static const std::string path = [] {
    std::string name = "/tmp/flux-fuzz-XXXXXX";
    const int file = ::mkstemp(name.data());
    Require(file >= 0, "a temporary file can be made");
    std::fclose(::fdopen(file, "w"));
    std::atexit([] { std::remove(path.c_str()); });
    return name;
  }();
  std::ofstream(path, std::ios::binary | std::ios::trunc) << input;
  server::Config config;
  server::LoadConfig(
      {}, [](const std::string&) { return nullptr; }, path, &config)
      .IgnoreError();
}

void RunCron(std::string_view input) {
  const auto cron = engine::Cron::Parse(input);
  if (!cron.ok()) Require(!cron.status().message().empty(), "a refusal has a message");
}

}  // namespace

std::vector<Target> Targets() {
  std::vector<Target> targets = {
      {"definition", Serialised<v1::Definition>, RunDefinition, {}},
      {"record", Serialised<v1::Record>, RunRecord, {}},
      {"snapshot", [](std::string_view) { return WideSnapshot(); }, RunSnapshot, {}},
      {"log_entry", [](std::string_view) { return LogBody(); }, RunLogEntry, {}},
      {"bookkeeping",
       [](std::string_view) {
         return store::EncodeBookkeeping(3, {.epoch = 5, .first = 2, .seen_last = 9});
       },
       RunBookkeeping,
       {}},
      {"row", [](std::string_view) { return std::string(1, 0) + TheRows().Root(); }, RunRow, {}},
      {"payload", AsItIs, RunPayload, {}},
      {"worker_message", Serialised<v1::ConnectRequest>, RunWorkerMessage, {}},
      {"query", AsItIs, RunQuery, {"status",   "workflow", "label.", "started", "closed",
                                   "duration", " and ",    " or ",   "not ",    "in (",
                                   "\"",       "=",        "!=",     "^=",      ">",
                                   "-2h",      "failed",   "(",      ")",       ","}},
      {"json",
       AsItIs,
       RunJson,
       {"{", "}", "[", "]", "\"", "\\u00", "e9", "true", "null", ":", ","}},
      {"config",
       AsItIs,
       RunConfig,
       {"listen: ", "queues:\n", "  nlp: {concurrency: 1}\n", "10s", "4MiB", "- ", "&a ", "*a",
        "!!map", "data: "}},
      {"cron", AsItIs, RunCron, {"*", "/", "-", ",", "MON", "JAN", "@hourly", "L", "60", " "}},
  };
  for (auto more : {StoreTargets, ServiceTargets}) {
    for (Target& target : more()) targets.push_back(std::move(target));
  }
  return targets;
}

}  // namespace flux::fuzz
