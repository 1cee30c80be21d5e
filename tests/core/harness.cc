#include "tests/core/harness.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/record.h"
#include "proto/bridge.h"

namespace flux::engine::testing {

v1::Payload Json(std::string_view text) {
  v1::Payload payload;
  payload.set_data(std::string(text));
  payload.set_encoding(v1::ENCODING_JSON);
  return payload;
}

v1::Payload ListPayload(const std::vector<v1::Payload>& items) {
  v1::PayloadList list;
  for (const v1::Payload& item : items) *list.add_items() = item;
  v1::Payload payload;
  payload.set_data(list.SerializeAsString());
  payload.set_encoding(v1::ENCODING_LIST);
  return payload;
}

v1::Input FromStep(uint32_t step, std::string_view pointer) {
  v1::Input input;
  input.set_step(step);
  input.set_pointer(std::string(pointer));
  return input;
}

v1::Input FromParameter(uint32_t parameter, std::string_view pointer) {
  v1::Input input;
  input.set_parameter(parameter);
  input.set_pointer(std::string(pointer));
  return input;
}

v1::Input Literal(std::string_view json, std::string_view pointer) {
  v1::Input input;
  *input.mutable_literal() = Json(json);
  input.set_pointer(std::string(pointer));
  return input;
}

v1::Input Optional(v1::Input input) {
  input.set_optional(true);
  return input;
}

DefinitionBuilder::DefinitionBuilder(std::string name, uint32_t parameters) {
  definition_.set_name(std::move(name));
  definition_.set_version("1");
  definition_.set_format(1);
  Scope(parameters);
}

uint32_t DefinitionBuilder::Scope(uint32_t parameters) {
  definition_.add_scopes()->set_parameters(parameters);
  return static_cast<uint32_t>(definition_.scopes_size() - 1);
}

uint32_t DefinitionBuilder::Add(uint32_t scope, std::string name, std::vector<v1::Input> inputs) {
  v1::Scope* to = definition_.mutable_scopes(static_cast<int>(scope));
  v1::Step* step = to->add_steps();
  step->set_name(std::move(name));
  for (v1::Input& input : inputs) *step->add_inputs() = std::move(input);
  return static_cast<uint32_t>(to->steps_size() - 1);
}

v1::Step& DefinitionBuilder::step(uint32_t scope, uint32_t index) {
  return *definition_.mutable_scopes(static_cast<int>(scope))
              ->mutable_steps(static_cast<int>(index));
}

uint32_t DefinitionBuilder::Task(uint32_t scope, std::string name, std::vector<v1::Input> inputs) {
  const uint32_t index = Add(scope, name, std::move(inputs));
  step(scope, index).mutable_task()->set_task(absl::StrCat("do.", name));
  return index;
}

uint32_t DefinitionBuilder::Sleep(uint32_t scope, std::string name, int64_t duration_ms,
                                  std::vector<v1::Input> inputs) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  step(scope, index).mutable_sleep()->set_duration_ms(duration_ms);
  return index;
}

uint32_t DefinitionBuilder::Map(uint32_t scope, std::string name, uint32_t body,
                                std::vector<v1::Input> inputs, uint32_t max_parallel) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  step(scope, index).mutable_map()->set_body(body);
  step(scope, index).mutable_map()->set_max_parallel(max_parallel);
  return index;
}

uint32_t DefinitionBuilder::Loop(uint32_t scope, std::string name, uint32_t body,
                                 std::vector<v1::Input> inputs, uint64_t turns,
                                 std::optional<v1::Input> done) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  v1::LoopStep* loop = step(scope, index).mutable_loop();
  loop->set_body(body);
  loop->set_turns(turns);
  if (done.has_value()) *loop->mutable_done() = *std::move(done);
  return index;
}

uint32_t DefinitionBuilder::Block(uint32_t scope, std::string name, uint32_t body,
                                  std::vector<v1::Input> inputs) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  step(scope, index).mutable_block()->set_body(body);
  return index;
}

uint32_t DefinitionBuilder::Switch(uint32_t scope, std::string name, std::vector<v1::Input> inputs,
                                   std::vector<std::pair<std::string, uint32_t>> cases,
                                   std::optional<uint32_t> otherwise) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  v1::SwitchStep* spec = step(scope, index).mutable_switch_();
  for (const auto& [match, body] : cases) {
    v1::SwitchStep::Case* one = spec->add_cases();
    *one->mutable_match() = Json(match);
    one->set_body(body);
  }
  if (otherwise.has_value()) spec->set_default_body(*otherwise);
  return index;
}

uint32_t DefinitionBuilder::Join(uint32_t scope, std::string name, std::vector<v1::Input> inputs) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  step(scope, index).mutable_join();
  return index;
}

uint32_t DefinitionBuilder::Early(uint32_t scope, std::string name, std::vector<v1::Input> inputs,
                                  uint32_t first, uint32_t tolerated) {
  const uint32_t index = Join(scope, std::move(name), std::move(inputs));
  step(scope, index).mutable_join()->set_first(first);
  step(scope, index).mutable_join()->set_tolerated_failures(tolerated);
  return index;
}

uint32_t DefinitionBuilder::Pages(uint32_t scope, std::string name, uint32_t page, uint32_t body,
                                  std::vector<v1::Input> inputs, uint32_t max_parallel) {
  const uint32_t index = Map(scope, std::move(name), body, std::move(inputs), max_parallel);
  step(scope, index).mutable_map()->set_page_body(page);
  return index;
}

uint32_t DefinitionBuilder::Wait(uint32_t scope, std::string name, std::string event,
                                 int64_t timeout_ms, std::string_view default_json,
                                 std::vector<v1::Input> inputs) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  v1::WaitEventStep* wait = step(scope, index).mutable_wait_event();
  wait->set_event(std::move(event));
  wait->set_timeout_ms(timeout_ms);
  if (!default_json.empty()) *wait->mutable_default_value() = Json(default_json);
  return index;
}

uint32_t DefinitionBuilder::Emit(uint32_t scope, std::string name, std::string event,
                                 v1::Input payload, v1::Input target) {
  const uint32_t index = Add(scope, std::move(name), {std::move(payload), std::move(target)});
  step(scope, index).mutable_emit()->set_event(std::move(event));
  return index;
}

uint32_t DefinitionBuilder::Child(uint32_t scope, std::string name, std::string workflow,
                                  std::vector<v1::Input> inputs, bool detached) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  v1::ChildStep* child = step(scope, index).mutable_child();
  child->set_workflow(std::move(workflow));
  child->set_detached(detached);
  return index;
}

void DefinitionBuilder::Undo(uint32_t scope, uint32_t index, std::string name) {
  v1::TaskStep* task = step(scope, index).mutable_undo()->mutable_task();
  task->set_task(absl::StrCat("undo.", name));
  task->mutable_retry()->set_max_attempts(2);
  task->mutable_retry()->set_no_jitter(true);
}

uint32_t DefinitionBuilder::Fail(uint32_t scope, std::string name, std::string type,
                                 std::vector<v1::Input> inputs) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  step(scope, index).mutable_fail()->mutable_failure()->set_type(std::move(type));
  return index;
}

uint32_t DefinitionBuilder::Skip(uint32_t scope, std::string name, std::vector<v1::Input> inputs) {
  const uint32_t index = Add(scope, std::move(name), std::move(inputs));
  step(scope, index).mutable_skip();
  return index;
}

void DefinitionBuilder::Catch(uint32_t scope, uint32_t index, std::vector<std::string> types,
                              uint32_t body, std::vector<v1::Input> captures) {
  v1::CatchClause* clause = step(scope, index).add_catches();
  for (std::string& type : types) clause->add_types(std::move(type));
  clause->set_body(body);
  for (v1::Input& capture : captures) *clause->add_captures() = std::move(capture);
}

void DefinitionBuilder::After(uint32_t scope, uint32_t index, uint32_t earlier) {
  step(scope, index).add_after(earlier);
}

void DefinitionBuilder::Result(uint32_t scope, v1::Input input) {
  *definition_.mutable_scopes(static_cast<int>(scope))->mutable_result() = std::move(input);
}

std::shared_ptr<const Graph> DefinitionBuilder::Compile() const {
  auto graph = Graph::Compile(definition_, "hash-of-the-definition-----------");
  EXPECT_TRUE(graph.ok()) << graph.status();
  return graph.ok() ? *graph : nullptr;
}

namespace {

v1::Record StartRecord(const Graph& graph, std::vector<v1::Payload> inputs, int64_t now_ms,
                       uint64_t seed, const std::function<void(v1::ExecutionStarted&)>& set) {
  v1::ExecutionStarted started;
  started.set_namespace_("default");
  started.set_workflow_id("run-1");
  started.set_run_id(RunId::Make(now_ms, 7, 9).Bytes());
  started.set_seed(seed);
  (*started.mutable_labels())["team"] = "a";
  (*started.mutable_labels())["env"] = "b";
  for (v1::Payload& input : inputs) *started.add_inputs() = std::move(input);
  AssignInputBlobs(&started);
  if (set) set(started);
  absl::StatusOr<v1::Record> record = DecideStart(graph, std::move(started), now_ms);
  EXPECT_TRUE(record.ok()) << record.status();
  return *std::move(record);
}

}  // namespace

Driver::Driver(std::shared_ptr<const Graph> graph, std::vector<v1::Payload> inputs,
               int64_t start_ms, uint64_t seed,
               const std::function<void(v1::ExecutionStarted&)>& set)
    : live(nullptr), replayed(nullptr), reloaded(nullptr), now_ms(start_ms) {
  blob_reader = [this](uint64_t ordinal) -> absl::StatusOr<v1::Payload> {
    const auto it = blobs.find(ordinal);
    if (it == blobs.end()) return absl::NotFoundError(absl::StrCat("no blob ", ordinal));
    return it->second;
  };
  v1::Record record = StartRecord(*graph, std::move(inputs), now_ms, seed, set);
  for (int i = 0; i < record.started().input_blobs_size(); ++i) {
    if (record.started().input_blobs(i) != 0) {
      blobs[record.started().input_blobs(i)] = record.started().inputs(i);
    }
  }
  records.push_back(SerializeRecord(record));
  effects.story = &story;
  live = Create(graph, record, &effects);
  replayed = Create(graph, *ParseRecord(records[0], blob_reader), nullptr);
  reloaded = *LoadSnapshot(graph, SaveSnapshot(live), blob_reader);
  Absorb(effects, Before{.next_outbox = 1});
  CheckNow();
}

Driver::Before Driver::Look() const {
  const internal::ExecutionState& state = live.state();
  return {state.closed(), state.compensating(), state.paused, state.next_outbox};
}

absl::StatusOr<Verdict> Driver::Do(Command command) {
  effects.Clear();
  const bool tells = effects.story != nullptr;
  std::shared_ptr<const Graph> graph;
  if (const auto* migrate = std::get_if<engine::Migrate>(&command)) graph = migrate->graph;
  absl::StatusOr<Decision> decision = Decide(live, std::move(command), now_ms);
  if (!decision.ok()) return decision.status();
  for (v1::Record& record : decision->records) {
    EXPECT_GE(record.time_ms(), live.last_time_ms());
    if (const uint64_t blob = BlobOf(record); blob != 0) {
      EXPECT_EQ(blob, NextBlob(live));
      blobs[blob] = BlobPayload(record);
    }
    std::string bytes = SerializeRecord(record);
    const uint64_t ordinal = live.ordinal();
    const Before before = Look();
    Effects one;
    if (tells) one.story = &story;
    Apply(live, std::move(record), &one, graph);
    EXPECT_EQ(live.ordinal(), ordinal + 1);
    Apply(replayed, *ParseRecord(bytes, blob_reader), nullptr, graph);
    Apply(reloaded, *ParseRecord(bytes, blob_reader), nullptr, graph);
    if (keep_records) records.push_back(std::move(bytes));
    Absorb(one, before);
    effects.ready.insert(effects.ready.end(), one.ready.begin(), one.ready.end());
    effects.revoked.insert(effects.revoked.end(), one.revoked.begin(), one.revoked.end());
    effects.all_revoked |= one.all_revoked;
    effects.closed |= one.closed;
    effects.outbox |= one.outbox;
    effects.paused |= one.paused;
    effects.resumed |= one.resumed;
    effects.reopened |= one.reopened;
  }
  if (check_each) CheckNow();
  return decision->verdict;
}

void Driver::Absorb(const Effects& from, const Before& before) {
  const Before after = Look();
  for (const auto& [key, delivery] : from.revoked) {
    const auto it = offered_.find(key);
    EXPECT_TRUE(it != offered_.end() && it->second <= delivery)
        << "revoked what was never offered: frame " << key.frame << " step " << key.step;
    if (it != offered_.end()) offered_.erase(it);
  }
  if (from.all_revoked) offered_.clear();
  for (const StepKey& key : from.ready) {
    const uint64_t delivery = Offer(live, key).delivery;
    EXPECT_TRUE(IsCurrent(live, key, delivery));
    EXPECT_GT(delivery, offered_[key]) << "a delivery number was used again";
    offered_[key] = delivery;
  }
  EXPECT_EQ(from.reopened, before.closed && (!after.closed || from.closed));
  EXPECT_EQ(from.closed, after.closed && (!before.closed || from.reopened));
  EXPECT_EQ(from.all_revoked, from.closed || (after.compensating && !before.compensating));
  EXPECT_EQ(from.outbox, after.next_outbox != before.next_outbox);
  EXPECT_EQ(from.paused, after.paused && !before.paused);
  // What ends an execution lifts its pause, too.
  if (from.resumed) {
    EXPECT_TRUE(before.paused && !after.paused);
  }
}

void Driver::CheckLookUps(const Execution& shadow) const {
  const internal::ExecutionState& a = live.state();
  const internal::ExecutionState& b = shadow.state();
  EXPECT_TRUE(a.delivered == b.delivered);
  EXPECT_TRUE(a.readers == b.readers);
  EXPECT_TRUE(a.known_ids == b.known_ids);
  EXPECT_TRUE(a.delayed_ids == b.delayed_ids);
  EXPECT_TRUE(a.children == b.children);
  EXPECT_TRUE(a.timers == b.timers);
}

// A join is a counter, not a scan; here it is scanned.
void Driver::CheckCounters() const {
  const internal::ExecutionState& s = live.state();
  for (const Execution* one : {&live, &replayed, &reloaded}) {
    uint32_t parked = 0;
    for (const auto& [number, frame] : one->state().frames) {
      for (const internal::StepState& step : frame->steps) {
        parked += step.phase == internal::Phase::kParked;
      }
    }
    ASSERT_EQ(one->state().parked, parked);
  }
  if (s.status != v1::EXECUTION_STATUS_RUNNING) return;
  for (const auto& [number, frame] : s.frames) {
    const Graph::ScopePlan& scope = s.Scope(*frame);
    const auto is_pending = [&](uint32_t parameter) {
      return frame->parameters[parameter].state == internal::Parameter::State::kPending;
    };
    uint32_t remaining = 0;
    for (uint32_t i = 0; i < frame->steps.size(); ++i) {
      const internal::StepState& step = frame->steps[i];
      if (!internal::IsSettled(step.phase)) ++remaining;
      if (step.phase != internal::Phase::kPending) continue;
      uint32_t waits = 0;
      for (const uint32_t source : scope.steps[i].sources) {
        if (!internal::IsSettled(frame->steps[source].phase)) ++waits;
      }
      for (uint32_t p = 0; p < frame->parameters.size(); ++p) {
        const auto& readers = scope.parameter_dependants[p];
        if (is_pending(p) && std::find(readers.begin(), readers.end(), i) != readers.end()) {
          ++waits;
        }
      }
      ASSERT_EQ(step.waiting_for, waits) << PathOf({number, i});
      ASSERT_GT(waits, 0u) << PathOf({number, i}) << " waits for nothing";
    }
    if (scope.result.has_value() && scope.result->source == Graph::InputPlan::Source::kParameter &&
        is_pending(scope.result->index)) {
      ++remaining;
    }
    ASSERT_EQ(frame->remaining, remaining) << "frame " << number;
    ASSERT_GT(remaining, 0u) << "frame " << number << " is done and there";
  }
}

void Driver::CheckNow() {
  const std::string bytes = SaveSnapshot(live);
  ASSERT_EQ(bytes, SaveSnapshot(replayed)) << "replay differs from the live execution";
  ASSERT_EQ(bytes, SaveSnapshot(reloaded)) << "a loaded snapshot went another way";
  ASSERT_EQ(LiveEntries(live), LiveEntries(reloaded));
  ASSERT_EQ(NextTimerMs(live), NextTimerMs(reloaded));
  ASSERT_LT(MemoryBytes(live), size_t{1} << 40) << "the count of memory went below zero";
  ASSERT_LT(MemoryBytes(reloaded), size_t{1} << 40) << "the count of memory went below zero";
  ASSERT_EQ(MemoryBytes(live), MemoryBytes(replayed));
  CheckLookUps(replayed);
  CheckLookUps(reloaded);
  CheckCounters();
  // What the effects offered and did not take back is what the state says, of those not answered
  // since.
  std::map<StepKey, uint64_t> ready;
  for (const StepKey& key : ReadyTasks(live)) ready[key] = Offer(live, key).delivery;
  std::erase_if(offered_,
                [&](const auto& entry) { return !IsCurrent(live, entry.first, entry.second); });
  ASSERT_EQ(ready, offered_);
}

void Driver::Reload() {
  auto loaded = LoadSnapshot(live.graph_ptr(), SaveSnapshot(live), blob_reader);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  reloaded = *std::move(loaded);
}

std::string Driver::PathOf(const StepKey& key) const {
  const internal::ExecutionState& state = live.state();
  return internal::StepPath(state, *state.FindFrame(key.frame), key.step);
}

bool Driver::Exists(std::string_view path) const {
  for (const auto& [number, frame] : live.state().frames) {
    for (uint32_t i = 0; i < frame->steps.size(); ++i) {
      if (PathOf({number, i}) == path) return true;
    }
  }
  return false;
}

StepKey Driver::Key(std::string_view path) const {
  for (const auto& [number, frame] : live.state().frames) {
    for (uint32_t i = 0; i < frame->steps.size(); ++i) {
      if (PathOf({number, i}) == path) return {number, i};
    }
  }
  ADD_FAILURE() << "there is no step " << path;
  return {UINT64_MAX, 0};
}

v1::TaskResult Driver::ResultFor(std::string_view path) const {
  const StepKey key = Key(path);
  const internal::StepState* step = live.state().FindStep(key);
  v1::TaskResult result;
  result.mutable_token()->set_frame(key.frame);
  result.mutable_token()->set_step(key.step);
  result.mutable_token()->set_generation(step->generation);
  result.mutable_token()->set_delivery(step->delivery);
  return result;
}

Verdict Driver::Complete(std::string_view path, const v1::Payload& value) {
  ReportResult command;
  command.result = ResultFor(path);
  *command.result.mutable_value() = value;
  command.worker_id = "worker-1";
  if (value.data().size() > kBlobBytesMin) command.blob = NextBlob(live);
  auto verdict = Do(std::move(command));
  EXPECT_TRUE(verdict.ok()) << verdict.status();
  return *verdict;
}

Verdict Driver::SkipResult(std::string_view path) {
  ReportResult command;
  command.result = ResultFor(path);
  command.result.set_skip(true);
  return *Do(std::move(command));
}

Verdict Driver::FailTask(std::string_view path, std::string_view type, bool non_retriable) {
  ReportResult command;
  command.result = ResultFor(path);
  v1::Failure* failure = command.result.mutable_failure();
  failure->set_type(std::string(type));
  failure->set_message(absl::StrCat("it went wrong: ", ToAbsl(type)));
  failure->set_non_retriable(non_retriable);
  command.worker_id = "worker-1";
  return *Do(std::move(command));
}

Verdict Driver::Continue(std::string_view path, const v1::Definition& fragment,
                         std::vector<v1::Payload> inputs) {
  ReportResult command;
  command.result = ResultFor(path);
  v1::Continuation* continuation = command.result.mutable_continuation();
  *continuation->mutable_fragment() = fragment;
  for (v1::Payload& input : inputs) *continuation->add_inputs() = std::move(input);
  command.worker_id = "worker-1";
  return *Do(std::move(command));
}

absl::StatusOr<Verdict> Driver::Send(std::string_view event, std::string_view json,
                                     std::string_view id, int64_t deliver_at_ms) {
  SendEvent command;
  command.event = std::string(event);
  command.event_id = std::string(id);
  command.payload = Json(json);
  if (json.size() > kBlobBytesMin) command.blob = NextBlob(live);
  command.deliver_at_ms = deliver_at_ms;
  command.identity = "sender";
  return Do(std::move(command));
}

std::string Driver::Try(Command command) {
  const uint64_t ordinal = live.ordinal();
  const absl::StatusOr<Verdict> verdict = Do(std::move(command));
  if (!verdict.ok()) {
    EXPECT_EQ(live.ordinal(), ordinal) << "a refusal changed something";
    return std::string(Message(verdict.status()));
  }
  EXPECT_EQ(*verdict, Verdict::kAccepted);
  return "";
}

std::string Driver::Retry(std::string_view path) {
  engine::Retry command;
  if (!path.empty()) command.step = Key(path);
  command.identity = "ann";
  command.reason = "again";
  return Try(std::move(command));
}

std::string Driver::Park(std::string_view path) {
  return Try(engine::Park{Key(path), "ann", "aside"});
}

std::string Driver::Unpark(std::string_view path) {
  return Try(engine::Retry{Key(path), "ann", "again", true});
}

std::string Driver::Resolve(std::string_view path, std::string_view json) {
  engine::Resolve command;
  command.step = Key(path);
  command.result = Json(json);
  if (json.size() > kBlobBytesMin) command.blob = NextBlob(live);
  command.identity = "ann";
  command.reason = "by hand";
  return Try(std::move(command));
}

std::string Driver::SkipStep(std::string_view path) {
  engine::Resolve command;
  command.step = Key(path);
  command.identity = "ann";
  command.reason = "not needed";
  return Try(std::move(command));
}

std::string Driver::Rewind(std::string_view path) {
  return Try(engine::Rewind{Key(path), "ann", "once more"});
}

std::string Driver::Edit(std::string_view event, std::string_view json, uint64_t number) {
  EditEvent command;
  command.event = std::string(event);
  command.number = number;
  command.payload = Json(json);
  if (json.size() > kBlobBytesMin) command.blob = NextBlob(live);
  command.identity = "ann";
  command.reason = "a typo";
  return Try(std::move(command));
}

std::string Driver::Replay(std::string_view event, std::string_view json) {
  ReplayEvent command;
  command.event = std::string(event);
  command.payload = Json(json);
  if (json.size() > kBlobBytesMin) command.blob = NextBlob(live);
  command.identity = "ann";
  command.reason = "new data";
  return Try(std::move(command));
}

OutboxMessage Driver::Pending(v1::OutboxKind kind) const {
  const std::vector<uint64_t> numbers = PendingOutbox(live);
  for (auto it = numbers.rbegin(); it != numbers.rend(); ++it) {
    if (live.state().outbox.find(*it)->second.kind != kind) continue;
    absl::StatusOr<OutboxMessage> message = BuildOutboxMessage(live, *it);
    EXPECT_TRUE(message.ok()) << message.status();
    return message.ok() ? *std::move(message) : OutboxMessage();
  }
  ADD_FAILURE() << "no message of kind " << v1::OutboxKind_Name(kind) << " is pending";
  return OutboxMessage();
}

std::vector<std::string> Driver::Outbox() const {
  std::vector<std::string> kinds;
  for (const auto& [number, message] : live.state().outbox) {
    kinds.push_back(
        v1::OutboxKind_Name(message.kind).substr(std::string_view("OUTBOX_KIND_").size()));
  }
  return kinds;
}

Verdict Driver::Settle(uint64_t number, std::string_view failure_type) {
  SettleOutbox command;
  command.number = number;
  if (!failure_type.empty()) {
    command.failure.emplace();
    command.failure->set_type(std::string(failure_type));
    command.failure->set_message("it was refused");
    command.failure->set_non_retriable(true);
  }
  return *Do(std::move(command));
}

Verdict Driver::ChildStarted(uint64_t number, char run) {
  SettleOutbox command;
  command.number = number;
  const auto message = live.state().outbox.find(number);
  if (message != live.state().outbox.end()) command.workflow_id = message->second.workflow_id;
  command.run_id = std::string(16, run);
  return *Do(std::move(command));
}

Verdict Driver::ChildClosed(std::string_view path, v1::ExecutionStatus status,
                            std::string_view what, char run) {
  ReportChild command;
  command.ref = Key(path);
  command.generation = live.state().FindStep(command.ref)->generation;
  command.run_id = std::string(16, run);
  command.status = status;
  if (status == v1::EXECUTION_STATUS_COMPLETED) {
    command.result = Json(what);
    if (what.size() > kBlobBytesMin) command.blob = NextBlob(live);
  } else if (status != v1::EXECUTION_STATUS_SKIPPED) {
    command.failure.set_type(std::string(what));
    command.failure.set_message("it went wrong there");
  }
  return *Do(std::move(command));
}

Verdict Driver::End(std::string_view path, AttemptEnd reason) {
  EndAttempt command;
  command.key = Key(path);
  command.delivery = live.state().FindStep(command.key)->delivery;
  command.reason = reason;
  command.worker_id = "worker-1";
  command.progress = Json("\"half way\"");
  return *Do(std::move(command));
}

Verdict Driver::Redeliver(std::string_view path) {
  engine::Redeliver command;
  command.key = Key(path);
  command.delivery = live.state().FindStep(command.key)->delivery;
  command.reason = "released";
  return *Do(std::move(command));
}

void Driver::Advance(int64_t by_ms) {
  now_ms += by_ms;
  while (NextTimerMs(live).value_or(INT64_MAX) <= now_ms) {
    const uint64_t before = live.ordinal();
    ASSERT_TRUE(Do(FireTimers{}).ok());
    ASSERT_GT(live.ordinal(), before) << "a due timer made no record";
  }
}

namespace {

const v1::StepInfo* FindInfo(const google::protobuf::RepeatedPtrField<v1::StepInfo>& steps,
                             const StepKey& key) {
  for (const v1::StepInfo& step : steps) {
    if (step.frame() == key.frame && step.step() == key.step) return &step;
    for (const v1::FrameInfo& frame : step.frames()) {
      if (const v1::StepInfo* found = FindInfo(frame.steps(), key)) return found;
    }
  }
  return nullptr;
}

}  // namespace

v1::StepState Driver::StateOf(std::string_view path) const {
  v1::DescribeExecutionResponse response;
  DescribeExecution(live, 1'000'000, true, nullptr, &response);
  const v1::StepInfo* info = FindInfo(response.steps(), Key(path));
  return info == nullptr ? v1::STEP_STATE_UNSPECIFIED : info->state();
}

std::string Driver::ReasonOf(std::string_view path) const {
  v1::DescribeExecutionResponse response;
  DescribeExecution(live, 1'000'000, true, nullptr, &response);
  const v1::StepInfo* info = FindInfo(response.steps(), Key(path));
  return info == nullptr ? "" : info->reason();
}

std::vector<std::string> Driver::Ready() const {
  std::vector<std::string> paths;
  for (const StepKey& key : ReadyTasks(live)) paths.push_back(PathOf(key));
  return paths;
}

std::string Driver::ResultText() const {
  v1::GetResultResponse response;
  FillResult(live, &response);
  if (response.has_failure()) {
    return absl::StrCat(response.failure().type(), ": ", response.failure().message());
  }
  if (response.result().encoding() != v1::ENCODING_LIST) return response.result().data();
  // Lists as "[a,b]", for tables.
  std::string text = "[";
  v1::PayloadList list;
  EXPECT_TRUE(list.ParseFromString(response.result().data()));
  for (const v1::Payload& item : list.items()) {
    absl::StrAppend(&text, text.size() > 1 ? "," : "", item.data());
  }
  return text + "]";
}

std::vector<std::string> Driver::StoryTypes() const {
  std::vector<std::string> types;
  for (const v1::HistoryEvent& event : story) {
    types.push_back(event.step().empty() ? event.type()
                                         : absl::StrCat(event.type(), " ", event.step()));
  }
  return types;
}

std::string InputOf(const Driver& run, std::string_view path, int index) {
  v1::Task task;
  EXPECT_TRUE(FillTask(run.live, run.Key(path), 1 << 30, &task).ok());
  return index < task.inputs_size() ? task.inputs(index).payload().data() : "";
}

uint32_t GenerationOf(const Driver& run, std::string_view path) {
  return run.live.state().FindStep(run.Key(path))->generation;
}

void RunAll(Driver& run, std::string_view value) {
  for (std::vector<std::string> ready = run.Ready(); !ready.empty(); ready = run.Ready()) {
    ASSERT_EQ(run.Complete(ready[0], value), Verdict::kAccepted);
  }
}

}  // namespace flux::engine::testing
