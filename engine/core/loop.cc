// A loop step: its body turn after turn, each given the state that the one before made.
//
//   state   | input                            | then
//   --------+----------------------------------+-------------------------------------------------
//   pending | inputs settled                   | waiting: turn 0 opens with the first state
//   pending | a required input skipped         | skipped
//   waiting | turn done, `done` is JSON true   | completed: the state it made
//   waiting | turn done, it was turn `turns`-1 | completed: the state it made
//   waiting | turn done, otherwise             | its frame is dropped, the next turn opens
//   waiting | turn done, state or done skipped | skipped
//   waiting | turn done, done is not JSON      | flux.bad_projection
//   waiting | a step of the turn failed        | as a failure of the step
//   waiting | too many frames in one record    | yields: a timer due at once opens the next turn
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {

void Machine::StartLoop(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  auto loop = std::make_unique<LoopState>();
  std::string error;
  if (ReadInput(*frame, plan.inputs[0], &loop->state, &error) == Read::kError) {
    error = absl::StrCat("its first state cannot be read: ", error);
  } else {
    ReadParameters(*frame, plan.inputs, 1, &loop->captures, &error);
  }
  if (!error.empty()) {
    FailStep(frame, step, MakeFailure(kBadProjection, error));
    return;
  }
  frame->steps[step].phase = Phase::kWaiting;
  StepExtra& extra = Extra(frame, step);
  Charge(s_, extra, sizeof(LoopState));
  extra.loop = std::move(loop);
  TellStep("loop.opened", *frame, step, /*derived=*/true);
  OpenTurn(frame, step);
}

void Machine::OpenTurn(Frame* frame, uint32_t step) {
  if (MustYield()) {
    Yield(frame, step);
    return;
  }
  LoopState& loop = *frame->steps[step].extra->loop;
  std::vector<Parameter> parameters;
  parameters.reserve(loop.captures.size() + 1);
  // The turn holds its state alone: what it was given is freed with it.
  parameters.push_back({Parameter::State::kSet, std::move(loop.state)});
  parameters.insert(parameters.end(), loop.captures.begin(), loop.captures.end());
  OpenFrame(frame, step, Plan(*frame, step).step->loop().body(), loop.turn, std::move(parameters));
}

void Machine::TurnDone(Frame* turn, Read read, Value next) {
  Frame* frame = turn->parent;
  const uint32_t step = turn->parent_step;
  const Graph::ScopePlan& scope = s_.Scope(*turn);
  bool done = false;
  if (scope.done.has_value() && read != Read::kSkipped) {
    Value condition;
    std::string error;
    const Read seen = ReadInput(*turn, *scope.done, &condition, &error);
    if (seen == Read::kSkipped) {
      read = Read::kSkipped;
    } else if (seen != Read::kError) {
      absl::StatusOr<bool> is_true = IsJsonTrue(condition);
      if (is_true.ok()) {
        done = *is_true;
      } else {
        error = std::string(Message(is_true.status()));
      }
    }
    if (!error.empty()) {
      FailStep(frame, step,
               MakeFailure(kBadProjection, absl::StrCat("its condition after turn ", turn->item,
                                                        " cannot be read: ", error)));
      return;
    }
  }
  if (telling()) Tell("turn.completed", /*derived=*/true)->set_step(FramePath(s_, *turn));
  DropFrame(turn);
  LoopState& loop = *frame->steps[step].extra->loop;
  ++loop.turn;
  for (auto& [name, number] : loop.taken) {
    uint64_t& mark = loop.events[name];
    mark = std::max(mark, number);
    if (turn->fragment == nullptr) ForgetTaken(name, mark, turn->scope);
  }
  loop.taken.clear();
  if (read == Read::kSkipped) {
    SkipStep(frame, step);
  } else if (done || loop.turn == Plan(*frame, step).step->loop().turns()) {
    CompleteStep(frame, step, std::move(next));
  } else {
    loop.state = std::move(next);
    OpenTurn(frame, step);
  }
}

}  // namespace flux::engine::internal
