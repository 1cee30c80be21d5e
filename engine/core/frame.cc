// Frames, and how their steps read what others made.
//
//   frame  | input                       | then
//   -------+-----------------------------+------------------------------------------------------
//   (none) | a step opens its body       | open: steps that wait for nothing are activated
//   open   | one of its steps settled    | those that waited for it count down, to activation
//   open   | a pending parameter settled | as for a step
//   open   | nothing is left to settle   | done: its result goes to its owner, it is dropped
//   open   | its result cannot be read   | flux.bad_projection of the step that owns it; a map
//          |                             |   may tolerate it of an item
//   open   | the step above it ended     | dropped with all below it; deliveries are revoked
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {

// ---- inputs ----

Machine::Read Machine::ReadSource(const Frame& frame, const InputPlan& input) const {
  switch (input.source) {
    case InputPlan::Source::kLiteral:
      return Read::kSet;
    case InputPlan::Source::kParameter:
      switch (frame.parameters[input.index].state) {
        case Parameter::State::kPending:
          return Read::kPending;
        case Parameter::State::kSet:
          return Read::kSet;
        case Parameter::State::kSkipped:
          return Read::kSkipped;
      }
      break;
    case InputPlan::Source::kStep:
      switch (frame.steps[input.index].phase) {
        case Phase::kCompleted:
          return Read::kSet;
        case Phase::kSkipped:
        case Phase::kCancelled:
          return Read::kSkipped;
        default:
          return Read::kPending;
      }
  }
  return Read::kPending;
}

const Value& SourceValue(const Frame& frame, const Graph::InputPlan& input) {
  switch (input.source) {
    case Graph::InputPlan::Source::kStep:
      return frame.steps[input.index].output;
    case Graph::InputPlan::Source::kParameter:
      return frame.parameters[input.index].value;
    case Graph::InputPlan::Source::kLiteral:
      break;
  }
  return frame.graph->literals()[input.index];
}

Machine::Read Machine::ReadInput(const Frame& frame, const InputPlan& input, Value* value,
                                 std::string* error) const {
  const Read read = ReadSource(frame, input);
  if (read == Read::kSkipped && input.optional) {
    *value = Value();
    return Read::kSet;
  }
  if (read != Read::kSet) return read;
  const Value& source = SourceValue(frame, input);
  if (input.input->pointer().empty()) {
    // Nothing in a snapshot names a fragment's literals: each reading is a value of its own, before
    // a snapshot was loaded and after.
    const bool copied = frame.fragment != nullptr && input.source == InputPlan::Source::kLiteral;
    *value = copied ? Value::FromPayload(source.ToPayload()) : source;
    return Read::kSet;
  }
  absl::StatusOr<Value> projected = Project(source, input.input->pointer());
  if (!projected.ok()) {
    *error = std::string(Message(projected.status()));
    return Read::kError;
  }
  *value = *std::move(projected);
  return Read::kSet;
}

bool Machine::ReadParameter(const Frame& frame, const InputPlan& input, Parameter* parameter,
                            std::string* error) const {
  switch (ReadInput(frame, input, &parameter->value, error)) {
    case Read::kSet:
      parameter->state = Parameter::State::kSet;
      return true;
    case Read::kSkipped:
      parameter->state = Parameter::State::kSkipped;
      return true;
    case Read::kPending:
      parameter->state = Parameter::State::kPending;
      return true;
    case Read::kError:
      break;
  }
  return false;
}

bool Machine::ReadParameters(const Frame& frame, const std::vector<InputPlan>& inputs, size_t from,
                             std::vector<Parameter>* parameters, std::string* error) const {
  for (size_t i = from; i < inputs.size(); ++i) {
    if (!ReadParameter(frame, inputs[i], &parameters->emplace_back(), error)) {
      *error = absl::StrCat("its input ", i, " cannot be read: ", *error);
      return false;
    }
  }
  return true;
}

// ---- frames ----

void Machine::OpenFrame(Frame* parent, uint32_t step, uint32_t scope, uint64_t item,
                        std::vector<Parameter> parameters, std::shared_ptr<const Graph> fragment) {
  ++frames_opened_;
  Frame* frame = AddFrame(s_, s_.next_frame++, scope, parent, step, item, std::move(fragment));
  frame->parameters = std::move(parameters);
  BeginFrame(frame);
}

void Machine::BeginFrame(Frame* frame) {
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  frame->remaining = static_cast<uint32_t>(frame->steps.size());
  for (uint32_t i = 0; i < frame->steps.size(); ++i) {
    frame->steps[i].waiting_for = scope.steps[i].waits_for;
    if (scope.steps[i].early && CountInputs(frame, i)) Push(Work::Kind::kActivate, frame, i);
  }
  bool pending = false;
  for (uint32_t p = 0; p < frame->parameters.size(); ++p) {
    if (frame->parameters[p].state != Parameter::State::kPending) continue;
    pending = true;
    for (const uint32_t reader : scope.parameter_dependants[p]) {
      ++frame->steps[reader].waiting_for;
    }
    if (scope.result.has_value() && scope.result->source == InputPlan::Source::kParameter &&
        scope.result->index == p) {
      ++frame->remaining;
    }
  }
  for (const uint32_t root : scope.roots) {
    if (!pending || frame->steps[root].waiting_for == 0) {
      Push(Work::Kind::kActivate, frame, root);
    }
  }
  if (frame->remaining == 0) Push(Work::Kind::kFrameDone, frame, 0);
}

void Machine::FrameDone(Frame* frame) {
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  Value result;
  std::string error;
  Read read = Read::kSet;
  if (scope.result.has_value()) read = ReadInput(*frame, *scope.result, &result, &error);
  if (scope.role == Graph::Role::kRoot) {
    RootDone(read, std::move(result), std::move(error));
    return;
  }
  if (scope.role == Graph::Role::kUndo) {
    UndoDone(frame);
    return;
  }
  if (read == Read::kError) {
    v1::Failure failure = MakeFailure(
        kBadProjection,
        absl::StrCat("the result of ", FramePath(s_, *frame), " cannot be read: ", error));
    if (scope.role == Graph::Role::kMapItem && TolerateItem(frame, failure)) return;
    FailStep(frame->parent, frame->parent_step, std::move(failure),
             /*park=*/false, /*past_catches=*/scope.role == Graph::Role::kCatch);
    return;
  }
  switch (scope.role) {
    case Graph::Role::kMapItem:
      return ItemDone(frame, read, std::move(result));
    case Graph::Role::kLoopTurn:
      return TurnDone(frame, read, std::move(result));
    case Graph::Role::kPage:
      return PageDone(frame, read, std::move(result));
    default:
      return BranchDone(frame, read, std::move(result));
  }
}

void Machine::RootDone(Read read, Value result, std::string error) {
  if (read == Read::kError) {
    s_.failure = std::make_unique<v1::Failure>(MakeFailure(
        kBadProjection, absl::StrCat("the result of the workflow cannot be read: ", error)));
    End(v1::EXECUTION_STATUS_FAILED);
  } else if (read == Read::kSkipped) {
    Close(v1::EXECUTION_STATUS_SKIPPED);
  } else {
    s_.bytes -= s_.result.memory_bytes();
    s_.result = std::move(result);
    s_.bytes += s_.result.memory_bytes();
    Close(v1::EXECUTION_STATUS_COMPLETED);
  }
}

// Recursion goes as deep as frames nest (kFrameDepthMax), whatever the data.
void Machine::DropFrame(Frame* frame) {
  for (uint32_t i = 0; i < frame->steps.size(); ++i) {
    StepState& step = frame->steps[i];
    if (!IsSettled(step.phase)) AbandonStep(frame, i);
    ReleaseExtra(s_, step);
    ReleaseLabels(s_, step);
    s_.bytes -= step.output.memory_bytes();
  }
  if (frame->parent != nullptr) {
    StepExtra& owner = *frame->parent->steps[frame->parent_step].extra;
    (frame->previous != nullptr ? frame->previous->next : owner.first_child) = frame->next;
    (frame->next != nullptr ? frame->next->previous : owner.last_child) = frame->previous;
  }
  s_.frames.erase(frame->number);
  s_.bytes -= FrameBytes(*frame);
  s_.live_entries -= frame->steps.size() + 1;
  frame->dropped = true;
  if (frame->queued == 0) delete frame;
}

void Machine::DropChildren(Frame* frame, uint32_t step) {
  const StepExtra* extra = frame->steps[step].extra.get();
  while (extra != nullptr && extra->last_child != nullptr) DropFrame(extra->last_child);
}

}  // namespace flux::engine::internal
