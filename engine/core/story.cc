// The story: history as people read it, derived along with the state when somebody asks for it.
#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"

namespace flux::engine::internal {

v1::HistoryEvent* Machine::Tell(const char* type, bool derived) {
  if (!telling()) return nullptr;
  v1::HistoryEvent& event = effects_->story->emplace_back();
  event.set_ordinal(s_.ordinal);
  event.set_time_ms(s_.last_time_ms);
  event.set_type(type);
  event.set_derived(derived);
  if (s_.ordinal == 1 && !derived) event.set_identity(s_.started->identity());
  return &event;
}

v1::HistoryEvent* Machine::TellStep(const char* type, const Frame& frame, uint32_t step,
                                    bool derived) {
  v1::HistoryEvent* event = Tell(type, derived);
  if (event == nullptr) return nullptr;
  event->set_step(StepPath(s_, frame, step));
  if (Plan(frame, step).kind == v1::Step::kTask) {
    event->set_attempt(frame.steps[step].attempt);
    event->set_delivery(frame.steps[step].delivery);
  }
  return event;
}

void Machine::TellFailure(const char* type, const Frame& frame, uint32_t step,
                          const v1::Failure& failure, bool derived) {
  v1::HistoryEvent* event = TellStep(type, frame, step, derived);
  if (event != nullptr) *event->mutable_failure() = failure;
}

}  // namespace flux::engine::internal
