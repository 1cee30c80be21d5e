// The kinds of step of a simulated execution.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/simulation.h"
#include "flux/codec.h"
#include "flux/step.h"
#include "proto/bridge.h"

namespace flux::internal {
namespace {

constexpr uint64_t kWindowDefault = 1'000;  // the server's (kMapParallelDefault)
constexpr uint64_t kPageIndex = UINT64_MAX;
constexpr int64_t kSpanMsMax = int64_t{100} * 366 * 24 * 3600 * 1000;  // the server's

bool Contains(const google::protobuf::RepeatedPtrField<std::string>& types,
              const std::string& type) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

absl::Duration Ms(int64_t ms) { return absl::Milliseconds(ms); }

std::string Shown(absl::Duration duration) { return absl::FormatDuration(duration); }

// Of the execution that a step addresses.
absl::StatusOr<std::string> WorkflowIdOf(const Payload& value) {
  absl::StatusOr<std::string> id = Decode<std::string>(value);
  if (id.ok() && id->empty()) return absl::InvalidArgumentError("it is empty");
  return id;
}

Failure BadWorkflowId(const absl::Status& status) {
  return OwnFailure(errors::kBadProjection,
                    absl::StrCat("the workflow id to address cannot be read: ", status.message()));
}

}  // namespace

// ---- every step
// -----------------------------------------------------------------------------------------------

void SimExecution::StartNode(const FramePtr& frame, uint32_t index) {
  Node& node = frame->nodes[index];
  if (frame->dropped || node.started || node.output.settled()) return;
  node.started = true;
  const v1::Step& step = frame->step(index);
  // A block's inputs, and a switch's after the first, are captures, and lazy.
  const int count = step.has_block()     ? 0
                    : step.has_switch_() ? std::min(step.inputs_size(), 1)
                                         : step.inputs_size();
  int skipped = 0;
  for (int i = 0; i < count; ++i) {
    if (!Source(frame, step.inputs(i)).skipped()) continue;
    if (!step.inputs(i).optional()) return EndNode(frame, index, Ended::Skipped());
    ++skipped;
  }
  if (count > 0 && skipped == count) return EndNode(frame, index, Ended::Skipped());
  if (step.has_task()) return StartTask(frame, index);
  std::vector<Ended> inputs;
  for (int i = 0; i < count; ++i) {
    inputs.push_back(Read(frame, step.inputs(i)));
    if (inputs.back().failure) return FailNode(frame, index, *std::move(inputs.back().failure));
  }
  StartKind(frame, index, std::move(inputs));
}

void SimExecution::StartKind(const FramePtr& frame, uint32_t index, std::vector<Ended> inputs) {
  const v1::Step& step = frame->step(index);
  switch (step.kind_case()) {
    case v1::Step::kSleep: {
      absl::Duration wait = Ms(step.sleep().duration_ms());
      if (!inputs.empty()) {
        absl::StatusOr<int64_t> ms = WholeNumber(*inputs[0].value);
        if (!ms.ok()) {
          return FailNode(frame, index,
                          OwnFailure(errors::kBadProjection,
                                     absl::StrCat("the milliseconds to sleep cannot be read: ",
                                                  ms.status().message())));
        }
        wait = Ms(std::min(*ms, kSpanMsMax));
      }
      return After(wait, frame, index, [this, index](const FramePtr& at) {
        EndNode(at, index, Ended::Value(NoValue()));
      });
    }
    case v1::Step::kMap:
      return StartMap(frame, index, std::move(inputs));
    case v1::Step::kWaitEvent:
      return StartWaitEvent(frame, index);
    case v1::Step::kSwitch:
      return StartSwitch(frame, index, inputs);
    case v1::Step::kLoop:
      return StartLoop(frame, index, std::move(inputs));
    case v1::Step::kBlock:
      return StartBody(frame, index, step.block().body(), 0);
    case v1::Step::kJoin:
      return EvaluateJoin(frame, index);
    case v1::Step::kChild:
      return StartChild(frame, index, inputs);
    case v1::Step::kEmit:
      return StartEmit(frame, index, inputs);
    case v1::Step::kFail: {
      const v1::Failure& spec = step.fail().failure();
      return FailNode(frame, index,
                      {.type = spec.type(),
                       .message = spec.message(),
                       .non_retriable = true,
                       .source = spec.source().empty() ? step.name() : spec.source()});
    }
    case v1::Step::kTask:
    case v1::Step::kSkip:
    case v1::Step::KIND_NOT_SET:
      break;
  }
  EndNode(frame, index, Ended::Skipped());
}

void SimExecution::EndNode(const FramePtr& frame, uint32_t index, Ended ended) {
  Node& node = frame->nodes[index];
  if (frame->dropped || node.output.settled()) return;
  if (ended.failure) return FailNode(frame, index, *std::move(ended.failure));
  const v1::Step& step = frame->step(index);
  if (ended.value != nullptr && step.has_undo()) KeepUndo(frame, index, *ended.value);
  ReportStep(frame, index, ended.skipped() ? "skipped" : "completed");
  node.output.state = ended.skipped() ? CellState::kSkipped : CellState::kCompleted;
  node.output.value = std::move(ended.value);
  DropNode(frame, index);
  Settle(frame, &node.output);
  CellSettled(frame);
}

// Whoever made its value, be it the handler of a catch clause.
void SimExecution::KeepUndo(const FramePtr& frame, uint32_t index, const Payload& output) {
  const v1::Step& step = frame->step(index);
  std::vector<Payload> inputs;
  for (const v1::Input& input : step.inputs()) {
    const Ended read = Read(frame, input);
    inputs.push_back(read.value == nullptr ? NoValue() : *read.value);
  }
  inputs.push_back(output);
  undo_.push_back({frame->program, &step.undo().task(), absl::StrCat(frame->PathOf(index), ".undo"),
                   frame->PositionOf(index), std::move(inputs)});
}

void SimExecution::FailNode(const FramePtr& frame, uint32_t index, Failure failure,
                            bool attempts_over) {
  Node& node = frame->nodes[index];
  if (frame->dropped || node.output.settled()) return;
  DropNode(frame, index);
  const v1::Step& step = frame->step(index);
  for (const v1::CatchClause& clause : step.catches()) {
    if (node.handling) break;
    if (!clause.types().empty() && !Contains(clause.types(), failure.type)) continue;
    absl::StatusOr<Payload> payload = Encode(failure);
    if (!payload.ok()) {
      failure = FailureOf(payload.status());
      break;
    }
    node.handling = true;
    std::vector<ParameterSource> parameters;
    parameters.push_back({Ended::Value(*std::move(payload)), nullptr});
    for (const v1::Input& capture : clause.captures()) parameters.push_back({{}, &capture});
    OpenFrame(frame->program, clause.body(), FrameRole::kCatch, frame, index, 0,
              std::move(parameters));
    return;
  }
  if (attempts_over && step.on_exhausted() == v1::ON_EXHAUSTED_PARK) {
    if (!world_->instant()) {
      node.parked = true;
      node.parked_failure = std::move(failure);
      return;
    }
    failure.message += " (on a server the step would now be parked for an operator)";
  }
  ReportStep(frame, index, "failed");
  const bool tolerated = Tolerated(frame, index);
  node.output.state = CellState::kFailed;
  if (!tolerated) return FailFrame(frame, std::move(failure));
  Settle(frame, &node.output);
  CellSettled(frame);
}

// Whether nothing reads the step but one join, which may lose one more of its inputs.
bool SimExecution::Tolerated(const FramePtr& frame, uint32_t index) const {
  const std::vector<Program::Facts>& facts = frame->program->facts[frame->scope];
  if (facts[index].in_result || facts[index].read_late || facts[index].readers.size() != 1) {
    return false;
  }
  const uint32_t reader = facts[index].readers[0];
  if (!facts[reader].early || frame->nodes[reader].output.settled()) return false;
  const auto failed = std::count_if(
      facts[reader].waits.begin(), facts[reader].waits.end(), [&](const Program::Source& source) {
        return !source.parameter && frame->nodes[source.index].output.state == CellState::kFailed;
      });
  return static_cast<uint32_t>(failed) < frame->step(reader).join().tolerated_failures();
}

void SimExecution::CancelNode(const FramePtr& frame, uint32_t index) {
  Node& node = frame->nodes[index];
  if (frame->dropped || node.output.settled()) return;
  ReportStep(frame, index, "cancelled");
  DropNode(frame, index);
  node.output.state = CellState::kCancelled;
  Settle(frame, &node.output);
  CellSettled(frame);
}

// ---- tasks
// ----------------------------------------------------------------------------------------------------

void SimExecution::StartTask(const FramePtr& frame, uint32_t index) {
  Node& node = frame->nodes[index];
  const v1::Step& step = frame->step(index);
  auto run = std::make_shared<TaskRun>();
  run->program = frame->program;
  run->task = &step.task();
  run->path = frame->PathOf(index);
  run->position = frame->PositionOf(index);
  for (const v1::Input& input : step.inputs()) {
    const Ended source = Source(frame, input);
    // Its pointers are for the worker to follow.
    absl::StatusOr<Payload> part =
        source.skipped() ? NoValue() : Project(*source.value, input.pointer());
    if (!part.ok() && !run->bad_input) {
      run->bad_input = FailureOf(errors::kBadInput(
          absl::StrCat("argument ", run->inputs.size(), " of task '", step.task().task(), "' at '",
                       input.pointer(), "': ", part.status().message())));
    }
    run->inputs.push_back(part.ok() ? *std::move(part) : NoValue());
  }
  run->done = [this, weak = std::weak_ptr<SimFrame>(frame), index](RawOutcome outcome) {
    if (const FramePtr at = weak.lock(); at != nullptr) TaskDone(at, index, std::move(outcome));
  };
  node.task = run;
  world_->BeginTask(this, run);
}

void SimExecution::TaskDone(const FramePtr& frame, uint32_t index, RawOutcome outcome) {
  if (frame->dropped) return;
  frame->nodes[index].task.reset();
  switch (outcome.kind) {
    case RawOutcome::Kind::kValue:
      return EndNode(frame, index, Ended::Value(std::move(outcome.value)));
    case RawOutcome::Kind::kSkip:
      return EndNode(frame, index, Ended::Skipped());
    case RawOutcome::Kind::kFailure:
      return FailNode(frame, index, std::move(outcome.failure), /*attempts_over=*/true);
    case RawOutcome::Kind::kContinue:
      return Continue(frame, index, *outcome.fragment);
  }
}

void SimExecution::Continue(const FramePtr& frame, uint32_t index, const Fragment& fragment) {
  std::vector<WorkflowSpec> workflows = fragment.children;
  workflows.insert(workflows.end(), frame->program->workflows.begin(),
                   frame->program->workflows.end());
  absl::StatusOr<std::shared_ptr<const Program>> program =
      Program::Make(fragment.definition_bytes, std::move(workflows));
  if (!program.ok()) return EndNode(frame, index, Ended::Failed(program.status()));
  std::vector<ParameterSource> parameters;
  for (const Payload& input : fragment.inputs) parameters.push_back({Ended::Value(input), nullptr});
  // In tail position the new graph takes the place of the one it ends, so that a chain has no end.
  const v1::Step& step = frame->step(index);
  const v1::Input& result = frame->def().result();
  const bool tail = frame->role == FrameRole::kFragment && frame->open == 1 &&
                    step.catches().empty() && !step.has_undo() && frame->def().has_result() &&
                    result.source_case() == v1::Input::kStep && result.step() == index &&
                    result.pointer().empty() && !result.optional();
  if (tail) {
    const FramePtr parent = frame->parent;
    const uint32_t owner = frame->owner;
    frame->dropped = true;
    parent->nodes[owner].frames.erase(frame->index);
    OpenFrame(*std::move(program), 0, FrameRole::kFragment, parent, owner, 0,
              std::move(parameters));
    return;
  }
  if (frame->depth + 1 > kTestFrameDepthMax) {
    return FailNode(
        frame, index,
        OwnFailure(errors::kDepthLimit,
                   absl::StrCat("continuations are nested deeper than ", kTestFrameDepthMax,
                                "; let each be the last step, "
                                "whose value is the graph's result")));
  }
  OpenFrame(*std::move(program), 0, FrameRole::kFragment, frame, index, 0, std::move(parameters));
}

// ---- bodies
// ---------------------------------------------------------------------------------------------------

void SimExecution::StartSwitch(const FramePtr& frame, uint32_t index,
                               const std::vector<Ended>& inputs) {
  const v1::Step& step = frame->step(index);
  for (const v1::SwitchStep::Case& one : step.switch_().cases()) {
    absl::StatusOr<bool> equal = EqualJson(*inputs[0].value, one.match().data());
    if (!equal.ok()) {
      return FailNode(
          frame, index,
          OwnFailure(errors::kBadProjection,
                     absl::StrCat("its condition cannot be read: ", equal.status().message())));
    }
    if (*equal) return StartBody(frame, index, one.body(), 1);
  }
  if (!step.switch_().has_default_body()) return EndNode(frame, index, Ended::Skipped());
  StartBody(frame, index, step.switch_().default_body(), 1);
}

void SimExecution::StartBody(const FramePtr& frame, uint32_t index, uint32_t body,
                             int first_input) {
  const v1::Step& step = frame->step(index);
  std::vector<ParameterSource> parameters;
  for (int i = first_input; i < step.inputs_size(); ++i) {
    parameters.push_back({{}, &step.inputs(i)});
  }
  OpenFrame(frame->program, body, FrameRole::kBody, frame, index, 0, std::move(parameters));
}

void SimExecution::StartLoop(const FramePtr& frame, uint32_t index, std::vector<Ended> inputs) {
  auto loop = std::make_unique<SimLoop>();
  loop->values = std::move(inputs);
  frame->nodes[index].loop = std::move(loop);
  OpenTurn(frame, index);
}

void SimExecution::OpenTurn(const FramePtr& frame, uint32_t index) {
  const SimLoop& loop = *frame->nodes[index].loop;
  std::vector<ParameterSource> parameters;
  for (const Ended& value : loop.values) parameters.push_back({value, nullptr});
  OpenFrame(frame->program, frame->step(index).loop().body(), FrameRole::kTurn, frame, index,
            loop.turn, std::move(parameters));
}

void SimExecution::TurnEnded(const FramePtr& frame, uint32_t index, const FramePtr& turn,
                             Ended ended) {
  if (ended.failure || ended.skipped()) return EndNode(frame, index, std::move(ended));
  const v1::LoopStep& def = frame->step(index).loop();
  SimLoop& loop = *frame->nodes[index].loop;
  bool done = def.turns() != 0 && loop.turn + 1 >= def.turns();
  if (def.has_done()) {
    Ended condition = Read(turn, def.done());
    if (condition.failure || condition.skipped()) {
      return EndNode(frame, index, std::move(condition));
    }
    absl::StatusOr<bool> equal = EqualJson(*condition.value, "true");
    if (!equal.ok()) {
      return FailNode(
          frame, index,
          OwnFailure(errors::kBadProjection,
                     absl::StrCat("its condition cannot be read: ", equal.status().message())));
    }
    done = done || *equal;
  }
  if (done) return EndNode(frame, index, std::move(ended));
  for (const auto& [name, number] : loop.taken) {
    uint64_t& mark = loop.events[name];
    mark = std::max(mark, number);
  }
  loop.taken.clear();
  loop.values[0] = std::move(ended);
  ++loop.turn;
  OpenTurn(frame, index);
}

// ---- maps
// -----------------------------------------------------------------------------------------------------

namespace {

absl::StatusOr<std::vector<Payload>> ItemsOf(const Payload& list) {
  if (list.encoding == Encoding::kNone) return std::vector<Payload>();
  return SplitList(list);
}

// How many items may fail.
uint64_t Allowed(const v1::MapStep& def, const SimMap& map) {
  const uint64_t share = map.items.size() * def.tolerated_failure_permille() / 1000;
  return std::max<uint64_t>(def.tolerated_failures(), share);
}

}  // namespace

void SimExecution::StartMap(const FramePtr& frame, uint32_t index, std::vector<Ended> inputs) {
  const v1::MapStep& def = frame->step(index).map();
  auto map = std::make_unique<SimMap>();
  if (def.has_page_body()) {
    map->cursor = inputs[0].value;
    map->last_page = false;
  } else {
    absl::StatusOr<std::vector<Payload>> items = ItemsOf(*inputs[0].value);
    if (!items.ok()) {
      return FailNode(
          frame, index,
          OwnFailure(errors::kBadProjection, absl::StrCat("the list to map over cannot be read: ",
                                                          items.status().message())));
    }
    for (Payload& item : *items) {
      map->items.push_back(std::make_shared<const Payload>(std::move(item)));
    }
  }
  map->captures.assign(inputs.begin() + 1, inputs.end());
  frame->nodes[index].map = std::move(map);
  FillMap(frame, index);
}

void SimExecution::FillMap(const FramePtr& frame, uint32_t index) {
  const v1::MapStep& def = frame->step(index).map();
  SimMap& map = *frame->nodes[index].map;
  const uint64_t window = def.max_parallel() == 0 ? kWindowDefault : def.max_parallel();
  const auto open = [&](uint32_t body, FrameRole role, uint64_t number,
                        std::shared_ptr<const Payload> first) {
    std::vector<ParameterSource> parameters;
    parameters.push_back({{std::move(first), std::nullopt}, nullptr});
    for (const Ended& capture : map.captures) parameters.push_back({capture, nullptr});
    OpenFrame(frame->program, body, role, frame, index, number, std::move(parameters));
  };
  while (map.in_flight < window && map.opened < map.items.size()) {
    const uint64_t item = map.opened++;
    ++map.in_flight;
    open(def.body(), FrameRole::kItem, item, std::move(map.items[item]));
  }
  if (!map.last_page && !map.fetching && map.items.size() - map.opened < window) {
    map.fetching = true;
    open(def.page_body(), FrameRole::kPage, kPageIndex, map.cursor);
  }
  if (map.last_page && map.opened == map.items.size() && map.in_flight == 0) {
    FinishMap(frame, index);
  }
}

void SimExecution::PageEnded(const FramePtr& frame, uint32_t index, Ended ended) {
  SimMap& map = *frame->nodes[index].map;
  map.fetching = false;
  if (ended.failure) return EndNode(frame, index, std::move(ended));
  // One that is skipped is the last, without items.
  const Payload page = ended.skipped() ? NoValue() : *ended.value;
  absl::StatusOr<Payload> list = ProjectStrictly(page, "/items");
  absl::StatusOr<std::vector<Payload>> items =
      list.ok() ? ItemsOf(*list) : absl::StatusOr<std::vector<Payload>>(list.status());
  if (!items.ok()) {
    return FailNode(
        frame, index,
        OwnFailure(errors::kBadProjection,
                   absl::StrCat("a page of items cannot be read: ", items.status().message())));
  }
  for (Payload& item : *items) {
    map.items.push_back(std::make_shared<const Payload>(std::move(item)));
  }
  const absl::StatusOr<Payload> next = ProjectStrictly(page, "/next");
  map.last_page = !next.ok() || EqualJson(*next, "null").value_or(true);
  if (!map.last_page) map.cursor = std::make_shared<const Payload>(*next);
  // The items that failed were few enough until it was known how many there are.
  const uint64_t allowed = Allowed(frame->step(index).map(), map);
  if (map.last_page && map.failed > allowed) {
    return FailNode(frame, index,
                    OwnFailure(errors::kTooManyFailures,
                               absl::StrCat(map.failed, " of ", map.items.size(), " items failed; ",
                                            allowed, " are tolerated")));
  }
  FillMap(frame, index);
}

void SimExecution::ItemEnded(const FramePtr& frame, uint32_t index, uint64_t item, Ended ended) {
  if (frame->dropped || frame->nodes[index].map == nullptr) return;
  const v1::MapStep& def = frame->step(index).map();
  SimMap& map = *frame->nodes[index].map;
  --map.in_flight;
  if (ended.failure) {
    ++map.failed;
    map.failure = std::move(ended.failure);
    // A share of items that are not all known yet cannot be used up.
    const bool known = map.last_page || def.tolerated_failure_permille() == 0;
    if (known && map.failed > Allowed(def, map)) {
      const Failure failure = *map.failure;
      return FailNode(frame, index, failure);
    }
  } else if (!ended.skipped()) {
    ++map.completed;
    map.results[item] = std::move(ended.value);
    if (def.first() != 0 && map.completed >= def.first()) return FinishMap(frame, index);
  }
  FillMap(frame, index);
}

void SimExecution::FinishMap(const FramePtr& frame, uint32_t index) {
  ListWriter list;
  for (const auto& [item, value] : frame->nodes[index].map->results) list.Add(*value);
  EndNode(frame, index, Ended::Value(std::move(list).Finish()));
}

// ---- joins
// ----------------------------------------------------------------------------------------------------

void SimExecution::EvaluateJoin(const FramePtr& frame, uint32_t index) {
  Node& node = frame->nodes[index];
  if (frame->dropped || node.output.settled()) return;
  const v1::Step& step = frame->step(index);
  const Program::Facts& facts = frame->program->facts[frame->scope][index];
  // A source counts once, however often it is read.
  auto completed = static_cast<uint32_t>(
      std::count_if(step.inputs().begin(), step.inputs().end(), [&](const v1::Input& input) {
        return CellOf(frame, input) == nullptr;  // a literal
      }));
  bool pending = false;
  for (const Program::Source& source : facts.waits) {
    const Cell& cell =
        source.parameter ? frame->parameters[source.index] : frame->nodes[source.index].output;
    if (!cell.settled()) pending = true;
    if (cell.state == CellState::kCompleted) ++completed;
  }
  const uint32_t first = step.join().first();
  if (pending && (first == 0 || completed < first)) return;
  node.started = true;
  // All that are there by now, which may be more than the first.
  ListWriter list;
  for (const v1::Input& input : step.inputs()) {
    const Cell* cell = CellOf(frame, input);
    if (cell != nullptr && cell->state != CellState::kCompleted) continue;
    Ended value = Read(frame, input);
    if (value.failure) return FailNode(frame, index, *std::move(value.failure));
    list.Add(*value.value);
  }
  EndNode(frame, index, Ended::Value(std::move(list).Finish()));
  if (facts.early) CancelUnneeded(frame, index);
}

// What the join alone would have read, and what only that would have read, and so on.
void SimExecution::CancelUnneeded(const FramePtr& frame, uint32_t join) {
  const std::vector<Program::Facts>& facts = frame->program->facts[frame->scope];
  const auto settled = [&](uint32_t step) { return frame->nodes[step].output.settled(); };
  std::vector<uint32_t> todo;
  for (const Program::Source& source : facts[join].waits) {
    if (!source.parameter) todo.push_back(source.index);
  }
  while (!todo.empty() && !frame->dropped) {
    const uint32_t step = todo.back();
    todo.pop_back();
    if (settled(step) || facts[step].in_result ||
        !std::all_of(facts[step].readers.begin(), facts[step].readers.end(), settled)) {
      continue;
    }
    todo.insert(todo.end(), facts[step].sources.begin(), facts[step].sources.end());
    CancelNode(frame, step);
  }
}

// ---- events
// ---------------------------------------------------------------------------------------------------

void SimExecution::StartWaitEvent(const FramePtr& frame, uint32_t index) {
  if (TryTakeEvent(frame, index)) return;
  const v1::WaitEventStep& wait = frame->step(index).wait_event();
  frame->nodes[index].awaits_event = true;
  event_waiters_[wait.event()].push_back({frame, Waiter::What::kStep, index});
  if (wait.timeout_ms() == 0 || world_->instant()) return;
  After(Ms(wait.timeout_ms()), frame, index,
        [this, index](const FramePtr& at) { EventTimedOut(at, index); });
}

// All readers of a name see the first event of it; but a turn of a loop sees the first one that no
// earlier turn took.
bool SimExecution::TryTakeEvent(const FramePtr& frame, uint32_t index) {
  const std::string& name = frame->step(index).wait_event().event();
  uint64_t floor = 0;
  std::vector<SimLoop*> loops;
  for (SimFrame* at = frame.get(); at != nullptr; at = at->parent.get()) {
    if (at->role != FrameRole::kTurn) continue;
    SimLoop* loop = at->parent->nodes[at->owner].loop.get();
    loops.push_back(loop);
    if (const auto mark = loop->events.find(name); mark != loop->events.end()) {
      floor = std::max(floor, mark->second);
    }
  }
  for (const SimEvent& event : events_) {
    if (event.name != name || event.number <= floor) continue;
    for (SimLoop* loop : loops) {
      uint64_t& mark = loop->taken[name];
      mark = std::max(mark, event.number);
    }
    frame->nodes[index].awaits_event = false;
    frame->nodes[index].event = event.number;
    EndNode(frame, index, {event.payload, std::nullopt});
    return true;
  }
  return false;
}

void SimExecution::EventTimedOut(const FramePtr& frame, uint32_t index) {
  const v1::WaitEventStep& wait = frame->step(index).wait_event();
  if (wait.has_default_value()) {
    return EndNode(frame, index, Ended::Value(FromProto(wait.default_value())));
  }
  FailNode(
      frame, index,
      OwnFailure(errors::kEventTimeout,
                 world_->instant() ? absl::StrCat("nobody told the event ", wait.event(),
                                                  "; InlineRunner::Tell it first")
                                   : absl::StrCat("event ", wait.event(), " did not come within ",
                                                  Shown(Ms(wait.timeout_ms())))));
}

// Are all events of that name kept? A piece of graph that a task went on as may lie in a loop.
bool SimExecution::ReadInLoop(const std::string& event) const {
  if (root_ == nullptr) return false;
  const Program& program = *root_->program;
  if (!program.events.contains(event) || program.loop_events.contains(event)) return true;
  bool in_fragment = false;
  EachFrame([&](const FramePtr& frame) {
    if (frame->role == FrameRole::kFragment && frame->program->events.contains(event)) {
      in_fragment = true;
    }
  });
  return in_fragment;
}

// Another event of a name whose readers took the first one. A reader that could not use that one,
// and is parked, tries again with this one, which those that are still to come see, too.
void SimExecution::Reread(SimEvent* event, const std::shared_ptr<const Payload>& payload) {
  bool reread = false;
  EachFrame([&](const FramePtr& frame) {
    for (uint32_t i = 0; i < frame->nodes.size(); ++i) {
      Node& wait = frame->nodes[i];
      if (wait.event != event->number || wait.output.state != CellState::kCompleted) continue;
      for (const uint32_t reader : frame->program->facts[frame->scope][i].readers) {
        Node& node = frame->nodes[reader];
        if (!node.parked) continue;
        reread = true;
        wait.output.value = payload;
        node.parked = node.started = false;
        After(absl::ZeroDuration(), frame, reader,
              [this, reader](const FramePtr& at) { StartNode(at, reader); });
      }
    }
  });
  if (reread) event->payload = payload;
}

void SimExecution::StartEmit(const FramePtr& frame, uint32_t index,
                             const std::vector<Ended>& inputs) {
  const v1::EmitStep& emit = frame->step(index).emit();
  absl::StatusOr<std::string> target = WorkflowIdOf(*inputs[1].value);
  if (!target.ok()) return FailNode(frame, index, BadWorkflowId(target.status()));
  SimExecution* execution = world_->Find(*target);
  if (execution != nullptr && execution->closed()) {
    return EndNode(
        frame, index,
        Ended::Failed(errors::kRefused(absl::StrCat(
            "execution '", *target, "' is ", execution->status_name(), " and takes no events"))));
  }
  world_->report().emissions.push_back({.workflow_id = *target,
                                        .event = emit.event(),
                                        .value = *inputs[0].value,
                                        .at = world_->now()});
  if (execution != nullptr) {
    world_->Post(Ms(emit.delay_ms()), frame->PositionOf(index),
                 [execution, name = emit.event(), value = inputs[0].value] {
                   execution->Deliver(name, value);
                 });
  }
  EndNode(frame, index, Ended::Value(NoValue()));
}

// ---- children
// -------------------------------------------------------------------------------------------------

void SimExecution::StartChild(const FramePtr& frame, uint32_t index,
                              const std::vector<Ended>& inputs) {
  const v1::Step& step = frame->step(index);
  const v1::ChildStep& def = step.child();
  std::string id = def.workflow_id();
  std::vector<std::shared_ptr<const Payload>> values;
  for (const Ended& input : inputs) values.push_back(input.value);
  if (def.id_input()) {
    absl::StatusOr<std::string> given = WorkflowIdOf(*values.back());
    if (!given.ok()) return FailNode(frame, index, BadWorkflowId(given.status()));
    id = *std::move(given);
    values.pop_back();
  }
  if (id.empty()) id = absl::StrCat(workflow_id_, "/", frame->PathOf(index));
  const WorkflowSpec* spec = nullptr;
  for (const WorkflowSpec& known : frame->program->workflows) {
    if (known.name == def.workflow()) spec = &known;
  }
  const auto refuse = [&](const absl::Status& status) {
    EndNode(frame, index, Ended::Failed(status));
  };
  if (spec == nullptr) {
    return refuse(errors::kNotFound(absl::StrCat("workflow ", def.workflow(), " is not known")));
  }
  if (depth_ >= kTestChildDepthMax) {
    return refuse(absl::ResourceExhaustedError(
        absl::StrCat("children are nested deeper than ", kTestChildDepthMax, " executions")));
  }
  if (const SimExecution* other = world_->Find(id); other != nullptr && !other->closed()) {
    return refuse(
        errors::kConflict(absl::StrCat("an execution of workflow id '", id, "' is running")));
  }
  absl::StatusOr<std::shared_ptr<const Program>> program = Program::Of(*spec);
  if (!program.ok()) return refuse(program.status());
  SimExecution* child = world_->Start(*std::move(program), id, std::move(values), depth_ + 1,
                                      frame->PositionOf(index));
  if (def.detached()) {
    absl::StatusOr<Payload> started =
        Encode(StartedChild{.workflow_id = id, .run_id = child->run_id()});
    if (!started.ok()) return refuse(started.status());
    return EndNode(frame, index, Ended::Value(*std::move(started)));
  }
  frame->nodes[index].child = child;
  child->set_on_closed([this, weak = std::weak_ptr<SimFrame>(frame), index] {
    const FramePtr at = weak.lock();
    if (at == nullptr) return;
    After(absl::ZeroDuration(), at, index,
          [this, index](const FramePtr& there) { ChildClosed(there, index); });
  });
}

void SimExecution::ChildClosed(const FramePtr& frame, uint32_t index) {
  const SimExecution* child = std::exchange(frame->nodes[index].child, nullptr);
  if (child == nullptr) return;
  Ended ended = child->outcome();
  if (ended.failure) {
    ended.failure->message =
        absl::StrCat("child ", child->workflow_id(), ": ", ended.failure->message);
    ended.failure->non_retriable = true;
  }
  EndNode(frame, index, std::move(ended));
}

}  // namespace flux::internal
