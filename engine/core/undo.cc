// Compensation: what completed steps with an undo task did is undone, the newest first.
//
//   execution             | input                       | then
//   ----------------------+-----------------------------+-------------------------------------------
//   RUNNING               | a step with an undo task    | its inputs and output are kept
//                         |   completes                 |
//   RUNNING               | it fails, or is cancelled   | FAILING or CANCELLING: the newest undo
//                         |                             |   task is scheduled, in its own frame
//   FAILING, CANCELLING   | the undo task is done       | the next newest; none left: closes
//   FAILING, CANCELLING   | its attempts are used up    | noted in the failure; the next newest
//   FAILING, CANCELLING   | ExecutionTerminated         | TERMINATED: the rest is not undone
//   COMPLETED, TERMINATED |                             | nothing is undone
//
// An undo task is retried as any task. A rewind forgets what its steps would have undone.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"

namespace flux::engine::internal {

void Machine::KeepUndo(Frame* frame, uint32_t step, const Value& output) {
  const StepPlan& plan = Plan(*frame, step);
  UndoState undo;
  undo.number = s_.next_undo++;
  undo.path = StepPath(s_, *frame, step);
  undo.key = {frame->number, step};
  undo.graph = frame->graph;
  undo.fragment = frame->fragment;
  undo.scope = *plan.undo_scope;
  for (const InputPlan& input : plan.inputs) {
    std::string error;
    ReadInput(*frame, input, &undo.parameters.emplace_back(), &error);
  }
  undo.parameters.push_back(output);
  s_.bytes += kUndoBytes;
  s_.undo.push_back(std::move(undo));
}

void Machine::UndoNext() {
  if (s_.undo.empty()) {
    Close(s_.closing_as);
    return;
  }
  s_.compensated = true;
  const UndoState& undo = s_.undo.back();
  std::vector<Parameter> parameters;
  for (const Value& value : undo.parameters) {
    parameters.push_back({Parameter::State::kSet, value});
  }
  OpenFrame(nullptr, 0, undo.scope, undo.number, std::move(parameters), undo.fragment);
}

void Machine::UndoDone(Frame* frame) {
  TellStep("step.undone", *frame, 0, /*derived=*/true);
  DropFrame(frame);
  s_.undo.pop_back();
  s_.bytes -= kUndoBytes;
  UndoNext();
}

void Machine::UndoFailed(Frame* frame, const v1::Failure& failure) {
  TellFailure("undo.failed", *frame, 0, failure, /*derived=*/true);
  // The first ones; the history tells them all.
  if (s_.failure != nullptr && s_.failure->message().size() < kUndoNotesBytesMax) {
    s_.failure->set_message(absl::StrCat(s_.failure->message(), "; ", s_.undo.back().path,
                                         " could not be undone: ", failure.type(), ": ",
                                         failure.message()));
  }
  DropFrame(frame);
  s_.undo.pop_back();
  s_.bytes -= kUndoBytes;
  UndoNext();
}

}  // namespace flux::engine::internal
