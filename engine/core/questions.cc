// What may be asked of an execution's state without changing it.
#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/core.h"
#include "engine/core/dropped.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

using internal::ExecutionState;
using internal::Frame;
using internal::Phase;
using internal::StepState;

// A tree node's share of a timer, and the execution's own fields.
constexpr size_t kTimerBytes = 40;
constexpr size_t kExecutionBytes = 1024;

// FNV-1a over words, then bytes (Fowler, Noll, Vo).
class Hasher {
 public:
  void Add(std::string_view bytes) {
    AddWord(bytes.size());
    while (bytes.size() >= 8) {
      uint64_t word = 0;
      for (int i = 0; i < 8; ++i) {
        word |= uint64_t{static_cast<uint8_t>(bytes[static_cast<size_t>(i)])} << (8 * i);
      }
      AddWord(word);
      bytes.remove_prefix(8);
    }
    for (const char c : bytes) AddWord(static_cast<uint8_t>(c));
  }
  void AddWord(uint64_t word) {
    hash_ = (hash_ ^ word) * 0x100000001b3;
    hash_ ^= hash_ >> 29;
  }
  uint64_t hash() const { return hash_ == 0 ? 1 : hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace

std::vector<StepKey> ReadyTasks(const Execution& execution) {
  const ExecutionState& s = execution.state();
  std::vector<StepKey> ready;
  if (s.closed()) return ready;
  for (const auto& [number, frame] : s.frames) {
    if (s.Dead(*frame)) continue;
    for (uint32_t i = 0; i < frame->steps.size(); ++i) {
      if (frame->steps[i].phase == Phase::kScheduled) ready.push_back({number, i});
    }
  }
  return ready;
}

std::optional<int64_t> NextTimerMs(const Execution& execution) {
  const ExecutionState& s = execution.state();
  if (s.closed() || s.timers.empty()) return std::nullopt;
  return s.timers.begin()->due_ms;
}

TaskOffer Offer(const Execution& execution, const StepKey& key) {
  const ExecutionState& s = execution.state();
  const Frame& frame = *s.FindFrame(key.frame);
  const StepState& step = frame.steps[key.step];
  const Graph::StepPlan& plan = s.Plan(frame, key.step);
  TaskOffer offer;
  offer.key = key;
  offer.delivery = step.delivery;
  offer.attempt = step.attempt;
  offer.scheduled_ms = step.scheduled_ms;
  offer.task = &plan.task;
  offer.step_name = &plan.step->name();
  return offer;
}

bool IsCurrent(const Execution& execution, const StepKey& key, uint64_t delivery) {
  const ExecutionState& s = execution.state();
  if (s.closed()) return false;
  const StepState* step = s.FindStep(key);
  return step != nullptr && step->phase == Phase::kScheduled && step->delivery == delivery &&
         !s.Dead(*s.FindFrame(key.frame));
}

void Prefetch(const Execution& execution, const StepKey& key, int level) {
  const ExecutionState& s = execution.state();
  if (level == 0) {
    for (const void* part :
         {static_cast<const void*>(&s.graph), static_cast<const void*>(&s.status),
          static_cast<const void*>(&s.root), static_cast<const void*>(&s.paused),
          static_cast<const void*>(&s.bytes)}) {
      __builtin_prefetch(part);
    }
    return;
  }
  // Other frames lie behind a search that would cost as much as it saves.
  if (key.frame != 0 || s.root == nullptr) return;
  if (level == 1) {
    __builtin_prefetch(s.root);
    __builtin_prefetch(&s.root->steps);
  } else if (key.step < s.root->steps.size()) {
    const StepState* step = &s.root->steps[key.step];
    __builtin_prefetch(step);
    __builtin_prefetch(step + 1);
  }
}

size_t CountLabels(const Execution& execution,
                   const google::protobuf::Map<std::string, std::string>& changed) {
  const std::map<std::string, std::string>& labels = execution.state().labels;
  size_t count = labels.size();
  for (const auto& [name, value] : changed) {
    const bool known = labels.contains(name);
    if (known && value.empty()) --count;
    if (!known && !value.empty()) ++count;
  }
  return count;
}

bool IsPaused(const Execution& execution) { return execution.state().paused; }

bool IsCurrent(const Execution& execution, const v1::TaskToken& token) {
  const StepKey key{token.frame(), token.step()};
  return IsCurrent(execution, key, token.delivery()) &&
         execution.state().FindStep(key)->generation == token.generation();
}

std::string WhyDropped(const Execution& execution, const v1::TaskToken& token, Verdict verdict) {
  const ExecutionState& s = execution.state();
  const StepKey key{token.frame(), token.step()};
  const StepState* step = s.FindStep(key);
  const std::string name =
      absl::StrCat("execution ", s.started->workflow_id(), " (run ", s.run.Text(), "), which is ",
                   internal::StatusName(s.status));
  if (step == nullptr) {
    return absl::StrCat("stale: no step ", key.step, " of frame ", key.frame, " is left in ", name,
                        "; drop the result");
  }
  const std::string of =
      absl::StrCat("delivery ", token.delivery(), " of step \"",
                   internal::StepPath(s, *s.FindFrame(key.frame), key.step), "\" of ", name);
  if (verdict == Verdict::kDuplicate) {
    return absl::StrCat("duplicate: the result of ", of, ", is recorded already; drop this one");
  }
  std::string current = step->delivery == 0
                            ? "it was never handed out"
                            : absl::StrCat("the current one is delivery ", step->delivery);
  if (step->generation != token.generation()) {
    absl::StrAppend(&current, " (generation ", step->generation, ", not ", token.generation(), ")");
  }
  return absl::StrCat("stale: ", of, ", is wanted no more: ", current, " and the step is ",
                      ToAbsl(PhaseName(step->phase)), "; drop the result");
}

absl::Status FillTask(const Execution& execution, const StepKey& key, size_t bytes_max,
                      v1::Task* task) {
  const ExecutionState& s = execution.state();
  const Frame& frame = *s.FindFrame(key.frame);
  const StepState& step = frame.steps[key.step];
  const Graph::StepPlan& plan = s.Plan(frame, key.step);
  v1::TaskToken* token = task->mutable_token();
  token->set_frame(key.frame);
  token->set_step(key.step);
  token->set_generation(step.generation);
  token->set_delivery(step.delivery);
  size_t bytes = 0;
  for (const Graph::InputPlan& input : plan.inputs) {
    bytes += SourceValue(frame, input).limit_bytes();
  }
  if (bytes > bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the inputs of step ", internal::StepPath(s, frame, key.step), " have ", bytes,
                     " bytes together, the limit is ", bytes_max,
                     ": pass references to large data, or raise the server's payload limit"));
  }
  for (const Graph::InputPlan& input : plan.inputs) {
    v1::TaskInput* to = task->add_inputs();
    // A skipped source holds nothing, which is what an optional input of it sees.
    SourceValue(frame, input).AppendTo(to->mutable_payload());
    if (!input.input->pointer().empty() && to->payload().encoding() != v1::ENCODING_NONE) {
      to->set_pointer(input.input->pointer());
    }
  }
  task->set_name(plan.task.task());
  task->set_attempt(step.attempt);
  task->set_start_to_close_ms(plan.task.timeouts().start_to_close_ms());
  task->set_heartbeat_ms(plan.task.timeouts().heartbeat_ms());
  if (step.extra != nullptr && step.extra->progress != nullptr) {
    *task->mutable_progress() = *step.extra->progress;
  }
  task->set_workflow_id(s.started->workflow_id());
  task->set_step(internal::StepPath(s, frame, key.step));
  task->set_workflow(s.started->workflow());
  task->set_namespace_(s.started->namespace_());
  return absl::OkStatus();
}

uint64_t RequestHash(const v1::ExecutionStarted& started) {
  Hasher hasher;
  hasher.Add(started.definition_hash());
  hasher.AddWord(static_cast<uint64_t>(started.inputs_size()));
  for (const v1::Payload& input : started.inputs()) {
    hasher.AddWord(static_cast<uint64_t>(input.encoding()));
    hasher.Add(input.content_type());
    hasher.Add(input.data());
  }
  return hasher.hash();
}

uint32_t ParkedSteps(const Execution& execution) {
  const ExecutionState& s = execution.state();
  return s.status == v1::EXECUTION_STATUS_RUNNING ? s.parked : 0;
}

v1::ExecutionSummary Summarize(const Execution& execution) {
  const ExecutionState& s = execution.state();
  v1::ExecutionSummary summary;
  summary.set_namespace_(s.started->namespace_());
  summary.set_workflow_id(s.started->workflow_id());
  summary.set_run_id(s.started->run_id());
  summary.set_workflow(s.started->workflow());
  summary.set_version(s.graph->definition().version());
  summary.set_definition_hash(s.graph->hash());
  summary.set_status(s.ShownStatus());
  summary.set_start_time_ms(s.start_time_ms);
  summary.set_close_time_ms(s.close_time_ms);
  summary.set_request_id(s.started->request_id());
  for (const auto& [key, value] : s.labels) (*summary.mutable_labels())[key] = value;
  summary.set_history_records(s.ordinal);
  summary.set_steps_completed(s.steps_completed);
  if (s.failure != nullptr) summary.set_failure_type(s.failure->type());
  summary.set_request_hash(s.request_hash);
  summary.set_parked_steps(ParkedSteps(execution));
  return summary;
}

void FillResult(const Execution& execution, v1::GetResultResponse* response) {
  const ExecutionState& s = execution.state();
  response->set_status(s.ShownStatus());
  response->set_run_id(s.run.Text());
  if (s.status == v1::EXECUTION_STATUS_COMPLETED) s.result.AppendTo(response->mutable_result());
  if (s.closed() && s.failure != nullptr) *response->mutable_failure() = *s.failure;
}

std::string MakeEventId(const Execution& execution) {
  const ExecutionState& s = execution.state();
  for (uint64_t number = s.next_event;; ++number) {
    std::string id = absl::StrCat("flux:delayed:", number);
    // Whoever sends events may call one so.
    if (!s.known_ids.contains(id) && !s.delayed_ids.contains(id)) return id;
  }
}

size_t ResultBytes(const Execution& execution) { return execution.state().result.limit_bytes(); }

bool IsDelayed(const Execution& execution, const std::string& event_id) {
  return execution.state().delayed_ids.contains(event_id);
}

void FillEvents(const Execution& execution, bool payloads, v1::ListEventsResponse* response) {
  for (const auto& [number, event] : execution.state().events) {
    v1::EventInfo* info = response->add_events();
    info->set_number(number);
    info->set_event(event.name);
    info->set_event_id(event.id);
    info->set_time_ms(event.time_ms);
    info->set_deliver_time_ms(event.deliver_at_ms);
    info->set_delivered(event.deliver_at_ms == 0);
    info->set_readers(event.readers);
    if (payloads) event.payload.AppendTo(info->mutable_payload());
  }
}

size_t EventBytes(const Execution& execution) {
  size_t bytes = 0;
  for (const auto& [number, event] : execution.state().events) bytes += event.payload.limit_bytes();
  return bytes;
}

namespace {

// "codes[17].parse" from `rest` on, in `frame`. Null: it leads nowhere.
const Frame* FindPath(const ExecutionState& s, const Frame& frame, std::string_view rest,
                      uint32_t* step) {
  for (uint32_t i = 0; i < frame.steps.size(); ++i) {
    const std::string& name = s.Plan(frame, i).step->name();
    if (rest.substr(0, name.size()) != name) continue;
    std::string_view tail = rest.substr(name.size());
    if (tail.empty()) {
      *step = i;
      return &frame;
    }
    if ((tail[0] != '.' && tail[0] != '[') || frame.steps[i].extra == nullptr) continue;
    for (const Frame* body = frame.steps[i].extra->first_child; body != nullptr;
         body = body->next) {
      // A body's own place, without what leads to its step.
      const std::string whole = internal::FramePath(s, *body);
      const std::string outer = internal::StepPath(s, frame, i);
      const std::string_view own = std::string_view(whole).substr(outer.size());
      if (tail.substr(0, own.size()) != own || tail.size() <= own.size() ||
          tail[own.size()] != '.') {
        continue;
      }
      if (const Frame* found = FindPath(s, *body, tail.substr(own.size() + 1), step)) return found;
    }
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<StepKey> FindStep(const Execution& execution, std::string_view path) {
  const ExecutionState& s = execution.state();
  uint32_t step = 0;
  if (const Frame* frame = FindPath(s, *s.root, path, &step)) return StepKey{frame->number, step};
  return absl::NotFoundError(absl::StrCat(
      "execution ", s.started->workflow_id(), " has no step \"", ToAbsl(path),
      "\" now: `workflow show` lists the steps; those of a body are there while it is open"));
}

size_t MemoryBytes(const Execution& execution) {
  const ExecutionState& s = execution.state();
  return kExecutionBytes + s.bytes + s.timers.size() * kTimerBytes;
}

uint64_t LiveEntries(const Execution& execution) { return execution.state().live_entries; }

Repetition RepetitionOf(const Execution& execution) {
  Repetition repetition;
  for (const auto& [number, frame] : execution.state().frames) {
    repetition.any = repetition.any || frame->fragment != nullptr;
    for (const StepState& step : frame->steps) {
      if (step.extra == nullptr || step.extra->loop == nullptr || IsSettled(step.phase)) continue;
      repetition.any = true;
      repetition.turn = std::max(repetition.turn, step.extra->loop->turn);
    }
  }
  return repetition;
}

}  // namespace flux::engine
