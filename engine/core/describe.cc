// The tree of steps as people look at it: state, and one sentence on why each unfinished step
// waits.
#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/core.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "engine/core/payload_limit.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

using internal::ExecutionState;
using internal::FormatTime;
using internal::Frame;
using internal::ItemStatus;
using internal::MapState;
using internal::Parameter;
using internal::Phase;
using internal::StepState;

inline constexpr uint32_t kItemsShownDefault = 10;
// Names of a sentence, and bytes of a failure's message in one.
inline constexpr size_t kNamesShownMax = 3;
inline constexpr size_t kMessageShownMax = 200;
inline constexpr size_t kCaseShownMax = 80;
// Whoever reads the answer refuses messages that nest a hundred deep; a frame is two.
inline constexpr uint32_t kFrameDepthShownMax = 40;

std::string Brief(const v1::Failure& failure) {
  if (failure.message().empty()) return failure.type();
  return absl::StrCat(failure.type(), ": ", Excerpt(failure.message(), kMessageShownMax));
}

class Describer {
 public:
  // `payloads`: null: without any.
  Describer(const ExecutionState& state, const LiveLookup& live, uint32_t items_max,
            PayloadBudget* payloads)
      : s_(state),
        live_(live),
        items_max_(items_max == 0 ? kItemsShownDefault : items_max),
        payloads_(payloads) {
    // The frames that lie on the way to the step the execution failed at.
    if (!s_.has_failed_step) return;
    for (const Frame* at = s_.FindFrame(s_.failed_step.frame); at != nullptr; at = at->parent) {
      failed_frames_.push_back(at->number);
    }
  }

  void Info(v1::ExecutionInfo* info) const {
    info->set_namespace_(s_.started->namespace_());
    info->set_workflow_id(s_.started->workflow_id());
    info->set_run_id(s_.run.Text());
    info->set_workflow(s_.started->workflow());
    info->set_version(s_.graph->definition().version());
    info->set_definition_hash(s_.graph->hash());
    info->set_status(s_.ShownStatus());
    info->set_start_time_ms(s_.start_time_ms);
    info->set_close_time_ms(s_.close_time_ms);
    for (const auto& [key, value] : s_.labels) (*info->mutable_labels())[key] = value;
    info->set_history_records(s_.ordinal);
    info->set_steps_completed(s_.steps_completed);
    info->set_parked_steps(s_.status == v1::EXECUTION_STATUS_RUNNING ? s_.parked : 0);
    if (s_.failure != nullptr) info->set_failure_type(s_.failure->type());
  }

  // What is being undone, behind the steps of the root scope.
  template <typename Steps>
  void AddUndo(Steps* out) const {
    for (const auto& [number, frame] : s_.frames) {
      if (s_.Scope(*frame).role != Graph::Role::kUndo) continue;
      v1::StepInfo* info = out->Add();
      Step(*frame, 0, /*frames=*/false, info);
      info->set_name(internal::StepPath(s_, *frame, 0));
      info->set_kind("undo");
    }
  }

  // Recursion goes as deep as frames nest.
  template <typename Steps>
  void AddSteps(const Frame& frame, bool frames, Steps* out) const {
    for (uint32_t i = 0; i < frame.steps.size(); ++i) Step(frame, i, frames, out->Add());
  }

 private:
  bool Takes(size_t bytes) const { return payloads_ != nullptr && payloads_->Take(bytes); }

  // Lists are made into a payload here, whatever their size: it is looked at before.
  void Output(const Value& output, v1::StepInfo* info) const {
    if (Takes(output.limit_bytes())) {
      output.AppendTo(info->mutable_output());
    } else {
      info->set_reason(absl::StrCat("its output of ", output.limit_bytes(),
                                    " bytes is left out: the history has it, or its parts"));
    }
  }

  void Step(const Frame& frame, uint32_t index, bool frames, v1::StepInfo* info) const {
    const StepState& step = frame.steps[index];
    const Graph::StepPlan& plan = s_.Plan(frame, index);
    info->set_name(plan.step->name());
    info->set_kind(std::string(internal::KindName(plan.kind)));
    info->set_frame(frame.number);
    info->set_step(index);
    info->set_generation(step.generation);
    info->set_scheduled_time_ms(step.first_scheduled_ms);
    const bool dead = s_.Dead(frame);
    // What was under way ended with the execution.
    const bool cut_short = dead && step.ended_ms == 0 && step.first_scheduled_ms != 0;
    info->set_end_time_ms(cut_short ? s_.close_time_ms : step.ended_ms);
    info->set_state(State(step, dead));
    if (plan.kind == v1::Step::kTask) {
      info->set_task(plan.task.task());
      info->set_queue(plan.task.queue());
      info->set_attempt(step.attempt);
      info->set_max_attempts(plan.task.retry().max_attempts());
      info->set_delivery(step.delivery);
    }
    *info->mutable_labels() = plan.step->labels();
    if (step.labels != nullptr) {
      for (const auto& [key, value] : *step.labels) (*info->mutable_labels())[key] = value;
    }
    if (payloads_ != nullptr && step.phase == Phase::kCompleted) Output(step.output, info);
    if (step.extra != nullptr) {
      if (step.extra->failure != nullptr) *info->mutable_failure() = *step.extra->failure;
      if (step.extra->progress != nullptr && Takes(PayloadBytes(*step.extra->progress))) {
        *info->mutable_progress() = *step.extra->progress;
      }
      if (!step.extra->yielding) info->set_next_time_ms(step.extra->wake_ms);
    }
    Items(step, plan, info);
    if (dead) {
      if (info->state() == v1::STEP_STATE_CANCELLED) info->set_reason(ClosedReason());
    } else {
      Reason(frame, index, info);
    }
    if (frames) Frames(frame, index, info);
  }

  v1::StepState State(const StepState& step, bool dead) const {
    switch (step.phase) {
      case Phase::kCompleted:
        return v1::STEP_STATE_COMPLETED;
      case Phase::kFailed:
        return v1::STEP_STATE_FAILED;
      case Phase::kSkipped:
        return v1::STEP_STATE_SKIPPED;
      case Phase::kCancelled:
        return v1::STEP_STATE_CANCELLED;
      default:
        break;
    }
    if (dead) return v1::STEP_STATE_CANCELLED;
    switch (step.phase) {
      case Phase::kScheduled:
        return v1::STEP_STATE_SCHEDULED;
      case Phase::kBackingOff:
        return v1::STEP_STATE_BACKING_OFF;
      case Phase::kWaiting:
        return v1::STEP_STATE_WAITING;
      case Phase::kParked:
        return v1::STEP_STATE_PARKED;
      default:
        return v1::STEP_STATE_PENDING;
    }
  }

  std::string ClosedReason() const {
    const std::string status = internal::StatusName(s_.status);
    if (s_.status == v1::EXECUTION_STATUS_FAILED && s_.has_failed_step) {
      const Frame* frame = s_.FindFrame(s_.failed_step.frame);
      if (frame != nullptr) {
        return absl::StrCat("the execution failed at step ",
                            internal::StepPath(s_, *frame, s_.failed_step.step));
      }
    }
    return absl::StrCat("the execution is ", status);
  }

  void Reason(const Frame& frame, uint32_t index, v1::StepInfo* info) const {
    const StepState& step = frame.steps[index];
    const Graph::StepPlan& plan = s_.Plan(frame, index);
    const v1::Failure* failure = step.extra != nullptr ? step.extra->failure.get() : nullptr;
    switch (step.phase) {
      case Phase::kPending:
        info->set_reason(PendingReason(frame, index));
        return;
      case Phase::kScheduled: {
        LiveTask task = live_ ? live_({frame.number, index}, step.delivery) : LiveTask{};
        if (s_.paused && !task.running) {
          info->set_reason("the execution is paused");
        } else if (task.running) {
          info->set_state(v1::STEP_STATE_RUNNING);
          info->set_reason(absl::StrCat("runs on worker ", task.worker));
          info->set_worker(task.worker);
          if (task.progress.encoding() != v1::ENCODING_UNSPECIFIED &&
              Takes(PayloadBytes(task.progress))) {
            *info->mutable_progress() = std::move(task.progress);
          }
        } else if (!task.reason.empty()) {
          info->set_reason(task.reason);
        } else {
          info->set_reason(absl::StrCat("waits for a worker with task ", plan.task.task(),
                                        " on queue ", plan.task.queue()));
        }
        return;
      }
      case Phase::kBackingOff:
        info->set_reason(absl::StrCat("backs off until ", FormatTime(step.extra->wake_ms),
                                      " after attempt ", step.attempt, " of ",
                                      plan.task.retry().max_attempts(), ": ", Brief(*failure)));
        return;
      case Phase::kParked:
        info->set_reason(
            absl::StrCat("parked after ", step.attempt,
                         step.attempt == 1 ? " attempt: " : " attempts: ", Brief(*failure)));
        return;
      case Phase::kWaiting:
        info->set_reason(WaitingReason(frame, index));
        return;
      case Phase::kCompleted:
      case Phase::kFailed:
      case Phase::kSkipped:
        return;
      case Phase::kCancelled:
        info->set_reason("nothing needs its result any more");
        return;
    }
  }

  std::string WaitingReason(const Frame& frame, uint32_t index) const {
    const StepState& step = frame.steps[index];
    const Graph::StepPlan& plan = s_.Plan(frame, index);
    const Frame* body = step.extra != nullptr ? step.extra->first_child : nullptr;
    if (body != nullptr) {
      const Graph::ScopePlan& scope = s_.Scope(*body);
      if (scope.role == Graph::Role::kFragment) {
        return absl::StrCat("goes on as ", body->graph->name());
      }
      if (scope.role == Graph::Role::kCatch && step.extra->failure != nullptr) {
        return absl::StrCat("its catch clause handles ", Brief(*step.extra->failure));
      }
      if (scope.role == Graph::Role::kCase) return absl::StrCat(Label(*body), " runs");
    }
    switch (plan.kind) {
      case v1::Step::kSleep:
        return absl::StrCat("sleeps until ", FormatTime(step.extra->wake_ms));
      case v1::Step::kMap: {
        const MapState& map = *step.extra->map;
        return absl::StrCat(map.done, " of ", map.items, map.last_page ? "" : " or more",
                            " items done, ", map.in_flight, " in flight",
                            map.failed == 0 ? "" : absl::StrCat(", ", map.failed, " failed"));
      }
      case v1::Step::kWaitEvent:
        return absl::StrCat("waits for event ", plan.step->wait_event().event(),
                            step.extra != nullptr && step.extra->wake_ms != 0
                                ? absl::StrCat(" until ", FormatTime(step.extra->wake_ms))
                                : "");
      case v1::Step::kEmit:
        return absl::StrCat("sends event ", plan.step->emit().event());
      case v1::Step::kChild:
        if (step.extra == nullptr || step.extra->child == nullptr) {
          return absl::StrCat("starts workflow ", plan.step->child().workflow());
        }
        if (step.extra->child->run_id.empty()) {
          return absl::StrCat("starts child ", step.extra->child->workflow_id);
        }
        return absl::StrCat("waits for child ", step.extra->child->workflow_id, " (run ",
                            RunId::FromBytes(step.extra->child->run_id).value_or(RunId()).Text(),
                            ")");
      case v1::Step::kLoop:
        return absl::StrCat("turn ", step.extra->loop->turn, " runs");
      default:
        return "its body runs";
    }
  }

  std::string PendingReason(const Frame& frame, uint32_t index) const {
    std::vector<std::string> names;
    const Graph::StepPlan& plan = s_.Plan(frame, index);
    const size_t count = plan.kind == v1::Step::kBlock    ? 0
                         : plan.kind == v1::Step::kSwitch ? 1
                                                          : plan.inputs.size();
    for (size_t i = 0; i < count; ++i) AddUnsettled(frame, plan.inputs[i], &names);
    for (const uint32_t after : plan.step->after()) {
      if (!internal::IsSettled(frame.steps[after].phase)) {
        names.push_back(internal::StepPath(s_, frame, after));
      }
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    if (names.empty()) return "is about to begin";
    return absl::StrCat(names.size() == 1 ? "waits for step " : "waits for steps ",
                        ListSome(names, kNamesShownMax));
  }

  // The step that an input waits for: its own scope's, or where an outer capture comes from.
  void AddUnsettled(const Frame& frame, const Graph::InputPlan& input,
                    std::vector<std::string>* names) const {
    if (input.source == Graph::InputPlan::Source::kStep) {
      if (!internal::IsSettled(frame.steps[input.index].phase)) {
        names->push_back(internal::StepPath(s_, frame, input.index));
      }
      return;
    }
    if (input.source != Graph::InputPlan::Source::kParameter ||
        frame.parameters[input.index].state != Parameter::State::kPending ||
        frame.parent == nullptr) {
      return;
    }
    const Graph::ScopePlan& scope = s_.Scope(frame);
    const Graph::StepPlan& owner = s_.Plan(*frame.parent, frame.parent_step);
    if (scope.role == Graph::Role::kCatch) {
      AddUnsettled(*frame.parent, owner.catch_captures[scope.clause][input.index - 1], names);
    } else {
      const uint32_t from = scope.role == Graph::Role::kCase ? 1 : 0;
      AddUnsettled(*frame.parent, owner.inputs[input.index + from], names);
    }
  }

  void Items(const StepState& step, const Graph::StepPlan& plan, v1::StepInfo* info) const {
    if (plan.kind != v1::Step::kMap) return;
    if (step.extra != nullptr && step.extra->map != nullptr) {
      info->set_items(step.extra->map->items);
      info->set_items_done(step.extra->map->done);
      info->set_items_failed(step.extra->map->failed + (step.phase == Phase::kFailed ? 1 : 0));
    } else if (step.phase == Phase::kCompleted && step.output.is_list()) {
      info->set_items(step.output.items());
      info->set_items_done(step.output.items());
    }
  }

  std::string Label(const Frame& frame) const {
    const Graph::ScopePlan& scope = s_.Scope(frame);
    switch (scope.role) {
      case Graph::Role::kMapItem:
        return absl::StrCat("item ", frame.item);
      case Graph::Role::kLoopTurn:
        return absl::StrCat("turn ", frame.item);
      case Graph::Role::kCatch:
        return "catch";
      case Graph::Role::kCase: {
        const v1::SwitchStep& spec = s_.Plan(*frame.parent, frame.parent_step).step->switch_();
        if (scope.clause >= static_cast<uint32_t>(spec.cases_size())) return "default";
        return absl::StrCat(
            "case ",
            Excerpt(spec.cases(static_cast<int>(scope.clause)).match().data(), kCaseShownMax));
      }
      case Graph::Role::kPage:
        return "next page";
      case Graph::Role::kFragment:
        return frame.graph->name();
      case Graph::Role::kUndo:
        return absl::StrCat("undo ", internal::FramePath(s_, frame));
      case Graph::Role::kRoot:
      case Graph::Role::kBlock:
        break;
    }
    return "body";
  }

  void AddFrame(const Frame& frame, v1::StepInfo* info) const {
    v1::FrameInfo* to = info->add_frames();
    to->set_number(frame.number);
    to->set_item(frame.item);
    to->set_label(Label(frame));
    AddSteps(frame, /*frames=*/true, to->mutable_steps());
  }

  bool OnWayToFailure(const Frame& frame) const {
    return std::find(failed_frames_.begin(), failed_frames_.end(), frame.number) !=
           failed_frames_.end();
  }

  // Failed first, then those in flight, then the last items that are done (of which nothing but
  // that is kept).
  void Frames(const Frame& frame, uint32_t index, v1::StepInfo* info) const {
    const StepState& step = frame.steps[index];
    if (step.extra == nullptr || frame.depth >= kFrameDepthShownMax) return;
    uint32_t shown = 0;
    for (const bool failed : {true, false}) {
      for (const Frame* body = step.extra->first_child; body != nullptr && shown < items_max_;
           body = body->next) {
        if (OnWayToFailure(*body) != failed) continue;
        AddFrame(*body, info);
        ++shown;
      }
    }
    const MapState* map = step.extra->map.get();
    if (map == nullptr) return;
    for (uint64_t item = map->opened; item > 0 && shown < items_max_; --item) {
      const ItemStatus status = map->statuses[item - 1];
      if (status != ItemStatus::kCompleted && status != ItemStatus::kSkipped &&
          status != ItemStatus::kFailed) {
        continue;
      }
      v1::FrameInfo* to = info->add_frames();
      to->set_item(item - 1);
      to->set_label(absl::StrCat("item ", item - 1,
                                 status == ItemStatus::kCompleted ? " done"
                                 : status == ItemStatus::kFailed  ? " failed"
                                                                  : " skipped"));
      ++shown;
    }
  }

  const ExecutionState& s_;
  const LiveLookup& live_;
  const uint32_t items_max_;
  PayloadBudget* const payloads_;
  std::vector<uint64_t> failed_frames_;
};

}  // namespace

void DescribeExecution(const Execution& execution, uint32_t items_max, bool payloads,
                       const LiveLookup& live, v1::DescribeExecutionResponse* response,
                       size_t payload_bytes_max) {
  const ExecutionState& s = execution.state();
  PayloadBudget budget(payload_bytes_max);
  if (payloads) {
    if (s.status == v1::EXECUTION_STATUS_COMPLETED && budget.Take(s.result.limit_bytes())) {
      s.result.AppendTo(response->mutable_result());
    }
    for (const v1::Payload& input : s.started->inputs()) {
      v1::Payload* to = response->add_inputs();
      if (budget.Take(PayloadBytes(input))) *to = input;
    }
  }
  const Describer describer(s, live, items_max, payloads ? &budget : nullptr);
  describer.Info(response->mutable_info());
  describer.AddSteps(*s.root, /*frames=*/true, response->mutable_steps());
  describer.AddUndo(response->mutable_steps());
  response->set_payload_bytes_left_out(budget.left_out());
  if (s.failure != nullptr) *response->mutable_failure() = *s.failure;
}

void DescribeProgress(const Execution& execution, const LiveLookup& live,
                      v1::WatchExecutionResponse* response) {
  const ExecutionState& s = execution.state();
  const Describer describer(s, live, 0, /*payloads=*/nullptr);
  describer.Info(response->mutable_info());
  describer.AddSteps(*s.root, /*frames=*/false, response->mutable_steps());
  describer.AddUndo(response->mutable_steps());
  response->set_closed(s.closed());
  if (s.failure != nullptr) *response->mutable_failure() = *s.failure;
}

}  // namespace flux::engine
