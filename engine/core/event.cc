// Events from outside, and the wait_event step.
//
//   wait state | input                                  | then
//   -----------+----------------------------------------+---------------------------------------
//   pending    | inputs settled, its event was here     | completed with the event's payload
//   pending    | inputs settled, it was not             | waiting; a timer if it has a timeout
//   pending    | a required input skipped               | skipped
//   waiting    | its event is delivered                 | completed with the event's payload
//   waiting    | EVENT_TIMEOUT fired, a default         | completed with the default
//   waiting    | EVENT_TIMEOUT fired, no default        | flux.timeout.event
//   completed  | its event again, a reader of it parked | the readers run again with the new data
//   completed  | its event edited, no reader ran        | holds the new payload; as above
//   completed  | its event replayed                     | begins again, and all downstream of it
//   any other  | an event                               | nothing
//
//   event    | input                               | then
//   ---------+-------------------------------------+--------------------------------------------
//   (none)   | EventReceived, to be delivered now  | delivered: every step that waits takes it
//   (none)   | EventReceived, for later            | delayed: a timer
//   delayed  | EventReceived of the same id        | replaced
//   delayed  | EventCancelled                      | forgotten
//   delayed  | EVENT_DELIVERY fired                | delivered
//   delivered| a step begins to wait               | the step takes it
//   delivered| taken, and it is streamed           | forgotten
//   delivered| its loop's turn is done, which alone| forgotten
//            |   reads the name                    |
//   forgotten| its step is rewound or replayed     | delivered again
//
// A name without a reader in a loop keeps its first event for all its readers, however late they
// come; those after it are history only. In a loop each turn takes the earliest event that no turn
// before it took, so that there all are kept until then. A name that is read both in a loop and
// outside of it keeps all of its events; so does one while a fragment reads it.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"

namespace flux::engine::internal {

uint64_t EventMark(const ExecutionState& state, const Frame& frame, const std::string& name) {
  uint64_t mark = 0;
  for (const Frame* at = &frame; at->parent != nullptr; at = at->parent) {
    if (state.Scope(*at).role != Graph::Role::kLoopTurn) continue;
    const EventMarks& events = at->parent->steps[at->parent_step].extra->loop->events;
    if (const auto it = events.find(name); it != events.end()) mark = std::max(mark, it->second);
  }
  return mark;
}

std::vector<uint32_t> ReadersOf(const Graph::StepPlan& plan) {
  std::vector<uint32_t> readers = plan.dependants;
  readers.insert(readers.end(), plan.lazy_dependants.begin(), plan.lazy_dependants.end());
  return readers;
}

namespace {

// Are all events of that name kept? A fragment may lie in a loop, and have loops of its own.
bool ReadInLoop(const ExecutionState& state, const std::string& name) {
  const Graph::EventPlan* plan = state.graph->FindEvent(name);
  if (plan == nullptr || plan->in_loop) return true;
  return std::any_of(state.frames.begin(), state.frames.end(), [&](const auto& entry) {
    const Frame& frame = *entry.second;
    return frame.fragment != nullptr && frame.graph->FindEvent(name) != nullptr;
  });
}

bool Streamed(const ExecutionState& state, const Frame& frame, const std::string& name) {
  if (frame.fragment != nullptr) return false;
  const Graph::EventPlan* plan = state.graph->FindEvent(name);
  return plan != nullptr && plan->streamed;
}

}  // namespace

// ---- the step ----

void Machine::StartWait(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  const v1::WaitEventStep& wait = plan.step->wait_event();
  const uint64_t mark = EventMark(s_, *frame, wait.event());
  frame->steps[step].phase = Phase::kWaiting;
  frame->steps[step].delivery = 0;
  const auto event = s_.delivered.lower_bound({wait.event(), mark + 1});
  if (event != s_.delivered.end() && event->first == wait.event()) {
    ReadEvent(frame, step, event->second);
    return;
  }
  s_.readers.insert({wait.event(), {frame->number, step}});
  if (wait.timeout_ms() > 0) {
    ArmWake(frame, step, v1::TIMER_KIND_EVENT_TIMEOUT, now() + wait.timeout_ms());
  }
  if (v1::HistoryEvent* told = TellStep("event.awaited", *frame, step, /*derived=*/true)) {
    told->set_detail(wait.timeout_ms() > 0 ? absl::StrCat(wait.event(), ", until ",
                                                          FormatTime(now() + wait.timeout_ms()))
                                           : wait.event());
  }
}

void Machine::ReadEvent(Frame* frame, uint32_t step, uint64_t number) {
  const std::string& name = Plan(*frame, step).step->wait_event().event();
  s_.readers.erase({name, {frame->number, step}});
  EventState& event = s_.events.find(number)->second;
  Value payload = event.payload;
  ++event.readers;
  frame->steps[step].delivery = number;
  for (const Frame* at = frame; at->parent != nullptr; at = at->parent) {
    if (s_.Scope(*at).role != Graph::Role::kLoopTurn) continue;
    uint64_t& taken = at->parent->steps[at->parent_step].extra->loop->taken[name];
    taken = std::max(taken, number);
  }
  if (Streamed(s_, *frame, name)) {
    s_.bytes -= payload.memory_bytes();
    s_.delivered.erase({name, number});
    s_.events.erase(number);
  }
  CompleteStep(frame, step, std::move(payload));
}

void Machine::WaitTimedOut(Frame* frame, uint32_t step) {
  const v1::WaitEventStep& wait = Plan(*frame, step).step->wait_event();
  s_.readers.erase({wait.event(), {frame->number, step}});
  if (wait.has_default_value()) {
    CompleteStep(frame, step, Value::CopyOf(wait.default_value()));
    return;
  }
  FailStep(frame, step,
           MakeFailure(kEventTimeout, absl::StrCat("event ", wait.event(), " did not come within ",
                                                   FormatSpan(wait.timeout_ms()))));
}

// ---- events ----

void Machine::RememberId(const std::string& id) {
  if (id.empty() || !s_.known_ids.insert(id).second) return;
  s_.event_ids.push_back(id);
  s_.bytes += 2 * id.size();
  if (s_.event_ids.size() <= kEventIdsMax) return;
  s_.bytes -= 2 * s_.event_ids.front().size();
  s_.known_ids.erase(s_.event_ids.front());
  s_.event_ids.pop_front();
}

void Machine::Received(v1::EventReceived received) {
  if (v1::HistoryEvent* told = Tell("event.received", /*derived=*/false)) {
    told->set_detail(received.deliver_at_ms() > 0
                         ? absl::StrCat(received.event(), ", to be delivered at ",
                                        FormatTime(received.deliver_at_ms()))
                         : received.event());
    told->set_identity(received.identity());
    *told->mutable_payload() = received.payload();
  }
  if (const auto delayed = s_.delayed_ids.find(received.event_id());
      delayed != s_.delayed_ids.end()) {
    const auto old = s_.events.find(delayed->second);
    s_.timers.erase({old->second.deliver_at_ms, old->first, 0, v1::TIMER_KIND_EVENT_DELIVERY});
    s_.bytes -= old->second.payload.memory_bytes();
    s_.events.erase(old);
    s_.delayed_ids.erase(delayed);
  }
  const uint64_t number = s_.next_event++;
  EventState& event = s_.events[number];
  event.name = received.event();
  event.id = received.event_id();
  event.payload =
      Value::FromPayload(std::move(*received.mutable_payload()), received.payload_blob());
  event.time_ms = now();
  s_.bytes += event.payload.memory_bytes();
  if (received.deliver_at_ms() > 0) {
    event.deliver_at_ms = received.deliver_at_ms();
    s_.timers.insert({event.deliver_at_ms, number, 0, v1::TIMER_KIND_EVENT_DELIVERY});
    if (!event.id.empty()) s_.delayed_ids[event.id] = number;
    return;
  }
  Deliver(number);
}

void Machine::Deliver(uint64_t number) {
  auto node = s_.events.find(number);
  if (node->second.deliver_at_ms != 0) {
    // Its number says when it was delivered, not when it was accepted.
    EventState event = std::move(node->second);
    s_.events.erase(node);
    s_.delayed_ids.erase(event.id);
    event.deliver_at_ms = 0;
    number = s_.next_event++;
    node = s_.events.emplace(number, std::move(event)).first;
    if (v1::HistoryEvent* told = Tell("event.delivered", /*derived=*/false)) {
      told->set_detail(node->second.name);
    }
  }
  const std::string name = node->second.name;
  const Value payload = node->second.payload;
  RememberId(node->second.id);
  const auto earlier = s_.delivered.lower_bound({name, 0});
  const bool first = earlier == s_.delivered.end() || earlier->first != name;
  if (!first && !ReadInLoop(s_, name)) {
    // Those who read it took the first one. A reader that could not use that one tries again.
    s_.bytes -= payload.memory_bytes();
    s_.events.erase(node);
    bool reread = false;
    for (const auto& [frame_number, frame] : s_.frames) {
      const Graph::ScopePlan& scope = s_.Scope(*frame);
      for (uint32_t i = 0; i < frame->steps.size(); ++i) {
        if (scope.steps[i].kind == v1::Step::kWaitEvent &&
            scope.steps[i].step->wait_event().event() == name &&
            frame->steps[i].phase == Phase::kCompleted &&
            frame->steps[i].delivery == earlier->second && Reread(frame, i, payload)) {
          reread = true;
        }
      }
    }
    if (!reread) return;
    // Those who read it from now on see the same.
    EventState& kept = s_.events.find(earlier->second)->second;
    s_.bytes -= kept.payload.memory_bytes();
    kept.payload = payload;
    s_.bytes += payload.memory_bytes();
    return;
  }
  s_.delivered.insert({name, number});
  std::vector<StepKey> takers;
  for (auto it = s_.readers.lower_bound({name, StepKey{}});
       it != s_.readers.end() && it->first == name; ++it) {
    takers.push_back(it->second);
  }
  for (const StepKey& key : takers) {
    Frame* frame = s_.FindFrame(key.frame);
    if (frame == nullptr || Gone(*frame) || !s_.events.contains(number)) continue;
    if (EventMark(s_, *frame, name) >= number) continue;
    Disarm(frame, key.step);
    ReadEvent(frame, key.step, number);
  }
}

void Machine::GiveBack(const std::string& name, uint64_t number, const Value& payload) {
  if (s_.events.contains(number)) return;
  EventState& event = s_.events[number];
  event.name = name;
  event.payload = payload;
  event.time_ms = now();
  s_.bytes += payload.memory_bytes();
  s_.delivered.insert({name, number});
}

// Recursion goes as deep as frames nest.
void Machine::GiveBackAll(Frame* frame, uint32_t step) {
  const StepState& state = frame->steps[step];
  const StepPlan& plan = Plan(*frame, step);
  if (plan.kind == v1::Step::kWaitEvent && state.phase == Phase::kCompleted &&
      state.delivery != 0) {
    GiveBack(plan.step->wait_event().event(), state.delivery, state.output);
  }
  if (state.extra == nullptr) return;
  for (Frame* body = state.extra->first_child; body != nullptr; body = body->next) {
    for (uint32_t i = 0; i < body->steps.size(); ++i) GiveBackAll(body, i);
  }
}

void Machine::ForgetTaken(const std::string& name, uint64_t number, uint32_t turn_scope) {
  const Graph::EventPlan* plan = s_.graph->FindEvent(name);
  if (plan == nullptr || plan->turn_scope != turn_scope) return;
  auto it = s_.delivered.lower_bound({name, 0});
  while (it != s_.delivered.end() && it->first == name && it->second <= number) {
    const auto event = s_.events.find(it->second);
    s_.bytes -= event->second.payload.memory_bytes();
    s_.events.erase(event);
    it = s_.delivered.erase(it);
  }
}

bool Machine::Reread(Frame* frame, uint32_t step, const Value& payload) {
  const std::vector<uint32_t> readers = ReadersOf(Plan(*frame, step));
  const auto parked = [&](uint32_t reader) { return frame->steps[reader].phase == Phase::kParked; };
  if (std::none_of(readers.begin(), readers.end(), parked)) return false;
  ChangeOutput(frame, step, payload);
  for (const uint32_t reader : readers) {
    if (parked(reader)) TryAgain(frame, reader);
  }
  return true;
}

void Machine::ChangeOutput(Frame* frame, uint32_t step, const Value& payload) {
  StepState& state = frame->steps[step];
  s_.bytes -= state.output.memory_bytes();
  KeepOutput(state, payload);
  if (v1::HistoryEvent* told = TellStep("event.reread", *frame, step, /*derived=*/true)) {
    if (!payload.is_list()) *told->mutable_payload() = payload.ToPayload();
  }
}

void Machine::Cancelled(const v1::EventCancelled& cancelled) {
  const auto delayed = s_.delayed_ids.find(cancelled.event_id());
  if (delayed == s_.delayed_ids.end()) return;
  const auto event = s_.events.find(delayed->second);
  if (v1::HistoryEvent* told =
          TellOperator("event.cancelled", cancelled.identity(), cancelled.reason())) {
    told->set_detail(absl::StrCat(event->second.name, " (id ", cancelled.event_id(), ")",
                                  cancelled.reason().empty() ? "" : ": ", cancelled.reason()));
  }
  s_.timers.erase({event->second.deliver_at_ms, event->first, 0, v1::TIMER_KIND_EVENT_DELIVERY});
  s_.bytes -= event->second.payload.memory_bytes();
  s_.events.erase(event);
  s_.delayed_ids.erase(delayed);
}

void Machine::Edited(v1::EventEdited edited) {
  if (v1::HistoryEvent* told = TellOperator("event.edited", edited.identity(), edited.reason())) {
    told->set_detail(
        absl::StrCat(edited.event(), edited.reason().empty() ? "" : ": ", edited.reason()));
    *told->mutable_payload() = edited.payload();
  }
  const Value payload =
      Value::FromPayload(std::move(*edited.mutable_payload()), edited.payload_blob());
  if (const auto event = s_.events.find(edited.number()); event != s_.events.end()) {
    s_.bytes -= event->second.payload.memory_bytes();
    event->second.payload = payload;
    s_.bytes += payload.memory_bytes();
  }
  for (const auto& [number, frame] : s_.frames) {
    const Graph::ScopePlan& scope = s_.Scope(*frame);
    for (uint32_t i = 0; i < frame->steps.size(); ++i) {
      const StepState& state = frame->steps[i];
      if (scope.steps[i].kind != v1::Step::kWaitEvent ||
          scope.steps[i].step->wait_event().event() != edited.event() ||
          state.phase != Phase::kCompleted || state.delivery != edited.number()) {
        continue;
      }
      if (!Reread(frame, i, payload)) ChangeOutput(frame, i, payload);
    }
  }
}

void Machine::Replayed(v1::EventReplayed replayed) {
  if (v1::HistoryEvent* told =
          TellOperator("event.replayed", replayed.identity(), replayed.reason())) {
    told->set_detail(
        absl::StrCat(replayed.event(), replayed.reason().empty() ? "" : ": ", replayed.reason()));
    *told->mutable_payload() = replayed.payload();
  }
  Reopen();
  const Value payload =
      Value::FromPayload(std::move(*replayed.mutable_payload()), replayed.payload_blob());
  // Those that took it, and what they took: from now on it holds the new data.
  std::vector<std::pair<Frame*, std::vector<uint32_t>>> waits;
  for (const auto& [number, frame] : s_.frames) {
    const Graph::ScopePlan& scope = s_.Scope(*frame);
    std::vector<uint32_t> steps;
    for (uint32_t i = 0; i < frame->steps.size(); ++i) {
      const StepState& state = frame->steps[i];
      if (scope.steps[i].kind != v1::Step::kWaitEvent ||
          scope.steps[i].step->wait_event().event() != replayed.event() ||
          state.phase != Phase::kCompleted || state.delivery == 0) {
        continue;
      }
      steps.push_back(i);
      GiveBack(replayed.event(), state.delivery, payload);
      EventState& event = s_.events.find(state.delivery)->second;
      s_.bytes -= event.payload.memory_bytes();
      event.payload = payload;
      s_.bytes += payload.memory_bytes();
    }
    if (steps.empty()) continue;
    ++frame->queued;  // a reset further out may drop it
    waits.emplace_back(frame, std::move(steps));
  }
  for (auto& [frame, steps] : waits) {
    if (!frame->dropped) Reset(frame, steps);
    ReleaseQueued(frame);
  }
}

}  // namespace flux::engine::internal
