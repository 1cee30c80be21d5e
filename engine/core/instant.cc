// Steps that take no time: join, fail, skip.
//
//   state          | input                             | then
//   ---------------+-----------------------------------+--------------------------------------
//   pending (join) | inputs settled                    | completed: the list of those not skipped
//   pending (join) | a required input, or all, skipped | skipped
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
    if (ReadSource(*frame, plan.inputs[i]) == Read::kSkipped) continue;
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
}

void Machine::RunFail(Frame* frame, uint32_t step) {
  v1::Failure failure = Plan(*frame, step).step->fail().failure();
  failure.set_non_retriable(true);
  if (failure.source().empty()) failure.set_source(Plan(*frame, step).step->name());
  FailStep(frame, step, std::move(failure));
}

}  // namespace flux::engine::internal
