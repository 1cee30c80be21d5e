// Steps that take no time: join, fail, skip.
//
//   state          | input                             | then
//   ---------------+-----------------------------------+--------------------------------------
//   pending (join) | inputs settled                    | completed: the list of those not skipped
//   pending (join) | a required input, or all, skipped | skipped
//   pending (early)| `first` of its inputs completed,  | completed: the list of those completed;
//                  |   and all else that follows from  |   what only it would have read is
//                  |   the record is done              |   cancelled
//   pending (early)| all its inputs settled            | completed: the list of those completed
//   pending (early)| an input failed, as few as are    | that input is skipped
//                  |   tolerated                       |
//   pending (fail) | inputs settled                    | the failure it names
//   pending (fail) | a required input, or all, skipped | skipped
//   pending (skip) | inputs settled                    | skipped
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {

void Machine::RunJoin(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  std::vector<Value> items;
  items.reserve(plan.inputs.size());
  for (size_t i = 0; i < plan.inputs.size(); ++i) {
    const Read read = ReadSource(*frame, plan.inputs[i]);
    if (read == Read::kSkipped || (plan.early && read != Read::kSet)) continue;
    std::string error;
    if (ReadInput(*frame, plan.inputs[i], &items.emplace_back(), &error) == Read::kError) {
      FailStep(
          frame, step,
          MakeFailure(kBadProjection, absl::StrCat("its input ", i, " cannot be read: ", error)));
      return;
    }
  }
  absl::StatusOr<Value> list = Value::List(std::move(items));
  if (!list.ok()) {
    FailStep(frame, step, MakeFailure(kListDepthLimit, Message(list.status())));
    return;
  }
  CompleteStep(frame, step, *std::move(list));
  if (plan.early) CancelUnneeded(frame, plan.sources);
}

// Begun after all else that follows from the record, so that it takes all there is by then,
// whichever way it comes.
void Machine::RunEarlyJoin(Frame* frame, uint32_t step) {
  StepState& state = frame->steps[step];
  if (state.phase != Phase::kPending) return;
  if (state.waiting_for > 0) {
    // A rewind may have taken back what was enough.
    const uint32_t first = Plan(*frame, step).step->join().first();
    const JoinState* join = state.extra == nullptr ? nullptr : state.extra->join.get();
    if (first == 0 || join == nullptr || join->completed < first) return;
  }
  state.first_scheduled_ms = now();
  RunJoin(frame, step);
}

bool Machine::JoinIsDone(Frame* frame, uint32_t step, bool completed) {
  if (!completed) return false;
  StepExtra& extra = Extra(frame, step);
  if (extra.join == nullptr) extra.join = std::make_unique<JoinState>();
  ++extra.join->completed;
  const uint32_t first = Plan(*frame, step).step->join().first();
  return first != 0 && extra.join->completed >= first;
}

bool Machine::CountInputs(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  JoinState join;
  std::vector<bool> counted(frame->parameters.size(), false);
  for (const InputPlan& input : plan.inputs) {
    if (input.source == InputPlan::Source::kLiteral) {
      ++join.completed;
    } else if (input.source == InputPlan::Source::kParameter && !counted[input.index] &&
               frame->parameters[input.index].state == Parameter::State::kSet) {
      counted[input.index] = true;
      ++join.completed;
    }
  }
  for (const uint32_t source : plan.sources) {
    const StepState& state = frame->steps[source];
    if (state.phase == Phase::kCompleted) ++join.completed;
    if (state.phase == Phase::kSkipped && state.extra != nullptr &&
        state.extra->failure != nullptr) {
      ++join.failed;
    }
  }
  if (join.completed == 0 && join.failed == 0) return false;
  Extra(frame, step).join = std::make_unique<JoinState>(join);
  const uint32_t first = plan.step->join().first();
  return first != 0 && join.completed >= first;
}

bool Machine::TolerateInput(Frame* frame, uint32_t step, const v1::Failure& failure) {
  const StepPlan& plan = Plan(*frame, step);
  if (plan.dependants.size() != 1 || !plan.lazy_dependants.empty() || plan.in_result) return false;
  const uint32_t join = plan.dependants[0];
  const StepPlan& reader = Plan(*frame, join);
  if (!reader.early || frame->steps[join].phase != Phase::kPending) return false;
  StepExtra& extra = Extra(frame, join);
  if (extra.join == nullptr) extra.join = std::make_unique<JoinState>();
  if (extra.join->failed >= reader.step->join().tolerated_failures()) return false;
  ++extra.join->failed;
  AbandonStep(frame, step);
  SettleStep(frame, step);
  frame->steps[step].phase = Phase::kSkipped;
  // Tells it from one that was skipped otherwise.
  StepExtra& kept = Extra(frame, step);
  kept.failure = std::make_unique<v1::Failure>(failure);
  Charge(s_, kept, failure.message().size());
  TellFailure("step.tolerated", *frame, step, failure, /*derived=*/true);
  return true;
}

void Machine::RunFail(Frame* frame, uint32_t step) {
  v1::Failure failure = Plan(*frame, step).step->fail().failure();
  failure.set_non_retriable(true);
  if (failure.source().empty()) failure.set_source(Plan(*frame, step).step->name());
  FailStep(frame, step, std::move(failure));
}

}  // namespace flux::engine::internal
