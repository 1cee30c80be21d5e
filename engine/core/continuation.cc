// Continuations: a task's answer that is a piece of graph.
//
//   step state | input                                       | then
//   -----------+---------------------------------------------+------------------------------------
//   scheduled  | StepContinued                               | waiting: the fragment's frame opens
//   scheduled  | StepContinued, the last step of a fragment  | that fragment gives way to this one
//   scheduled  | StepContinued, frames nest too deep         | flux.limit.depth
//   waiting    | the fragment is done                        | completed with its value, or skipped
//   waiting    | a step of the fragment failed               | as a failure of the step
//   any other  | StepContinued                               | nothing
//
// A step whose value is the value of its fragment, with nothing left to do beside it, is in tail
// position: a chain of such continuations is no deeper than one.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {

void Machine::Continued(v1::StepContinued continued) {
  Frame* frame = FindTask(continued.ref());
  if (frame == nullptr) return;
  uint32_t step = continued.ref().step();
  StepState& state = frame->steps[step];
  if (state.phase != Phase::kScheduled) return;
  EndDelivery(frame, step);
  MergeLabels(continued.labels());
  SetStepLabels(s_, state, continued.step_labels());
  v1::Definition definition;
  absl::StatusOr<std::shared_ptr<const Graph>> fragment =
      absl::InvalidArgumentError("it cannot be parsed");
  if (definition.ParseFromString(continued.fragment())) {
    fragment = Graph::CompileFragment(definition);
  }
  if (!fragment.ok()) {
    FailStep(frame, step,
             MakeFailure(kBadFragment, absl::StrCat("the task went on as a graph that is refused: ",
                                                    fragment.status().message())));
    return;
  }
  std::vector<Parameter> parameters;
  for (v1::Payload& input : *continued.mutable_inputs()) {
    parameters.push_back({Parameter::State::kSet, Value::FromPayload(std::move(input))});
  }
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  const StepPlan& plan = scope.steps[step];
  const bool tail = scope.role == Graph::Role::kFragment && frame->remaining == 1 &&
                    scope.result.has_value() && scope.result->source == InputPlan::Source::kStep &&
                    scope.result->index == step && scope.result->input->pointer().empty() &&
                    !scope.result->optional && plan.step->catches().empty() &&
                    !plan.undo_scope.has_value();
  if (v1::HistoryEvent* told = TellStep("step.continued", *frame, step, /*derived=*/false)) {
    told->set_detail(absl::StrCat(
        "as ", (*fragment)->name(), ", ", definition.scopes(0).steps_size(),
        definition.scopes(0).steps_size() == 1 ? " step" : " steps",
        tail ? absl::StrCat(", in place of ", frame->graph->name()) : "",
        continued.step_labels().empty() ? "" : ", ", LabelsText(continued.step_labels())));
    told->set_identity(continued.worker());
  }
  if (tail) {
    Frame* done = frame;
    step = frame->parent_step;
    frame = frame->parent;
    DropFrame(done);
  } else if (frame->depth >= kFrameDepthMax) {
    FailStep(frame, step,
             MakeFailure(kDepthLimit,
                         absl::StrCat("continuations nest more than ", kFrameDepthMax,
                                      " deep: let the last step of a fragment continue, with "
                                      "nothing beside it")));
    return;
  } else {
    state.phase = Phase::kWaiting;
  }
  OpenFrame(frame, step, 0, 0, std::move(parameters), *std::move(fragment));
}

}  // namespace flux::engine::internal
