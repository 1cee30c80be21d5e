// Steps that run one body: blocks, switches, and any step whose catch clause runs.
//
//   state            | input                          | then
//   -----------------+--------------------------------+------------------------------------------
//   pending (block)  | what it comes after settled    | waiting: its body opens
//   pending (switch) | condition settled, a case fits | waiting: that case's body opens
//   pending (switch) | condition settled, none fits   | waiting: the default's body; else skipped
//   pending (switch) | condition settled, not JSON    | flux.bad_projection
//   pending (switch) | the condition was skipped      | skipped
//   not settled      | a failure a clause matches     | waiting: the clause's body opens
//   waiting          | a captured value settles       | the body is given it, its readers go on
//   waiting          | the body is done, with a value | completed with that value
//   waiting          | the body is done, skipped      | skipped
//   waiting          | a step of the body failed      | as a failure of the step
//
// A clause's body takes the place of all that was below the step. A failure out of it passes the
// step's own clauses by. A body starts without captures that have not settled: its parameters are
// pending until they do.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {

void Machine::StartBlock(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  OpenBranch(frame, step, plan.step->block().body(), plan.inputs, 0);
}

void Machine::StartSwitch(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  const v1::SwitchStep& spec = plan.step->switch_();
  Value condition;
  std::string error;
  if (ReadInput(*frame, plan.inputs[0], &condition, &error) != Read::kError) {
    for (const v1::SwitchStep::Case& one : spec.cases()) {
      absl::StatusOr<bool> equal = EqualsJson(condition, one.match().data());
      if (!equal.ok()) {
        error = std::string(Message(equal.status()));
        break;
      }
      if (!*equal) continue;
      OpenBranch(frame, step, one.body(), plan.inputs, 1);
      return;
    }
  }
  if (!error.empty()) {
    FailStep(frame, step,
             MakeFailure(kBadProjection, absl::StrCat("its condition cannot be read: ", error)));
  } else if (spec.has_default_body()) {
    OpenBranch(frame, step, spec.default_body(), plan.inputs, 1);
  } else {
    SkipStep(frame, step);
  }
}

void Machine::OpenBranch(Frame* frame, uint32_t step, uint32_t body,
                         const std::vector<InputPlan>& inputs, size_t from) {
  std::vector<Parameter> parameters;
  std::string error;
  if (!ReadParameters(*frame, inputs, from, &parameters, &error)) {
    FailStep(frame, step, MakeFailure(kBadProjection, error));
    return;
  }
  frame->steps[step].phase = Phase::kWaiting;
  OpenFrame(frame, step, body, 0, std::move(parameters));
}

void Machine::OpenCatch(Frame* frame, uint32_t step, uint32_t clause, const v1::Failure& failure) {
  const StepPlan& plan = Plan(*frame, step);
  StepState& state = frame->steps[step];
  DropChildren(frame, step);
  Disarm(frame, step);
  ClearExtra(s_, state);
  state.phase = Phase::kWaiting;
  StepExtra& extra = Extra(frame, step);
  extra.failure = std::make_unique<v1::Failure>(failure);
  Charge(s_, extra, failure.message().size());
  TellFailure("step.caught", *frame, step, failure, /*derived=*/true);

  std::vector<Parameter> parameters;
  parameters.push_back(
      {Parameter::State::kSet, Value::FromData(FailureJson(failure), v1::ENCODING_JSON)});
  std::string error;
  if (!ReadParameters(*frame, plan.catch_captures[clause], 0, &parameters, &error)) {
    FailStep(frame, step, MakeFailure(kBadProjection, absl::StrCat("in its catch clause, ", error)),
             /*park=*/false, /*past_catches=*/true);
    return;
  }
  OpenFrame(frame, step, plan.step->catches(static_cast<int>(clause)).body(), 0,
            std::move(parameters));
}

void Machine::BranchDone(Frame* body, Read read, Value output) {
  Frame* frame = body->parent;
  const uint32_t step = body->parent_step;
  DropFrame(body);
  if (read == Read::kSkipped) {
    SkipStep(frame, step);
  } else {
    CompleteStep(frame, step, std::move(output));
  }
}

void Machine::BindPending(Frame* frame, const std::vector<uint32_t>& lazy_dependants) {
  for (const uint32_t step : lazy_dependants) {
    const StepState& state = frame->steps[step];
    if (state.phase == Phase::kWaiting && state.extra != nullptr &&
        state.extra->first_child != nullptr) {
      BindBody(state.extra->first_child);
    }
    if (Gone(*frame)) return;
  }
}

void Machine::BindBody(Frame* body) {
  const Graph::ScopePlan& scope = s_.Scope(*body);
  Frame* frame = body->parent;
  const StepPlan& plan = Plan(*frame, body->parent_step);
  const std::vector<InputPlan>* inputs = &plan.inputs;
  // Which input or capture is the body's first parameter, and how many parameters come before it.
  size_t from = 0;
  size_t given = 0;
  switch (scope.role) {
    case Graph::Role::kBlock:
      break;
    case Graph::Role::kCase:
      from = 1;
      break;
    case Graph::Role::kCatch:
      inputs = &plan.catch_captures[scope.clause];
      given = 1;
      break;
    default:  // maps and loops wait for all their inputs
      return;
  }
  for (size_t p = given; p < body->parameters.size(); ++p) {
    Parameter& parameter = body->parameters[p];
    if (parameter.state != Parameter::State::kPending) continue;
    std::string error;
    if (!ReadParameter(*frame, (*inputs)[p - given + from], &parameter, &error)) {
      FailStep(frame, body->parent_step,
               MakeFailure(kBadProjection,
                           absl::StrCat("a value its body uses cannot be read: ", error)),
               /*park=*/false, /*past_catches=*/scope.role == Graph::Role::kCatch);
      return;
    }
    if (parameter.state != Parameter::State::kPending) {
      Push(Work::Kind::kParameter, body, static_cast<uint32_t>(p));
    }
  }
}

}  // namespace flux::engine::internal
